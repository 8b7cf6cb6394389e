//! Is this token good? Bearer tokens (RFC 6750) that are signed JSON Web Tokens (RFC 7519).
//!
//! Which algorithms are good is said by the operator, and which keys by the issuer; a token says neither. A token whose
//! signature was good is known for as long as the keys are the same, so that a signature is verified once; whether it is good
//! *now* is asked each time.

mod fetched;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value as Json};

use super::{Identity, only};
use crate::answer::{Credentials, Refusal};
use crate::config::jwks::KeySet;
use crate::config::{self, JwtKeys};
use crate::files::{Followed, Library, Unusable};

use self::fetched::Fetched;
use self::token::{Terms, Token};

pub use self::fetched::FetchedKeys;
pub(super) use self::token::claim;

/// How many tokens are known to be signed well; when there are more all are forgotten, and verified once more.
const KNOWN_MAX: usize = 8192;

/// What a token says of its holder.
pub(super) type Claims = Map<String, Json>;

/// Those who may come in with a token.
pub(super) struct Jwt {
    config: config::Jwt,
    keys: Keys,
    known: Mutex<Known>,
}

enum Keys {
    Fixed(Arc<KeySet>),
    File(Arc<Followed<KeySet>>),
    Fetched(Arc<Fetched>),
}

/// Those who ask for tokens, so that what is known outlives reloads.
#[derive(Default)]
pub struct Tokens(Mutex<Vec<Weak<Jwt>>>);

impl Tokens {
    pub(super) fn at(
        &self,
        config: &config::Jwt,
        library: &Library,
        fetched: &FetchedKeys,
    ) -> Result<Arc<Jwt>, Unusable> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|jwt| jwt.strong_count() > 0);
        if let Some(same) = all.iter().filter_map(Weak::upgrade).find(|jwt| jwt.config == *config) {
            return Ok(same);
        }
        let jwt = Arc::new(Jwt::new(config, library, fetched)?);
        all.push(Arc::downgrade(&jwt));
        Ok(jwt)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

/// Tokens whose signature was good, by one set of keys.
#[derive(Default)]
struct Known {
    keys: Option<Arc<KeySet>>,
    tokens: HashMap<[u8; 32], Arc<Claims>>,
}

const WRONG: Refusal = Refusal::Unauthenticated(Credentials::Wrong);
const MALFORMED: Refusal = Refusal::Unauthenticated(Credentials::Malformed);

impl Jwt {
    fn new(config: &config::Jwt, library: &Library, fetched: &FetchedKeys) -> Result<Self, Unusable> {
        let keys = match &config.keys {
            JwtKeys::Secret(secret) => Keys::Fixed(Arc::new(KeySet::of_secret(secret.bytes(), &config.algorithms))),
            JwtKeys::File(path) => Keys::File(library.open(path, KeySet::read)?),
            JwtKeys::Url(url) => Keys::Fetched(fetched.at(url, config.refresh)),
        };
        Ok(Self { config: config.clone(), keys, known: Mutex::default() })
    }

    pub(super) async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let text = bearer(only(headers, &AUTHORIZATION)?)?;
        let keys = self.keys().ok_or(Refusal::AuthUnavailable)?;
        let mark = mark(text);
        let terms = self.terms();
        if let Some(claims) = self.known().find(&keys, &mark) {
            return if terms.allow(&claims, now()) { Ok(identity(claims)) } else { Err(WRONG) };
        }
        let token = Token::read(text).ok_or(MALFORMED)?;
        if !self.config.algorithms.contains(&token.algorithm) || !terms.allow(&token.claims, now()) {
            return Err(WRONG);
        }
        let keys = self.keys_for(&token, keys).await;
        if !token.is_signed_by(&keys) {
            return Err(WRONG);
        }
        let claims = Arc::new(token.claims);
        self.known().remember(&keys, mark, claims.clone());
        Ok(identity(claims))
    }

    fn terms(&self) -> Terms<'_> {
        let config::Jwt { issuer, audience, skew, .. } = &self.config;
        Terms { issuer: issuer.as_deref(), audience, skew: skew.as_secs() }
    }

    fn keys(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            Keys::Fixed(keys) => Some(keys.clone()),
            Keys::File(file) => Some(file.now().clone()),
            Keys::Fetched(fetched) => fetched.now(),
        }
    }

    /// An issuer that has a new key publishes it before it signs with it; we may not have looked since.
    async fn keys_for(&self, token: &Token<'_>, keys: Arc<KeySet>) -> Arc<KeySet> {
        match (&self.keys, &token.key_id) {
            (Keys::Fetched(fetched), Some(id)) if !keys.knows(id) => fetched.newer().await.unwrap_or(keys),
            (Keys::Fetched(_) | Keys::File(_) | Keys::Fixed(_), _) => keys,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn find(&self, keys: &Arc<KeySet>, mark: &[u8; 32]) -> Option<Arc<Claims>> {
        let same = self.keys.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys));
        if same { self.tokens.get(mark).cloned() } else { None }
    }

    fn remember(&mut self, keys: &Arc<KeySet>, mark: [u8; 32], claims: Arc<Claims>) {
        if self.tokens.len() >= KNOWN_MAX || !self.keys.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys)) {
            self.tokens.clear();
        }
        self.keys = Some(keys.clone());
        self.tokens.insert(mark, claims);
    }
}

/// RFC 6750, section 2.1.
fn bearer(value: &[u8]) -> Result<&str, Refusal> {
    let (scheme, token) = value.split_at_checked(7).ok_or(MALFORMED)?;
    let token = std::str::from_utf8(token).map_err(|_| MALFORMED)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") { Ok(token.trim()) } else { Err(MALFORMED) }
}

fn mark(token: &str) -> [u8; 32] {
    let mut mark = [0; 32];
    mark.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    mark
}

fn identity(claims: Arc<Claims>) -> Identity {
    let name = claims.get("sub").and_then(Json::as_str).filter(|name| !name.is_empty()).map(Into::into);
    Identity { name, plan: None, key: None, claims: Some(claims) }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
