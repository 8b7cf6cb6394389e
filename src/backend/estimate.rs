//! How long does an answer of each server take? Estimates that jump up at once and come down slowly.
//!
//! One estimate a seat, beside the in-flight counts and as long-lived. A latency above the estimate replaces it, one
//! below moves it by what the time since the last one is worth, with a time constant of 10 s. A reading decays in the
//! same way towards [`Estimates::LEAST`], so that a server that was slow, and is therefore not asked, is asked again some
//! time; what is known is not written by a reading. An estimate and its moment are one atomic word: no lock, and no
//! reader sees one without the other. Nothing here reads a clock but [`Moment::of`], which is handed one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::seat::{SEATS_PER_BLOCK, Seat};

/// Since when moments are counted.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One step of a [`Moment`]: fine enough beside a time constant of 10 s, and 32 bits of it last for two years.
const STEP_MS: u128 = 16;

/// The time constant of the decay.
const TAU_SECS: f32 = 10.0;

/// What an answer is taken to need before there was one: above a quick one, and far below a timeout.
const UNKNOWN: Duration = Duration::from_millis(30);

/// What a failure counts as, at least: more than any answer that a client waits for with patience.
const FAILED: Duration = Duration::from_secs(5);

/// The highest estimate: it is forgotten within some two minutes.
const MOST: Duration = Duration::from_secs(300);

/// A moment, in steps of 16 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment(u32);

impl Moment {
    /// The moment at which a clock showed this.
    pub fn of(now: Instant) -> Self {
        Self::after(now.saturating_duration_since(*EPOCH))
    }

    /// The moment so long after the beginning.
    pub fn after(time: Duration) -> Self {
        // Beyond 32 bits it begins anew: only differences matter.
        Self((time.as_millis() / STEP_MS) as u32)
    }

    fn secs_since(self, earlier: Self) -> f32 {
        let steps = self.0.wrapping_sub(earlier.0);
        // Two threads may be in each other's past by a step.
        let steps = if steps > u32::MAX / 2 { 0 } else { steps };
        steps as f32 * (STEP_MS as f32 / 1000.0)
    }
}

/// The estimates of an upstream, by seat.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    blocks: Box<[Arc<Block>]>,
}

#[derive(Debug)]
struct Block {
    by_seat: [AtomicU64; SEATS_PER_BLOCK],
}

impl Default for Block {
    fn default() -> Self {
        let unknown = Estimate::unknown(Moment::default()).packed();
        Self { by_seat: std::array::from_fn(|_| AtomicU64::new(unknown)) }
    }
}

impl Estimates {
    /// No reading is below: on a network, less than a millisecond says nothing about a server.
    pub const LEAST: f32 = 0.001;

    /// The same estimates, with room for at least `seats` seats.
    #[must_use]
    pub fn grown(&self, seats: usize) -> Self {
        let mut blocks = self.blocks.to_vec();
        blocks.resize_with(seats.div_ceil(SEATS_PER_BLOCK).max(blocks.len()), Arc::default);
        Self { blocks: blocks.into() }
    }

    /// The estimate of a seat, in seconds; one that nothing is known about is at 30 ms when it begins.
    pub fn at(&self, seat: Seat, now: Moment) -> f32 {
        self.word(seat).map_or(Self::LEAST, |word| Estimate::unpacked(word.load(Relaxed)).at(now).max(Self::LEAST))
    }

    /// Takes an answer into account.
    pub fn answered(&self, seat: Seat, latency: Duration, now: Moment) {
        self.update(seat, |estimate| estimate.with(seconds(latency), now));
    }

    /// Takes a failure into account, which asks for a pause of `retry_after`. It never makes an estimate better, or a
    /// server that fails at once would be the quickest of all.
    pub fn failed(&self, seat: Seat, retry_after: Option<Duration>, now: Moment) {
        let penalty = seconds(retry_after.unwrap_or_default().clamp(FAILED, MOST));
        self.update(seat, |estimate| estimate.at_least(penalty, now));
    }

    /// Takes into account that nothing had come after so long.
    pub fn waited(&self, seat: Seat, time: Duration, now: Moment) {
        let time = seconds(time);
        self.update(seat, |estimate| if estimate.at(now) < time { estimate.at_least(time, now) } else { estimate });
    }

    /// Forgets what was known: somebody else sits there from now on.
    pub fn forget(&self, seat: Seat, now: Moment) {
        self.update(seat, |_| Estimate::unknown(now));
    }

    fn word(&self, seat: Seat) -> Option<&AtomicU64> {
        self.blocks.get(seat.block())?.by_seat.get(seat.offset())
    }

    fn update(&self, seat: Seat, change: impl Fn(Estimate) -> Estimate) {
        if let Some(word) = self.word(seat) {
            let changed = |packed| Some(change(Estimate::unpacked(packed)).packed());
            // It cannot fail: the change always gives a word.
            let _ = word.fetch_update(Relaxed, Relaxed, changed);
        }
    }
}

fn seconds(time: Duration) -> f32 {
    time.min(MOST).as_secs_f32()
}

