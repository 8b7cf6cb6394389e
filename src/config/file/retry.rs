//! What may be written about trying again? The shape of a route's `retry`.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar};
use super::leaves::{Share, Size, Timeout};
use super::section::section;
use crate::config::HedgeAfter;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::Node;

section! {
    /// When a request is tried again, and how often.
    Retry {
        /// Attempts in all, to 10; those that found no connection are not counted.
        attempts: std::num::NonZeroU32 = "3",
        /// After which failures: `connect`, `reset`, `timeout`, `refused_stream`, or a status from 400 to 599.
        when: Vec<Marked<Cause>> = "[connect, reset, timeout, 502, 503, 504]",
        /// Whether POST, PATCH and others that are not idempotent may arrive twice.
        non_idempotent: bool = "false",
        /// How long one attempt may take until the head of its response is there.
        per_attempt: Option<Timeout> = "null",
        /// The largest request body that is sent again.
        buffer: Size = "64KiB",
        /// How many retries the upstream gets, for all routes together.
        budget: RetryBudget = "{}",
        /// Asks another backend beside the first when its answer to GET or HEAD is late.
        hedge: Option<Hedge> = "null",
    }
    later {}
}

section! {
    /// A second attempt beside the first.
    Hedge {
        /// `p50` to `p99`: later than so many of a hundred recent answers of the upstream. Or a time.
        after: HedgeAfter = "p95",
    }
    later {}
}

section! {
    /// How many retries there may be within ten seconds.
    RetryBudget {
        /// Of the requests.
        share: Share = "20%",
        /// However few requests there are.
        min_per_second: u32 = "10",
    }
    later {}
}

/// What a request is tried again after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Connect,
    Reset,
    Timeout,
    RefusedStream,
    Status(u16),
}

impl Decode for HedgeAfter {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write p95 for what is later than 95 of a hundred answers, or a time such as 200ms";
        let text = &scalar(node, at, "a quantile or a time", help, problems)?.text;
        let Some(percent) = text.strip_prefix('p') else {
            return Timeout::decode(node, at, problems).map(|time| Self::Time(time.0));
        };
        let quantile = percent.parse().ok().filter(|percent| (50..=99).contains(percent)).map(Self::Quantile);
        quantile.or_else(|| refuse(node, at, "a quantile from p50 to p99 or a time", help, problems))
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "string", "pattern": "^p[5-9][0-9]$" }, Timeout::schema()] })
    }
}

const WORDS: [&str; 4] = ["connect", "reset", "timeout", "refused_stream"];

impl Decode for Cause {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "connect, reset, timeout, refused_stream or a status from 400 to 599";
        let text = &scalar(node, at, wanted, "write for example [connect, reset, 503]", problems)?.text;
        match text.as_str() {
            "connect" => Some(Self::Connect),
            "reset" => Some(Self::Reset),
            "timeout" => Some(Self::Timeout),
            "refused_stream" => Some(Self::RefusedStream),
            number => {
                let status = number.parse().ok().filter(|status| (400..=599).contains(status));
                status
                    .map(Self::Status)
                    .or_else(|| refuse(node, at, wanted, &suggest(number, "failures", WORDS), problems))
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "enum": WORDS }, { "type": "integer", "minimum": 400, "maximum": 599 }] })
    }
}
