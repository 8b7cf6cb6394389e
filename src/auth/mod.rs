//! Who is it? Whether somebody who asks may come in, and what is known of them then.
//!
//! A [`Gate`] reads credentials and never shows them: not to the log, and not to the backend unless the route says so. The
//! client is told only that they were not good.

mod basic;
mod jwt;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use serde_json::{Map, Value as Json};

use crate::answer::{Credentials, Refusal};
use crate::config::{self, Attribute, AuthBy};
use crate::files::{Library, Unusable};

use self::basic::Basic;
use self::jwt::Jwt;

pub use self::jwt::FetchedKeys;

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who they are; in the access log too. Empty where their token does not say.
    pub name: Arc<str>,
    /// What their token says of them.
    claims: Option<Arc<Map<String, Json>>>,
}

impl Identity {
    /// What their token says, as text; `None` if it does not, or says what is no text.
    pub fn claim(&self, name: &str) -> Option<String> {
        jwt::claim(self.claims.as_ref()?, name)
    }

    fn attribute(&self, attribute: &Attribute) -> Option<HeaderValue> {
        match attribute {
            Attribute::Name => HeaderValue::from_bytes(self.name.as_bytes()).ok(),
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
    Basic(Basic),
    Jwt(Box<Jwt>),
}

impl Gate {
    /// The gate of a route, with what is known from the configuration before.
    pub fn new(config: &config::Auth, library: &Library, fetched: &FetchedKeys) -> Result<Self, Unusable> {
        let by = match &config.by {
            AuthBy::Basic(path) => By::Basic(Basic::new(path, library)?),
            AuthBy::Jwt(config) => By::Jwt(Box::new(Jwt::new(config, library, fetched)?)),
        };
        Ok(Self { by, keep: config.keep, headers: config.headers.clone() })
    }

    /// Who sends this request.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        match &self.by {
            By::Basic(basic) => basic.identify(headers).await,
            By::Jwt(jwt) => jwt.identify(headers).await,
        }
    }

    /// What a client is asked for (RFC 9110, section 11.6.1).
    pub fn challenge(&self) -> HeaderValue {
        match &self.by {
            By::Basic(_) => HeaderValue::from_static("Basic realm=\"restricted\", charset=\"UTF-8\""),
            By::Jwt(_) => HeaderValue::from_static("Bearer realm=\"restricted\""),
        }
    }

    /// Puts what the backend is told in the place of what the client has shown. What a client says of itself in the same
    /// fields goes in any case.
    pub fn introduce(&self, identity: &Identity, head: &mut RequestHeader) {
        if !self.keep {
            head.remove_header(&AUTHORIZATION);
        }
        for (name, attribute) in &self.headers {
            head.remove_header(name);
            if let Some(value) = identity.attribute(attribute) {
                // Fails only when there are more fields than a head can hold.
                let _ = head.insert_header(name.clone(), value);
            }
        }
    }
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
