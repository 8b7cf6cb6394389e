//! What did the operator ask for? The checked form of the configuration: the only form other rooms ever see.
//!
//! Whatever is in a [`Config`] has been checked: names refer to something, units are decoded, defaults are filled in.
//! This room is data only: no sockets, no clock, no Pingora. What it needs from outside is handed in as [`Surroundings`].

mod auth;
mod browsers;
mod cache;
pub mod certificate;
pub mod changes;
mod check;
mod compress;
pub mod diff;
mod discover;
mod errors;
mod expand;
mod file;
pub mod htpasswd;
pub mod jwks;
mod keys;
mod limits;
mod listener;
mod logging;
pub mod members;
pub mod networks;
mod outline;
pub mod problem;
mod rate_limit;
mod retry;
mod route;
mod secret;
pub mod shown;
mod substitution;
pub mod surroundings;
mod tracing;
mod tree;
pub mod units;
mod upstream;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use auth::{Attribute, Auth, AuthBy, Jwt, JwtKeys};
pub use browsers::{Cors, Maintenance, Origin, SecurityHeaders};
pub use cache::{CacheDisk, CacheStore, Caching, Eviction, KeyParts, Part, QueryParts};
pub use check::{Checked, known_keys, parse, schema};
pub use compress::{Coding, Compress, Levels, MediaRange};
pub use discover::{Discover, HttpUrl};
pub use errors::{ErrorPage, ErrorPages, PageKind, Statuses, read_page};
pub use keys::{
    Key, KeyHash, KeyLimits, KeySource, KeyStore, OnStoreError, PREFIX as KEY_PREFIX, is_a_key_name, parse_keys,
};
pub use limits::{Adaptive, Limits, Queue, Quota};
pub use listener::{
    CertificateFiles, CertificatePart, ClientAuth, ClientAuthMode, Http2, Listener, ListenerLimits, ListenerTimeouts,
    ProxyProtocol, Tls, TlsVersion,
};
pub use logging::{AccessLog, Dashboard, Log, LogField, LogForm, Login, Loki, Piece, Rotate, Usage, UsageHttp};
pub use networks::AddressList;
pub use outline::Outline;
pub use problem::{Place, Problem, Severity};
pub use rate_limit::{RateFields, RateKey, RateLimit, RateLimiting};
pub use retry::{HedgeAfter, Retry, RetryBudget, RetryWhen};
pub use route::{Action, Expose, HeaderEdits, HostPattern, Match, PathPattern, Rewrite, Route};
pub use secret::Secret;
pub use substitution::{BadPattern, BadTemplate, Substitution, Unfit};
pub use surroundings::{Surroundings, load};
pub use tracing::{TraceFrom, Tracing};
pub use upstream::{
    Backend, Balance, Breaker, HashKey, HealthCheck, LiveHealth, Obey, Protocol, SameSite, Schedule, Sticky, Target,
    Upstream, UpstreamTimeouts, UpstreamTls,
};

/// A whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What concerns the process as a whole.
    pub server: Server,
    /// The addresses that we accept connections on; at least one.
    pub listeners: Vec<Listener>,
    /// The named groups of backends.
    pub upstreams: Vec<Upstream>,
    /// The routes, in the order of the file.
    pub routes: Vec<Route>,
    /// Where API keys are kept, in the order of the file.
    pub keys: Vec<KeyStore>,
    /// The store that routes with a cache share.
    pub cache: CacheStore,
    /// Where `/healthz` and `/readyz` are served; `None` when switched off.
    pub admin: Option<Address>,
    /// What operators show; `None` is nothing that anybody could show.
    pub admin_token: Option<Secret>,
    /// What is logged, and where.
    pub log: Log,
    /// What the file says, for whoever shows it.
    pub outline: Arc<Outline>,
    /// How requests are traced, if they are.
    pub tracing: Option<Tracing>,
}

/// The field in which trusted proxies say who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedBy {
    /// The one that nearly all write.
    XForwardedFor,
    /// RFC 7239
    Forwarded,
}

/// Settings of the process as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Worker threads; `None` is one a core.
    pub threads: Option<NonZeroUsize>,
    /// Open downstream connections on all listeners together.
    pub max_connections: usize,
    /// How long in-flight requests may take to finish at shutdown.
    pub grace_period: Duration,
    /// How long `/readyz` says no while we still accept, before the grace period begins.
    pub drain_delay: Duration,
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they say who the client is.
    pub forwarded_by: ForwardedBy,
    /// Signs the cookies of sessions; `None` is one that is made at start.
    pub secret: Option<Secret>,
    /// When the file is read again.
    pub reload: Reload,
    /// What may be kept of all requests' bodies together, in bytes.
    pub retry_buffers: u64,
    /// What is remembered of all rate limits together, and what clients are told.
    pub rate_limits: RateLimiting,
    /// Where another process may ask to take over.
    pub upgrade_socket: Option<PathBuf>,
}

/// When the configuration file is read again without being asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// Whether a change of the file is a reason.
    pub watch: bool,
    /// How long the file must have been quiet.
    pub debounce: Duration,
}

/// An address that we accept on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
