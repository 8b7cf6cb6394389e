//! Whose turn is it? A smooth weighted sequence, computed once, of which a turn is one atomic step.
//!
//! For the weights 5, 1, 1 it is A A B A C A A: at each turn every member gains its weight in credit, the one with the
//! most credit serves (the first of equals) and pays the sum of the weights. That costs members times turns, so a long
//! sequence is made from deadlines instead: the k-th turn of a member is due at `(k + 1/2) / weight`, and the earliest
//! comes first. Both keep each member within one turn or so of its share at any time.
//!
//! The length is bounded: weights are divided by their common divisor, and where that leaves more than
//! [`LONGEST`] turns (or [`TURNS_PER_MEMBER`] a member, if that is more) they are scaled to about that sum. Then a
//! share is off by at most half a turn of a round, and the lightest still get one turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Turns in a round, at most: 256 KiB.
const LONGEST: u64 = 1 << 16;

/// Turns in a round for each member, where there are very many members.
const TURNS_PER_MEMBER: u64 = 16;

/// Above this many steps (members times turns) deadlines take the place of credits; some milliseconds.
const CREDIT_STEPS: u64 = 1 << 21;

/// Turns that one choice skips at most before it settles for anyone.
const SKIPS: usize = 64;

/// A sequence of positions that all threads go through together.
#[derive(Debug)]
pub(super) struct Turns {
    sequence: Box<[u32]>,
    next: AtomicU64,
}

impl Turns {
    pub(super) fn new(weights: &[u32], start: u64) -> Self {
        let weights = reduced(weights);
        let steps = weights.iter().sum::<u64>() * weights.len() as u64;
        let sequence = if steps <= CREDIT_STEPS { by_credit(&weights) } else { by_deadline(&weights) };
        let next = AtomicU64::new(start % sequence.len().max(1) as u64);
        Self { sequence: sequence.into(), next }
    }

    /// Takes turns until one suits.
    ///
    /// A turn that does not suit is spent, not kept: if it were only looked past, the member after a missing one would
    /// get that one's requests on top of its own. The error is the position at which the search gave up.
    pub(super) fn take<T>(&self, mut suits: impl FnMut(usize) -> Option<T>) -> Result<T, usize> {
        let mut position = 0;
        for _ in 0..SKIPS.min(2 * self.sequence.len()) {
            let turn = self.next.fetch_add(1, Relaxed) % self.sequence.len() as u64;
            position = self.sequence.get(turn as usize).map_or(0, |&position| position as usize);
            if let Some(taken) = suits(position) {
                return Ok(taken);
            }
        }
        Err(position)
    }
}

fn reduced(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| common_divisor(divisor, weight)).max(1);
    let sum: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    let longest = LONGEST.max(TURNS_PER_MEMBER * weights.len() as u64);
    let scaled = |weight: u64| {
        let rounded = (u128::from(weight) * u128::from(longest) + u128::from(sum / 2)) / u128::from(sum);
        (rounded as u64).max(1)
    };
    let exact = weights.iter().map(|&weight| u64::from(weight / divisor));
    if sum <= longest { exact.collect() } else { exact.map(scaled).collect() }
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

fn by_credit(weights: &[u64]) -> Vec<u32> {
    let sum: u64 = weights.iter().sum();
    let mut credits = vec![0_i64; weights.len()];
    let turn = |_| {
        let mut best = 0;
        let mut most = i64::MIN;
        for (position, (credit, &weight)) in credits.iter_mut().zip(weights).enumerate() {
            *credit += weight as i64;
            if *credit > most {
                (best, most) = (position, *credit);
            }
        }
        if let Some(credit) = credits.get_mut(best) {
            *credit -= sum as i64;
        }
        best as u32
    };
    (0..sum).map(turn).collect()
}

