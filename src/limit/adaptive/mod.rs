//! How many requests at once can it bear? A limit for one backend, learnt from how long its answers take.
//!
//! A server that has as much as it can work on answers as fast as ever; with more, each answer waits for the others, and
//! latency grows with no gain. So the limit follows the *gradient*, the latency without load by the latency now: `limit *
//! gradient + sqrt(limit)`. While answers are quick it grows by its root, which lets a short queue form; once they take
//! longer, it shrinks to where both are in balance. The formula is that of Netflix's concurrency-limits (`Gradient2Limit`)
//! and of Envoy's adaptive concurrency filter, after TCP Vegas (Brakmo and Peterson, 1995); as in Envoy, the sample is the
//! median of a short while, and a quarter more than the least is not yet load.
//!
//! The latency without load is the lowest median that was seen. A deploy may make it wrong for ever, so it is measured
//! anew from time to time: for a moment the limit is a quarter, and what is seen then is believed (Envoy goes down to 3;
//! that costs a busy backend more). When much less than the limit is in flight, what is seen is without load too.
//!
//! Failures and timeouts shrink it by half their share; clients that go away say nothing. It never grows while less than
//! half of it is used, or a quiet night would allow anything. Reads no clock: an [`Age`] comes in.

use std::time::Duration;

use super::Age;

/// Where it begins, once the latency without load has been measured: enough for most servers, and soon more for those
/// that can bear it.
const FIRST: f64 = 20.0;

/// A sample is of at least so long, and of so many answers: fewer show the mix of requests and not the load.
const WHILE: Duration = Duration::from_millis(100);
const ANSWERS: usize = 10;

/// Of more answers in one while a part is enough for a median.
const KEPT: usize = 64;

/// Latencies this much above the least are no load.
const TOLERANCE: f64 = 1.25;

/// However slow a sample is, the limit is at most halved.
const STEEPEST: f64 = 0.5;

/// So much of the share of failures is taken off.
const FOR_FAILURES: f64 = 0.5;

/// How often the latency without load is measured anew.
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// What is left of the limit meanwhile.
const MEASURE_WITH: f64 = 0.25;

/// The limit of one backend, with what it was learnt from.
#[derive(Clone, Debug)]
pub struct Adaptive {
    min: f64,
    max: f64,
    limit: f64,
    /// The latency without load in seconds, once known.
    least: Option<f64>,
    /// When that was last measured with little in flight.
    measured: Age,
    /// Only samples taken with the smaller limit count meanwhile; since when.
    measuring: Option<Age>,
    sample: Sample,
}

/// What was seen in one while.
#[derive(Clone, Debug)]
struct Sample {
    began: Age,
    latencies: Vec<f64>,
    answers: usize,
    failures: usize,
    /// The most in flight.
    peak: u32,
}

impl Sample {
    fn begin(now: Age) -> Self {
        Self { began: now, latencies: Vec::new(), answers: 0, failures: 0, peak: 0 }
    }

    /// Later ones take the places of earlier ones, in turn.
    fn keep(&mut self, latency: f64) {
        if self.latencies.len() < KEPT {
            self.latencies.push(latency);
        } else if let Some(kept) = self.latencies.get_mut(self.answers % KEPT) {
            *kept = latency;
        }
        self.answers += 1;
    }

    fn median(&mut self) -> Option<f64> {
        self.latencies.sort_unstable_by(f64::total_cmp);
        self.latencies.get(self.latencies.len() / 2).copied()
    }
}

impl Adaptive {
    /// A limit that stays within these bounds; both at least one.
    pub fn new(min: u32, max: u32, now: Age) -> Self {
        let (min, max) = bounds(min, max);
        Self {
            min,
            max,
            limit: FIRST.clamp(min, max),
            least: None,
            measured: now,
            measuring: Some(now),
            sample: Sample::begin(now),
        }
    }

    /// Keeps what was learnt, within other bounds.
    pub fn set(&mut self, min: u32, max: u32) {
        (self.min, self.max) = bounds(min, max);
        self.limit = self.limit.clamp(self.min, self.max);
    }

    /// How many requests it may have in flight now: always within the bounds.
    pub fn limit(&self) -> u32 {
        let share = if self.measuring.is_some() { MEASURE_WITH } else { 1.0 };
        (self.limit * share).clamp(self.min, self.max) as u32
    }

    /// An answer came after this long, with so many in flight.
    pub fn answered(&mut self, latency: Duration, in_flight: u32, now: Age) {
        // What was sent before the limit was lowered has waited for the others.
        let too_old = self.measuring.is_some_and(|since| now.saturating_sub(latency) < since);
        if !too_old {
            self.sample.keep(latency.as_secs_f64().max(1e-6));
        }
        self.saw(in_flight, now);
    }

    /// A request failed through the fault of the backend, or was not answered in time.
    pub fn failed(&mut self, in_flight: u32, now: Age) {
        self.sample.failures += 1;
        self.saw(in_flight, now);
    }

    fn saw(&mut self, in_flight: u32, now: Age) {
        self.sample.peak = self.sample.peak.max(in_flight);
        let enough = self.sample.answers >= ANSWERS || self.sample.failures > 0;
        if enough && now.saturating_sub(self.sample.began) >= WHILE {
            let sample = std::mem::replace(&mut self.sample, Sample::begin(now));
            self.learn(sample, now);
        }
    }

    fn learn(&mut self, mut sample: Sample, now: Age) {
        let was_measuring = self.measuring.is_some();
        let median = sample.median().filter(|_| sample.answers >= ANSWERS);
        self.note_least(median, sample.peak, now);
        if let (Some(median), Some(least), false) = (median, self.least, was_measuring) {
            let gradient = (TOLERANCE * least / median).clamp(STEEPEST, 1.0);
            let next = self.limit * gradient + self.limit.sqrt();
            let is_used = f64::from(sample.peak) * 2.0 >= self.limit;
            self.limit = if is_used { next } else { next.min(self.limit) };
        }
        let failed = sample.failures as f64 / (sample.failures + sample.answers).max(1) as f64;
        self.limit = (self.limit * (1.0 - FOR_FAILURES * failed)).clamp(self.min, self.max);
        let is_due = now.saturating_sub(self.measured) >= MEASURE_EVERY;
        if self.measuring.is_none() && is_due {
            self.measuring = Some(now);
        }
    }

    /// Learns the latency without load: from any that is lower, and from one that was seen with little in flight.
    fn note_least(&mut self, median: Option<f64>, peak: u32, now: Age) {
        let Some(median) = median else { return };
        let little = self.measuring.is_some() || f64::from(peak) <= self.limit * MEASURE_WITH;
        if little {
            (self.measured, self.measuring) = (now, None);
        }
        self.least = Some(if little { median } else { self.least.map_or(median, |least| least.min(median)) });
    }
}

fn bounds(min: u32, max: u32) -> (f64, f64) {
    let min = min.max(1);
    (f64::from(min), f64::from(max.max(min)))
}

#[cfg(test)]
mod tests;
