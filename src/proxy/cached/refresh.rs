//! Who fetches in the background? A stale answer is served at once, and a request of Pingora's own fetches it anew.
//!
//! That request runs in a task of its own, with nothing but the head of the one it was made for. By that head it finds
//! the connection again, so that it meets the same listener, route and words.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, TRANSFER_ENCODING,
};
use http::{HeaderName, HeaderValue, Method, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::auth::Identity;
use crate::cache::Key;
use crate::proxy::Gateway;
use crate::proxy::connection::Connection;
use crate::proxy::exchange::Exchange;
use crate::proxy::watch::Watch;

/// Refreshes that wait to begin; they begin within moments.
const WAITING_MAX: usize = 4096;

/// How long one may wait: whatever has not begun by then never will.
const WAITING_FOR: Duration = Duration::from_secs(10);

/// What Pingora writes anew for the background: the host in its place, and what speaks of a body.
const REWRITTEN: [HeaderName; 5] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, TRANSFER_ENCODING];

/// The connections of the requests that refreshes are made for, by the head of the request.
#[derive(Default)]
pub(in crate::proxy) struct Refreshes(Mutex<Waiting<Errand>>);

impl Refreshes {
    fn waiting(&self) -> MutexGuard<'_, Waiting<Errand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting<T> {
    by_head: HashMap<u128, Vec<(T, Instant)>>,
    count: usize,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { by_head: HashMap::new(), count: 0 }
    }
}

impl<T> Waiting<T> {
    fn add(&mut self, head: u128, one: T, now: Instant) -> bool {
        if self.count >= WAITING_MAX {
            self.expire(now);
        }
        let has_room = self.count < WAITING_MAX;
        if has_room {
            self.by_head.entry(head).or_default().push((one, now));
            self.count += 1;
        }
        has_room
    }

    fn take(&mut self, head: u128) -> Option<T> {
        let same = self.by_head.get_mut(&head)?;
        let taken = same.pop();
        if same.is_empty() {
            self.by_head.remove(&head);
        }
        self.count -= usize::from(taken.is_some());
        taken.map(|(one, _)| one)
    }

    fn expire(&mut self, now: Instant) {
        self.by_head.retain(|_, same| {
            same.retain(|(_, since)| now.duration_since(*since) < WAITING_FOR);
            !same.is_empty()
        });
        self.count = self.by_head.values().map(Vec::len).sum();
    }
}

/// A number for the head of a request, without what Pingora writes anew for the background. It takes fields out by
/// putting the last one in their place, so the order of the fields does not count.
pub(in crate::proxy) fn head_of(session: &ServerSession) -> u128 {
    let head = session.req_header();
    let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
    let host = head.uri.authority().map(|authority| authority.as_str().as_bytes()).or(host).unwrap_or_default();
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let fields = head.headers.iter().filter(|(name, _)| !REWRITTEN.contains(name));
    let fields = fields.map(|(name, value)| hash_of(&[name.as_str().as_bytes(), value.as_bytes()]));
    let start = hash_of(&[head.method.as_str().as_bytes(), target.as_bytes(), host]);
    fields.fold(start, u128::wrapping_add)
}

fn hash_of(parts: &[&[u8]]) -> u128 {
    let mut hash = Xxh3::with_seed(Key::seed());
    for part in parts {
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

/// Takes away the conditions that Pingora makes of what is stored, where they would make a request fail: to any method
/// but GET and HEAD a match means 412 (RFC 9110, section 13.1.2).
pub(in crate::proxy) fn ask_without_conditions(session: &Session, head: &mut RequestHeader) {
    if head.method == Method::POST && session.cache.enabled() {
        head.remove_header(&IF_NONE_MATCH);
        head.remove_header(&IF_MODIFIED_SINCE);
    }
}

/// What a request in the background goes on with.
pub(in crate::proxy) struct Errand {
    connection: Arc<Connection>,
    /// The route that its client was admitted to.
    route: Arc<str>,
    identity: Option<Arc<Identity>>,
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
        let (Some(connection), Some(plan)) = (&exchange.connection, &exchange.plan) else { return false };
        let errand =
            Errand { connection: connection.clone(), route: plan.name.clone(), identity: exchange.identity.clone() };
        // Of HTTP/1 Pingora copies what came in, whatever has become of the head since.
        let head = exchange.head_as_it_came.unwrap_or_else(|| head_of(session.as_downstream()));
        let is_added = self.refreshes.waiting().add(head, errand, Instant::now());
        if is_added {
            speak_http_1(session);
        }
        is_added
    }

    /// Gives a request in the background the connection of the one that it was made for. Without one nobody knows which
    /// route it belongs to and whom it may trust, so it ends.
    pub(in crate::proxy) fn adopt(&self, session: &Session, exchange: &mut Exchange) -> Result<()> {
        if !session.as_downstream().is_subrequest() {
            return Ok(());
        }
        exchange.in_background = true;
        let errand = self.refreshes.waiting().take(head_of(session.as_downstream()));
        let Some(errand) = errand else {
            return Error::e_explain(ErrorType::InternalError, "a refresh without a connection");
        };
        exchange.go_on_in_the_background(errand);
        Ok(())
    }
}

impl Exchange {
    fn go_on_in_the_background(&mut self, Errand { connection, route, identity }: Errand) {
        self.admitted_to = Some(route);
        self.identity = identity;
        self._in_flight = Some(connection.begin_background());
        self.watch = Watch::in_background(&connection);
        self.connection = Some(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_wait_and_no_more_until_they_are_taken_or_too_old() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        assert!((0..WAITING_MAX).all(|_| waiting.add(1, (), start)));
        assert!(!waiting.add(1, (), start) && !waiting.add(2, (), start));
        assert_eq!(waiting.take(1), Some(()));
        assert!(waiting.add(2, (), start) && !waiting.add(3, (), start));
        assert!(waiting.add(3, (), start + WAITING_FOR));
        assert_eq!((waiting.count, waiting.by_head.len(), waiting.take(1), waiting.take(3)), (1, 1, None, Some(())));
    }
}
