//! Who is next? A line of those who wait: by priority, then in the order in which they came.
//!
//! It holds a bounded number. Where it is full, one that comes with a higher priority takes the place of the last of the
//! lowest, since otherwise a flood of what can wait would keep out what cannot.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// A place in the line; nobody ever gets it a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    priority: Reverse<i32>,
    number: u64,
}

/// Those who wait.
#[derive(Debug)]
pub struct Line<T> {
    waiting: BTreeMap<Place, T>,
    next: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }
}

impl<T> Line<T> {
    /// Joins the line behind all of the same priority; `None` where `size` wait already and nobody has a lower one.
    /// Gives the place, and whoever had to leave for it.
    pub fn join(&mut self, priority: i32, size: usize, who: T) -> Option<(Place, Option<T>)> {
        let place = Place { priority: Reverse(priority), number: self.next };
        let mut left = None;
        if self.waiting.len() >= size {
            let last = *self.waiting.last_key_value()?.0;
            if last.priority <= place.priority {
                return None;
            }
            left = self.waiting.remove(&last);
        }
        self.next += 1;
        self.waiting.insert(place, who);
        Some((place, left))
    }

    /// Leaves the line, if it is still there.
    pub fn leave(&mut self, place: Place) -> Option<T> {
        self.waiting.remove(&place)
    }

    /// The first, or the first behind a place.
    pub fn after(&self, place: Option<Place>) -> Option<(Place, &T)> {
        let from = place.map_or(Unbounded, Excluded);
        self.waiting.range((from, Unbounded)).next().map(|(place, who)| (*place, who))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(line: &mut Line<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| line.after(None).map(|(place, _)| place).and_then(|place| line.leave(place))).collect()
    }

    #[test]
    fn the_first_come_is_the_first_served_within_a_priority() {
        let mut line = Line::default();
        for (priority, who) in [(0, "a"), (5, "b"), (0, "c"), (-1, "d"), (5, "e")] {
            assert!(line.join(priority, 10, who).is_some());
        }
        assert_eq!(drain(&mut line), ["b", "e", "a", "c", "d"]);
    }

    #[test]
    fn who_leaves_makes_no_hole() {
        let mut line = Line::default();
        let places = ["a", "b", "c"].map(|who| line.join(0, 3, who).unwrap().0);
        assert_eq!(line.leave(places[1]), Some("b"));
        assert_eq!(line.leave(places[1]), None);
        assert_eq!(line.after(Some(places[0])).unwrap().1, &"c");
        assert!(line.join(0, 3, "d").is_some());
        assert_eq!(drain(&mut line), ["a", "c", "d"]);
    }

    #[test]
    fn a_full_line_takes_only_who_comes_before_somebody() {
        let mut line = Line::default();
        for who in ["a", "b"] {
            line.join(0, 2, who).unwrap();
        }
        assert!(line.join(0, 2, "c").is_none() && line.join(-1, 2, "c").is_none());
        assert_eq!(line.join(1, 2, "d").unwrap().1, Some("b"));
        assert_eq!(drain(&mut line), ["d", "a"]);
        assert!(line.join(1, 0, "e").is_none());
    }

    proptest! {
        #[test]
        fn it_is_always_bounded_and_in_order(joins in prop::collection::vec((-2..3, any::<bool>()), 0..60), size in 0_usize..8) {
            let mut line = Line::default();
            for (number, (priority, leaves)) in joins.into_iter().enumerate() {
                line.join(priority, size, (Reverse(priority), number));
                prop_assert!(line.len() <= size);
                if let Some((place, _)) = line.after(None).filter(|_| leaves) {
                    line.leave(place);
                }
            }
            let mut seen = Vec::new();
            let mut last = None;
            while let Some((place, who)) = line.after(last) {
                seen.push(*who);
                last = Some(place);
            }
            prop_assert!(seen.is_sorted() && seen.len() == line.len());
        }
    }
}
