//! Who can serve? The `upstreams` section, checked.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::proxy_protocol::Version;

use super::{Adaptive, CertificateFiles, Discover, Limits, Queue};
use crate::custom::Custom;

/// A named group of backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The key under `upstreams`.
    pub name: Arc<str>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// The backends, no two with one name; none at all only where they are discovered.
    pub backends: Vec<Backend>,
    /// Where more of them come from.
    pub discover: Option<Discover>,
    /// How their health is found out.
    pub health_check: HealthCheck,
    /// What live requests do to their state.
    pub live_health: LiveHealth,
    /// What they may ask of us.
    pub obey: Obey,
    /// With strictly fewer ready than this share (0 to 1), all are used.
    pub panic_threshold: f64,
    /// What the share of fit backends of a tier is multiplied with to see whether it has enough; 1.4 for 140%.
    pub overflow: f64,
    /// How long a backend that has just come takes less than its share; zero is not at all.
    pub slow_start: Duration,
    /// How clients come back to the backend that they have been with.
    pub sticky: Option<Sticky>,
    /// Where requests wait while all have enough; `None` is nowhere.
    pub queue: Option<Queue>,
    /// The limit of requests in flight on each backend, if it is learnt.
    pub concurrency: Option<Adaptive>,
    /// How long a backend may take.
    pub timeouts: UpstreamTimeouts,
    /// What is spoken to the backends.
    pub protocol: Protocol,
    /// TLS towards those backends whose URL is `https`.
    pub tls: UpstreamTls,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Its name in logs; `host:port` unless given.
    pub name: Arc<str>,
    /// Where it is.
    pub target: Target,
    /// Whether its URL is `https`.
    pub tls: bool,
    /// Its share of the requests; 0 takes none.
    pub weight: u32,
    /// Its tier: 0 serves first, and each other what the ones before it cannot carry.
    pub tier: u32,
    /// How much it gets.
    pub limits: Limits,
    /// How it is told whose connection each one is.
    pub send_proxy: Option<Version>,
    /// Whether it takes nothing new, whatever its weight; no file says so, only an operator at the admin address.
    pub drained: bool,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An IP address and a port.
    Address(SocketAddr),
    /// A name to resolve, and a port.
    Name {
        /// The DNS name, without a trailing dot.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// How a backend is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// The lowest `(active + 1) / weight`.
    LeastConnections,
    /// By chance, weighted.
    Random,
    /// The less loaded of two drawn by chance, weighted.
    TwoChoices,
    /// The quicker of two drawn by chance, weighted.
    PeakEwma,
    /// The same key to the same backend, while it is not overloaded.
    ConsistentHash {
        /// What is hashed.
        key: HashKey,
        /// How far above the average one backend may be, 1.25 for 125%.
        bounded_load: f64,
    },
    /// As the program says that has brought it.
    Custom(Custom<dyn crate::custom::Policy>),
}

/// What a consistent hash is taken of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address, behind trusted proxies.
    ClientAddress,
    /// The path without the query.
    Path,
    /// The value of a request header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
}

/// How clients come back to the backend that they have been with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The name of the cookie.
    pub cookie: String,
    /// How long it is good for.
    pub ttl: Duration,
    /// With which requests from other sites it is sent.
    pub same_site: SameSite,
}

/// With which requests from other sites a cookie is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// With links that are followed.
    Lax,
    /// With none.
    Strict,
    /// With all, over TLS.
    None,
}

/// How the health of an upstream's backends is found out.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthCheck {
    /// Not at all: every backend is always HEALTHY.
    None,
    /// By connecting (and a TLS handshake where the URL is `https`).
    Tcp(Schedule),
    /// By a GET request.
    Http {
        /// Path and query.
        path: String,
        /// The Host field; the backend's own otherwise.
        host: Option<String>,
        /// The statuses that pass.
        expect: Vec<RangeInclusive<u16>>,
        /// When, and how often before the state changes.
        schedule: Schedule,
    },
}

/// When probes are sent, and how many must agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Between two probes.
    pub interval: Duration,
    /// Between two probes while the last results do not agree with the state.
    pub fast_interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Failures in a row that make a backend UNREACHABLE.
    pub fall: u32,
    /// Successes in a row that make it HEALTHY again.
    pub rise: u32,
}

/// What live requests do to the state of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveHealth {
    /// Failures in a row that eject; `None` if a row alone does not.
    pub consecutive_failures: Option<u32>,
    /// The share of failures that ejects.
    pub breaker: Option<Breaker>,
    /// How long a first ejection lasts.
    pub ejection: Duration,
    /// How long one lasts at most.
    pub max_ejection: Duration,
    /// The share (0 to 1) of the backends that may be ejected at once; one always may.
    pub max_ejected: f64,
}

impl LiveHealth {
    /// Whether live requests count for nothing.
    pub fn is_off(&self) -> bool {
        self.consecutive_failures.is_none() && self.breaker.is_none()
    }
}

/// The share of failures that is too much.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// The share, 0 to 1.
    pub trip_at: f64,
    /// Of fewer requests than this it says nothing.
    pub of_at_least: u32,
    /// The requests that it is a share of: those of this last while.
    pub window: Duration,
}

/// What backends may ask of us.
#[derive(Clone, Debug, PartialEq)]
pub struct Obey {
    /// To wait, with `Retry-After` on a 429 or a 503.
    pub retry_after: bool,
    /// To wait, with fields that say that a quota is used up.
    pub rate_limit_fields: bool,
    /// How long at most.
    pub max: Duration,
}

/// How long a backend may take.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTimeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub first_byte: Duration,
    /// Between two reads of the response.
    pub between_bytes: Duration,
    /// For one write to make progress.
    pub write: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
    /// Without a byte in either direction after an upgrade.
    pub tunnel: Duration,
}

/// What is spoken to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by prior knowledge where there is no TLS.
    Http2,
    /// HTTP/2 if the backend offers it by ALPN, else HTTP/1.1.
    Auto,
}

/// TLS towards backends.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// Whether the backend's certificate must be good.
    pub verify: bool,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The name in SNI and to verify; the URL's host otherwise.
    pub server_name: Option<String>,
    /// Our certificate and key for backends that ask for one.
    pub client: Option<CertificateFiles>,
}
