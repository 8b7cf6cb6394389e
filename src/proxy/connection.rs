//! Which connection does this request belong to? The facts of one downstream connection, found from any hook.
//!
//! One `HttpProxy` serves every listener, and its hooks see only the session. So every request runs in a task-local
//! scope that `current` reads. This file decides nothing about a request.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::authority::Authority;
use super::date::DATE_LENGTH;
use super::forward::Words;
use super::timer::Timer;
use super::watch::Watch;
use crate::auth::Certificate;
use crate::proxy_protocol::Ends;
use crate::route::host::HostError;
use crate::upstream::Relayed;

tokio::task_local! {
    static SERVING: (Arc<Connection>, Arc<Watch>);
}

/// The connection whose exchange this task serves, and the watch of the exchange; `None` in a task that serves none.
pub(crate) fn current() -> Option<(Arc<Connection>, Arc<Watch>)> {
    SERVING.try_with(Clone::clone).ok()
}

/// Says whether the client of the exchange that this task serves reads its answer from the store while it is written
/// there.
pub(super) fn stream_from_the_store(streams: bool) {
    let _ = SERVING.try_with(|(_, watch)| watch.set_streams(streams));
}

/// Whether it does.
pub(crate) fn streams_from_the_store() -> bool {
    SERVING.try_with(|(_, watch)| watch.streams()).unwrap_or(false)
}

/// Runs an exchange, so that [`current`] finds its connection and its watch.
pub(super) fn scope<F: Future>(
    connection: Arc<Connection>,
    watch: Arc<Watch>,
    exchange: F,
) -> impl Future<Output = F::Output> {
    SERVING.scope((connection, watch), exchange)
}

/// What is known about a downstream connection.
#[derive(Debug)]
pub struct Connection {
    /// The place of its listener in the configuration.
    pub listener: usize,
    /// The name of its listener, if it has one.
    pub listener_name: Option<Arc<str>>,
    /// What no other connection of this process has.
    pub id: u64,
    /// The address that the client connected to, as far as it is known.
    pub local: Option<SocketAddr>,
    /// The port that we accepted it on; `None` on a unix socket.
    pub local_port: Option<u16>,
    /// Who connected; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// The balancer that it comes from did not say whose it is, so that nothing which is said on it is the balancer's word.
    pub is_nobodys: bool,
    /// When it was there.
    pub opened: Instant,
    /// What the handshake settled; `None` without TLS.
    pub tls: Option<TlsFacts>,
    /// Where this connection's exchanges are counted.
    pub(crate) in_flight: Arc<InFlight>,
    /// How far the current request is; told to the guard below Pingora.
    pub(crate) turn: Turn,
    /// What backends are told about it, put into words by its first request.
    pub(crate) words: OnceLock<Words>,
    /// Which site its last request was for: mostly the next one's too.
    pub(crate) authority: Mutex<Option<Arc<Authority>>>,
    /// Its exchanges that are under way.
    pub(crate) streams: Streams,
    /// Between two exchanges.
    pub(crate) timer: Mutex<Timer>,
}

/// An id for a new connection.
pub(crate) fn next_id() -> u64 {
    // From 1 on: 0 is nobody's.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// What a TLS handshake settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// As in `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for (SNI).
    pub server_name: Option<Arc<str>>,
    /// The certificate that it has shown, which was verified.
    pub certificate: Option<Arc<Certificate>>,
}

impl Connection {
    /// Whose connection a backend is told that it relays.
    pub(super) fn relayed(&self) -> Relayed {
        let ends = self.peer.zip(self.local).map(|(client, server)| Ends { client, server });
        Relayed { id: self.id, ends }
    }

    pub(super) fn words(&self) -> &Words {
        self.words.get_or_init(|| Words::of(self.peer, self.local_port, self.tls.is_some()))
    }

    /// What follows from the host and port that a request names.
    pub(super) fn authority(&self, written: &str) -> Result<Arc<Authority>, HostError> {
        let mut last = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = last.as_ref().filter(|last| last.written == written) {
            return Ok(same.clone());
        }
        let new = Arc::new(Authority::new(written, self.words())?);
        *last = Some(new.clone());
        Ok(new)
    }

