//! Is this the password? Names and passwords (RFC 7617) against a file of slow hashes.
//!
//! A hash takes tens of milliseconds, so it is worked out on a thread beside, a few at once, and a password that was good
//! is known for as long as its hash stays in the file. A name that nobody has takes as long as one that somebody has,
//! where all hashes of the file cost the same.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Identity, only};
use crate::answer::{Credentials, Refusal};
use crate::config::htpasswd::{Stored, Users};
use crate::files::{Followed, Library, Unusable};

/// How many hashes are worked out at once: more would take the processors from those who are in.
const AT_ONCE: usize = 2;

/// How many wait for their turn: who guesses with many connections at once shall not keep others waiting for long.
const WAITING_MAX: usize = 64;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many passwords are known to be good: 32 bytes each, and more than one front door has users who are active.
const KNOWN_MAX: usize = 16_384;

/// Longer ones than anybody types, and longer than either hash needs.
const LONGEST_PASSWORD: usize = 1024;

/// Those who may come in with a password.
pub(super) struct Basic {
    users: Arc<Followed<Users>>,
    turns: Arc<Semaphore>,
    waiting: Semaphore,
    /// Chosen at start, so that nobody can tell what is known from how long it takes.
    key: hmac::Key,
    known: Mutex<HashSet<[u8; 32]>>,
}

/// The files of passwords that are in use, so that what is known outlives reloads.
#[derive(Default)]
pub struct Passwords(Mutex<Vec<Weak<Basic>>>);

impl Passwords {
    pub(super) fn at(&self, path: &Path, library: &Library) -> Result<Arc<Basic>, Unusable> {
        let users = library.open(path, Users::read)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|basic| basic.strong_count() > 0);
        let same = |basic: &Arc<Basic>| Arc::ptr_eq(&basic.users, &users);
        if let Some(basic) = known.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(basic);
        }
        let basic = Arc::new(Basic::new(users));
        known.push(Arc::downgrade(&basic));
        Ok(basic)
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords(..)")
    }
}

/// What a client says of itself.
struct Claim {
    name: String,
    password: Vec<u8>,
}

impl Basic {
    fn new(users: Arc<Followed<Users>>) -> Self {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).expect("aws-lc ends the process rather than give no random bytes");
        Self {
            users,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Semaphore::new(WAITING_MAX),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            known: Mutex::default(),
        }
    }

    pub(super) async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let claim = Claim::read(only(headers, &AUTHORIZATION)?)?;
        let (stored, is_there) = {
            let users = self.users.now();
            let stored = users.find(&claim.name).map(|stored| (stored.clone(), true));
            stored.or_else(|| users.any().map(|any| (any.clone(), false))).ok_or(WRONG)?
        };
        let mark = self.mark(&claim, &stored);
        let identity = Identity { name: claim.name.as_str().into(), plan: None, key: None, claims: None };
        if is_there && self.known().contains(&mark) {
            return Ok(identity);
        }
        let Ok(waiting) = self.waiting.try_acquire() else { return Err(Refusal::AuthUnavailable) };
        let turn = timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Refusal::AuthUnavailable) };
        drop(waiting);
        let password = claim.password;
        let work = move || {
            // Kept to the end of the work, though the client may be gone.
            let _turn = turn;
            verify(&stored, &password)
        };
        let is_right = spawn_blocking(work).await.unwrap_or(false);
        if !(is_right && is_there) {
            return Err(WRONG);
        }
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(mark);
        Ok(identity)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same only for the same name, password and hash. A name holds no zero byte.
    fn mark(&self, claim: &Claim, stored: &Stored) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [claim.name.as_bytes(), &claim.password, hash(stored).as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }
}

const WRONG: Refusal = Refusal::Unauthenticated(Credentials::Wrong);
const MALFORMED: Refusal = Refusal::Unauthenticated(Credentials::Malformed);

impl Claim {
    /// RFC 7617, section 2: `Basic`, then base64 of the name, a colon and the password.
    fn read(value: &[u8]) -> Result<Self, Refusal> {
        let (scheme, rest) = value.split_at_checked(6).ok_or(MALFORMED)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return Err(MALFORMED);
        }
        let decoded = STANDARD.decode(rest.trim_ascii()).map_err(|_| MALFORMED)?;
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(MALFORMED)?;
        let (name, password) = (decoded[..colon].to_vec(), &decoded[colon + 1..]);
        let name = String::from_utf8(name).map_err(|_| MALFORMED)?;
        let is_visible = |bytes: &[u8]| !bytes.iter().any(u8::is_ascii_control);
        if name.is_empty() || !is_visible(&decoded) || password.len() > LONGEST_PASSWORD {
            return Err(MALFORMED);
        }
        Ok(Self { name, password: password.to_vec() })
    }
}

fn hash(stored: &Stored) -> &str {
    match stored {
        Stored::Bcrypt(hash) | Stored::Argon2(hash) => hash,
    }
}

/// Takes long. Both compare in constant time.
fn verify(stored: &Stored, password: &[u8]) -> bool {
    match stored {
        // bcrypt looks at 72 bytes: what is longer would pass with any end, so it is refused.
        Stored::Bcrypt(hash) => bcrypt::non_truncating_verify(password, hash).unwrap_or(false),
        Stored::Argon2(hash) => {
            PasswordHash::new(hash).is_ok_and(|hash| argon2::Argon2::default().verify_password(password, &hash).is_ok())
        }
    }
}
