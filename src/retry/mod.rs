//! Once more? Whether a failed attempt is followed by another, where, and when.
//!
//! Pure: it decides from what is told. Nothing is sent twice here that may have been acted upon once, unless it is
//! idempotent (RFC 9110, section 9.2.2) or the operator has said that it may.
//!
//! Three things may follow a failure. Where there was no connection the request moves on, for nothing was sent; that
//! is no retry, and is neither counted nor paid for. On a pooled connection that went stale it gets one free try. All
//! else is a *retry*: it must be named in the configuration, it counts, and it is paid for from the [`Budget`].

mod budget;
mod hedge;
mod kept;

use std::time::Duration;

pub use self::budget::Budget;
pub use self::hedge::Delay;
pub use self::kept::{Account, Kept, Limits};

use crate::config::{Retry, RetryWhen};

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection, so nothing was sent.
    Connect,
    /// A pooled connection turned out to be closed before it gave a byte.
    StaleConnection,
    /// The backend is leaving, or wants another protocol: HTTP/2's GOAWAY or HTTP_1_1_REQUIRED.
    NotTaken,
    /// The backend said that it did nothing with the request (RFC 9113, section 8.7).
    RefusedStream,
    /// The connection ended before the head of a response was there.
    Reset,
    /// The head of the response was not there in time.
    Timeout,
    /// This is the status of the response.
    Status(u16),
    /// The backend did not take the request, and asks to be left alone: a 429 (RFC 6585, section 4) that is obeyed.
    Throttled,
    /// Anything else.
    Other,
}

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The attempts so far, of all kinds.
    pub attempts: usize,
    /// How many of them were retries.
    pub retries: u32,
    /// Whether sending the request twice does what sending it once does (RFC 9110, section 9.2.2).
    pub idempotent: bool,
    /// Whether all that was read of the body is still at hand.
    pub replayable: bool,
    /// Whether this request has had its free try already.
    pub had_free_try: bool,
    /// Whether the client has seen part of a response.
    pub response_begun: bool,
    /// What is left of the route's time.
    pub time_left: Duration,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An attempt at a backend that has not been tried, which is no retry.
    MoveOn,
    /// An attempt at the same backend on another connection, which does not count as a second one.
    SameAgain,
    /// A retry, if the budget allows it.
    Retry,
    /// No more.
    GiveUp(Reason),
}

/// Why there is no retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody has asked for one after such a failure.
    NotAsked,
    /// The client has seen part of a response.
    ResponseBegun,
    /// It may have been acted upon, and must not be twice.
    NotIdempotent,
    /// Its body is no longer at hand.
    BodyTooLarge,
    /// There were as many as there may be.
    AttemptsUsedUp,
    /// The route's time is nearly over.
    NoTime,
    /// There is no other backend, and this one has answered.
    NobodyElse,
    /// The upstream has had too many.
    BudgetExhausted,
}

impl Reason {
    /// The word in the access log; none where there is nothing to explain.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::NotAsked | Self::ResponseBegun => None,
            Self::NotIdempotent => Some("not_idempotent"),
            Self::BodyTooLarge => Some("body_too_large"),
            Self::AttemptsUsedUp => Some("attempts_used_up"),
            Self::NoTime => Some("no_time_left"),
            Self::NobodyElse => Some("no_other_backend"),
            Self::BudgetExhausted => Some("retry_budget_exhausted"),
        }
    }
}

/// The attempts of one request, of all kinds: enough for any pool that people look after by hand, and a bound for the
/// rest.
pub const ATTEMPTS_MAX: usize = 16;

/// An attempt with less time than this has no prospects.
const TIME_MIN: Duration = Duration::from_millis(25);

/// Before the first retry at a backend that has been tried; it doubles with each.
const BACK_OFF: Duration = Duration::from_millis(25);

/// A client that waits notices more than this.
const BACK_OFF_MAX: Duration = Duration::from_millis(250);

