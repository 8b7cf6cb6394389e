//! Is this the password? Names and passwords (RFC 7617) against a file of slow hashes.
//!
//! A hash takes tens of milliseconds, so it is worked out on a thread beside, a few at once, and a password that was good
//! is known for as long as its hash stays in the file. A name that nobody has takes as long as one that somebody has: where
//! hashes of the file cost differently, as long as one of them, and always the same one.

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
            stored.or_else(|| users.any(self.number(&claim)).map(|any| (any.clone(), false))).ok_or(WRONG)?
        };
        let mark = self.mark(&claim, &stored);
        let identity = Identity { name: Some(claim.name.as_str().into()), plan: None, key: None, claims: None };
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

    /// Always the same for a name, and nobody can foretell it: whoever asks for a name that nobody has waits as long as for one
    /// of those in the file, and each time for the same.
    fn number(&self, claim: &Claim) -> usize {
        let signed = hmac::sign(&self.key, claim.name.as_bytes());
        signed.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | usize::from(*byte))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use http::HeaderValue;
    use tempfile::TempDir;

    use super::*;

    /// A file of one user, ann, whose password is `opensesame`.
    fn users() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("users"), format!("ann:{}\n", bcrypt::hash("opensesame", 4).unwrap())).unwrap();
        folder
    }

    fn shows(password: &str) -> HeaderMap {
        let value = format!("Basic {}", STANDARD.encode(format!("ann:{password}")));
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(value).unwrap())])
    }

    #[tokio::test]
    async fn what_is_known_of_a_file_outlives_a_reload_and_ends_with_the_last_who_asks() {
        let (folder, library, passwords) = (users(), Library::default(), Passwords::default());
        let path = folder.path().join("users");
        let before = passwords.at(&path, &library).unwrap();
        assert!(before.identify(&shows("opensesame")).await.is_ok());
        assert!(before.identify(&shows("wrong")).await.is_err());
        let after = passwords.at(&path, &library).unwrap();
        drop(before);
        assert_eq!(after.known().len(), 1, "what was right is known, what was wrong is not");
        // Nobody works out a hash any more.
        after.turns.close();
        assert!(after.identify(&shows("opensesame")).await.is_ok());
        drop(after);
        assert_eq!(passwords.at(&path, &library).unwrap().known().len(), 0);
    }

    #[tokio::test]
    async fn so_many_wait_for_a_hash_and_no_more() {
        let (folder, library, passwords) = (users(), Library::default(), Passwords::default());
        let basic = passwords.at(&folder.path().join("users"), &library).unwrap();
        let working = basic.turns.clone().acquire_many_owned(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let ask = |password: String| {
            let basic = basic.clone();
            tokio::spawn(async move { basic.identify(&shows(&password)).await })
        };
        let waiting: Vec<_> = (0..WAITING_MAX).map(|number| ask(format!("guess{number}"))).collect();
        while basic.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask("opensesame".to_owned()).await.unwrap(), Err(Refusal::AuthUnavailable));
        drop(working);
        for guess in waiting {
            assert_eq!(guess.await.unwrap(), Err(WRONG));
        }
        assert!(ask("opensesame".to_owned()).await.unwrap().is_ok());
    }
}
