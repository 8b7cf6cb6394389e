//! Does it make sense what live requests shall do to a backend?

use std::time::Duration;

use super::Check;
use crate::config::file::{self, Marked};
use crate::config::{Breaker, LiveHealth, Obey};

/// A window has ten steps, and a step in which hardly a request comes tells nothing.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

impl Check<'_> {
    pub(super) fn live_health(&mut self, upstream: &file::Upstream) -> LiveHealth {
        let breaker = upstream.breaker.as_ref().map(|breaker| self.breaker(breaker));
        // A breaker alone ejects as passive health would.
        let mut live = LiveHealth {
            consecutive_failures: None,
            breaker,
            ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.5,
        };
        let Some(passive) = upstream.passive_health.as_ref() else { return live };
        if passive.max_ejection.0 < passive.ejection.0 {
            let help = "give it at least the time of a first ejection, which is `ejection`";
            self.problems.error(&passive.max_ejection.at, "no ejection is as short as that", help);
        }
        self.share(&passive.max_ejected, "to eject none, write `passive_health: none`");
        live.consecutive_failures = Some(passive.consecutive_failures.get());
        (live.ejection, live.max_ejection) = (passive.ejection.0, passive.max_ejection.0);
        live.max_ejected = passive.max_ejected.0;
        live
    }

    fn breaker(&mut self, breaker: &file::Breaker) -> Breaker {
        self.share(&breaker.trip_at, "50% is a good start");
        if breaker.window.0 < SHORTEST_WINDOW {
            self.problems.error(&breaker.window.at, "so short a window sees hardly a request", "give it at least 1s");
        }
        Breaker { trip_at: breaker.trip_at.0, of_at_least: breaker.of_at_least.get(), window: breaker.window.0 }
    }

    fn share(&mut self, share: &Marked<file::Share>, help: &str) {
        if !(0.01..=1.0).contains(&share.0) {
            self.problems.error(&share.at, "this share lies between 1% and 100%", help);
        }
    }
}

/// Everything that can be written makes sense.
pub(super) fn obey(upstream: &file::Upstream) -> Obey {
    let obey = &upstream.obey;
    Obey { retry_after: *obey.retry_after, rate_limit_fields: *obey.rate_limit_fields, max: obey.max.0 }
}
