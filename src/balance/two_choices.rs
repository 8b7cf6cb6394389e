//! The less loaded of two that chance picks, in proportion to the weights.
//!
//! Close to least connections at the cost of two looks, and without the herd that follows one lowest number. The two
//! are always distinct, so with two members it is least connections; if they tie, the first drawn serves, which keeps
//! the shares of an idle upstream at the weights.

use super::draw::{Draw, another};
use super::{Ask, Members, Policy, Ready};
use crate::backend::Seat;

/// The power of two choices, weighted.
#[derive(Debug)]
pub(super) struct TwoChoices {
    draw: Draw,
}

impl TwoChoices {
    pub(super) fn new(members: &Members) -> Self {
        Self { draw: Draw::new(members) }
    }
}

impl Policy for TwoChoices {
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat {
        let first = self.draw.one(&ready, ask.random);
        // Mixed twice, so that the second draw does not lean on the number with which the first may have gone on.
        let second = self.draw.other(&ready, first, another(another(ask.random)));
        let costs = second.map(|second| (ready.cost(first), ready.cost(second)));
        let chosen = match (second, costs) {
            (Some(second), Some((Some(ours), Some(theirs)))) if theirs < ours && !theirs.ties_with(ours) => second,
            _ => first,
        };
        ready.untried_from(chosen)
    }
}
