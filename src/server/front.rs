//! What happens to a connection before its first request? Limits, the handshake, and the choice of HTTP/1 or HTTP/2.
//!
//! A [`Front`] is what all connections of one listener share. Nothing here waits without a deadline.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use pingora::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::{IO, Stream};
use pingora::proxy::{HttpProxy, ProxyHttp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::answer::Refusal;
use crate::config::{Address, Http2, Listener};
use crate::observe::seldom::Seldom;
use crate::server::connection::{Connection, InFlight, Served, Streams, TlsFacts, Turn, next_id};
use crate::server::counters::{Counters, Open};
use crate::server::frames::Counted;
use crate::server::guard::{self, Guard, OnRefusal, Rules};
use crate::server::http2::{after_its_streams, say_goodbye};
use crate::server::introduce::{NotIntroduced, introduce};
use crate::server::limits::{AddressLimit, AddressPlace, TotalLimit, TotalPlace};
use crate::server::listen::Accepted;
use crate::server::options;
use crate::server::secured::Secured;
use crate::server::tls::{TlsState, failure};
use crate::server::wire::Wire;

/// What all listeners share.
#[derive(Clone)]
pub struct Shared {
    /// Open connections of the process.
    pub connections: Arc<TotalLimit>,
    /// Exchanges in flight.
    pub in_flight: Arc<InFlight>,
    /// Called for each refusal that no hook sees.
    pub on_refusal: OnRefusal,
    /// Peers that no limit per address counts.
    pub trusted_proxies: Arc<[IpNet]>,
}

/// What all connections of one listener share.
pub struct Front<P> {
    listener: usize,
    config: Listener,
    address: String,
    local_port: Option<u16>,
    proxy: Arc<HttpProxy<P>>,
    tls: Option<ArcSwap<TlsState>>,
    shared: Shared,
    per_address: Option<Arc<AddressLimit>>,
    trusted: ArcSwap<Vec<IpNet>>,
    rules: Arc<Rules>,
    options: HttpServerOptions,
    h2_options: H2Options,
    /// Whether connections that wait for a request shall close.
    leaving: watch::Sender<bool>,
    counters: Counters,
    crowded: Seldom,
    unsafe_hands: Seldom,
    strangers: Seldom,
}

impl<P> fmt::Debug for Front<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("listener", &self.listener).field("config", &self.config).finish_non_exhaustive()
    }
}

