//! What has an attempt shown about how quick its backend is? Kept where the policy looks at estimates, or where a limit is
//! learnt; else free.

use std::time::{Duration, Instant};

use super::Pick;
use crate::backend::Moment;

/// What an attempt has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// The head of an answer came after this long.
    Answered(Duration),
    /// It failed, or answered that it cannot serve; and asked for a pause, perhaps.
    Failed {
        /// From its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Nothing had come after this long, when nobody waited any longer. That is no fault of its own, only a lower bound
    /// of its latency: without it a server that outlasts all clients would look quicker and quicker.
    Waited(Duration),
}

impl Pick {
    /// Remembers a lesson about the backend.
    pub fn learn(&self, lesson: Lesson, now: Instant) {
        self.learn_limit(lesson, now);
        let Some(estimates) = self.upstream.loads.estimates() else { return };
        let (seat, now) = (self.backend().seat, Moment::of(now));
        match lesson {
            Lesson::Answered(latency) => estimates.answered(seat, latency, now),
            Lesson::Failed { retry_after } => estimates.failed(seat, retry_after, now),
            Lesson::Waited(time) => estimates.waited(seat, time, now),
        }
    }
}
