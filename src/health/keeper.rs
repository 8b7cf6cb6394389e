//! Who hears of it? The owner of one backend's state: takes events from tasks and requests, and tells what changed.
//!
//! The `machine` decides, behind a small lock that is taken for failures, probes, waits and timers. A request that
//! succeeds takes none: it reads one flag, which says whether anybody waits for a success.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::obey::Advice;
use super::{Age, Ladder, Machine, Pace, Window};
use crate::backend::{Backend, Standing, State};
use crate::config::{LiveHealth, Schedule};

/// So much of a field's value is shown in the log, whatever a backend makes of it.
const LONGEST_VALUE: usize = 60;

/// Told after a state has changed, or when the next timer is due at another time.
pub type OnChange = Arc<dyn Fn() + Send + Sync>;

/// The owner of one backend's state; it outlives reloads as the backend does.
pub struct Keeper {
    backend: Arc<Backend>,
    /// When it is probed.
    pub pace: Pace,
    born: Instant,
    kept: Mutex<Kept>,
    awaits_success: AtomicBool,
    is_low: AtomicBool,
    window: Window,
    /// Wakes the probes when a live request failed.
    doubt: Notify,
    /// Whether the operator has been told of an answer that could not be obeyed.
    odd_told: AtomicBool,
}

struct Kept {
    machine: Machine,
    shown: Seen,
    on_change: Option<OnChange>,
}

/// What others have been told.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: State,
    on_trial: bool,
    until: Option<Age>,
    deadline: Option<Age>,
}

impl Seen {
    fn of(machine: &Machine) -> Self {
        Self {
            state: machine.state(),
            on_trial: machine.is_on_trial(),
            until: machine.until(),
            deadline: machine.deadline(),
        }
    }
}

/// The right to the one request that tries a backend on trial, given back when it is dropped.
pub struct Trial(Arc<Keeper>);

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.change(Instant::now(), |machine, now| {
            machine.release_trial(now);
            None
        });
    }
}

