//! How much was made smaller, and what did it cost? Of one answer, and of all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::Coding;

/// What is done to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It is made smaller.
    Encode(Coding),
    /// It came in a coding that the client cannot read.
    Decode(Coding),
}

/// What was done to a body so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is done.
    pub work: Work,
    /// Bytes that came.
    pub before: u64,
    /// Bytes that went.
    pub after: u64,
    /// How long it has taken, without the waiting.
    pub took: Duration,
}

impl Outcome {
    /// Nothing was done yet.
    pub fn of(work: Work) -> Self {
        Self { work, before: 0, after: 0, took: Duration::ZERO }
    }
}

/// What was done to all bodies in one coding and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Bodies.
    pub answers: u64,
    /// All of them together.
    pub outcome: Outcome,
}

/// What was done to all bodies.
#[derive(Debug, Default)]
pub struct Counts {
    encoded: [Count; Coding::ALL.len()],
    decoded: [Count; Coding::ALL.len()],
}

#[derive(Debug, Default)]
struct Count {
    answers: AtomicU64,
    before: AtomicU64,
    after: AtomicU64,
    micros: AtomicU64,
}

impl Counts {
    /// Counts a body, as far as it came.
    pub fn count(&self, outcome: &Outcome) {
        let count = self.of(outcome.work);
        count.answers.fetch_add(1, Relaxed);
        count.before.fetch_add(outcome.before, Relaxed);
        count.after.fetch_add(outcome.after, Relaxed);
        count.micros.fetch_add(u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The sums of what there has been, what was encoded first.
    pub fn sums(&self) -> Vec<Sum> {
        let works = Coding::ALL.map(Work::Encode).into_iter().chain(Coding::ALL.map(Work::Decode));
        works.map(|work| self.of(work).sum(work)).filter(|sum| sum.answers > 0).collect()
    }

    fn of(&self, work: Work) -> &Count {
        match work {
            Work::Encode(coding) => &self.encoded[coding as usize],
            Work::Decode(coding) => &self.decoded[coding as usize],
        }
    }
}

impl Count {
    fn sum(&self, work: Work) -> Sum {
        let took = Duration::from_micros(self.micros.load(Relaxed));
        let outcome = Outcome { work, before: self.before.load(Relaxed), after: self.after.load(Relaxed), took };
        Sum { answers: self.answers.load(Relaxed), outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coding_is_counted_by_itself_in_each_direction() {
        let counts = Counts::default();
        let (zstd, gzip) = (Work::Encode(Coding::Zstd), Work::Decode(Coding::Gzip));
        for (work, before) in [(zstd, 100), (gzip, 7), (zstd, 50)] {
            counts.count(&Outcome { before, after: 10, took: Duration::from_micros(3), ..Outcome::of(work) });
        }
        let expected = [(2, zstd, 150, 20, 6), (1, gzip, 7, 10, 3)].map(|(answers, work, before, after, micros)| Sum {
            answers,
            outcome: Outcome { work, before, after, took: Duration::from_micros(micros) },
        });
        assert_eq!(counts.sums(), expected);
    }
}
