//! What did the operator ask for? The checked form of the configuration: the only form other rooms ever see.
//!
//! Whatever is in a [`Config`] has been checked: names refer to something, units are decoded, defaults are filled in.
//! This room is data only: no sockets, no clock, no Pingora. What it needs from outside is handed in as [`Surroundings`].

pub mod certificate;
mod check;
mod expand;
mod file;
pub mod problem;
pub mod surroundings;
mod tree;
pub mod units;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

pub use check::{Checked, known_keys, parse, schema};
pub use problem::{Place, Problem, Severity};
pub use surroundings::{Surroundings, load};

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
    /// Where `/healthz` and `/readyz` are served; `None` when switched off.
    pub admin: Option<Address>,
    /// What is logged, and where.
    pub log: Log,
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
    /// When the file is read again.
    pub reload: Reload,
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

/// One address that we accept connections on, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The name that routes may ask for.
    pub name: Option<Arc<str>>,
    /// Where we accept.
    pub address: Address,
    /// TLS, if this listener speaks it.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is spoken.
    pub http2: Http2,
    /// Redirects every request to `https` on this port, instead of routing it.
    pub redirect_to_https: Option<u16>,
    /// The directory served under `/.well-known/acme-challenge/`.
    pub acme_challenges: Option<PathBuf>,
    /// Open connections of one client address; trusted proxies are not counted.
    pub max_connections_per_address: Option<usize>,
    /// How long a client may take.
    pub timeouts: ListenerTimeouts,
    /// How much a client may send.
    pub limits: ListenerLimits,
}

/// HTTP/2 on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2 {
    /// HTTP/1.1 only.
    Off,
    /// HTTP/2 if the client asks for it by ALPN; HTTP/1.1 on a listener without TLS.
    ByAlpn,
    /// HTTP/2 and nothing else, on a listener without TLS by prior knowledge.
    Only,
}

/// TLS on a listener. There is at least one certificate or one self-signed name.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Chosen by SNI from the names in the certificate; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// Names for one certificate made at start.
    pub self_signed: Vec<String>,
    /// Client certificates.
    pub client_auth: Option<ClientAuth>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
}

/// The two PEM files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How client certificates are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuth {
    /// PEM file with the authorities that may have signed one.
    pub ca: PathBuf,
    /// Whether a connection without one is refused.
    pub mode: ClientAuthMode,
    /// PEM file with revocation lists.
    pub crl: Option<PathBuf>,
}

/// Whether a client certificate is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// No certificate, no connection.
    Require,
    /// A certificate is verified if there is one.
    Request,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// How long a client may take.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTimeouts {
    /// For the TLS handshake, in all.
    pub handshake: Duration,
    /// For the head of a request, from its first byte to its last.
    pub header: Duration,
    /// Between two reads of a body.
    pub body: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For one write to make progress.
    pub write: Duration,
}

/// How much a client may send.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLimits {
    /// Bytes of a request's head.
    pub header_size: usize,
    /// Fields in a request's head.
    pub headers: usize,
    /// Requests on one HTTP/1.1 connection.
    pub requests_per_connection: u32,
    /// Concurrent streams on one HTTP/2 connection.
    pub h2_streams: u32,
}

/// A named group of backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The key under `upstreams`.
    pub name: Arc<str>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// The backends; at least one, and no two with one name.
    pub backends: Vec<Backend>,
    /// How their health is found out.
    pub health_check: HealthCheck,
    /// With strictly fewer ready than this share (0 to 1), all are used.
    pub panic_threshold: f64,
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
    /// Whether it serves only while no other backend can.
    pub backup: bool,
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
    /// The same key to the same backend, while it is not overloaded.
    ConsistentHash {
        /// What is hashed.
        key: HashKey,
        /// How far above the average one backend may be, 1.25 for 125%.
        bounded_load: f64,
    },
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

/// A match, and what it leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name in logs; `routes[N]` unless given.
    pub name: Arc<str>,
    /// Which requests belong to it.
    pub matches: Match,
    /// What happens to them.
    pub action: Action,
    /// How the request is changed on its way to the upstream.
    pub rewrite: Rewrite,
    /// Until the head of the response is there, all attempts included.
    pub timeout: Duration,
    /// The largest request body, in bytes.
    pub body_limit: u64,
    /// Changes to the request's fields.
    pub request_headers: HeaderEdits,
    /// Changes to the response's fields.
    pub response_headers: HeaderEdits,
    /// What the client is told about the inside.
    pub expose: Expose,
}

/// Which requests belong to a route; an empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// The name of the listener.
    pub listener: Option<Arc<str>>,
    /// One of these hosts.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// One of these methods; GET implies HEAD.
    pub methods: Vec<Method>,
    /// Each of these fields with just this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Each of these query parameters with just this value.
    pub query: Vec<(String, String)>,
}

/// A host to match, in lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Just this host.
    Exact(String),
    /// Any host below this domain: `*.example.com` holds `example.com`.
    Wildcard(String),
}

/// A path to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Every path.
    #[default]
    Any,
    /// Just this path.
    Exact(String),
    /// This path and all below it: `/v1/*` holds `/v1`.
    Prefix(String),
}

/// What happens to the requests of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// They go to this upstream, which exists.
    Upstream(Arc<str>),
    /// They are redirected.
    Redirect {
        /// The `Location`; if it ends in `/*`, the request's path and query take the place of the `*`.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// They are answered here.
    Respond {
        /// The status, 200 to 599.
        status: u16,
        /// The body, as text.
        body: String,
    },
}

/// How a request is changed on its way to the upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    /// Taken off the front of the path, on a segment border.
    pub strip_prefix: Option<String>,
    /// Put before the path.
    pub add_prefix: Option<String>,
    /// The Host field for the backend.
    pub host: Option<HeaderValue>,
}

/// Changes to header fields, made in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Fields that get this one value.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Values added beside those that are there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Fields taken away.
    pub remove: Vec<HeaderName>,
}

/// What the client is told about the inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expose {
    /// `X-Backend-Server`.
    pub backend: bool,
    /// `Server-Timing`.
    pub timing: bool,
}

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The least important level that is written.
    pub level: log::LevelFilter,
    /// Where access log lines go.
    pub access: AccessLog,
    /// When the tables of backends are written.
    pub dashboard: Dashboard,
}

/// Where access log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    None,
    /// To standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

/// When the tables of backends are written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dashboard {
    /// Never.
    None,
    /// When a backend's state changes.
    OnChange,
    /// When a state changes, and at this interval.
    Every(Duration),
}
