//! Is it taking too long? One deadline an exchange, which cuts off the attempt that holds it up.
//!
//! The deadline moves with the exchange: `first_byte` from the last byte of the request, `between_bytes` from the last
//! byte of the response, `tunnel` after an upgrade, and the route's `timeout` over all of it until the head of the
//! response is there. When it passes, the upstream connection is cut ([`Line`]), and the corridor finds the reason
//! here. The timer runs in the request's own task, so nothing is spawned and nothing is left behind.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant as StdInstant};

use tokio::time::Instant;

use super::connection::{self, Connection};
use super::timer::Timer;
use crate::answer::Refusal;
use crate::upstream::dial::Line;

const NEVER: u64 = u64::MAX;

/// How often the deadline of an exchange in the background is looked at: nobody waits for it.
const IN_BACKGROUND: Duration = Duration::from_millis(100);

/// What an attempt is late with, and what the client is then told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    FirstByte,
    BetweenBytes,
    Route,
    /// One attempt among several.
    Attempt,
    /// The client, with its body.
    Body,
    /// The client, with so many bytes of its body.
    SlowBody,
    /// The client, with all of its request.
    WholeRequest,
    /// The backend, with taking the body.
    Request,
    /// The backend is gone from the configuration, and its tunnels had their time.
    Leaving,
}

impl Late {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::FirstByte => Refusal::FirstByteTimeout,
            Self::BetweenBytes => Refusal::StalledResponse,
            Self::Attempt => Refusal::AttemptTimeout,
            Self::Route => Refusal::RouteTimeout,
            Self::Body => Refusal::BodyTimeout,
            Self::SlowBody => Refusal::SlowBody,
            Self::WholeRequest => Refusal::RequestTimeout,
            Self::Request => Refusal::StalledRequest,
            Self::Leaving => Refusal::BackendRemoved,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let all = [Self::FirstByte, Self::BetweenBytes, Self::Route, Self::Attempt, Self::Body, Self::Request];
        all.into_iter().chain([Self::SlowBody, Self::WholeRequest, Self::Leaving]).find(|late| *late as u8 + 1 == code)
    }
}

/// The deadline of one exchange.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The zero of the times below: any moment before the exchange.
    base: Instant,
    /// Milliseconds after `base`.
    deadline: AtomicU64,
    /// When something moved last, in milliseconds after `base`, and how long what is awaited may take.
    since: AtomicU64,
    limit: AtomicU64,
    /// How long the backend may take nothing of a body.
    limit_of_write: AtomicU64,
    /// The [`Late`] that the deadline stands for, plus 1.
    stands_for: AtomicU8,
    /// The [`Late`] that has happened, plus 1.
    happened: AtomicU8,
    line: Mutex<Option<Line>>,
    /// The client reads the answer from the store while it is written there.
    streams: AtomicBool,
}

impl Watch {
    pub(super) fn new(base: Instant) -> Arc<Self> {
        Arc::new(Self {
            base,
            deadline: AtomicU64::new(NEVER),
            since: AtomicU64::new(0),
            limit: AtomicU64::new(NEVER),
            limit_of_write: AtomicU64::new(NEVER),
            stands_for: AtomicU8::new(0),
            happened: AtomicU8::new(0),
            line: Mutex::new(None),
            streams: AtomicBool::new(false),
        })
    }

