//! When does a backend rise or fall? Successes and failures in a row.

use std::time::Duration;

use crate::backend::State;
use crate::config::Schedule;

/// The state of one backend, as its probes see it.
#[derive(Debug)]
pub struct Ladder {
    fall: u32,
    rise: u32,
    state: State,
    against: u32,
}

impl Ladder {
    /// PENDING; the first result decides.
    pub fn new(fall: u32, rise: u32) -> Self {
        Self { fall, rise, state: State::Pending, against: 0 }
    }

    /// Takes a result in; gives the new state if that changed it.
    pub fn record(&mut self, success: bool) -> Option<State> {
        let (next, needed) = if success { (State::Healthy, self.rise) } else { (State::Unreachable, self.fall) };
        if next == self.state {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.state != State::Pending && self.against < needed {
            return None;
        }
        self.against = 0;
        self.state = next;
        Some(next)
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Until the next probe.
    pub fn pause(&self, schedule: &Schedule, random: u64) -> Duration {
        let pause = if self.against > 0 { schedule.fast_interval } else { schedule.interval };
        pause.mul_f64(0.9 + 0.2 * (random as f64 / u64::MAX as f64))
    }
}
