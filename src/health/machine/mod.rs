//! How is it, all things considered? The one state of a backend from all that is known of it.
//!
//! Four things are known, each with its own events: what the probes say (`ladder`), until when it asked to be left
//! alone, whether live requests failed, and whether the operator drains it. The state is the first of these that
//! holds:
//!
//! 1. DRAINING, while the operator says so;
//! 2. THROTTLED until a moment;
//! 3. UNREACHABLE by its probes;
//! 4. EJECTED until a moment, then on trial;
//! 5. PENDING or HEALTHY, as its probes say.
//!
//! So nothing is forgotten behind something else, and nothing gets stuck: what ends by itself has a moment at which
//! [`Machine::tick`] ends it, and `tests` walks through every state that can be reached.
//!
//! *On trial*: when the time of an ejection is over, one request at a time is let through. The first that succeeds
//! makes it HEALTHY; one that fails ejects it again, for longer. If none comes, as to a backup that nobody needs, the
//! trial ends by itself. One that was UNREACHABLE and is back goes on trial at once. Otherwise a probe that passes ends
//! neither: it speaks of the port, or of a page made for probes, and the ejection is about what requests have met. Reads
//! no clock.

use std::time::Duration;

use super::{Ladder, Rung};
use crate::backend::State;
use crate::config::LiveHealth;

/// A request that tries a backend has so much longer than the wait for one; then another may try. Otherwise a client that
/// uploads for an hour would keep the backend out.
const LONGEST_TRIAL: Duration = Duration::from_secs(30);

/// A point in time, as the age of whoever keeps the machine. (A `Moment` is a tick of the estimates, in `backend`.)
pub type Age = Duration;

/// Everything that decides the state of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    ladder: Ladder,
    drained: bool,
    throttled: Option<Age>,
    ejection: Ejection,
    /// Until when its quota is nearly used up. This is no state: it takes requests, only fewer.
    low: Option<Age>,
    /// Live failures without a success in between.
    row: u32,
    /// How many ejections in the past still make the next one longer.
    times: u32,
    /// Since when it has not been ejected.
    well_since: Age,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ejection {
    None,
    Until { until: Age, patience: Duration },
    Trial { taken: bool, until: Age, patience: Duration },
}

/// What follows from the failure of a live request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequence {
    /// The next probe is due sooner.
    pub doubt: bool,
    /// It deserves to be ejected, for this reason. Whether it can be spared is for its upstream to say.
    pub eject: Option<&'static str>,
}

impl Machine {
    /// A backend of which nothing is known.
    pub fn new() -> Self {
        Self {
            ladder: Ladder::new(1, 1),
            drained: false,
            throttled: None,
            ejection: Ejection::None,
            low: None,
            row: 0,
            times: 0,
            well_since: Age::ZERO,
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        match (self.throttled, self.ladder.rung(), self.ejection) {
            _ if self.drained => State::Draining,
            (Some(_), ..) => State::Throttled,
            (None, Rung::Down, _) => State::Unreachable,
            (None, Rung::Up | Rung::Unknown, Ejection::Until { .. } | Ejection::Trial { .. }) => State::Ejected,
            (None, Rung::Unknown, Ejection::None) => State::Pending,
            (None, Rung::Up, Ejection::None) => State::Healthy,
        }
    }

    /// When the state ends by itself, if it does.
    pub fn until(&self) -> Option<Age> {
        match (self.state(), self.ejection) {
            (State::Throttled, _) => self.throttled,
            (State::Ejected, Ejection::Until { until, .. }) => Some(until),
            (State::Ejected, Ejection::None | Ejection::Trial { .. }) => None,
            (State::Pending | State::Healthy | State::Unreachable | State::Draining, _) => None,
        }
    }

    /// Whether it is EJECTED, its time is over, and single requests try it.
    pub fn is_on_trial(&self) -> bool {
        self.state() == State::Ejected && matches!(self.ejection, Ejection::Trial { .. })
    }

    /// When `tick` has something to do next.
    pub fn deadline(&self) -> Option<Age> {
        let ejection = match self.ejection {
            Ejection::Until { until, .. } | Ejection::Trial { taken: false, until, .. } => Some(until),
            Ejection::Trial { taken: true, until, .. } => Some(until + LONGEST_TRIAL),
            Ejection::None => None,
        };
        [self.throttled, self.low, ejection].into_iter().flatten().min()
    }

    /// Whether a success would change anything. Nearly always it would not.
    pub fn awaits_success(&self) -> bool {
        self.row > 0 || matches!(self.ejection, Ejection::Trial { .. })
    }

    /// Live failures without a success in between.
    pub fn row(&self) -> u32 {
        self.row
    }

    /// What its probes say.
    pub fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// How it is probed from now on.
    pub fn set_ladder(&mut self, ladder: Ladder) {
        self.ladder = ladder;
    }

    /// The result of a probe.
    pub fn probed(&mut self, success: bool, now: Age) {
        let before = self.ladder.rung();
        self.ladder.record(success);
        // It was gone and is back, which is most likely what requests have met: they try it at once.
        if (before, self.ladder.rung()) == (Rung::Down, Rung::Up) {
            self.end_ejection(now);
        }
    }

    /// From now on single requests try it, if it is ejected.
    fn end_ejection(&mut self, now: Age) {
        if let Ejection::Until { patience, .. } = self.ejection {
            self.ejection = Ejection::Trial { taken: false, until: now + patience, patience };
        }
    }

    /// The operator drains it, or no longer.
    pub fn drain(&mut self, drained: bool) {
        self.drained = drained;
    }

    /// It asked to be left alone until a moment. Answers overtake each other, so the longest wait holds.
    pub fn throttle(&mut self, until: Age) {
        self.throttled = self.throttled.max(Some(until));
    }

    /// Its quota is nearly used up, until a moment.
    pub fn run_low(&mut self, until: Age) {
        self.low = self.low.max(Some(until));
    }

    /// Whether its quota is nearly used up.
    pub fn is_low(&self) -> bool {
        self.low.is_some()
    }

    /// A live request succeeded. Says why that changes its state, if it does.
    pub fn succeeded(&mut self, now: Age) -> Option<&'static str> {
        self.row = 0;
        if let Ejection::Trial { .. } = self.ejection {
            self.ejection = Ejection::None;
            self.well_since = now;
            return Some("a request on trial succeeded");
        }
        None
    }

