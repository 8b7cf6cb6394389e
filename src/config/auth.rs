//! Who may come in? A route's `auth`, checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use jsonwebtoken::Algorithm;

use super::{HttpUrl, KeySource, Secret};

/// What is asked of those who come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// How they prove who they are.
    pub by: AuthBy,
    /// Whether the backend sees the proof too.
    pub keep: bool,
    /// What the backend is told of them, and in which fields.
    pub headers: Vec<(HeaderName, Attribute)>,
}

/// How somebody proves who they are.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthBy {
    /// By a name and a password (RFC 7617) that are in this file, as `htpasswd` writes it.
    Basic(PathBuf),
    /// By a signed token (RFC 7519).
    Jwt(Jwt),
    /// By a key that is in this store.
    Keys {
        /// Where the keys are.
        source: KeySource,
        /// The query parameter that may hold one, beside `X-API-Key` and `Authorization: Bearer`.
        query: Option<Arc<str>>,
    },
}

/// Which tokens are good.
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    /// Whose signatures are good.
    pub keys: JwtKeys,
    /// How they may be made: at least one, and `none` is none of them.
    pub algorithms: Vec<Algorithm>,
    /// Who must have issued a token; `None` is anybody with such a key.
    pub issuer: Option<String>,
    /// Whom it must be meant for, one of these; an empty list is anybody.
    pub audience: Vec<String>,
    /// How far the clocks of the issuer and ours may be apart.
    pub skew: Duration,
    /// How often keys at a URL are fetched.
    pub refresh: Duration,
}

/// Where the keys are that tokens are signed with.
#[derive(Clone, Debug, PartialEq)]
pub enum JwtKeys {
    /// They are fetched.
    Url(HttpUrl),
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// A secret that we share with the issuer.
    Secret(Secret),
}

/// What may be known of somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Who they are.
    Name,
    /// What they pay for.
    Plan,
    /// What their token says.
    Claim(String),
}
