//! How long may the head of a response take? The shortest of three spans of time, and what is late when it is over.

use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::watch::Late;

/// Spans of time in which the head of a response must come, each with its beginning but for the first: that one begins
/// when the last byte has been sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    first_byte: Duration,
    of_attempt: (Instant, Duration),
    of_route: (Instant, Duration),
}

impl Patience {
    /// How long it may take from now on, and what is late then.
    pub(super) fn at(self, now: Instant) -> (Duration, Late) {
        let left = |(began, span): (Instant, Duration)| span.saturating_sub(now.saturating_duration_since(began));
        let (of_attempt, of_route) = (left(self.of_attempt), left(self.of_route));
        let (limit, late) = match of_attempt < self.first_byte {
            true => (of_attempt, Late::Attempt),
            false => (self.first_byte, Late::FirstByte),
        };
        if of_route < limit { (of_route, Late::Route) } else { (limit, late) }
    }
}

impl Exchange {
    /// How long the head of the response to an attempt may take.
    pub(super) fn patience(&self, began: Instant, first_byte: Duration) -> Patience {
        let plan = self.plan.as_ref();
        let per_attempt = plan.and_then(|plan| plan.retry.per_attempt).unwrap_or(Duration::MAX);
        let of_route = plan.map_or(Duration::MAX, |plan| plan.timeout);
        Patience {
            first_byte,
            of_attempt: (began, per_attempt),
            of_route: (self.request_ended.unwrap_or(began), of_route),
        }
    }
}
