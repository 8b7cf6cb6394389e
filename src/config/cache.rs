//! What may be answered from memory? The checked form of the top level's `cache`, and of a route's.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method};

/// The one store that all routes with `cache` share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheStore {
    /// The most it holds, in bytes: bodies, heads and what keeps them in order.
    pub size: u64,
    /// The largest body that is stored, in bytes.
    pub max_object: u64,
    /// What goes when it is full.
    pub eviction: Eviction,
    /// A second tier that survives a restart; `None` is off.
    pub disk: Option<CacheDisk>,
}

/// What goes when the store is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// What was asked for longest ago.
    Lru,
    /// What was not asked for again soon after it came; of the others, what is not asked for any more.
    S3Fifo,
}

/// Where the second tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDisk {
    /// Its folder.
    pub path: PathBuf,
    /// The most it takes there, in bytes.
    pub size: u64,
}

impl Default for CacheStore {
    fn default() -> Self {
        Self { size: 256 << 20, max_object: 8 << 20, eviction: Eviction::Lru, disk: None }
    }
}

/// What a route stores, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caching {
    /// How long a response is fresh that says nothing about it itself; `None` is not at all.
    pub ttl: Option<Duration>,
    /// The methods whose responses are stored; HEAD is answered by what GET has stored.
    pub methods: Vec<Method>,
    /// What makes two requests different ones, besides method, scheme, host and path.
    pub key: KeyParts,
    /// Whether a lifetime is guessed from Last-Modified (RFC 9111, section 4.2.2).
    pub heuristic: bool,
    /// How long a stale response may be served while it is fetched anew, where the origin says nothing.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response may be served when no backend answers well, where the origin says nothing.
    pub stale_if_error: Option<Duration>,
    /// How long a request waits for another that fetches the same; `None` is not at all.
    pub lock: Option<Duration>,
    /// A request that has one of these is neither answered from the store nor stored.
    pub bypass: Vec<Part>,
    /// Whether a response with Set-Cookie is stored, with that field.
    pub store_set_cookie: bool,
    /// Fields of a response that name the tags it can be purged by.
    pub tags: Vec<HeaderName>,
}

/// What makes two requests different ones, besides method, scheme, host and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyParts {
    /// Which query parameters.
    pub query: QueryParts,
    /// Which header fields.
    pub headers: Vec<HeaderName>,
    /// Which cookies.
    pub cookies: Vec<String>,
    /// A request body of at most so many bytes is part of the key; 0 is none.
    pub body: u64,
}

/// The query parameters that are part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryParts {
    /// The whole query, as it stands.
    All,
    /// None of it.
    None,
    /// These parameters, by name.
    Only(Vec<String>),
}

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `header:NAME`
    Header(HeaderName),
    /// `cookie:NAME`
    Cookie(String),
    /// `query:NAME`
    Query(String),
}
