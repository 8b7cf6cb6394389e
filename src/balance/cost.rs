//! How loaded would a member be with one more request? The measure by which the policies that look at loads compare.
//!
//! It is `(in flight + 1) / weight`, so that idle members of different weight differ. Two costs are compared by cross
//! multiplication, exactly, whatever the weights: both products fit in 64 bits.

use std::cmp::Ordering;

/// `(in flight + 1) / weight`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    in_flight: u32,
    weight: u32,
}

impl Cost {
    /// No member costs more.
    pub(super) const HIGHEST: Self = Self { in_flight: u32::MAX, weight: 1 };

    pub(super) fn new(in_flight: u32, weight: u32) -> Self {
        Self { in_flight, weight }
    }

    pub(super) fn in_flight(self) -> u32 {
        self.in_flight
    }

    pub(super) fn weight(self) -> u32 {
        self.weight
    }

    /// The cost itself, rounded.
    pub(super) fn per_weight(self) -> f64 {
        (f64::from(self.in_flight) + 1.0) / f64::from(self.weight)
    }

    pub(super) fn is_idle(self) -> bool {
        self.in_flight == 0
    }

    /// Whether weight alone should decide between this and `other`.
    ///
    /// Among idle members the load says nothing: taken at its word, the cost would give everything to the heaviest of
    /// them. They count as equal, so that a quiet upstream is shared by weight.
    pub(super) fn ties_with(self, other: Self) -> bool {
        (self.is_idle() && other.is_idle()) || self == other
    }
}

impl Ord for Cost {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // The usual case, and with thousands of members the difference shows.
        if self.weight == other.weight {
            return self.in_flight.cmp(&other.in_flight);
        }
        let ours = (u64::from(self.in_flight) + 1) * u64::from(other.weight);
        let theirs = (u64::from(other.in_flight) + 1) * u64::from(self.weight);
        ours.cmp(&theirs)
    }
}

impl PartialOrd for Cost {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cost {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cost {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_request_counts() {
        assert!(Cost::new(1, 5) < Cost::new(0, 1), "2/5 is less than 1/1");
        assert_eq!(Cost::new(4, 5), Cost::new(0, 1));
        assert!(Cost::new(5, 5) > Cost::new(0, 1));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        assert!(Cost::new(u32::MAX, 1) > Cost::new(u32::MAX, u32::MAX));
        assert_eq!(Cost::new(u32::MAX, u32::MAX), Cost::new(u32::MAX, u32::MAX));
    }

    #[test]
    fn idle_members_tie_whatever_their_weights() {
        assert!(Cost::new(0, 5).ties_with(Cost::new(0, 1)));
        assert!(!Cost::new(1, 5).ties_with(Cost::new(0, 1)));
        assert!(Cost::new(4, 5).ties_with(Cost::new(0, 1)));
    }
}
