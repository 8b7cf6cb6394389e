//! How long did they take? A histogram with fixed bounds, from half a millisecond to a minute.

use std::time::Duration;

use super::Count;

/// The upper bounds. From what a backend in the same rack needs to what clients give up at, about two or three in each
/// power of ten: fewer say little, and each is one more series for each route.
pub const BOUNDS: [Duration; 16] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// How long things took.
#[derive(Debug, Default)]
pub struct Durations {
    /// What was above each bound and not above the next one; the last is above all.
    between: [Count; BOUNDS.len() + 1],
    nanos: Count,
}

/// What [`Durations`] say at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// How many took at most as long as each bound; the last is all of them.
    pub at_most: [u64; BOUNDS.len() + 1],
    /// All of them together, in seconds.
    pub sum: f64,
}

impl Durations {
    /// Counts one.
    pub fn took(&self, time: Duration) {
        let place = BOUNDS.partition_point(|bound| *bound < time);
        if let Some(count) = self.between.get(place) {
            count.one();
        }
        self.nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What they say now.
    pub fn get(&self) -> Spread {
        let mut sum = 0;
        let at_most = std::array::from_fn(|place| {
            sum += self.between[place].get();
            sum
        });
        Spread { at_most, sum: self.nanos.get() as f64 / 1e9 }
    }
}

impl Spread {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.at_most[BOUNDS.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_as_long_as_a_bound_is_within_it() {
        let durations = Durations::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            durations.took(Duration::from_micros(micros));
        }
        let spread = durations.get();
        assert_eq!(spread.at_most[..3], [2, 3, 3]);
        assert_eq!(spread.at_most[14..], [3, 4, 5]);
        assert_eq!((spread.count(), spread.sum), (5, 120.001002));
    }

    #[test]
    fn the_bounds_grow() {
        assert!(BOUNDS.is_sorted());
    }
}
