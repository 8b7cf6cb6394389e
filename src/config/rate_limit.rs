//! How much may one client have? The `rate_limits` of routes and of the server, checked.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

/// How many requests each of those that a key tells apart may make.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// What it is called; clients read it.
    pub name: Arc<str>,
    /// Whether the name was given: those of one name are one limit, whichever routes they are in.
    pub is_shared: bool,
    /// So many requests, at least one...
    pub count: u32,
    /// ...within this time.
    pub period: Duration,
    /// So many at once, at least one.
    pub burst: u32,
    /// Who is told apart.
    pub key: RateKey,
    /// What a request costs.
    pub cost: u32,
    /// What it costs with these methods; never more than the burst.
    pub costs: Vec<(Method, u32)>,
    /// It is counted and told in the log, and nobody is refused.
    pub dry_run: bool,
}

/// Who is told apart by a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// Client addresses; of IPv6, networks of 64 bits.
    ClientAddress,
    /// The names of those that `auth` let in.
    ApiKey,
    /// The values of a header field.
    Header(HeaderName),
    /// The values of a claim.
    Claim(Arc<str>),
    /// Nobody: all requests of the route are counted together.
    Route,
}

impl RateKey {
    /// Whether it must be known who sent the request.
    pub fn needs_identity(&self) -> bool {
        match self {
            Self::ApiKey | Self::Claim(_) => true,
            Self::ClientAddress | Self::Header(_) | Self::Route => false,
        }
    }
}

/// What is remembered of all limits together, and what clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimiting {
    /// So many keys have a number of their own.
    pub entries: usize,
    /// The fields that tell clients what they have left.
    pub headers: RateFields,
}

/// The fields that tell clients what they have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateFields {
    /// `RateLimit` and `RateLimit-Policy`.
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    Legacy,
    /// All of them.
    Both,
    /// None; a refusal has its `Retry-After` all the same.
    None,
}