    /// One for an exchange that no client waits for, with a task to keep its time.
    pub(super) fn in_background(connection: &Connection) -> Arc<Self> {
        let watch = Self::new(connection.opened);
        let exchange = Arc::downgrade(&watch);
        tokio::spawn(async move {
            while let Some(watch) = exchange.upgrade() {
                if watch.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                    watch.fire();
                }
                drop(watch);
                tokio::time::sleep(IN_BACKGROUND).await;
            }
        });
        watch
    }

    pub(super) fn set_streams(&self, streams: bool) {
        self.streams.store(streams, Relaxed);
    }

    pub(super) fn streams(&self) -> bool {
        self.streams.load(Relaxed)
    }

    /// The connection to cut from now on.
    pub(super) fn hold(&self, line: Option<Line>) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    /// Moves the deadline to `limit` after `now`. The moment is told, because asking the clock has its price, and one
    /// answer serves all that happens at once.
    pub(super) fn expect(&self, now: StdInstant, limit: Duration, late: Late) {
        let since = millis(now.saturating_duration_since(self.base.into_std()));
        self.since.store(since, Relaxed);
        self.limit.store(millis(limit), Relaxed);
        self.stands_for.store(late as u8 + 1, Relaxed);
        self.deadline.store(since.saturating_add(millis(limit)), Relaxed);
    }

    /// Expects more of the request: from the client, and that the backend takes it. Who is late is seen when one is.
    pub(super) fn expect_body(&self, now: StdInstant, from_client: (Duration, Late), to_backend: Duration) {
        let (limit, late) = from_client;
        self.expect(now, limit, late);
        self.limit_of_write.store(millis(to_backend), Relaxed);
        self.deadline.fetch_min(self.since.load(Relaxed).saturating_add(millis(to_backend)), Relaxed);
    }

    fn now(&self) -> u64 {
        millis(self.base.elapsed())
    }

    /// No deadline, on a connection that is still in use.
    pub(super) fn pause(&self) {
        self.deadline.store(NEVER, Relaxed);
    }

    /// No deadline: between two attempts, and at the end.
    pub(super) fn rest(&self) {
        self.pause();
        self.hold(None);
    }

    /// Whether the exchange was late with something that has not been told yet.
    pub(super) fn is_late(&self) -> bool {
        self.happened.load(Relaxed) != 0
    }

    /// Whether it is the client that was late, on a connection that could not be cut.
    pub(super) fn late_of_client(&self) -> Option<Late> {
        let late = Late::from_code(self.happened.load(Relaxed))?;
        matches!(late, Late::Body | Late::SlowBody | Late::WholeRequest).then_some(late)
    }

    /// The exchange is late, as somebody else has seen.
    pub(super) fn note(&self, late: Late) {
        self.happened.store(late as u8 + 1, Relaxed);
    }

    /// What the exchange was late with, told once.
    pub(super) fn take_late(&self) -> Option<Late> {
        Late::from_code(self.happened.swap(0, Relaxed))
    }

    fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Relaxed) {
            NEVER => None,
            at => Some(self.base + Duration::from_millis(at)),
        }
    }

    fn fire(&self) {
        let Some(late) = Late::from_code(self.stands_for.load(Relaxed)) else { return };
        let mut held = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let (late, due) = self.judge(late, held.as_ref());
        if due > self.now() {
            return self.deadline.store(due, Relaxed);
        }
        self.deadline.store(NEVER, Relaxed);
        let Some(line) = held.take() else { return };
        self.happened.store(late as u8 + 1, Relaxed);
        // On a shared connection the others must live; Pingora's own timeout then ends this stream, with our reason.
        if !line.is_shared() {
            line.cut();
        }
    }

    /// Ends the tunnel of this exchange whatever its deadline: its backend is gone.
    pub(super) fn cut_tunnel(&self) {
        let Some(line) = self.line.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.deadline.store(NEVER, Relaxed);
        self.happened.store(Late::Leaving as u8 + 1, Relaxed);
        line.cut();
    }

    /// Who is late, and from when on: not a backend whose bytes a slow client keeps us from reading, and not a client
    /// whose bytes a slow backend does not take.
    fn judge(&self, late: Late, line: Option<&Line>) -> (Late, u64) {
        let (since, limit) = (self.since.load(Relaxed), self.limit.load(Relaxed));
        match late {
            Late::BetweenBytes if line.is_some_and(Line::has_unread) => (late, self.now().saturating_add(limit)),
            Late::Body | Late::SlowBody | Late::WholeRequest if line.is_some_and(|line| !line.has_room()) => {
                (Late::Request, since.saturating_add(self.limit_of_write.load(Relaxed)))
            }
            Late::FirstByte
            | Late::BetweenBytes
            | Late::Route
            | Late::Attempt
            | Late::Body
            | Late::SlowBody
            | Late::WholeRequest
            | Late::Request
            | Late::Leaving => (late, since.saturating_add(limit)),
        }
    }

    /// Arms the timer where the deadline asks for it, and fires when it has passed.
    fn poll(&self, timer: &mut Timer, context: &mut Context<'_>) {
        while let Some(deadline) = self.deadline() {
            timer.set_at(deadline);
            if !timer.has_rung(context) {
                return;
            }
            self.fire();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER)
}

/// Runs one exchange of a connection, so that its hooks find both the connection and a watch of its own.
///
/// The timer is the connection's, and mostly still armed from the exchange before: arming one costs more than waking up
/// once too often. Where exchanges overlap, as on HTTP/2, the others get timers of their own.
pub async fn watched<F: Future>(connection: Arc<Connection>, exchange: F) -> F::Output {
    let _open = connection.open_stream();
    let watch = Watch::new(connection.opened);
    let mut timer = connection.lend_timer();
    let mut exchange = pin!(connection::scope(connection.clone(), watch.clone(), exchange));
    let output = poll_fn(|context| {
        let result = exchange.as_mut().poll(context);
        if result.is_pending() {
            watch.poll(&mut timer, context);
        }
        result
    })
    .await;
    connection.keep_timer(timer);
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    fn example() -> Arc<Connection> {
        Arc::new(Connection::example(([127, 0, 0, 1], 1).into(), 80))
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_does_not_fire() {
        watched(example(), async {
            let (_, watch) = connection::current().unwrap();
            for _ in 0..5 {
                watch.expect(Instant::now().into_std(), Duration::from_secs(10), Late::FirstByte);
                tokio::time::advance(Duration::from_secs(9)).await;
            }
            assert_eq!(watch.take_late(), None);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_passes_cuts_the_line_and_tells_its_reason_once() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        watched(example(), async {
            let (_, watch) = connection::current().unwrap();
            watch.hold(Some(Line::to(&ours).unwrap()));
            watch.expect(Instant::now().into_std(), Duration::from_secs(60), Late::BetweenBytes);
            watch.expect(Instant::now().into_std(), Duration::from_secs(2), Late::Route);
            assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "the other side should see the end");
            assert_eq!(watch.take_late(), Some(Late::Route));
            assert_eq!(watch.take_late(), None);
        })
        .await;
        drop(ours);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_line_nothing_happens() {
        watched(example(), async {
            let (_, watch) = connection::current().unwrap();
            watch.expect(Instant::now().into_std(), Duration::from_secs(2), Late::Route);
            tokio::time::timeout(Duration::from_secs(3), std::future::pending::<()>()).await.unwrap_err();
            assert_eq!(watch.take_late(), None);
        })
        .await;
    }
}