fn by_deadline(weights: &[u64]) -> Vec<u32> {
    // Deadlines in units of 2^-32 rounds: a weight stays far below 2^24 here, so there is room.
    let deadline = |turns_before: u64, weight: u64| ((2 * turns_before + 1) << 31) / weight;
    let sum: u64 = weights.iter().sum();
    let due = weights.iter().enumerate();
    let mut due: BinaryHeap<_> =
        due.map(|(position, &weight)| Reverse((deadline(0, weight), position as u32, 0_u64, weight))).collect();
    let mut sequence = Vec::with_capacity(sum as usize);
    while let Some(mut first) = due.peek_mut() {
        let Reverse((_, position, turns, weight)) = *first;
        sequence.push(position);
        if turns + 1 < weight {
            *first = Reverse((deadline(turns + 1, weight), position, turns + 1, weight));
        } else {
            PeekMut::pop(first);
        }
    }
    sequence
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letters(weights: &[u32]) -> String {
        let sequence = Turns::new(weights, 0).sequence;
        sequence.iter().map(|&position| char::from(b'A' + position as u8)).collect()
    }

    #[test]
    fn five_one_one_is_smooth() {
        assert_eq!(letters(&[5, 1, 1]), "AABACAA");
    }

    #[test]
    fn weights_are_reduced_by_their_common_divisor() {
        assert_eq!(letters(&[500, 100, 100]), "AABACAA");
        assert_eq!(letters(&[u32::MAX, u32::MAX]), "AB");
        assert_eq!(letters(&[7]), "A");
    }

    #[test]
    fn a_start_beyond_the_end_wraps() {
        let turns = Turns::new(&[5, 1, 1], u64::MAX);
        assert!((0..3).contains(&turns.take(Some).unwrap()));
    }

    #[test]
    fn credits_and_deadlines_give_the_same_shares() {
        let weights = [5_u64, 1, 1, 3];
        let (mut credit, mut deadline) = (by_credit(&weights), by_deadline(&weights));
        credit.sort_unstable();
        deadline.sort_unstable();
        assert_eq!(credit, deadline);
    }

    #[test]
    fn ten_thousand_members_all_get_turns() {
        let differing: Vec<u32> = (1..=10_000).collect();
        let sequence = Turns::new(&differing, 0).sequence;
        assert!(sequence.len() <= 200_000, "{}", sequence.len());
        let mut turns = vec![0_u32; differing.len()];
        sequence.iter().for_each(|&position| turns[position as usize] += 1);
        assert!(turns.iter().all(|&turns| turns > 0));

        let equal = Turns::new(&[3; 10_000], 0).sequence;
        assert!(equal.iter().copied().eq(0..10_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shares_are_within_half_a_turn_of_a_bounded_round(weights in prop::collection::vec(1..=u32::MAX, 1..8)) {
            let sequence = Turns::new(&weights, 0).sequence;
            prop_assert!(sequence.len() as u64 <= LONGEST + 8);
            let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (position, &weight) in weights.iter().enumerate() {
                let turns = sequence.iter().filter(|&&at| at as usize == position).count() as f64;
                let due = f64::from(weight) / sum * LONGEST.min(sequence.len() as u64) as f64;
                prop_assert!((turns - due).abs() <= 1.0, "{turns} turns instead of {due}");
            }
        }

        #[test]
        fn every_stretch_is_close_to_its_share(weights in prop::collection::vec(1_u32..20, 1..8), by_deadlines: bool) {
            let weights: Vec<u64> = weights.into_iter().map(u64::from).collect();
            let sequence = if by_deadlines { by_deadline(&weights) } else { by_credit(&weights) };
            let sum: u64 = weights.iter().sum();
            let mut turns = vec![0_u64; weights.len()];
            for (taken, &position) in (1_u64..).zip(&sequence) {
                turns[position as usize] += 1;
                for (&turns, &weight) in turns.iter().zip(&weights) {
                    let due = taken as f64 * weight as f64 / sum as f64;
                    prop_assert!((turns as f64 - due).abs() < 2.5, "{turns} of {taken} turns instead of {due}");
                }
            }
        }
    }
}
