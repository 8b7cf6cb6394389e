//! When is a request tried again? The `retry` section of a route, checked.

use std::time::Duration;

/// When a request is tried again, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts in all, 1 to 10; those that found no connection are not counted.
    pub attempts: u32,
    /// After which failures.
    pub when: RetryWhen,
    /// Whether requests that are not idempotent may arrive twice.
    pub non_idempotent: bool,
    /// How long one attempt may take until the head of its response is there.
    pub per_attempt: Option<Duration>,
    /// The largest body that is sent again, in bytes.
    pub buffer: u64,
    /// How many retries there may be beside the requests.
    pub budget: RetryBudget,
    /// When another backend is asked beside the first; `None` is never.
    pub hedge: Option<HedgeAfter>,
}

/// After how long another backend is asked beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// Once the answer is later than this percentage of the recent ones, 50 to 99.
    Quantile(u8),
    /// After this time.
    Time(Duration),
}

/// The failures after which a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryWhen {
    /// There was no connection.
    pub connect: bool,
    /// The connection ended before the head of a response was there.
    pub reset: bool,
    /// The head of the response was not there in time.
    pub timeout: bool,
    /// The backend said over HTTP/2 that it did nothing with the request.
    pub refused_stream: bool,
    /// It answered with one of these, 400 to 599.
    pub statuses: Vec<u16>,
}

/// How many retries there may be within ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// For each hundred requests, 0 to 100.
    pub percent: u32,
    /// A second, however few requests there are.
    pub min_per_second: u32,
}

impl Retry {
    /// None, but for what could not do harm: a request that found no connection goes elsewhere.
    pub fn none() -> Self {
        Self {
            attempts: 1,
            when: RetryWhen { connect: true, ..RetryWhen::default() },
            non_idempotent: false,
            per_attempt: None,
            buffer: 64 << 10,
            budget: RetryBudget { percent: 0, min_per_second: 0 },
            hedge: None,
        }
    }
}