    /// The timer of the exchange before, or a new one.
    pub(super) fn lend_timer(&self) -> Timer {
        std::mem::take(&mut *self.timer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts an exchange until the result is dropped.
    pub(crate) fn open_stream(&self) -> Open<'_> {
        self.streams.count.fetch_add(1, Relaxed);
        Open(self)
    }

    /// Whether an exchange is under way.
    pub(crate) fn has_exchanges(&self) -> bool {
        self.streams.count.load(Relaxed) > 0
    }

    /// Waits until there has been no exchange for this time.
    pub(crate) async fn idle_for(&self, time: Duration) {
        let called = Instant::now();
        loop {
            // What is under way now ends later than now.
            let (now, is_busy) = (Instant::now(), self.streams.count.load(Acquire) > 0);
            let ended = self.opened + Duration::from_micros(self.streams.ended.load(Relaxed));
            let idle_since = if is_busy { now } else { ended.max(called) };
            match idle_since.checked_add(time) {
                Some(due) if !is_busy && due <= now => return,
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Takes a timer back.
    pub(super) fn keep_timer(&self, timer: Timer) {
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = timer;
    }

    /// Counts one exchange until the result is dropped. To be called once a request's head has been read, as by
    /// `new_ctx`: a keep-alive connection that waits for a request is not in flight.
    ///
    /// It also says that the hooks answer this request. Until then the guard of an HTTP/1 connection takes whatever is
    /// written for Pingora's own answer to a malformed head, and puts ours in its place.
    pub fn begin_exchange(&self) -> Exchanging {
        self.turn.answered_by_hooks.store(true, Relaxed);
        self.in_flight.count.fetch_add(1, Relaxed);
        Exchanging(self.in_flight.clone())
    }

    /// Counts an exchange that no client waits for, and that this connection does not carry.
    pub(super) fn begin_background(&self) -> Exchanging {
        self.in_flight.count.fetch_add(1, Relaxed);
        Exchanging(self.in_flight.clone())
    }

    /// Whether the framing of the current request's body turned out to be broken, so that reading it failed.
    ///
    /// The hooks then answer [`crate::answer::Refusal::MalformedBody`]; HTTP/1 only.
    pub fn body_is_malformed(&self) -> bool {
        self.turn.body_is_malformed.load(Relaxed)
    }
}

/// How far an HTTP/1 connection is with its current request.
///
/// Written by the task that serves the connection and read by the stream inside that same task, so that no ordering
/// between them is needed.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// The hooks know of the request. Whatever is written before is an answer of Pingora's own.
    pub(crate) answered_by_hooks: AtomicBool,
    /// The guard found broken framing.
    pub(crate) body_is_malformed: AtomicBool,
    /// The client took so little of the response that we have given up.
    pub(crate) reads_slowly: AtomicBool,
    /// When the first byte of a head came that did not come at once, in milliseconds after the connection was opened;
    /// 0 for one that did.
    pub(crate) head_began: AtomicU64,
    /// Requests that Pingora has begun to read.
    pub(crate) requests: AtomicUsize,
    /// A stream that Pingora has dropped, with an answer written and a body unread.
    leftover: Mutex<Option<Stream>>,
    /// Whether there is a `date`: most responses have none.
    is_dated: AtomicBool,
    /// The date of the response whose head is written next, where Pingora writes another one.
    date: Mutex<Option<[u8; DATE_LENGTH]>>,
}

impl Turn {
    /// A new request is about to be read.
    pub(crate) fn next(&self) {
        self.answered_by_hooks.store(false, Relaxed);
        self.body_is_malformed.store(false, Relaxed);
        self.reads_slowly.store(false, Relaxed);
        self.head_began.store(0, Relaxed);
        self.is_dated.store(false, Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }

    /// Says which date the head has that is written next; `None` is the one that Pingora writes.
    pub(super) fn set_date(&self, date: Option<[u8; DATE_LENGTH]>) {
        if date.is_some() {
            *self.date.lock().unwrap_or_else(PoisonError::into_inner) = date;
        }
        self.is_dated.store(date.is_some(), Relaxed);
    }

    /// Whether there is one.
    pub(crate) fn has_date(&self) -> bool {
        self.is_dated.load(Relaxed)
    }

    /// The date for the head that is written now.
    pub(crate) fn take_date(&self) -> Option<[u8; DATE_LENGTH]> {
        self.is_dated.store(false, Relaxed);
        self.date.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn leave(&self, stream: Stream) {
        *self.leftover.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    pub(crate) fn take_leftover(&self) -> Option<Stream> {
        self.leftover.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The exchanges of one connection that have begun and not ended.
///
/// Nobody is woken when one begins or ends: that would poll an HTTP/2 connection twice more for each of its streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    count: AtomicUsize,
    /// When one ended last, in microseconds after the connection was opened.
    ended: AtomicU64,
}

/// An exchange of a connection.
pub(crate) struct Open<'a>(&'a Connection);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Streams { count, ended } = &self.0.streams;
        ended.store(micros(self.0.opened.elapsed()), Relaxed);
        // Whoever sees that there is none left sees also when that was.
        count.fetch_sub(1, Release);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The exchanges that have begun and not ended, of all connections.
#[derive(Debug, Default)]
pub struct InFlight {
    count: AtomicUsize,
    idle: Notify,
}

impl InFlight {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Waits until there is none.
    pub async fn none_left(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the look at the count, so that an end between the two is not missed.
            idle.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// One exchange in flight, until it is dropped.
#[derive(Debug)]
pub struct Exchanging(Arc<InFlight>);

impl Drop for Exchanging {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
impl Connection {
    /// A connection without TLS, for tests of what looks at one.
    pub(crate) fn example(peer: SocketAddr, local_port: u16) -> Self {
        Self {
            listener: 0,
            listener_name: None,
            id: next_id(),
            local: None,
            local_port: Some(local_port),
            peer: Some(peer),
            is_nobodys: false,
            opened: Instant::now(),
            tls: None,
            in_flight: Arc::default(),
            turn: Turn::default(),
            words: OnceLock::new(),
            authority: Mutex::default(),
            streams: Streams::default(),
            timer: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_so_long_after_its_last_exchange() {
        const SECOND: Duration = Duration::from_secs(1);
        let connection = Arc::new(Connection::example(([127, 0, 0, 1], 1).into(), 80));
        let begun = Instant::now();
        let waits = connection.clone();
        let waiting = tokio::spawn(async move {
            waits.idle_for(10 * SECOND).await;
            Instant::now()
        });
        // Exchanges from the 5th to the 27th second, of which two overlap.
        tokio::time::sleep(5 * SECOND).await;
        let first = connection.open_stream();
        tokio::time::sleep(15 * SECOND).await;
        let second = connection.open_stream();
        drop(first);
        tokio::time::sleep(7 * SECOND).await;
        drop(second);
        assert_eq!(waiting.await.unwrap() - begun, 37 * SECOND);
        connection.idle_for(3 * SECOND).await;
        assert_eq!(begun.elapsed(), 40 * SECOND, "from when it was asked");
    }
}
