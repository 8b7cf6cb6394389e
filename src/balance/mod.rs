//! Who shall serve it? Policies choose one of the members that may take a request right now.
//!
//! Arithmetic only: nothing here awaits, reads a clock, draws a random number or takes a lock. Whatever a policy may
//! know about the moment comes in an [`Ask`].

use crate::backend::{Loads, Seat};

/// The backends among which a policy chooses: never empty, and each with a weight of at least 1.
#[derive(Debug)]
pub struct Members {
    seats: Box<[Seat]>,
    weights: Box<[u32]>,
}

impl Members {
    /// Takes seats with their weights, leaving out those of weight 0; `None` when nobody is left.
    pub fn new(members: impl IntoIterator<Item = (Seat, u32)>) -> Option<Self> {
        let (seats, weights): (Vec<_>, Vec<_>) = members.into_iter().filter(|&(_, weight)| weight > 0).unzip();
        (!seats.is_empty()).then(|| Self { seats: seats.into(), weights: weights.into() })
    }

    /// The seats, in the order of the configuration.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The weight of each seat, in the same order.
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }
}

/// The members that may take *this* request: at least one that it has not tried yet.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    members: &'a Members,
    loads: &'a Loads,
    tried: &'a [Seat],
}

impl<'a> Ready<'a> {
    /// `None` when every member has been tried.
    pub fn new(members: &'a Members, loads: &'a Loads, tried: &'a [Seat]) -> Option<Self> {
        let untried = tried.is_empty() || members.seats.iter().any(|seat| !tried.contains(seat));
        untried.then_some(Self { members, loads, tried })
    }
}

/// What a policy may know about the request and the moment.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// A hash of the request's key, for policies that hash.
    pub hash: u64,
    /// A fresh random number.
    pub random: u64,
}

/// A way to choose among the ready members of one upstream.
///
/// A policy is built anew whenever the set of members changes, and shared by all threads.
pub trait Policy: Send + Sync {
    /// The seat that shall serve: always one of `ready`, never one that was tried.
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat;
}
