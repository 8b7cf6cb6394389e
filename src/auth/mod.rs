//! Who is it? Whether somebody who asks may come in, and what is known of them then.
//!
//! A [`Gate`] reads credentials and never shows them: not to the log, and not to the backend unless the route says so. The
//! client is told only that they were not good.

mod basic;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use crate::answer::{Credentials, Refusal};
use crate::config::{self, Attribute, AuthBy};
use crate::files::{Library, Unusable};

use self::basic::Basic;

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who they are; in the access log too.
    pub name: Arc<str>,
}

impl Identity {
    fn attribute(&self, attribute: &Attribute) -> Option<HeaderValue> {
        match attribute {
            Attribute::Name => HeaderValue::from_bytes(self.name.as_bytes()).ok(),
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
}

impl Gate {
    /// The gate of a route, with what is known from the configuration before.
    pub fn new(config: &config::Auth, library: &Library) -> Result<Self, Unusable> {
        let by = match &config.by {
            AuthBy::Basic(path) => By::Basic(Arc::new(Basic::new(path, library)?)),
        };
        Ok(Self { by, keep: config.keep, headers: config.headers.clone() })
    }

    /// Who sends this request.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        match &self.by {
            By::Basic(basic) => basic.identify(headers).await,
        }
    }

    /// What a client is asked for (RFC 9110, section 11.6.1).
    pub fn challenge(&self) -> HeaderValue {
        match &self.by {
            By::Basic(_) => HeaderValue::from_static("Basic realm=\"restricted\", charset=\"UTF-8\""),
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
