//! Who waits, and who is next? The queue of an upstream whose backends have as much as they may have.
//!
//! A place that is given back is handed to the first in line who can use it, so nobody who comes later overtakes, and
//! who leaves takes no place along. The queue belongs to the upstream by its name: it outlives reloads, and those who
//! wait are served by the upstream as it is then. While nobody waits it costs one look at a number, and where there are
//! no limits nothing at all.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Upstream;
use super::pick::{Missed, Pick, Want, whole_seconds};
use crate::answer::Refusal;
use crate::backend::{Moment, Seat};
use crate::balance::Ask;
use crate::count::{Durations, Words};
use crate::limit::{Line, Place};
use crate::observe::seldom::Seldom;

/// While somebody waits, somebody looks so often: requests that were picked before a reload brought the limits tell
/// nobody when they end.
const LOOK: Duration = Duration::from_millis(100);

/// Timers ring at the next whole one of these.
const MOMENT: Duration = Duration::from_millis(1);

/// Those who wait for a backend of one upstream.
#[derive(Default)]
pub(super) struct Queue {
    /// How many there are, for those who look without the lock.
    waiting: AtomicUsize,
    state: Mutex<State>,
    /// How waits have ended.
    waits: Words,
    /// How long those waited that were served.
    served_after: Durations,
    full: Seldom,
    late: Seldom,
}

#[derive(Default)]
struct State {
    line: Line<Waiter>,
    /// The upstream as it is now.
    upstream: Weak<Upstream>,
    /// Whether a task looks after it.
    is_tended: bool,
}

struct Waiter {
    ask: Ask,
    tried: Vec<Seat>,
    session: Option<Seat>,
    /// Dropped when somebody of higher priority takes the place.
    give: oneshot::Sender<Result<Pick, Missed>>,
}

/// What a pick holds where there are limits: when it ends, the next in line gets its place.
pub(super) struct Hold(Arc<Queue>);

impl Hold {
    pub(super) fn new(queue: &Arc<Queue>) -> Self {
        Self(queue.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Whoever joins counts itself first and then looks for a place; we have given ours back and now look whether
        // anybody waits. With both fences at least one of us sees the other.
        fence(SeqCst);
        if !self.0.is_empty() {
            self.0.serve();
        }
    }
}

/// A place in the queue, left when it is dropped.
struct Ticket<'a> {
    queue: &'a Queue,
    place: Place,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        // A pick that is on its way is given back with the channel, and goes to the next.
        let waiter = state.line.leave(self.place);
        self.queue.count(&state);
        drop(state);
        drop(waiter);
    }
}

/// What is counted of a wait that was served, and of one that was given up.
const SERVED: &str = "served";
const CLIENT_GONE: &str = "client_gone";

/// A wait, which is counted when it ends, whatever ends it.
struct Wait<'a> {
    queue: &'a Queue,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.queue.waits.say(self.outcome);
        if self.outcome == SERVED {
            self.queue.served_after.took(self.began.elapsed());
        }
    }
}

impl Queue {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Those who wait are served by this upstream from now on.
    pub(super) fn belongs_to(&self, upstream: &Arc<Upstream>) {
        self.lock().upstream = Arc::downgrade(upstream);
    }

    /// Something has changed: serves whom it can, in order.
    pub(super) fn look(&self) {
        if !self.is_empty() {
            self.serve();
        }
    }

    /// Gives those who wait what there is. Whoever cannot use what others could is passed over and stays first.
    fn serve(&self) {
        let mut given = Vec::new();
        let mut state = self.lock();
        let upstream = state.upstream.upgrade();
        let mut last = None;
        while let Some((place, waiter)) = state.line.after(last) {
            last = Some(place);
            let outcome = upstream.as_ref().map_or(Err(Missed::Nobody), |upstream| upstream.claim_for(waiter));
            match (outcome, waiter.tried.is_empty()) {
                // Who has tried nobody can use whatever anybody can.
                (Err(Missed::Full), true) => break,
                (Err(Missed::Full), false) => {}
                (outcome, _) => given.extend(state.line.leave(place).map(|waiter| (waiter, outcome))),
            }
        }
        self.count(&state);
        drop(state);
        for (waiter, outcome) in given {
            // Whoever has just left drops the pick, which serves the next.
            let _ = waiter.give.send(outcome);
        }
    }

    /// Joins the line, if there is room.
    fn join(
        self: &Arc<Self>,
        want: &Want<'_>,
        size: usize,
    ) -> Option<(Ticket<'_>, oneshot::Receiver<Result<Pick, Missed>>)> {
        let (give, given) = oneshot::channel();
        let waiter = Waiter { ask: want.ask, tried: want.tried.to_vec(), session: want.session, give };
        let mut state = self.lock();
        let (place, _evicted) = state.line.join(want.priority, size, waiter)?;
        self.count(&state);
        if !std::mem::replace(&mut state.is_tended, true) {
            tokio::spawn(self.clone().tend());
        }
        Some((Ticket { queue: self, place }, given))
    }

