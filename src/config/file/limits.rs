//! What may be written about limits and waiting?

use serde_json::{Value as Json, json};

use super::decode::{Decode, refuse, scalar};
use super::leaves::Timeout;
use super::section::section;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::Node;

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
