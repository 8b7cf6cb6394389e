//! Which blocks of counts hold the lowest cost? The answer of one pass without a branch for each member.
//!
//! With thousands of busy members such a branch would be the better part of a choice, since nobody can foretell it. So
//! each has a *key*, which is its cost as a floating point number, and the lowest key of a block comes from arithmetic
//! alone, of which the compiler does two members at a time. Keys never decide between members: they tell which blocks
//! deserve a second look, and there costs are compared exactly.
//!
//! A key is rounded twice, by 2^-53 of itself at most, so the keys of equal costs are within 2^-50 of each other. Two
//! different costs, `a / v` below `b / w`, are at least `1 / (a * w)` apart, relative to the lower one: that is more
//! than 2^-47 and cannot be mistaken while `a * w` is below 2^47. Where that is not sure there is no answer, and all
//! members must be looked at. For weights up to 1000 it is sure up to 2^26 requests in flight for each unit of weight.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::backend::{Loads, SEATS_PER_BLOCK, Seat};

/// Keys of equal costs are closer than this, those of different costs are not; relative to either.
const SLACK: f64 = 1.0 / (1_u64 << 49) as f64;

/// Below this limit of `a * w` (with room for its own rounding) different costs have keys that differ.
const DISTINCT: f64 = (1_u64 << 46) as f64;

/// Minima that are computed side by side: with one, each member would wait for the one before.
const LANES: usize = 4;

/// What turns the counts of all members into keys, in blocks as the counts are.
#[derive(Debug)]
pub(super) struct Keys {
    blocks: Box<[Factors]>,
    heaviest: f64,
}

/// For each seat of a block `1 / weight`, and infinity where nobody may be chosen.
#[derive(Debug)]
struct Factors {
    block: usize,
    by_seat: [f64; SEATS_PER_BLOCK],
}

impl Keys {
    pub(super) fn new(seats: &[Seat], weights: &[u32]) -> Self {
        let mut members: Vec<_> = seats.iter().zip(weights).collect();
        members.sort_unstable();
        let blocks = members.chunk_by(|(one, _), (next, _)| one.block() == next.block());
        let heaviest = weights.iter().copied().max().map_or(1.0, f64::from);
        Self { blocks: blocks.map(Factors::new).collect(), heaviest }
    }

    /// The number of blocks that have members.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The first and the last block with an untried member of the lowest cost, if keys can tell.
    // Beside this loop the one that looks at each member loses its registers, and a fifth of its speed.
    #[inline(never)]
    pub(super) fn cheapest_blocks(&self, loads: &Loads, tried: &[Seat]) -> Option<[usize; 2]> {
        let (mut lowest, mut cheapest) = (f64::INFINITY, None);
        for factors in &self.blocks {
            let key = factors.lowest_key(loads.block(factors.block)?, tried);
            if key < lowest * (1.0 - SLACK) {
                (lowest, cheapest) = (key, Some([factors.block; 2]));
            } else if key < lowest * (1.0 + SLACK) {
                cheapest = cheapest.map(|[first, _]| [first, factors.block]);
            }
        }
        // Of whom this is the cost, `a` is at most that many times the heaviest weight.
        cheapest.filter(|_| lowest * self.heaviest * self.heaviest < DISTINCT)
    }
}

impl Factors {
    fn new(members: &[(&Seat, &u32)]) -> Self {
        let block = members.first().map_or(0, |(seat, _)| seat.block());
        let mut by_seat = [f64::INFINITY; SEATS_PER_BLOCK];
        for (seat, weight) in members {
            if let Some(factor) = by_seat.get_mut(seat.offset()) {
                *factor = f64::from(**weight).recip();
            }
        }
        Self { block, by_seat }
    }

    fn lowest_key(&self, counts: &[AtomicU32; SEATS_PER_BLOCK], tried: &[Seat]) -> f64 {
        let mut tried = tried.iter().filter(|seat| seat.block() == self.block).peekable();
        if tried.peek().is_none() {
            return lowest_key(&self.by_seat, counts);
        }
        let mut by_seat = self.by_seat;
        for seat in tried {
            if let Some(factor) = by_seat.get_mut(seat.offset()) {
                *factor = f64::INFINITY;
            }
        }
        lowest_key(&by_seat, counts)
    }
}

fn lowest_key(factors: &[f64; SEATS_PER_BLOCK], counts: &[AtomicU32; SEATS_PER_BLOCK]) -> f64 {
    let (factors, counts) = (factors.as_chunks::<LANES>().0, counts.as_chunks::<LANES>().0);
    let mut lowest = [f64::INFINITY; LANES];
    for (factors, counts) in factors.iter().zip(counts) {
        // A loop of its own: loads of atomics keep their order, and would keep those of the factors apart too.
        let with_one_more = counts.each_ref().map(|count| one_more(count.load(Relaxed)));
        for ((lowest, in_flight), factor) in lowest.iter_mut().zip(with_one_more).zip(factors) {
            *lowest = lower(in_flight * factor, *lowest);
        }
    }
    lowest.into_iter().fold(f64::INFINITY, lower)
}

/// `count + 1`, exactly.
fn one_more(count: u32) -> f64 {
    // The number 2^52 + count has the bits of the count at its end, and to take a number away from it is cheaper than
    // a conversion.
    const TWO_TO_52: f64 = (1_u64 << 52) as f64;
    f64::from_bits(TWO_TO_52.to_bits() | u64::from(count)) - (TWO_TO_52 - 1.0)
}

/// `f64::min` would ask for NaN too.
fn lower(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_is_exact() {
        for count in [0, 1, 6, 1 << 31, u32::MAX] {
            assert_eq!(one_more(count), f64::from(count) + 1.0);
        }
    }

    #[test]
    fn only_what_keys_can_tell_apart_is_answered() {
        let seats: Vec<_> = (0..200).map(Seat).collect();
        let loads = Loads::with_seats(200);
        let cheapest =
            |weight| Keys::new(&seats, &[&[weight][..], &[3; 199]].concat()).cheapest_blocks(&loads, &[Seat(0)]);
        assert_eq!(cheapest(1_000), Some([0, 3]));
        assert_eq!(cheapest(u32::MAX), None);
        assert_eq!(
            Keys::new(&seats, &[1; 200]).cheapest_blocks(&Loads::with_seats(100), &[]),
            None,
            "seats without counts"
        );
    }
}
