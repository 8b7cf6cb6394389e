//! What did each second bring? The last minute of one backend, for a sparkline and for rates that do not jump.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::{ms, tenths};

/// Seconds that are remembered.
pub const SECONDS: usize = 60;

/// Rates are of so many seconds: of one alone they jump.
const RATE_OVER: usize = 5;

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LastSecond {
    /// Attempts.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// The 95th percentile of the latency; `None` without an answer.
    pub p95_ms: Option<f64>,
}

/// The last minute, second by second, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Series {
    /// Attempts.
    pub requests: Vec<u64>,
    /// The 95th percentile of the latency.
    pub p95_ms: Vec<Option<f64>>,
}

/// The last minute of one backend.
#[derive(Debug, Default)]
pub struct History {
    totals: Option<(u64, u64)>,
    seconds: VecDeque<LastSecond>,
}

impl History {
    /// A second is over: attempts and failures since the backend is known, and the 95th percentile of that second.
    pub fn add(&mut self, (requests, errors): (u64, u64), p95: Option<Duration>) {
        // Of the time before we looked nothing is known.
        let (before, failed) = self.totals.replace((requests, errors)).unwrap_or((requests, errors));
        if self.seconds.len() == SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(LastSecond {
            requests: requests.saturating_sub(before),
            errors: errors.saturating_sub(failed),
            p95_ms: p95.map(ms),
        });
    }

    /// The last whole second.
    pub fn last(&self) -> LastSecond {
        self.seconds.back().copied().unwrap_or_default()
    }

    /// Attempts and failures a second, lately.
    pub fn rates(&self) -> (f64, f64) {
        let recent = self.seconds.iter().rev().take(RATE_OVER);
        let (count, requests, errors) =
            recent.fold((0_u64, 0, 0), |(count, all, bad), it| (count + 1, all + it.requests, bad + it.errors));
        let rate = |sum: u64| tenths(sum as f64 / count.max(1) as f64);
        (rate(requests), rate(errors))
    }

    /// All of it.
    pub fn series(&self) -> Series {
        let (requests, p95_ms) = self.seconds.iter().map(|it| (it.requests, it.p95_ms)).unzip();
        Series { requests, p95_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_seconds_and_begin_with_nothing() {
        let mut history = History::default();
        assert_eq!(history.rates(), (0.0, 0.0));
        history.add((1000, 10), None);
        assert_eq!(history.last().requests, 0, "who was there before us is no burst");
        for second in 1..=10 {
            history.add((1000 + second * 30, 10 + second), Some(Duration::from_millis(second)));
        }
        assert_eq!(history.rates(), (30.0, 1.0));
        assert_eq!(history.last(), LastSecond { requests: 30, errors: 1, p95_ms: Some(10.0) });
        history.add((0, 0), None);
        assert_eq!(history.last().requests, 0, "it was removed and came back");
    }

    #[test]
    fn a_minute_is_remembered_and_no_more() {
        let mut history = History::default();
        (0..200).for_each(|second| history.add((second, 0), None));
        let series = history.series();
        assert_eq!((series.requests.len(), series.p95_ms.len()), (SECONDS, SECONDS));
    }
}
