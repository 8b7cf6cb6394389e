//! Does a route's `retry` make sense?

use super::Check;
use crate::config::file::{self, Marked, RetryCause};
use crate::config::{HedgeAfter, Retry, RetryBudget, RetryWhen};

/// More would only help who calls on a backend that is down.
const ATTEMPTS_MAX: u32 = 10;

/// What is kept of every body, without being counted.
const NOT_COUNTED: u64 = 64 << 10;

impl Check<'_> {
    /// What is written as `none` is no retry.
    pub(super) fn retry(&mut self, route: &file::Route, buffers: &Marked<file::Size>) -> Retry {
        if route.retry.written && route.upstream.is_none() {
            self.problems.error(&route.retry.at, "nothing is sent on that could be sent again", "leave `retry` out");
        }
        let Some(retry) = &route.retry.value else { return Retry::none() };
        if retry.attempts.get() > ATTEMPTS_MAX {
            let help = "3 find a good backend among those that one breakdown leaves";
            self.problems.error(&retry.attempts.at, format!("more than {ATTEMPTS_MAX} attempts are no help"), help);
        }
        if retry.buffer.0 > buffers.0.max(NOT_COUNTED) {
            let what = "no body of this size fits into what `server.retry_buffers` gives all of them together";
            self.problems.error(&retry.buffer.at, what, "write less here, or more there");
        }
        Retry {
            attempts: retry.attempts.get(),
            when: when(&retry.when),
            non_idempotent: *retry.non_idempotent,
            per_attempt: retry.per_attempt.as_ref().map(|timeout| timeout.0),
            buffer: retry.buffer.0,
            budget: self.retry_budget(&retry.budget),
            hedge: self.hedge(retry),
        }
    }

    fn hedge(&mut self, retry: &file::Retry) -> Option<HedgeAfter> {
        let hedge = retry.hedge.as_ref()?;
        if retry.attempts.get() == 1 {
            let help = "allow 2 attempts or more, or leave `hedge` out";
            self.problems.error(&retry.hedge.at, "the second backend would be a second attempt", help);
        }
        Some(*hedge.after)
    }

    fn retry_budget(&mut self, budget: &file::RetryBudget) -> RetryBudget {
        if budget.share.0 > 1.0 {
            let help = "20% is enough for the breakdown of one backend in five";
            self.problems.error(&budget.share.at, "more retries than requests only prolong a breakdown", help);
        }
        // A share is written in whole percent.
        RetryBudget { percent: (budget.share.0 * 100.0).round() as u32, min_per_second: *budget.min_per_second }
    }
}

fn when(causes: &[Marked<RetryCause>]) -> RetryWhen {
    let mut when = RetryWhen::default();
    for cause in causes {
        match cause.value {
            RetryCause::Connect => when.connect = true,
            RetryCause::Reset => when.reset = true,
            RetryCause::Timeout => when.timeout = true,
            RetryCause::RefusedStream => when.refused_stream = true,
            RetryCause::Status(status) => when.statuses.push(status),
        }
    }
    when
}