impl Keeper {
    /// Takes over a backend of which nothing is known.
    pub fn new(backend: Arc<Backend>) -> Self {
        let machine = Machine::new();
        let shown = Seen::of(&machine);
        Self {
            backend,
            pace: Pace::default(),
            born: Instant::now(),
            kept: Mutex::new(Kept { machine, shown, on_change: None }),
            awaits_success: AtomicBool::new(false),
            is_low: AtomicBool::new(false),
            window: Window::default(),
            doubt: Notify::new(),
            odd_told: AtomicBool::new(false),
        }
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Whom to tell from now on; whoever was told before is not any more.
    pub fn tell(&self, on_change: OnChange) {
        self.lock().on_change = Some(on_change);
    }

    /// How it is probed from now on; `None` is not at all, and then it is taken to be well.
    pub fn probe_by(&self, schedule: Option<&Schedule>) {
        self.change(Instant::now(), |machine, _| {
            let ladder = machine.ladder();
            machine.set_ladder(match schedule {
                Some(schedule) => ladder.again(schedule.fall, schedule.rise),
                None => Ladder::unprobed(),
            });
            Some("not checked")
        });
    }

    /// The operator drains it, for this reason, or no longer.
    pub fn drain(&self, why: Option<&str>) {
        self.change(Instant::now(), |machine, _| {
            machine.drain(why.is_some());
            Some(why.unwrap_or("it takes requests again"))
        });
    }

    /// It is gone from the configuration, and only finishes what it has begun.
    pub fn leave(&self) {
        self.change(Instant::now(), |machine, _| {
            machine.drain(true);
            Some("it was removed")
        });
    }

    /// The outcome of a probe; a failure comes with a few words.
    pub fn probed(&self, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) => self.backend.record_probe_success(),
            Err(what) => self.backend.record_probe_failure(what),
        }
        let why = outcome.as_ref().map_or_else(String::as_str, |()| "probes pass");
        self.change(Instant::now(), |machine, now| {
            machine.probed(outcome.is_ok(), now);
            Some(why)
        });
    }

    /// How long to wait before the next probe; `random` is a fresh random number.
    pub fn pause(&self, schedule: &Schedule, random: u64) -> Duration {
        self.lock().machine.ladder().pause(schedule, random)
    }

    /// Waits until a live request has failed.
    pub async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// A live request succeeded. Gives how many had failed in a row before it, in case it fails later on.
    pub fn succeeded(&self, now: Instant, settings: &LiveHealth) -> u32 {
        if let Some(breaker) = &settings.breaker {
            self.window.add(1, 0, self.age(now), breaker.window);
        }
        if !self.awaits_success.load(Relaxed) {
            return 0;
        }
        let mut row = 0;
        self.change(now, |machine, now| {
            row = machine.row();
            machine.succeeded(now)
        });
        row
    }

    /// A live request failed through its fault; `row` is what [`Self::succeeded`] gave if it had seemed to succeed.
    /// Says why the backend deserves to be ejected, if it does; then `eject` or `spare` it.
    pub fn failed(&self, now: Instant, row: Option<u32>, settings: &LiveHealth) -> Option<&'static str> {
        let age = self.age(now);
        let tripped = settings.breaker.as_ref().is_some_and(|breaker| {
            self.window.add(u32::from(row.is_none()), 1, age, breaker.window);
            let (requests, failures) = self.window.counts(age, breaker.window);
            requests >= u64::from(breaker.of_at_least) && failures as f64 >= breaker.trip_at * requests as f64
        });
        let mut eject = None;
        self.change(now, |machine, _| {
            let consequence = machine.failed(row.unwrap_or(0), tripped, settings);
            if consequence.doubt {
                self.doubt.notify_one();
            }
            eject = consequence.eject;
            None
        });
        eject
    }

    /// Ejects it.
    pub fn eject(&self, now: Instant, why: &str, settings: &LiveHealth) {
        self.window.clear();
        self.backend.counts.ejections.one();
        self.change(now, |machine, now| {
            machine.eject(now, settings);
            Some(why)
        });
    }

    /// Does not eject it, because nobody could do its work.
    pub fn spare(&self, now: Instant, why: &str) {
        self.window.clear();
        self.change(now, |machine, _| {
            machine.spare();
            None
        });
        let (upstream, name) = (&self.backend.upstream, &self.backend.name);
        log::debug!(target: "portcullis::health", "upstream {upstream}: backend {name} is needed and not ejected: {why}");
    }

    /// It said something of how long it wants to be left alone, in a field of this value. Says whether it now is.
    pub fn advised(&self, now: Instant, advice: &Advice, value: &[u8]) -> bool {
        if let Some(odd) = advice.odd
            && !self.odd_told.swap(true, Relaxed)
        {
            let (upstream, name, field, odd) = (&self.backend.upstream, &self.backend.name, advice.field, odd.as_str());
            let value: String = String::from_utf8_lossy(value).chars().take(LONGEST_VALUE).collect();
            log::warn!(
                target: "portcullis::health",
                "upstream {upstream}: backend {name} sent {field} {value:?}: {odd} (told once)"
            );
        }
        // It says so with every response; the first is enough.
        if let Some(low) = advice.low.filter(|_| !self.is_low()) {
            self.change(now, |machine, now| {
                machine.run_low(now.saturating_add(low));
                None
            });
        }
        let Some(wait) = advice.wait else { return false };
        self.change(now, |machine, now| {
            machine.throttle(now.saturating_add(wait));
            Some(advice.field)
        });
        true
    }

    /// Whether its quota is nearly used up, so that others shall be asked rather.
    pub fn is_low(&self) -> bool {
        self.is_low.load(Relaxed)
    }

    /// Takes the right to the one request that may try it, if it is on trial and nobody else tries it.
    pub fn claim_trial(self: &Arc<Self>) -> Option<Trial> {
        let claimed = self.lock().machine.claim_trial();
        claimed.then(|| Trial(self.clone()))
    }

    /// Ends what ends by itself.
    pub fn tick(&self, now: Instant) {
        self.change(now, |machine, now| machine.tick(now));
    }

    /// When [`Self::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().machine.deadline().map(|deadline| self.born + deadline)
    }

    fn age(&self, now: Instant) -> Age {
        now.saturating_duration_since(self.born)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something happen, and tells what it has changed. `happen` gives the reason.
    fn change<'a>(&self, now: Instant, happen: impl FnOnce(&mut Machine, Age) -> Option<&'a str>) {
        let now = self.age(now);
        let mut kept = self.lock();
        let why = happen(&mut kept.machine, now);
        self.awaits_success.store(kept.machine.awaits_success(), Relaxed);
        self.is_low.store(kept.machine.is_low(), Relaxed);
        let (before, after) = (kept.shown, Seen::of(&kept.machine));
        if before == after {
            return;
        }
        kept.shown = after;
        let left = after.until.map(|until| until.saturating_sub(now));
        let until = left.and_then(|left| SystemTime::now().checked_add(left));
        self.backend.set_standing(Standing { state: after.state, until, on_trial: after.on_trial });
        if (before.state, before.on_trial) != (after.state, after.on_trial) {
            self.log(after, left, why.unwrap_or_default());
            self.backend.note(before.state, after.state, why.unwrap_or_default());
        }
        if let Some(on_change) = &kept.on_change {
            on_change();
        }
    }

    fn log(&self, now: Seen, left: Option<Duration>, why: &str) {
        let good = matches!(now.state, State::Healthy | State::Pending | State::Draining) || now.on_trial;
        let level = if good { log::Level::Info } else { log::Level::Warn };
        let (upstream, name, state, why) = (&self.backend.upstream, &self.backend.name, now.state, why.escape_debug());
        let left = left.map(|left| format!(" for {:.1}s", left.as_secs_f64())).unwrap_or_default();
        log::log!(target: "portcullis::health", level, "upstream {upstream}: backend {name} is {state}{left}: {why}");
    }
}
