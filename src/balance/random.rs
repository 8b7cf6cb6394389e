//! By chance, in proportion to the weights. Loads play no part.

use super::draw::Draw;
use super::{Ask, Members, Policy, Ready};
use crate::backend::Seat;

/// A weighted draw.
#[derive(Debug)]
pub(super) struct Random {
    draw: Draw,
}

impl Random {
    pub(super) fn new(members: &Members) -> Self {
        Self { draw: Draw::new(members) }
    }
}

impl Policy for Random {
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat {
        ready.untried_from(self.draw.one(&ready, ask.random))
    }
}
