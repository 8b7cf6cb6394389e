//! Which one does chance pick? A weighted draw from a number that the caller brings.
//!
//! Running sums of the weights and a binary search: 14 steps for ten thousand members. Who was tried is passed over by
//! one exact draw among the rest, never by "try again" or "take the next", which would favour neighbours.

use super::{Members, Ready};

/// Running sums of the members' weights.
#[derive(Debug)]
pub(super) struct Draw {
    ends: Box<[u64]>,
}

impl Draw {
    pub(super) fn new(members: &Members) -> Self {
        let sums = members.weights().iter().scan(0_u64, |sum, &weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self { ends: sums.collect() }
    }

    /// An untried member.
    pub(super) fn one(&self, ready: &Ready<'_>, random: u64) -> usize {
        let position = self.at(below(random, self.sum()));
        let untried = ready.untried(position).map(|_| position);
        untried.or_else(|| rest(ready, None, another(random))).unwrap_or(0)
    }

    /// An untried member that is not `first`, if there is one.
    pub(super) fn other(&self, ready: &Ready<'_>, first: usize, random: u64) -> Option<usize> {
        let start = first.checked_sub(1).map_or(0, |before| self.end(before));
        let span = self.end(first) - start;
        let rest_of_sum = self.sum() - span;
        if rest_of_sum == 0 {
            return None;
        }
        // As if `first` were cut out of the line: whatever lies behind it moves up.
        let drawn = below(random, rest_of_sum);
        let position = self.at(if drawn < start { drawn } else { drawn + span });
        let untried = ready.untried(position).map(|_| position);
        untried.or_else(|| rest(ready, Some(first), another(random)))
    }

    fn at(&self, drawn: u64) -> usize {
        self.ends.partition_point(|&end| end <= drawn)
    }

    fn end(&self, position: usize) -> u64 {
        self.ends.get(position).copied().unwrap_or_else(|| self.sum())
    }

    fn sum(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// A draw among the untried members except one, in two passes.
fn rest(ready: &Ready<'_>, except: Option<usize>, random: u64) -> Option<usize> {
    let weights = ready.members.weights().iter().enumerate();
    let open = weights.filter(|&(position, _)| Some(position) != except && ready.untried(position).is_some());
    let sum: u64 = open.clone().map(|(_, &weight)| u64::from(weight)).sum();
    let mut drawn = below(random, sum);
    let mut last = None;
    for (position, &weight) in open {
        last = Some(position);
        match drawn.checked_sub(u64::from(weight)) {
            Some(left) => drawn = left,
            None => break,
        }
    }
    last
}

/// A number from 0 to `bound` (not included) from 64 random bits; 0 if there is none.
pub(super) fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// The next random number after this one: a step and the finishing mix of SplitMix64.
pub(super) fn another(random: u64) -> u64 {
    let step = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (step ^ (step >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
