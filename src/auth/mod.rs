//! Who is it? Whether somebody who asks may come in, and what is known of them then.
//!
//! A [`Gate`] reads credentials and never shows them: not to the log, and not to the backend unless the route says so. The
//! client is told only that they were not good.

mod basic;
mod certificate;
mod jwt;
pub mod keys;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora::http::RequestHeader;
use serde_json::{Map, Value as Json};

use crate::answer::{Credentials, Refusal};
use crate::config::{self, Attribute, AuthBy};
use crate::files::{Library, Unusable};

use self::basic::{Basic, Passwords};
use self::jwt::{Jwt, Tokens};
use self::keys::{Keys, Stores};

pub use self::certificate::Certificate;
pub use self::jwt::FetchedKeys;

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who they are; in the access log too. `None` of a token without a subject.
    pub name: Option<Arc<str>>,
    /// What they pay for, where that is known.
    pub plan: Option<Arc<str>>,
    /// The public part of the key that they have shown.
    pub key: Option<Arc<str>>,
    /// What their token says of them.
    claims: Option<Arc<Map<String, Json>>>,
}

/// Where gates find what they know. It outlives reloads.
#[derive(Debug, Default)]
pub struct Sources {
    /// The files that are read again when they change.
    pub files: Library,
    /// The passwords that were good.
    pub passwords: Passwords,
    /// The databases of keys.
    pub keys: Stores,
    /// The keys that issuers of tokens publish.
    pub issuers: FetchedKeys,
    /// The tokens that were good.
    pub tokens: Tokens,
}

/// What a request shows of whoever sent it, and where it wants to go.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Its query.
    pub query: Option<&'a str>,
    /// Its method.
    pub method: &'a Method,
    /// The name of its route.
    pub route: &'a str,
    /// Where it comes from; `None` on a unix socket.
    pub address: Option<IpAddr>,
}

impl Identity {
    /// What their token says, as text; `None` if it does not, or says what is no text.
    pub fn claim(&self, name: &str) -> Option<String> {
        jwt::claim(self.claims.as_ref()?, name)
    }

    fn attribute(&self, attribute: &Attribute) -> Option<HeaderValue> {
        match attribute {
            Attribute::Name => HeaderValue::from_bytes(self.name.as_ref()?.as_bytes()).ok(),
            Attribute::Plan => HeaderValue::from_bytes(self.plan.as_ref()?.as_bytes()).ok(),
            Attribute::Claim(name) => HeaderValue::try_from(self.claim(name)?).ok(),
        }
    }
}

/// Where those who want to come in prove who they are.
pub struct Gate {
    by: By,
    keep: bool,
    headers: Vec<(HeaderName, Attribute)>,
}

enum By {
    Basic(Arc<Basic>),
    Jwt(Arc<Jwt>),
    Keys(Keys),
}

impl Gate {
    /// The gate of a route, with what is known from the configuration before.
    pub fn new(config: &config::Auth, sources: &Sources) -> Result<Self, Unusable> {
        let Sources { files, passwords, keys: stores, issuers, tokens } = sources;
        let by = match &config.by {
            AuthBy::Basic(path) => By::Basic(passwords.at(path, files)?),
            AuthBy::Jwt(config) => By::Jwt(tokens.at(config, files, issuers)?),
            AuthBy::Keys { source, query } => By::Keys(Keys::new(source, query.as_deref(), (files, stores))?),
        };
        Ok(Self { by, keep: config.keep, headers: config.headers.clone() })
    }

    /// Who sends this request; `None` where it does not matter at the moment.
    pub async fn identify(&self, asked: &Asked<'_>) -> Result<Option<Identity>, Refusal> {
        match &self.by {
            By::Basic(basic) => basic.identify(asked.headers).await.map(Some),
            By::Jwt(jwt) => jwt.identify(asked.headers).await.map(Some),
            By::Keys(keys) => keys.identify(asked),
        }
    }

    /// What a client is asked for (RFC 9110, section 11.6.1).
    pub fn challenge(&self) -> HeaderValue {
        match &self.by {
            By::Basic(_) => HeaderValue::from_static("Basic realm=\"restricted\", charset=\"UTF-8\""),
            By::Jwt(_) | By::Keys(_) => HeaderValue::from_static("Bearer realm=\"restricted\""),
        }
    }

    /// Takes away what the client says of itself in fields that tell the backend who it is, and in fields that many backends
    /// take for the same: to CGI and its heirs `X_User` is `X-User`.
    pub fn forget_claims(&self, head: &mut RequestHeader) {
        if self.headers.is_empty() {
            return;
        }
        forget(self.headers.iter().map(|(name, _)| name), head);
    }

    /// Puts what the backend is told in the place of what the client has shown.
    pub fn introduce(&self, identity: Option<&Identity>, head: &mut RequestHeader) {
        match &self.by {
            By::Basic(_) | By::Jwt(_) if self.keep => {}
            By::Basic(_) | By::Jwt(_) => drop(head.remove_header(&AUTHORIZATION)),
            By::Keys(keys) => keys.hide(self.keep, head),
        }
        self.forget_claims(head);
        for (name, attribute) in &self.headers {
            if let Some(value) = identity.and_then(|identity| identity.attribute(attribute)) {
                // Fails only when there are more fields than a head can hold.
                let _ = head.insert_header(name.clone(), value);
            }
        }
    }
}

/// Takes these fields away, and those that many backends take for the same: to CGI and its heirs `X_User` and `X.User` are
/// `X-User`.
pub fn forget<'a>(names: impl Iterator<Item = &'a HeaderName> + Clone, head: &mut RequestHeader) {
    let is_one = |name: &&HeaderName| names.clone().any(|ours| are_alike(ours, name));
    // Mostly there is none, which costs no memory.
    let found: Vec<_> = head.headers.keys().filter(is_one).cloned().collect();
    for name in found {
        head.remove_header(&name);
    }
}

fn are_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let plain = |byte: &u8| if byte.is_ascii_alphanumeric() { *byte } else { b'-' };
    one.len() == other.len() && one.iter().map(plain).eq(other.iter().map(plain))
}

/// The one value of a field that must not be there twice.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        (None, _) => Err(Refusal::Unauthenticated(Credentials::Missing)),
        (Some(_), Some(_)) => Err(Refusal::Unauthenticated(Credentials::Malformed)),
    }
}