    /// Looks now and then, as long as anybody waits.
    async fn tend(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.next_look()).await;
            self.serve();
            let mut state = self.lock();
            state.is_tended = !state.line.is_empty();
            if !state.is_tended {
                return;
            }
        }
    }

    /// When a quota may have something left again, or soon.
    fn next_look(&self) -> Duration {
        let upstream = self.lock().upstream.upgrade();
        let opens_in = upstream.map_or(Duration::ZERO, |upstream| upstream.opens_in(&[]));
        if opens_in.is_zero() { LOOK } else { (opens_in + MOMENT).min(LOOK) }
    }

    fn count(&self, state: &State) {
        self.waiting.store(state.line.len(), Relaxed);
        fence(SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// How many requests wait for a backend; `None` where none ever has to.
    pub fn waiting(&self) -> Option<usize> {
        self.is_limited.then(|| self.queue.len())
    }

    /// How waits have ended, and how long those took that ended well; `None` where nobody ever has to wait.
    pub fn waits(&self) -> Option<(&Words, &Durations)> {
        self.is_limited.then_some((&self.queue.waits, &self.queue.served_after))
    }

    /// Waits for a backend while all that could serve have as much as they may have: at most for the time of the queue and
    /// for `want.within`. Dropping the future leaves the queue.
    pub async fn wait(self: &Arc<Self>, want: &Want<'_>) -> Result<Pick, Refusal> {
        let mut wait = Wait { queue: &self.queue, began: Instant::now(), outcome: CLIENT_GONE };
        let waited = self.wait_in_line(want).await;
        wait.outcome = waited.as_ref().map_or_else(|refusal| refusal.label(), |_| SERVED);
        waited
    }

    async fn wait_in_line(self: &Arc<Self>, want: &Want<'_>) -> Result<Pick, Refusal> {
        if let Some(refusal) = self.refuse_where_no_wait_helps(want) {
            return Err(refusal);
        }
        let joined = self.config.queue.as_ref().and_then(|settings| {
            let (ticket, given) = self.queue.join(want, settings.size)?;
            Some((settings.timeout, ticket, given))
        });
        let Some((timeout, _ticket, given)) = joined else { return Err(self.refuse_for_a_full_queue()) };
        // What was there when we asked may have been given back before we joined.
        self.queue.serve();
        match tokio::time::timeout(timeout.min(want.within), given).await {
            Ok(Ok(Ok(pick))) => Ok(pick),
            Ok(Ok(Err(_))) => Err(self.refuse_for_nobody()),
            // Somebody of higher priority has taken the place.
            Ok(Err(_)) => Err(self.refuse_for_a_full_queue()),
            Err(_) if want.within < timeout => Err(Refusal::RouteTimeout),
            Err(_) => Err(self.refuse_for_a_long_wait(want.tried)),
        }
    }

    fn claim_for(self: &Arc<Self>, waiter: &Waiter) -> Result<Pick, Missed> {
        let of_session = waiter.session.and_then(|seat| self.claim_again(seat, &waiter.tried));
        // What the policy knows of the moment was true when it began to wait.
        let ask = Ask { now: Moment::of(Instant::now()), ..waiter.ask };
        of_session.map_or_else(|| self.claim(&ask, &waiter.tried), Ok)
    }

    fn refuse_for_a_full_queue(&self) -> Refusal {
        if let Some(kept_back) = self.queue.full.may_log() {
            let (name, size) = (self.name(), self.config.queue.as_ref().map_or(0, |queue| queue.size));
            log::warn!(
                "upstream {name}: its backends have as much as they may have and {size} requests wait, so more are refused \
                 ({kept_back} more)"
            );
        }
        Refusal::QueueFull { retry_after: self.worth_another_try() }
    }

    fn refuse_for_a_long_wait(&self, tried: &[Seat]) -> Refusal {
        if let Some(kept_back) = self.queue.late.may_log() {
            let name = self.name();
            log::warn!(
                "upstream {name}: its backends have as much as they may have, and a request waited too long for one \
                 ({kept_back} more)"
            );
        }
        let opens_in = self.opens_in(tried);
        let retry_after = if opens_in.is_zero() { self.worth_another_try() } else { whole_seconds(opens_in) };
        Refusal::QueueTimeout { retry_after }
    }

    /// All have used up their quotas for longer than the request can wait.
    fn refuse_where_no_wait_helps(&self, want: &Want<'_>) -> Option<Refusal> {
        let opens_in = self.opens_in(want.tried);
        let patience = self.queue_timeout().min(want.within);
        (opens_in > patience).then(|| Refusal::QuotaUsedUp { retry_after: whole_seconds(opens_in) })
    }

    /// In how many seconds it may be worth another try: nobody knows when a request in flight ends, but who comes back
    /// sooner than a request waits makes it worse.
    fn worth_another_try(&self) -> u32 {
        whole_seconds(self.queue_timeout())
    }

    /// How long requests may wait; not at all where there is no queue.
    fn queue_timeout(&self) -> Duration {
        self.config.queue.as_ref().map_or(Duration::ZERO, |queue| queue.timeout)
    }
}