/// Decides what follows a failed attempt.
pub fn decide(wanted: &Retry, failure: Failure, now: &Circumstances) -> Verdict {
    if now.response_begun {
        return Verdict::GiveUp(Reason::ResponseBegun);
    }
    if now.attempts >= ATTEMPTS_MAX {
        return Verdict::GiveUp(Reason::AttemptsUsedUp);
    }
    if failure == Failure::Connect {
        // Whatever has been read of the body was read for an earlier attempt, which kept it or was the last.
        return if wanted.when.connect { Verdict::MoveOn } else { Verdict::GiveUp(Reason::NotAsked) };
    }
    let may_arrive_twice = now.idempotent || wanted.non_idempotent;
    if deserves_a_free_try(failure, &wanted.when) && may_arrive_twice && now.replayable && !now.had_free_try {
        return Verdict::SameAgain;
    }
    match obstacle(wanted, failure, may_arrive_twice, now) {
        Some(reason) => Verdict::GiveUp(reason),
        None => Verdict::Retry,
    }
}

/// The backend closed the connection while it was idle, most likely; but it may also have read the request and died of
/// it, so only what may arrive twice is sent again. A GOAWAY leaves the same doubt: the last stream that it names is
/// not known here.
fn deserves_a_free_try(failure: Failure, when: &RetryWhen) -> bool {
    match failure {
        Failure::StaleConnection | Failure::NotTaken => true,
        Failure::RefusedStream => !when.refused_stream,
        Failure::Connect
        | Failure::Reset
        | Failure::Timeout
        | Failure::Status(_)
        | Failure::Throttled
        | Failure::Other => false,
    }
}

fn obstacle(wanted: &Retry, failure: Failure, may_arrive_twice: bool, now: &Circumstances) -> Option<Reason> {
    let obstacles = [
        (!asks_for(&wanted.when, failure), Reason::NotAsked),
        (!is_one_left(wanted, now.retries), Reason::AttemptsUsedUp),
        (!may_arrive_twice && !was_not_taken(failure), Reason::NotIdempotent),
        (!now.replayable, Reason::BodyTooLarge),
        (now.time_left < TIME_MIN, Reason::NoTime),
    ];
    obstacles.into_iter().find(|(stands, _)| *stands).map(|(_, reason)| reason)
}

/// Whether there may be another retry after so many.
pub fn is_one_left(wanted: &Retry, retries: u32) -> bool {
    wanted.attempts > 1 + retries
}

/// Whether the backend has said that it did nothing with the request, so that any method may be sent again.
fn was_not_taken(failure: Failure) -> bool {
    matches!(failure, Failure::RefusedStream | Failure::Throttled)
}

/// Whether the configuration names this failure. Whoever obeys a backend that wants to be left alone wants its requests
/// served elsewhere.
pub fn asks_for(when: &RetryWhen, failure: Failure) -> bool {
    match failure {
        Failure::Connect => when.connect,
        Failure::StaleConnection | Failure::NotTaken | Failure::Reset => when.reset,
        Failure::RefusedStream => when.refused_stream,
        Failure::Timeout => when.timeout,
        Failure::Status(status) => when.statuses.contains(&status),
        Failure::Throttled => true,
        Failure::Other => false,
    }
}

/// Whether a retry may go to a backend that has been tried, when there is no other. One that has answered would say
/// the same once more, and its answer is at hand.
pub fn may_use_the_same(failure: Failure) -> bool {
    !matches!(failure, Failure::Status(_) | Failure::Throttled)
}

/// How long to wait before a backend is used again: anything up to a bound that doubles, so that those who failed
/// together do not come back together. `random` is any number.
pub fn back_off(before: u32, random: u64) -> Duration {
    let bound = BACK_OFF.saturating_mul(1 << before.min(10)).min(BACK_OFF_MAX);
    let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX - 1);
    Duration::from_micros(random % (micros + 1))
}

#[cfg(test)]
mod tests;
