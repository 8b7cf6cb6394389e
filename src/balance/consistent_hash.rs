//! The same key to the same member, while it is not overloaded.
//!
//! The owner of a key comes from the table of `race`. A member takes at most `ceil(c * (m + 1) * weight / sum)`
//! requests at a time, and always one, where `m` requests are in flight on all members and `c` is the bound (1.25: a
//! quarter above the average). If the owner is full or tried, the key goes on to slots drawn from its own hash: so each
//! key has its own order of stand-ins, and the keys of one full member spread instead of falling on one neighbour.

use std::sync::atomic::Ordering::Relaxed;

use super::cost::Cost;
use super::draw::another;
use super::least_connections::lowest;
use super::{Ask, Members, Policy, Ready, race};
use crate::backend::Seat;

/// Slots of the table, as a power of two: a member among 100 has its share within about 4%.
const TABLE_BITS: u32 = 16;

/// The same for more than [`MANY`] members. Only crossing that number moves keys beyond the minimum.
const LARGE_TABLE_BITS: u32 = 18;

/// Members that the smaller table serves.
const MANY: usize = 1_000;

/// Stand-ins that a key tries before it settles for the least loaded.
const JUMPS: usize = 32;

/// Consistent hashing with bounded load.
#[derive(Debug)]
pub(super) struct ConsistentHash {
    owners: Box<[u32]>,
    /// The bound divided by the sum of the weights.
    bound_per_weight: f64,
}

impl ConsistentHash {
    pub(super) fn new<N: AsRef<str>>(members: &Members, name: impl Fn(Seat) -> N, bounded_load: f64) -> Self {
        let bits = if members.seats().len() > MANY { LARGE_TABLE_BITS } else { TABLE_BITS };
        Self::with_bits(members, name, bounded_load, bits)
    }

    fn with_bits<N: AsRef<str>>(members: &Members, name: impl Fn(Seat) -> N, bounded_load: f64, bits: u32) -> Self {
        let names = members.seats().iter().map(|&seat| name(seat));
        let owners = race::table(names.zip(members.weights().iter().copied()), bits);
        let sum: f64 = members.weights().iter().map(|&weight| f64::from(weight)).sum();
        // Below 1 the members together could not take what there is.
        Self { owners, bound_per_weight: bounded_load.max(1.0) / sum }
    }

    fn owner(&self, hash: u64) -> usize {
        let bits = self.owners.len().trailing_zeros();
        let slot = (hash >> 32) as u32 >> (32 - bits);
        self.owners.get(slot as usize).map_or(0, |&position| position as usize)
    }

    fn has_room(&self, cost: Cost, in_flight: u64) -> bool {
        let capacity = (self.bound_per_weight * (in_flight + 1) as f64 * f64::from(cost.weight())).ceil();
        cost.is_idle() || f64::from(cost.in_flight()) < capacity
    }
}

impl Policy for ConsistentHash {
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat {
        let owner = self.owner(ask.hash);
        // An idle owner has room whatever the others have in hand: no need to add that up.
        if let Some(seat) = ready.untried(owner).filter(|_| ready.cost(owner).is_some_and(Cost::is_idle)) {
            return seat;
        }
        let in_flight = total_in_flight(&ready);
        let mut hash = ask.hash;
        for _ in 0..=JUMPS {
            let position = self.owner(hash);
            let room = ready.cost(position).is_some_and(|cost| self.has_room(cost, in_flight));
            if let Some(seat) = ready.untried(position).filter(|_| room) {
                return seat;
            }
            hash = another(hash);
        }
        ready.untried_from(lowest(&ready).first)
    }
}

fn total_in_flight(ready: &Ready<'_>) -> u64 {
    let mut sum = 0;
    for run in &ready.members.runs {
        let counts = ready.loads.side_by_side(run.first, run.len);
        sum += counts.iter().map(|count| u64::from(count.load(Relaxed))).sum::<u64>();
    }
    sum
}
