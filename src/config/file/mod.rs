//! What may be written in the file? The YAML's own shape, key for key, with the words of the manual.
//!
//! Each section is declared once; its decoder, its part of the JSON Schema and its keys for the documentation's tests
//! follow from that. Whatever is in a [`File`] has the right shape; whether it makes sense is `check`'s question.

mod auth;
mod backend;
mod brought;
mod browsers;
mod cache;
mod compress;
mod decode;
mod discover;
mod errors;
mod jwt;
mod keys;
mod leaves;
mod limits;
mod live;
mod logging;
mod networks;
mod rate_limit;
mod retry;
mod route;
mod section;
mod tracing;
mod upstream;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

pub(crate) use auth::Auth;
pub(crate) use backend::{Backend, BackendSection, BackendUrl, dns_name};
pub(crate) use brought::Brought;
pub(crate) use browsers::FieldOrAny;
pub(crate) use cache::{CacheKey, CacheStore, Caching, Query};
pub(crate) use compress::{Compress, Levels};
pub(crate) use decode::{Decode, Map, Marked, Named};
pub(crate) use discover::Discover;
pub(crate) use errors::ErrorEntry;
pub(crate) use jwt::{Jwt, KeysAt};
pub(crate) use keys::{Key, KeyStore};
pub(crate) use leaves::{ByteRate, FilePath, PathOr, SecretText, Share, Size, Threads, Timeout};
pub(crate) use live::Breaker;
pub(crate) use logging::{Log, Loki, Rotate, Usage};
pub(crate) use networks::Addresses;
pub(crate) use rate_limit::{RateLimit, RateLimiting};
pub(crate) use retry::{Cause as RetryCause, Retry, RetryBudget};
pub(crate) use route::{Edits, Exposed, Match, Redirect, Respond, Rewrite, Route, Statuses};
pub(crate) use tracing::Tracing;
pub(crate) use upstream::{Balance, HealthCheck, Sticky, Upstream, UpstreamTimeouts, UpstreamTls};

use super::{Address, CertificatePart, ClientAuthMode, ForwardedBy, Http2, ProxyProtocol, TlsVersion};
use section::section;

section! {
    /// One file configures one process.
    File {
        /// What concerns the process as a whole.
        server: Server = "{}",
        /// The addresses that connections are accepted on; at least one.
        listeners: Vec<Marked<Listener>> = "[]",
        /// The groups of backends, by name.
        upstreams: Map<Upstream> = "{}",
        /// Which request goes where. The most specific match wins, whatever the order.
        routes: Vec<Marked<Route>> = "[]",
        /// Where API keys are kept, by the names that routes call them.
        keys: Map<KeyStore> = "{}",
        /// The store that routes with `cache` share.
        cache: CacheStore = "{}",
        /// Where `/healthz` and `/readyz` are served.
        admin: Admin = "{}",
        /// What is logged, and where.
        log: Log = "{}",
        /// How requests are traced: by W3C trace context, told as OTLP.
        tracing: Option<Tracing> = "null",
    }
    later {}
}

section! {
    /// What concerns the process as a whole.
    Server {
        /// Worker threads; `auto` is one for each core.
        threads: Threads = "auto",
        /// Open client connections on all listeners together; more are refused.
        max_connections: NonZeroUsize = "50000",
        /// How long requests in flight may take to finish at shutdown.
        grace_period: Duration = "20s",
        /// How long `/readyz` says no while connections are still accepted, before the grace period begins.
        drain_delay: Duration = "0s",
        /// Networks (CIDR) whose forwarding header fields are believed.
        trusted_proxies: Vec<Marked<IpNet>> = "[]",
        /// In which field these say who the client is: `x_forwarded_for` or `forwarded`. Nobody is believed in the other one.
        forwarded_by: ForwardedBy = "x_forwarded_for",
        /// Signs the cookies of sessions: a text of 16 bytes or more, or `file:` and a path. Left out one is made at start.
        secret: Option<SecretText> = "null",
        /// When this file is read again.
        reload: Reload = "{}",
        /// What may be kept of all requests' bodies together, so that they can be sent again.
        retry_buffers: Size = "64MiB",
        /// What is remembered of all `rate_limits` together, and what clients are told of them.
        rate_limits: RateLimiting = "{}",
        /// A unix socket on which `portcullis upgrade` asks for another process to take over; `null` is none.
        upgrade_socket: Option<FilePath> = "null",
    }
    later {}
}