impl<P> Front<P> {
    /// For the listener at place `index` of the configuration, which is bound to `address`.
    pub fn new(
        (index, config): (usize, Listener),
        address: &Address,
        proxy: Arc<HttpProxy<P>>,
        tls: Option<Arc<TlsState>>,
        shared: Shared,
    ) -> Arc<Self> {
        let local_port = match address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        };
        let per_address =
            config.max_connections_per_address.map(|most| AddressLimit::new(most, &shared.trusted_proxies));
        Arc::new(Self {
            listener: index,
            address: address.to_string(),
            local_port,
            proxy,
            tls: tls.map(ArcSwap::new),
            per_address,
            trusted: ArcSwap::from_pointee(shared.trusted_proxies.to_vec()),
            rules: Arc::new(Rules::new(&config.timeouts, &config.limits, shared.on_refusal.clone())),
            options: options::http(&config),
            h2_options: options::http2(&config),
            shared,
            config,
            leaving: watch::Sender::new(false),
            counters: Counters::default(),
            crowded: Seldom::default(),
            unsafe_hands: Seldom::default(),
            strangers: Seldom::default(),
        })
    }

    /// The listener, as configured.
    pub fn config(&self) -> &Listener {
        &self.config
    }

    /// The TLS state, whose certificates can be read again while we serve.
    pub fn tls(&self) -> Option<Arc<TlsState>> {
        self.tls.as_ref().map(ArcSwap::load_full)
    }

    /// Puts another TLS state in place for the connections that arrive from now on.
    pub fn replace_tls(&self, state: Arc<TlsState>) {
        if let Some(tls) = &self.tls {
            tls.store(state);
        }
    }

    /// Peers that from now on the limit per address does not count, and that may say whose a connection is.
    pub fn trust(&self, trusted: &[IpNet]) {
        self.trusted.store(Arc::new(trusted.to_vec()));
        if let Some(limit) = &self.per_address {
            limit.trust(trusted);
        }
    }

    /// What it is called where others than the operator's file speak of it: its name, else its address.
    pub fn label(&self) -> &str {
        self.config.name.as_deref().unwrap_or(&self.address)
    }

    /// What happened to the connections so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn proxy(&self) -> &Arc<HttpProxy<P>> {
        &self.proxy
    }

    pub(super) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    pub(super) fn server_options(&self) -> &HttpServerOptions {
        &self.options
    }

    pub(super) fn h2_options(&self) -> H2Options {
        self.h2_options.clone()
    }

    /// The place that a connection needs; `None` when there is none left.
    ///
    /// Such a connection is closed without a word: an answer would cost a handshake and a wait for its request, which is
    /// what the limit is there to spare us.
    pub(super) fn admit(&self) -> Option<TotalPlace> {
        self.counters.accepted.fetch_add(1, Relaxed);
        let place = self.shared.connections.take();
        if place.is_none() {
            self.turn_away(&self.counters.over_total, "server.max_connections");
        }
        place
    }

    /// The place among those of its address, which may be one that was announced.
    fn admit_address(&self, peer: Option<SocketAddr>) -> Option<Option<AddressPlace>> {
        let (Some(limit), Some(peer)) = (&self.per_address, peer) else { return Some(None) };
        let place = limit.take(peer.ip());
        if place.is_none() {
            self.turn_away(&self.counters.over_address, "max_connections_per_address");
        }
        place.map(Some)
    }

    fn turn_away(&self, counter: &AtomicU64, limit: &str) {
        counter.fetch_add(1, Relaxed);
        if let Some(kept_back) = self.crowded.may_log() {
            log::warn!("listeners[{}]: a connection is over {limit} and was closed ({kept_back} more)", self.listener);
        }
    }

    fn connection(&self, Whose { peer, local, is_nobodys }: Whose, tls: Option<TlsFacts>) -> Arc<Connection> {
        Arc::new(Connection {
            listener: self.listener,
            listener_name: self.config.name.clone(),
            id: next_id(),
            local,
            local_port: self.local_port,
            peer,
            is_nobodys,
            opened: Instant::now(),
            tls,
            in_flight: self.shared.in_flight.clone(),
            turn: Turn::default(),
            words: OnceLock::new(),
            authority: Mutex::default(),
            streams: Streams::default(),
            timer: Mutex::default(),
        })
    }

    fn guard<S: IO + 'static>(&self, stream: S, connection: &Arc<Connection>) -> Box<Guard<S>> {
        Box::new(Guard::new(stream, connection.clone(), self.rules.clone()))
    }

    fn failed_handshake(&self, peer: Option<SocketAddr>, reason: &'static str, why: &dyn fmt::Display) {
        self.counters.failed_handshakes.say(reason);
        self.tell(&self.unsafe_hands, ("no handshake with", peer), why);
    }

    fn not_introduced(&self, peer: Option<SocketAddr>, why: &NotIntroduced) {
        if !matches!(why, NotIntroduced::Gone) {
            self.counters.not_introduced.fetch_add(1, Relaxed);
            self.tell(&self.strangers, ("closed a connection of", peer), why);
        }
    }

    fn tell(&self, seldom: &Seldom, (what, peer): (&str, Option<SocketAddr>), why: &dyn fmt::Display) {
        let from = peer.map_or_else(|| "a unix socket".to_owned(), |peer| peer.ip().to_string());
        match seldom.may_log() {
            Some(more) => log::warn!("listeners[{}]: {what} {from}: {why} ({more} more)", self.listener),
            None => log::debug!("listeners[{}]: {what} {from}: {why}", self.listener),
        }
    }
}

