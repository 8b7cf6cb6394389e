//! Who fetches in the background? A stale answer is served at once, and a request of Pingora's own fetches it anew.
//!
//! That request runs in a task of its own, with nothing but the head of the one it was made for. By that head it finds
//! the connection again, so that it meets the same listener, route and words.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Version};
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use xxhash_rust::xxh3::Xxh3;

use crate::cache::Key;
use crate::proxy::Gateway;
use crate::proxy::connection::Connection;
use crate::proxy::exchange::Exchange;
use crate::proxy::watch::Watch;

/// Refreshes that wait to begin; they begin within moments.
const WAITING_MAX: usize = 4096;

/// The connections of the requests that refreshes are made for, by the head of the request.
#[derive(Default)]
pub(in crate::proxy) struct Refreshes(Mutex<HashMap<u128, Vec<Arc<Connection>>>>);

impl Refreshes {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u128, Vec<Arc<Connection>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, head: u128, connection: Arc<Connection>) -> bool {
        let mut waiting = self.waiting();
        let room = waiting.len() < WAITING_MAX;
        if room {
            waiting.entry(head).or_default().push(connection);
        }
        room
    }

    fn take(&self, head: u128) -> Option<Arc<Connection>> {
        let mut waiting = self.waiting();
        let connection = waiting.get_mut(&head)?.pop();
        if waiting.get(&head).is_some_and(Vec::is_empty) {
            waiting.remove(&head);
        }
        connection
    }
}

/// A number for the head of a request. What Pingora writes anew for the background is left out: the version, the host in
/// its place, and what speaks of a body.
fn head_of(session: &ServerSession) -> u128 {
    let head = session.req_header();
    let rewritten = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];
    let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
    let host = head.uri.authority().map(|authority| authority.as_str().as_bytes()).or(host).unwrap_or_default();
    let mut hash = Xxh3::with_seed(Key::seed());
    let fields = head.headers.iter().filter(|(name, _)| !rewritten.contains(name));
    let fields = fields.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    for part in [head.method.as_str().as_bytes(), target.as_bytes(), host].into_iter().chain(fields) {
        hash.update(part);
        hash.update(b"\n");
    }
    hash.digest128()
}

/// Pingora writes the head down for the background and reads it again, as one of HTTP/1 only.
fn speak_http_1(session: &mut Session) {
    let head = session.req_header_mut();
    if head.version != Version::HTTP_2 {
        return;
    }
    head.set_version(Version::HTTP_11);
    if let Some(host) = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
        && !head.headers.contains_key(HOST)
    {
        // A host that cannot be written is refused when it is read again.
        let _ = head.insert_header(HOST, host);
    }
}

/// The client's own version again, once the background has its copy.
pub(super) fn speak_as_before(session: &mut Session) {
    if session.as_downstream().as_http2().is_some() {
        session.req_header_mut().set_version(Version::HTTP_2);
    }
}

impl Gateway {
    /// Whether what is stale is served while it is fetched anew: for the one who is to fetch it, in the background.
    pub(in crate::proxy) fn refreshes(&self, session: &mut Session, exchange: &Exchange) -> bool {
        // A body is not told to the background.
        if exchange.cached.as_ref().is_none_or(|cached| cached.body.is_some()) {
            return false;
        }
        if !session.cache.is_cache_lock_writer() {
            return true;
        }
        speak_http_1(session);
        let connection = exchange.connection.clone();
        connection.is_some_and(|connection| self.refreshes.add(head_of(session.as_downstream()), connection))
    }

    /// Gives a request in the background the connection of the one that it was made for.
    pub(in crate::proxy) fn adopt(&self, session: &Session, exchange: &mut Exchange) {
        if !session.as_downstream().is_subrequest() {
            return;
        }
        if let Some(connection) = self.refreshes.take(head_of(session.as_downstream())) {
            exchange.go_on_in_the_background(connection);
        }
    }
}

impl Exchange {
    fn go_on_in_the_background(&mut self, connection: Arc<Connection>) {
        self.in_background = true;
        self._in_flight = Some(connection.begin_background());
        self.watch = Watch::in_background(&connection);
        self.connection = Some(connection);
    }
}
