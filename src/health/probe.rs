//! Does a backend pass? One probe: Pingora's checks, set up for a backend of ours.
//!
//! A probe speaks as requests do: the same protocol, TLS files and server name, on a new connection each time, because
//! an established one can hide that no other can be made. It decides nothing; when to run it and what its outcome
//! means is up to `watch`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use pingora::connectors::http::Connector;
use pingora::connectors::{ConnectorOptions, L4Connect, TransportConnector};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use pingora_load_balancing::Backend as Server;
use pingora_load_balancing::health_check::{HealthCheck as Check, HttpHealthCheck, TcpHealthCheck};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::backend::{Backend, PeerTls};
use crate::config::{HealthCheck, Protocol, Target};
use crate::proxy_protocol::Version;

/// The error code under which a wrong status comes back to us.
const STATUS: &str = "status";

/// How a backend is spoken to.
#[derive(Clone, Debug)]
pub struct Speech {
    /// What is spoken.
    pub protocol: Protocol,
    /// With which files.
    pub tls: Arc<PeerTls>,
    /// What is said before: that the connection is nobody's but ours.
    pub send_proxy: Option<Version>,
}

/// Asked before each probe that is a request, where the backend counts requests.
pub trait Toll: Send + Sync {
    /// Pays for one; `None` if nothing is left to pay with.
    fn pay(&self) -> Option<Box<dyn Paid>>;
}

/// A probe that is paid for, once and for all unless it is told that it was not used.
pub trait Paid: Send {
    /// The probe has certainly not reached the backend.
    fn not_reached(self: Box<Self>);
}

/// A way to probe one backend.
pub struct Probe {
    check: Result<Arc<dyn Check + Send + Sync>, String>,
    toll: Option<Box<dyn Toll>>,
}

impl Probe {
    /// Sets a probe up. May read the certificates of the system, which blocks.
    pub fn new(backend: &Backend, check: &HealthCheck, speech: &Speech) -> Self {
        let check = match check {
            HealthCheck::None | HealthCheck::Tcp(_) if !backend.tls && speech.send_proxy.is_none() => Ok(connect()),
            HealthCheck::None | HealthCheck::Tcp(_) => Ok(Arc::new(Handshake::new(backend, speech)) as Arc<_>),
            HealthCheck::Http { .. } => request(backend, check, speech).map_err(|error| words(&error)),
        };
        Self { check, toll: None }
    }

    /// The same, paid for request by request.
    #[must_use]
    pub fn paid_with(self, toll: Option<Box<dyn Toll>>) -> Self {
        Self { toll, ..self }
    }

    /// Probes the backend once; a failure comes as a few words. Has no time limit of its own.
    ///
    /// A name with many addresses passes if any of them does. The caller begins with another one each time, as long
    /// as probes fail, so that an address that swallows everything cannot hide the others.
    ///
    /// `None` if it could not be paid for: nothing is known then.
    pub async fn run(&self, backend: &Backend, first: usize) -> Option<Result<(), String>> {
        let (check, servers) = match (self.check.as_ref(), servers(backend)) {
            (Ok(check), Ok(servers)) => (check, servers),
            (Err(error), _) => return Some(Err(error.clone())),
            (_, Err(error)) => return Some(Err(error)),
        };
        let mut outcome = Ok(());
        for server in servers.iter().cycle().skip(first % servers.len()).take(servers.len()) {
            let paid = match &self.toll {
                Some(toll) => Some(toll.pay()?),
                None => None,
            };
            let result = check.check(server).await;
            if let (Err(error), Some(paid)) = (&result, paid)
                && !is_sent(error)
            {
                paid.not_reached();
            }
            outcome = result.map_err(|error| words(&error));
            if outcome.is_ok() {
                break;
            }
        }
        Some(outcome)
    }
}