    /// A live request failed through its fault. `row` are the failures that stood in a row before this request seemed
    /// to succeed; `tripped` is whether too many of the last requests failed.
    pub fn failed(&mut self, row: u32, tripped: bool, settings: &LiveHealth) -> Consequence {
        let doubt = self.ladder.doubt();
        let eject = match self.ejection {
            // Requests that were on their way when it was ejected tell nothing new.
            Ejection::Until { .. } => None,
            Ejection::Trial { .. } => Some("a request on trial failed"),
            Ejection::None => {
                self.row = self.row.max(row).saturating_add(1);
                let in_a_row = settings.consecutive_failures.is_some_and(|most| self.row >= most);
                in_a_row.then_some("requests fail in a row").or(tripped.then_some("the breaker tripped"))
            }
        };
        Consequence { doubt, eject }
    }

    /// Ejects it: for `ejection` at first, then for twice that, three times, up to `max_ejection`. Each time that it
    /// is well for as long as a first ejection lasts takes one step back.
    pub fn eject(&mut self, now: Age, settings: &LiveHealth) {
        let step = settings.ejection.max(Duration::from_millis(1));
        match self.ejection {
            Ejection::Until { .. } => return,
            Ejection::Trial { .. } => {}
            Ejection::None => {
                let steps = now.saturating_sub(self.well_since).as_nanos() / step.as_nanos();
                self.times = self.times.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
            }
        }
        let most = settings.max_ejection.max(step);
        let longest = u32::try_from(most.as_nanos().div_ceil(step.as_nanos())).unwrap_or(u32::MAX);
        self.times = self.times.saturating_add(1).min(longest);
        self.ejection =
            Ejection::Until { until: now + step.saturating_mul(self.times).min(most), patience: settings.ejection };
        self.row = 0;
    }

    /// It would be ejected if its upstream could do without it.
    pub fn spare(&mut self) {
        self.row = 0;
    }

    /// Takes the right to the one request that may try it now; to be given back with `release`.
    pub fn claim_trial(&mut self) -> bool {
        match &mut self.ejection {
            Ejection::Trial { taken, .. } if !*taken => {
                *taken = true;
                true
            }
            Ejection::Trial { .. } | Ejection::None | Ejection::Until { .. } => false,
        }
    }

    /// The request that tried it is over, whatever became of it.
    pub fn release_trial(&mut self, now: Age) {
        if let Ejection::Trial { taken, until, patience } = &mut self.ejection {
            (*taken, *until) = (false, now + *patience);
        }
    }

    /// Time has passed. Says why that changes its state, if it does.
    pub fn tick(&mut self, now: Age) -> Option<&'static str> {
        let mut why = None;
        self.low = self.low.filter(|until| *until > now);
        if self.throttled.is_some_and(|until| until <= now) {
            self.throttled = None;
            why = Some("its wait is over");
        }
        match self.ejection {
            Ejection::Until { until, .. } if until <= now => {
                self.end_ejection(now);
                why = why.or(Some("its ejection is over, single requests try it"));
            }
            Ejection::Trial { taken: false, until, .. } if until <= now => {
                (self.ejection, self.well_since) = (Ejection::None, now);
                why = why.or(Some("no request has failed on trial"));
            }
            Ejection::Trial { taken: true, until, patience } if until + LONGEST_TRIAL <= now => {
                self.ejection = Ejection::Trial { taken: false, until: now + patience, patience };
            }
            Ejection::None | Ejection::Until { .. } | Ejection::Trial { .. } => {}
        }
        why
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
