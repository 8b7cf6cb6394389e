//! How is a backend spoken to? From a backend to the peer that Pingora connects to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, Peer};
use xxhash_rust::xxh3::Xxh3;

use super::addresses::Addresses;
use super::dial::Dialler;
use super::idle::Idle;
use crate::backend::{Backend, PeerTls};
use crate::config::{self, Protocol};
use crate::proxy_protocol::{Ends, Version};

/// Tells connections that were made for HTTP/1.1 alone from others to the same backend.
const HTTP1_ONLY: u64 = 2;

/// Streams on one HTTP/2 connection to a backend; Pingora's own default is 1.
const H2_STREAMS: usize = 100;

/// A peer that lacks only its address.
pub(super) struct PeerTemplate {
    peer: Option<HttpPeer>,
    timeout: Duration,
    idle: Option<Arc<Idle>>,
    send_proxy: Option<Version>,
    /// What its connections have in common.
    key: u64,
}

/// How one attempt shall connect.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// On a new connection, whatever is in the pool.
    pub fresh: bool,
    /// Within this time, if it is shorter than the upstream's own limit.
    pub within: Duration,
    /// With HTTP/1.1 where there is a choice, because the client asks for an upgrade.
    pub upgrades: bool,
    /// For whom.
    pub relayed: Relayed,
}

/// Where one attempt connects.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// `None` for a unix socket.
    address: Option<SocketAddr>,
    how: Connect,
    /// What connections that lead there are found again by; `None` where only a new one will do.
    pub key: Option<u64>,
    /// Whether Pingora sets no time to what is read.
    pub timed_by_us: bool,
}

/// A connection of a client, as backends are told of it that want to know.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    /// What no other connection has.
    pub id: u64,
    /// Its two ends; `None` on a unix socket.
    pub ends: Option<Ends>,
}

impl PeerTemplate {
    pub(super) fn new(upstream: &config::Upstream, backend: &Backend, tls: &PeerTls) -> Self {
        let (timeout, limit) = (upstream.timeouts.connect, upstream.timeouts.idle);
        let idle = (upstream.protocol == Protocol::Http1).then(|| Idle::new(limit));
        let dialler = Arc::new(Dialler { timeout, idle: idle.clone(), header: None });
        let name = if backend.tls { tls.server_name(backend) } else { String::new() };
        let peer = match backend.unix_path() {
            // A path that is no valid text or too long was refused with the configuration.
            Some(path) => HttpPeer::new_uds(path.to_str().unwrap_or(""), backend.tls, name).ok(),
            None => Some(HttpPeer::new(SocketAddr::from(([0, 0, 0, 0], 0)), backend.tls, name)),
        };
        let peer = peer.map(|peer| configured(peer, upstream, tls, dialler));
        let key = peer.as_ref().map_or(0, Peer::reuse_hash);
        Self { peer, timeout, idle, send_proxy: None, key }
    }

    /// The same, for a backend that is told whose connection each one is.
    pub(super) fn announcing(self, send_proxy: Option<Version>) -> Self {
        Self { send_proxy, ..self }
    }

    /// How the backend is told.
    pub(super) fn send_proxy(&self) -> Option<Version> {
        self.send_proxy
    }

    /// The way to the next address; `None` while there is none.
    pub(super) fn way(&self, backend: &Backend, addresses: &Addresses, how: Connect) -> Option<Way> {
        let options = &self.peer.as_ref()?.options;
        let address = match backend.unix_path() {
            Some(_) => None,
            None => Some(addresses.next(&backend.addresses())?),
        };
        let timed_by_us = options.read_timeout.is_none() || (how.upgrades && options.alpn == ALPN::H2H1);
        Some(Way { address, how, timed_by_us, key: self.key_of(address, how) })
    }

    /// What connections of HTTP/1 are found again by; `None` where only a new one will do.
    fn key_of(&self, address: Option<SocketAddr>, how: Connect) -> Option<u64> {
        // What was said of a connection is true of one client alone.
        let of_client = self.send_proxy.map_or(0, |_| how.relayed.id);
        let mut hasher = DefaultHasher::new();
        (self.key, of_client, address).hash(&mut hasher);
        (!how.fresh).then(|| hasher.finish())
    }

    /// The peer at the end of a way.
    pub(super) fn peer(&self, way: &Way) -> Option<Box<HttpPeer>> {
        let how = way.how;
        let mut peer = Box::new(self.peer.clone()?);
        if let Some(address) = way.address {
            peer._address = address.into();
        }
        let header = self.send_proxy.map(|version| version.header(how.relayed.ends));
        if header.is_some() {
            // What was said of a connection is true of one client alone, so nobody else may find it in the pool.
            peer.group_key = of_one_client(peer.group_key, how.relayed.id);
        }
        if how.fresh {
            // Connections are pooled by this key, and no other peer has it.
            peer.group_key = fastrand::u64(..) | 1;
            // So nobody would ever find it in the pool again, where it would only take the place of others.
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        if how.upgrades && peer.options.alpn == ALPN::H2H1 {
            peer.options.set_http_version(1, 1);
            (peer.options.read_timeout, peer.options.write_timeout) = (None, None);
            peer.group_key ^= HTTP1_ONLY;
        }
        if how.within < self.timeout || header.is_some() {
            let (timeout, idle) = (how.within.min(self.timeout), self.idle.clone());
            peer.options.custom_l4 = Some(Arc::new(Dialler { timeout, idle, header }));
        }
        if how.within < self.timeout {
            peer.options.connection_timeout = Some(how.within);
            peer.options.total_connection_timeout = Some(how.within);
        }
        Some(peer)
    }
}

fn configured(mut peer: HttpPeer, upstream: &config::Upstream, tls: &PeerTls, dialler: Arc<Dialler>) -> HttpPeer {
    let timeouts = &upstream.timeouts;
    tls.apply(&mut peer);
    peer.group_key = group_key(upstream);
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.idle_timeout = dialler.idle.is_none().then_some(timeouts.idle);
    peer.options.max_h2_streams = H2_STREAMS;
    peer.options.custom_l4 = Some(dialler);
    // One HTTP/1.1 connection serves one attempt, which we time and cut off ourselves. On HTTP/2 that would end the
    // other streams too, so while there are any Pingora's own timeouts must do, with the longer of the two that the one
    // for reading stands for.
    (peer.options.read_timeout, peer.options.write_timeout) = match upstream.protocol {
        Protocol::Http1 => (None, None),
        Protocol::Http2 | Protocol::Auto => {
            (Some(timeouts.first_byte.max(timeouts.between_bytes)), Some(timeouts.write))
        }
    };
    match upstream.protocol {
        Protocol::Http1 => peer.options.set_http_version(1, 1),
        Protocol::Http2 => peer.options.set_http_version(2, 2),
        Protocol::Auto => peer.options.set_http_version(2, 1),
    }
    peer
}

/// Upstreams share no connections, and neither do two configurations of one upstream that differ in TLS or protocol:
/// Pingora's own key leaves out the authorities and the protocol.
fn group_key(upstream: &config::Upstream) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.write(upstream.name.as_bytes());
    hasher.write(format!("{:?} {:?}", upstream.tls, upstream.protocol).as_bytes());
    without_marks(hasher.finish())
}

fn of_one_client(group_key: u64, connection: u64) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.write_u64(group_key);
    hasher.write_u64(connection);
    without_marks(hasher.finish())
}

/// The lowest bits tell fresh peers, and those for HTTP/1.1 alone, from others.
fn without_marks(hash: u64) -> u64 {
    hash & !(1 | HTTP1_ONLY)
}