/// Whether a probe that failed may have reached the backend: unless there was no connection for it.
fn is_sent(error: &Error) -> bool {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, HandshakeError, InvalidCert,
        TLSHandshakeFailure, TLSHandshakeTimedout,
    };
    let kind = error.etype();
    let without = [
        ConnectError,
        ConnectNoRoute,
        ConnectRefused,
        ConnectTimedout,
        HandshakeError,
        InvalidCert,
        TLSHandshakeFailure,
        TLSHandshakeTimedout,
    ];
    !without.contains(kind)
}

/// Where to connect; never empty.
fn servers(backend: &Backend) -> Result<Vec<Server>, String> {
    let server = |addr| Server { addr, weight: 1, ext: Extensions::new() };
    if let Some(path) = backend.unix_path() {
        let address = std::os::unix::net::SocketAddr::from_pathname(path).map_err(|error| error.to_string())?;
        return Ok(vec![server(SocketAddr::Unix(address))]);
    }
    let servers: Vec<_> = backend.addresses().iter().map(|&address| server(SocketAddr::Inet(address))).collect();
    if servers.is_empty() { Err("name not resolved".to_owned()) } else { Ok(servers) }
}

/// The plain TCP check, one for all backends: every `TcpHealthCheck` reads the certificates of the system and keeps
/// them, though this one has no use for them.
fn connect() -> Arc<dyn Check + Send + Sync> {
    static CHECK: OnceLock<Arc<TcpHealthCheck>> = OnceLock::new();
    let check = CHECK.get_or_init(|| {
        let mut check = TcpHealthCheck::default();
        // The time limit of the probe is the one that holds.
        check.peer_template.options.connection_timeout = None;
        Arc::new(check)
    });
    check.clone()
}

fn request(backend: &Backend, check: &HealthCheck, speech: &Speech) -> pingora::Result<Arc<dyn Check + Send + Sync>> {
    let HealthCheck::Http { path, host, expect, schedule } = check else {
        return Ok(connect());
    };
    let mut probe = HttpHealthCheck::<()>::new_custom("localhost", backend.tls, connector(backend, &speech.tls));
    probe.peer_template = peer(backend, speech, schedule.timeout);
    match speech.protocol {
        Protocol::Http2 => probe.peer_template.options.set_http_version(2, 2),
        // Without TLS there is no ALPN to choose by.
        Protocol::Auto if backend.tls => probe.peer_template.options.set_http_version(2, 1),
        Protocol::Auto | Protocol::Http1 => probe.peer_template.options.set_http_version(1, 1),
    }
    probe.req = RequestHeader::build("GET", path.as_bytes(), None)?;
    probe.req.insert_header(http::header::HOST, host.clone().unwrap_or_else(|| authority(backend)))?;
    let agent = concat!("portcullis/", env!("CARGO_PKG_VERSION"), " health check");
    probe.req.insert_header(http::header::USER_AGENT, agent)?;
    let expect = expect.clone();
    probe.validator = Some(Box::new(move |response: &ResponseHeader| {
        let status = response.status.as_u16();
        let passes = expect.iter().any(|range| range.contains(&status));
        if passes { Ok(()) } else { Error::e_explain(ErrorType::CustomCode(STATUS, status), "probe") }
    }));
    Ok(Arc::new(probe))
}

/// What the Host field says unless configured: where the backend is, without a port that the scheme implies.
fn authority(backend: &Backend) -> String {
    let implied = if backend.tls { 443 } else { 80 };
    match &backend.target {
        Target::Address(address) if address.port() == implied && address.is_ipv6() => format!("[{}]", address.ip()),
        Target::Address(address) if address.port() == implied => address.ip().to_string(),
        Target::Address(address) => address.to_string(),
        Target::Name { host, port } if *port == implied => host.to_string(),
        Target::Name { host, port } => format!("{host}:{port}"),
        Target::Unix(_) => "localhost".to_owned(),
    }
}