/// So many seconds, at that moment.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    secs: f32,
    moment: Moment,
}

impl Estimate {
    fn unknown(moment: Moment) -> Self {
        Self { secs: UNKNOWN.as_secs_f32(), moment }
    }

    fn packed(self) -> u64 {
        u64::from(self.secs.to_bits()) << 32 | u64::from(self.moment.0)
    }

    fn unpacked(packed: u64) -> Self {
        Self { secs: f32::from_bits((packed >> 32) as u32), moment: Moment(packed as u32) }
    }

    fn weight_at(self, now: Moment) -> f32 {
        (-now.secs_since(self.moment) / TAU_SECS).exp()
    }

    fn at(self, now: Moment) -> f32 {
        self.secs * self.weight_at(now)
    }

    fn with(self, secs: f32, now: Moment) -> Self {
        let weight = self.weight_at(now);
        let slower = secs > self.secs * weight;
        Self { secs: if slower { secs } else { self.secs * weight + secs * (1.0 - weight) }, moment: now }
    }

    fn at_least(self, secs: f32, now: Moment) -> Self {
        Self { secs: self.at(now).max(secs), moment: now }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEAT: Seat = Seat(70);

    fn after(ms: u64) -> Moment {
        Moment::after(Duration::from_millis(ms))
    }

    fn estimates() -> Estimates {
        Estimates::default().grown(71)
    }

    #[track_caller]
    fn check(estimates: &Estimates, at_ms: u64, expected_ms: f32) {
        let ms = estimates.at(SEAT, after(at_ms)) * 1000.0;
        assert!((ms - expected_ms).abs() <= expected_ms * 0.02, "{ms} ms after {at_ms} ms, not {expected_ms}");
    }

    #[test]
    fn a_rise_counts_at_once_and_a_fall_slowly() {
        let estimates = estimates();
        check(&estimates, 0, 30.0);
        estimates.answered(SEAT, Duration::from_millis(400), after(0));
        check(&estimates, 0, 400.0);
        estimates.answered(SEAT, Duration::from_millis(100), after(5_000));
        check(&estimates, 5_000, 400.0 * 0.6065 + 100.0 * 0.3935);
    }

    #[test]
    fn a_reading_decays_and_changes_nothing() {
        let estimates = estimates();
        estimates.answered(SEAT, Duration::from_secs(1), after(0));
        check(&estimates, 10_000, 367.9);
        check(&estimates, 3_600_000, 1.0);
        check(&estimates, 0, 1000.0);
    }

    #[test]
    fn a_failure_counts_as_five_seconds_or_what_it_asks_for() {
        let estimates = estimates();
        estimates.failed(SEAT, None, after(0));
        check(&estimates, 0, 5_000.0);
        estimates.failed(SEAT, Some(Duration::from_secs(60)), after(0));
        check(&estimates, 0, 60_000.0);
        estimates.failed(SEAT, Some(Duration::ZERO), after(0));
        check(&estimates, 0, 60_000.0);
        estimates.failed(SEAT, Some(Duration::MAX), after(0));
        check(&estimates, 0, 300_000.0);
    }

    #[test]
    fn to_have_waited_never_improves_an_estimate() {
        let estimates = estimates();
        estimates.waited(SEAT, Duration::from_millis(20), after(0));
        check(&estimates, 0, 30.0);
        estimates.waited(SEAT, Duration::from_secs(3), after(0));
        check(&estimates, 0, 3_000.0);
    }

    #[test]
    fn growing_keeps_what_is_known_and_a_new_one_is_unknown() {
        let estimates = estimates();
        estimates.answered(SEAT, Duration::from_secs(1), after(0));
        let grown = estimates.grown(500);
        check(&grown, 0, 1_000.0);
        grown.forget(SEAT, after(1_000));
        check(&estimates, 1_000, 30.0);
    }

    #[test]
    fn a_moment_that_came_before_is_no_time_ago() {
        let estimates = estimates();
        estimates.answered(SEAT, Duration::from_secs(1), after(1_000));
        check(&estimates, 500, 1_000.0);
        assert_eq!(Moment(3).secs_since(Moment(u32::MAX)), 0.064, "the count begins anew");
    }

    proptest! {
        #[test]
        fn a_failure_never_improves_an_estimate(
            steps in prop::collection::vec((0..20_000_u64, prop::option::of(0..90_000_u64)), 1..30),
        ) {
            let (estimates, mut now) = (estimates(), 0);
            for (pause, latency) in steps {
                now += pause;
                let before = estimates.at(SEAT, after(now));
                match latency {
                    Some(latency) => estimates.answered(SEAT, Duration::from_millis(latency), after(now)),
                    None => {
                        estimates.failed(SEAT, None, after(now));
                        prop_assert!(estimates.at(SEAT, after(now)) >= before.max(4.999));
                    }
                }
                let known = estimates.at(SEAT, after(now));
                prop_assert!(known.is_finite() && known >= Estimates::LEAST);
            }
        }
    }
}
