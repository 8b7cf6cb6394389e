//! How do we accept connections? The `listeners` section, checked.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Address;

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
    /// Whether trusted peers announce their clients.
    pub proxy_protocol: ProxyProtocol,
    /// How long a client may take.
    pub timeouts: ListenerTimeouts,
    /// How much a client may send.
    pub limits: ListenerLimits,
}

/// Whether a trusted peer announces whose connection it relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Nobody does.
    None,
    /// A trusted peer may.
    Accept,
    /// Only trusted peers may connect, and each must.
    Require,
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
    /// What backends are told of it, and in which fields.
    pub headers: Vec<(HeaderName, CertificatePart)>,
}

/// What a client's certificate may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificatePart {
    /// All of it (RFC 9440).
    Certificate,
    /// Those that vouch for it, as the client has sent them (RFC 9440).
    Chain,
    /// Whose it is (RFC 4514).
    Subject,
    /// The common name in its subject.
    CommonName,
    /// Its alternative names.
    San,
    /// The SHA-256 of all of it.
    Fingerprint,
    /// Its number among those of its authority.
    Serial,
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
    /// For a whole request, head and body.
    pub request: Option<Duration>,
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
    /// Bytes a second that a client has to send of a body, and to take of an answer.
    pub min_rate: Option<NonZeroU64>,
}