/// A TCP connection, what is said before all else, and a TLS handshake, where there are these. Pingora's `TcpHealthCheck` can do that too, but not with a client certificate.
struct Handshake {
    peer: HttpPeer,
    connector: TransportConnector,
}

impl Handshake {
    fn new(backend: &Backend, speech: &Speech) -> Self {
        let connector = TransportConnector::new(connector_options(backend, &speech.tls));
        Self { peer: peer(backend, speech, Duration::MAX), connector }
    }
}

#[async_trait]
impl Check for Handshake {
    async fn check(&self, server: &Server) -> pingora::Result<()> {
        let mut peer = self.peer.clone();
        peer._address = server.addr.clone();
        self.connector.new_stream(&peer).await.map(drop)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// A peer for any address: the check puts in the one that it probes.
fn peer(backend: &Backend, speech: &Speech, limit: Duration) -> HttpPeer {
    let tls = &speech.tls;
    let mut peer = HttpPeer::new("0.0.0.0:1", backend.tls, tls.server_name(backend));
    if backend.tls {
        tls.apply(&mut peer);
    }
    // Never longer than the probe may take, so that Pingora does not go on with what we gave up.
    let limit = (limit != Duration::MAX).then_some(limit);
    peer.options.connection_timeout = limit;
    peer.options.total_connection_timeout = limit;
    peer.options.read_timeout = limit;
    peer.options.write_timeout = limit;
    if let Some(version) = speech.send_proxy {
        peer.options.custom_l4 = Some(Arc::new(Announcing(version)));
    }
    peer
}

/// Says at the beginning of a connection that it is nobody's but ours.
#[derive(Debug)]
struct Announcing(Version);

#[async_trait]
impl L4Connect for Announcing {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let header = self.0.own_header();
        let connected = match address {
            SocketAddr::Inet(address) => said(TcpStream::connect(address).await, &header).await.map(Stream::from),
            SocketAddr::Unix(address) => {
                let path = address.as_pathname().unwrap_or("".as_ref());
                said(UnixStream::connect(path).await, &header).await.map(Stream::from)
            }
        };
        connected.map_err(|error| {
            let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
            let kind = if refused { ErrorType::ConnectRefused } else { ErrorType::ConnectError };
            Error::because(kind, "cannot connect", error)
        })
    }
}

async fn said<S: AsyncWrite + Unpin>(connected: std::io::Result<S>, header: &[u8]) -> std::io::Result<S> {
    let mut stream = connected?;
    stream.write_all(header).await?;
    Ok(stream)
}

fn connector(backend: &Backend, tls: &PeerTls) -> Connector {
    Connector::new(connector_options(backend, tls))
}

/// Where the authorities of the system are not needed, the connector is told to read them from an empty file: each
/// connector has a copy of its own, and ten thousand backends would have ten thousand.
fn connector_options(backend: &Backend, tls: &PeerTls) -> Option<ConnectorOptions> {
    if backend.tls && tls.needs_system_roots() {
        return None;
    }
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some("/dev/null".to_owned());
    Some(options)
}

/// A few words for a table; the whole error of Pingora describes the peer at length.
fn words(error: &Error) -> String {
    let kind = error.etype();
    if let ErrorType::CustomCode(STATUS, status) = kind {
        return format!("status {status}");
    }
    let known = [
        (ErrorType::ConnectRefused, "connection refused"),
        (ErrorType::ConnectTimedout, "connect timeout"),
        (ErrorType::ConnectNoRoute, "no route to it"),
        (ErrorType::ReadTimedout, "no answer in time"),
        (ErrorType::ConnectionClosed, "connection closed"),
    ];
    if let Some((_, words)) = known.iter().find(|(known, _)| known == kind) {
        return (*words).to_owned();
    }
    match (&error.context, kind == &ErrorType::TLSHandshakeFailure) {
        (Some(context), true) => context.as_str().to_owned(),
        (_, _) => kind.as_str().to_owned(),
    }
}
