//! Who shall serve it? Policies choose one of the members that may take a request right now.
//!
//! Arithmetic only: nothing here awaits, reads a clock, draws a random number or takes a lock. Whatever a policy may
//! know about the moment comes in an [`Ask`]. A *position* is a place in the list of members, a [`Seat`] is a place
//! among the counts; a policy computes in positions and answers with a seat.

mod consistent_hash;
mod cost;
mod custom;
mod draw;
mod keys;
mod least_connections;
mod peak_ewma;
mod race;
mod random;
mod round_robin;
mod turns;
mod two_choices;

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering::Relaxed;

use self::consistent_hash::ConsistentHash;
use self::cost::Cost;
use self::custom::Custom;
use self::keys::Keys;
use self::least_connections::LeastConnections;
use self::peak_ewma::PeakEwma;
use self::random::Random;
use self::round_robin::RoundRobin;
use self::two_choices::TwoChoices;
use crate::backend::{Estimates, Loads, Moment, SEATS_PER_BLOCK, Seat};
use crate::config::Balance;

/// Builds the policy that the operator asked for: the one list of them.
///
/// `name` gives the identity of a member, by which consistent hashing knows it again after a restart and on other
/// front doors. `start` moves the first turn of the policies that take turns: a random number at start, so that many
/// front doors do not begin with the same backend, and a running one at each rebuild.
pub fn build<N: AsRef<str>>(
    balance: &Balance,
    members: &Members,
    name: impl Fn(Seat) -> N,
    start: u64,
) -> Box<dyn Policy> {
    match balance {
        Balance::RoundRobin => Box::new(RoundRobin::new(members, start)),
        Balance::LeastConnections => Box::new(LeastConnections::new(members, start)),
        Balance::Random => Box::new(Random::new(members)),
        Balance::TwoChoices => Box::new(TwoChoices::new(members)),
        Balance::PeakEwma => Box::new(PeakEwma::new(members)),
        Balance::ConsistentHash { bounded_load, .. } => Box::new(ConsistentHash::new(members, name, *bounded_load)),
        Balance::Custom(custom) => Box::new(Custom::new(&custom.made, members, name)),
    }
}

/// A way to choose among the ready members of one upstream.
///
/// A policy is built anew whenever the set of members changes, and shared by all threads.
pub trait Policy: Send + Sync {
    /// The seat that shall serve: always one of `ready`, never one that was tried.
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat;
}

/// What a policy may know about the request and the moment.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// A hash of the request's key, for policies that hash.
    pub hash: u64,
    /// A fresh random number.
    pub random: u64,
    /// Now, for policies that look at estimates.
    pub now: Moment,
}

/// The backends among which a policy chooses: never empty, and each with a weight of at least 1.
#[derive(Debug)]
pub struct Members {
    seats: Box<[Seat]>,
    weights: Box<[u32]>,
    runs: Box<[Run]>,
    /// The weight of all of them, if it is one.
    one_weight: Option<u32>,
    keys: Keys,
}

/// Members whose counts lie side by side in one block, so that a pass over them reads memory in order.
#[derive(Debug)]
struct Run {
    start: usize,
    first: Seat,
    len: usize,
}

impl Members {
    /// Takes seats with their weights, leaving out those of weight 0; `None` when nobody is left.
    pub fn new(members: impl IntoIterator<Item = (Seat, u32)>) -> Option<Self> {
        let (seats, weights): (Vec<_>, Vec<_>) = members.into_iter().filter(|&(_, weight)| weight > 0).unzip();
        let runs = runs(&seats);
        let keys = Keys::new(&seats, &weights);
        let first = weights.first().copied();
        let one_weight = first.filter(|first| weights.iter().all(|weight| weight == first));
        first?;
        Some(Self { seats: seats.into(), weights: weights.into(), runs: runs.into(), one_weight, keys })
    }

    /// The seats, in the order of the configuration.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The weight of each seat, in the same order.
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// Whether it pays to ask first which blocks deserve a look: not for a few, nor for a few in each of many blocks.
    fn are_many(&self) -> bool {
        self.seats.len() > (2 * SEATS_PER_BLOCK).max(8 * self.keys.blocks())
    }
}

fn runs(seats: &[Seat]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (start, &first) in seats.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if run.continues_with(first) => run.len += 1,
            Some(_) | None => runs.push(Run { start, first, len: 1 }),
        }
    }
    runs
}

impl Run {
    fn continues_with(&self, seat: Seat) -> bool {
        let next = self.first.0 as usize + self.len;
        seat.0 as usize == next && !next.is_multiple_of(SEATS_PER_BLOCK)
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

    /// The seat at a position, unless there is none or it was tried.
    fn untried(&self, position: usize) -> Option<Seat> {
        self.members.seats.get(position).copied().filter(|seat| !self.tried.contains(seat))
    }

    /// The first untried seat from a position on, in a circle.
    fn untried_from(&self, position: usize) -> Seat {
        let (before, after) = self.members.seats.split_at(position.min(self.members.seats.len()));
        let seat = after.iter().chain(before).find(|seat| !self.tried.contains(seat));
        *seat.expect("Ready::new has seen an untried member")
    }

    /// What one more request costs the member at a position.
    fn cost(&self, position: usize) -> Option<Cost> {
        let (seat, weight) = (self.members.seats.get(position)?, self.members.weights.get(position)?);
        Some(Cost::new(self.loads.in_flight(*seat), *weight))
    }

    /// How many seconds an answer of the member at a position takes.
    fn estimate(&self, position: usize, now: Moment) -> f32 {
        let estimates = self.members.seats.get(position).zip(self.loads.estimates());
        estimates.map_or(Estimates::LEAST, |(&seat, estimates)| estimates.at(seat, now))
    }

    /// Shows members with their positions and costs: whoever has the lowest cost of all untried, or at least two of
    /// them if there are more; and any number of others, tried or not.
    ///
    /// A closure and not an iterator, because two plain loops are compiled to twice the speed.
    fn cheapest(&self, mut visit: impl FnMut(usize, Cost)) {
        let keys = Some(&self.members.keys).filter(|_| self.members.are_many());
        let blocks = keys.and_then(|keys| keys.cheapest_blocks(self.loads, self.tried));
        for run in &self.members.runs {
            if blocks.is_some_and(|blocks| !blocks.contains(&run.first.block())) {
                continue;
            }
            let counts = self.loads.side_by_side(run.first, run.len);
            if let Some(weight) = self.members.one_weight {
                for (offset, count) in counts.iter().enumerate() {
                    visit(run.start + offset, Cost::new(count.load(Relaxed), weight));
                }
                continue;
            }
            let weights = self.members.weights.get(run.start..).unwrap_or_default();
            for (offset, &weight) in weights.iter().take(run.len).enumerate() {
                let in_flight = counts.get(offset).map_or(0, |count| count.load(Relaxed));
                visit(run.start + offset, Cost::new(in_flight, weight));
            }
        }
    }
}