section! {
    /// When the configuration file is read again without being asked.
    Reload {
        /// Whether a change of the file is a reason.
        watch: bool = "true",
        /// How long the file must have been quiet before it is read.
        debounce: Duration = "500ms",
    }
    later {}
}

section! {
    /// One address that connections are accepted on.
    Listener {
        /// The name that routes may ask for with `match.listener`.
        name: Option<String> = "null",
        /// An IP address with a port, or `unix:` and the path of a socket.
        address: Address,
        /// Makes this a TLS listener.
        tls: Option<Tls> = "null",
        /// With `tls`: HTTP/2 by ALPN. Without: `true` changes nothing, `only` is HTTP/2 by prior knowledge.
        http2: Http2 = "true",
        /// Redirect every request to `https` on this port, instead of routing it.
        redirect_to_https: Option<NonZeroPort> = "null",
        /// A directory served under `/.well-known/acme-challenge/`.
        acme_challenges: Option<FilePath> = "null",
        /// Open connections of one client address; trusted proxies are not counted.
        max_connections_per_address: Option<NonZeroUsize> = "null",
        /// Whether `server.trusted_proxies` and unix sockets announce their clients: `none`, `accept` or `require`.
        proxy_protocol: ProxyProtocol = "none",
        /// How long a client may take.
        timeouts: ListenerTimeouts = "{}",
        /// How much a client may send.
        limits: ListenerLimits = "{}",
    }
    later {}
}

/// A port to connect to: zero is none.
pub(crate) type NonZeroPort = std::num::NonZeroU16;

section! {
    /// TLS on a listener: `certificates`, `self_signed`, or both.
    Tls {
        /// Chosen by SNI from the names in the certificate; the first is the default.
        certificates: Vec<Marked<CertificateFiles>> = "[]",
        /// Names for a certificate that is made at start, for development.
        self_signed: Vec<Marked<String>> = "[]",
        /// Ask clients for a certificate.
        client_auth: Option<ClientAuth> = "null",
        /// The oldest version that is spoken.
        min_version: TlsVersion = "\"1.2\"",
    }
    later {}
}

section! {
    /// The two PEM files of a certificate.
    CertificateFiles {
        /// The chain, the server's own certificate first.
        cert: FilePath,
        /// The private key.
        key: FilePath,
    }
    later {}
}

section! {
    /// How client certificates are asked for.
    ClientAuth {
        /// PEM file with the authorities that may have signed one.
        ca: FilePath,
        /// `require`: no certificate, no connection. `request`: it is verified if there is one.
        mode: ClientAuthMode = "require",
        /// PEM file with revocation lists.
        crl: Option<FilePath> = "null",
        /// What backends are told of it: `certificate` and `chain` (RFC 9440), `subject`, `common_name`, `san`, `fingerprint` or
        /// `serial`. A client's own fields of these names never arrive, on any listener.
        headers: Map<CertificatePart> = "{}",
    }
    later {}
}

section! {
    /// How long a client may take.
    ListenerTimeouts {
        /// For the TLS handshake, in all.
        handshake: Timeout = "10s",
        /// For the head of a request, in all.
        header: Timeout = "10s",
        /// Between two reads of a body.
        body: Timeout = "30s",
        /// Between two requests.
        idle: Timeout = "60s",
        /// Between two writes.
        write: Timeout = "30s",
        /// For a whole request, head and body, in all; `none` is no limit.
        request: Option<Timeout> = "none",
    }
    later {}
}

section! {
    /// How much a client may send.
    ListenerLimits {
        /// Bytes of a request's head.
        header_size: Size = "64KiB",
        /// Fields in a request's head.
        headers: NonZeroUsize = "100",
        /// Requests on one HTTP/1.1 connection; then it is closed.
        requests_per_connection: NonZeroU32 = "10000",
        /// Concurrent streams on one HTTP/2 connection.
        h2_streams: NonZeroU32 = "100",
        /// The slowest a client may send a body, or take an answer, such as `1KiB/s`; `none` is no limit.
        min_rate: Option<ByteRate> = "none",
    }
    later {}
}

section! {
    /// The listener for operators and their tools.
    Admin {
        /// An address with a port, or `unix:` and the path of a socket; `none` switches it off. Any but a loopback address wants a token.
        address: Option<Address> = "127.0.0.1:9901",
        /// What operators show there, and in `Portcullis-Debug`: a text of 16 bytes or more, or `file:` and a path.
        token: Option<SecretText> = "null",
    }
    later {}
}