impl<P> Front<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    /// Serves a connection that was admitted to its end.
    pub(super) async fn serve(
        self: Arc<Self>,
        accepted: Accepted,
        _place: TotalPlace,
        shutdown: watch::Receiver<bool>,
    ) {
        let _open = Open::count(&self.counters);
        let peer = accepted.peer;
        let accepted = match self.introduce(accepted).await {
            Ok(accepted) => accepted,
            Err(why) => return self.not_introduced(peer, &why),
        };
        let Some(_among_its_own) = self.admit_address(accepted.peer) else { return };
        match self.tls() {
            None => self.serve_plain(accepted, shutdown).await,
            Some(tls) => self.serve_tls(accepted, tls, shutdown).await,
        }
    }

    /// Wakes the keep-alive connections that wait for a request, so that they close. To be called at shutdown.
    pub async fn stop_waiting(&self) {
        self.leaving.send_replace(true);
        self.proxy.http_cleanup().await;
    }

    async fn introduce(&self, accepted: Accepted) -> Result<Accepted, NotIntroduced> {
        let trusted = self.trusted.load_full();
        introduce(accepted, self.config.proxy_protocol, &trusted, self.config.timeouts.handshake).await
    }

    async fn serve_plain(self: Arc<Self>, accepted: Accepted, shutdown: watch::Receiver<bool>) {
        let connection = self.connection(Whose::of(&accepted), None);
        let wire = Wire::plain(accepted);
        match self.config.http2 {
            Http2::Only => self.serve_http2(Box::new(wire), connection, shutdown).await,
            Http2::Off | Http2::ByAlpn => {
                let guard = self.guard(wire, &connection);
                self.serve_http1(guard, connection, shutdown).await;
            }
        }
    }

    async fn serve_tls(self: Arc<Self>, accepted: Accepted, tls: Arc<TlsState>, shutdown: watch::Receiver<bool>) {
        // Boxed, with all that a handshake needs: it is over soon, and the connection stays.
        match Box::pin(self.shake_hands(accepted, tls)).await {
            Some((Spoken::Http1(guard), connection)) => self.serve_http1(guard, connection, shutdown).await,
            Some((Spoken::Http2(stream), connection)) => self.serve_http2(stream, connection, shutdown).await,
            None => {}
        }
    }

    async fn shake_hands(&self, accepted: Accepted, tls: Arc<TlsState>) -> Option<(Spoken, Arc<Connection>)> {
        let (peer, whose) = (accepted.peer, Whose::of(&accepted));
        let handshake = Secured::accept(tls.config(), Wire::under_tls(accepted));
        let stream = match timeout(self.config.timeouts.handshake, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, wire))) => {
                self.failed_handshake(peer, failure::reason(&error.to_string()), &error);
                guard::end(Box::new(wire)).await;
                return None;
            }
            Err(_) => {
                self.failed_handshake(peer, failure::TIMEOUT, &"it took too long");
                return None;
            }
        };
        let facts = stream.facts();
        self.counters.handshakes.say(facts.version);
        let connection = self.connection(whose, Some(facts));
        let spoken = match (stream.is_http2(), self.config.http2) {
            (true, _) => Spoken::Http2(Box::new(stream)),
            // A client without ALPN gets through the handshake and would speak HTTP/1.
            (false, Http2::Only) => {
                self.failed_handshake(peer, failure::NO_HTTP2, &"the client does not ask for HTTP/2");
                guard::end(Box::new(stream)).await;
                return None;
            }
            (false, Http2::Off | Http2::ByAlpn) => Spoken::Http1(self.guard(stream, &connection)),
        };
        Some((spoken, connection))
    }

    /// Pingora waits for the preface and the first request of an HTTP/2 connection for ever. Its idle time takes over
    /// once there was a request.
    async fn serve_http2(
        self: Arc<Self>,
        stream: Stream,
        connection: Arc<Connection>,
        shutdown: watch::Receiver<bool>,
    ) {
        let (deadline, idle): (Duration, Duration) = (self.config.timeouts.header, self.config.timeouts.idle);
        let (on_refusal, flooding) = (self.shared.on_refusal.clone(), connection.clone());
        let on_flood = Box::new(move || on_refusal(&flooding, Refusal::Flood, 0));
        let (leave, asked) = watch::channel(false);
        let served = Arc::new(Served { connection: connection.clone(), front: self });
        // Boxed: connections of HTTP/1 shall not carry the room for it.
        let process = Box::pin(ServerApp::process_new(&served, Box::new(Counted::new(stream, on_flood)), &asked));
        let mut process = after_its_streams(&connection, process);
        let process = async {
            if timeout(deadline, &mut process).await.is_err() && connection.turn.requests.load(Relaxed) > 0 {
                process.await;
            }
        };
        // In a task of its own, because all that is awaited here is polled whenever a stream moves.
        let mut goodbye = JoinSet::new();
        goodbye.spawn(say_goodbye(connection.clone(), idle, shutdown, leave));
        tokio::select! {
            () = process => {}
            _ = goodbye.join_next() => {}
        }
    }
}

/// What a client has chosen under TLS.
enum Spoken {
    Http1(Box<Guard<Secured>>),
    Http2(Stream),
}

/// Whose connection it is, as far as that is known.
struct Whose {
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    is_nobodys: bool,
}

impl Whose {
    fn of(accepted: &Accepted) -> Self {
        Self { peer: accepted.peer, local: accepted.local, is_nobodys: accepted.is_nobodys }
    }
}
