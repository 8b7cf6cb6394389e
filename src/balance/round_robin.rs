//! In turns, by weight: the smooth sequence of [`Turns`].
//!
//! Loads play no part. A tried member's turn goes to whoever is next in the sequence.

use super::turns::Turns;
use super::{Ask, Members, Policy, Ready};
use crate::backend::Seat;

/// Smooth weighted round robin.
#[derive(Debug)]
pub(super) struct RoundRobin {
    turns: Turns,
}

impl RoundRobin {
    pub(super) fn new(members: &Members, start: u64) -> Self {
        Self { turns: Turns::new(members.weights(), start) }
    }
}

impl Policy for RoundRobin {
    fn choose(&self, ready: Ready<'_>, _: &Ask) -> Seat {
        let turn = self.turns.take(|position| ready.untried(position));
        turn.unwrap_or_else(|position| ready.untried_from(position))
    }
}
