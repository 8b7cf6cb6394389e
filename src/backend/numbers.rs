//! What has a backend done? Counts, the last failure, and how long answers took.
//!
//! Everything on a request's way is a relaxed atomic; only a failure allocates. Nothing here reads a clock: the caller
//! brings the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::histogram::Histogram;

/// A failure's words are cut at this many characters: enough for one line of a table, whatever a backend made us say.
const LONGEST_WORDS: usize = 200;

/// `last_healthy` is written at most this often, so that a busy backend's cores do not fight over its cache line.
const HEALTHY_STEP_MS: u64 = 1000;

/// The living numbers of one backend.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    requests: AtomicU64,
    errors: AtomicU64,
    failures_in_row: AtomicU32,
    last_healthy_ms: AtomicU64,
    last_error: ArcSwapOption<LastError>,
    latencies: Histogram,
}

/// The last thing that went wrong with a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// A few words.
    pub what: String,
    /// When.
    pub at: SystemTime,
}

/// A backend's numbers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Attempts in all, failed ones included.
    pub requests: u64,
    /// Attempts that failed through its fault.
    pub errors: u64,
    /// Failures since the last success, of attempts and probes alike.
    pub failures_in_row: u32,
    /// When it was last known to be well.
    pub last_healthy: Option<SystemTime>,
    /// What went wrong last.
    pub last_error: Option<Arc<LastError>>,
    /// Half of the answers of the last minute took at most this long.
    pub p50: Option<Duration>,
    /// 95 in 100 answers of the last minute took at most this long.
    pub p95: Option<Duration>,
    /// 99 in 100 answers of the last minute took at most this long.
    pub p99: Option<Duration>,
}

impl Numbers {
    pub(super) fn answer(&self, latency: Duration, now: SystemTime) {
        self.requests.fetch_add(1, Relaxed);
        self.latencies.record(latency, now);
        self.seen_healthy(now);
        self.end_row();
    }

    pub(super) fn error_answer(&self, latency: Duration, what: &str, now: SystemTime) {
        self.latencies.record(latency, now);
        self.attempt_failed(what, now);
    }

    pub(super) fn waited(&self, time: Duration, now: SystemTime) {
        self.requests.fetch_add(1, Relaxed);
        self.latencies.record(time, now);
    }

    pub(super) fn latencies(&self) -> &Histogram {
        &self.latencies
    }

    pub(super) fn attempt_failed(&self, what: &str, now: SystemTime) {
        self.requests.fetch_add(1, Relaxed);
        self.errors.fetch_add(1, Relaxed);
        self.probe_failed(what, now);
    }

    pub(super) fn probe_passed(&self, now: SystemTime) {
        self.seen_healthy(now);
        self.end_row();
    }

    pub(super) fn probe_failed(&self, what: &str, now: SystemTime) {
        self.failures_in_row.fetch_add(1, Relaxed);
        let what = what.chars().take(LONGEST_WORDS).collect();
        self.last_error.store(Some(Arc::new(LastError { what, at: now })));
    }

    pub(super) fn seen_healthy(&self, now: SystemTime) {
        let now = unix_ms(now);
        if now.abs_diff(self.last_healthy_ms.load(Relaxed)) >= HEALTHY_STEP_MS {
            self.last_healthy_ms.store(now, Relaxed);
        }
    }

    pub(super) fn read(&self, now: SystemTime) -> Reading {
        let last_healthy_ms = self.last_healthy_ms.load(Relaxed);
        let [p50, p95, p99] = self.latencies.quantiles([0.5, 0.95, 0.99], now);
        Reading {
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            failures_in_row: self.failures_in_row.load(Relaxed),
            last_healthy: (last_healthy_ms > 0)
                .then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(last_healthy_ms)),
            last_error: self.last_error.load_full(),
            p50,
            p95,
            p99,
        }
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        (self.requests.load(Relaxed), self.errors.load(Relaxed))
    }

    /// Reads before it writes: the row is nearly always over already, and a read leaves the cache line shared.
    fn end_row(&self) {
        if self.failures_in_row.load(Relaxed) != 0 {
            self.failures_in_row.store(0, Relaxed);
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
