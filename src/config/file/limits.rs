//! What may be written about limits and waiting?

use serde_json::{Value as Json, json};

use super::decode::{Decode, refuse, scalar};
use super::leaves::{Timeout, with_unit};
use super::section::section;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::Node;
use crate::config::{self, units};

section! {
    /// Where requests wait while every backend that is ready has as much as it may have.
    Queue {
        /// How many wait at most; more are refused.
        size: std::num::NonZeroU32 = "1024",
        /// How long each waits; then it is refused.
        timeout: Timeout = "1s",
    }
    later {}
}

section! {
    /// How many requests each backend may have in flight.
    Concurrency {
        /// As many as it bears: fewer when answers take longer than they need, more while they do not.
        adaptive: Adaptive,
    }
    later {}
}

section! {
    /// A limit that is learnt.
    Adaptive {
        /// It is never lower.
        min: std::num::NonZeroU32 = "4",
        /// It is never higher.
        max: std::num::NonZeroU32 = "512",
    }
    later {}
}

/// So many requests within such a time.
#[derive(Clone, Debug)]
pub(crate) struct Quota(pub(crate) config::Quota);

/// Each end is remembered for as long as its window: more would be much memory, for a limit that hardly limits.
const QUOTA_MAX: u64 = 100_000;

const QUOTA: (&str, &str) = ("a number within a time", "write a number, `/` and a time: 240/m, 1800/10m, 20000/d");

impl Decode for Quota {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (count, window) = with_unit(node, at, QUOTA, units::rate, problems)?;
        let (what, help) = match count {
            0 => ("nothing could ever be sent", "`weight: 0` takes a backend out"),
            _ if window.is_zero() => ("no time is as short as that", QUOTA.1),
            1..=QUOTA_MAX => return Some(Self(config::Quota { most: count as u32, window })),
            _ => ("at most 100000 are counted", "write it for a shorter time: 600000/h is much like 10000/m"),
        };
        problems.error(at, what, help);
        None
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+/[0-9]*(ms|s|m|h|d)|\\$\\{.*)$" })
    }
}

/// Who is served first of those that wait: -1000 to 1000, enough to put one between any two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Priority(pub(crate) i32);

const PRIORITY_MAX: i32 = 1000;

impl Decode for Priority {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("a whole number from -1000 to 1000", "0 is usual; who has more is served first");
        let text = &scalar(node, at, wanted, help, problems)?.text;
        let priority = text.parse().ok().filter(|priority| (-PRIORITY_MAX..=PRIORITY_MAX).contains(priority));
        priority.map(Self).or_else(|| refuse(node, at, wanted, help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": -PRIORITY_MAX, "maximum": PRIORITY_MAX })
    }
}
