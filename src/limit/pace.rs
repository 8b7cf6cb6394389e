//! Is it fast enough? The least that must move within a time, for one who is waited for.

use std::num::NonZeroU64;
use std::time::Duration;

/// What may have been waited for without anything coming: a few lost packets in a row take as long, and one who trickles
/// holds nobody longer. It is the grace at the beginning and the window afterwards.
const WINDOW: Duration = Duration::from_secs(5);

/// The pace of one who has to move so many bytes a second.
///
/// Waiting uses up what is left, and what moves gives it back, up to the window: so in every time that is longer, the
/// bytes are as many as the rate asks for, and no haste at the beginning pays for idling later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    rate: NonZeroU64,
    left: Duration,
}

impl Pace {
    /// At least so many bytes a second.
    pub fn new(rate: NonZeroU64) -> Self {
        Self { rate, left: WINDOW }
    }

    /// How long the next wait may last.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// How long so many bytes may take.
    pub fn time_for(&self, bytes: u64) -> Duration {
        self.left.saturating_add(Duration::from_secs(bytes / self.rate.get()))
    }

    /// It was waited for so long, and so many bytes came. Says whether that was fast enough.
    pub fn moved(&mut self, waited: Duration, bytes: u64) -> bool {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.rate.get());
        let earned = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(WINDOW);
        let left = (self.left + earned).checked_sub(waited);
        self.left = left.unwrap_or_default().min(WINDOW);
        left.is_some()
    }

    /// Nothing is held against it: it was not the one who was late.
    pub fn forgive(&mut self) {
        self.left = WINDOW;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(rate: u64) -> Pace {
        Pace::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn silence_is_borne_for_the_window_and_no_longer() {
        let mut silent = pace(1000);
        assert!(silent.moved(WINDOW, 0));
        assert!(!silent.moved(Duration::from_millis(1), 0));
    }

    #[test]
    fn haste_at_the_beginning_pays_for_no_more_than_the_window() {
        let mut hasty = pace(1000);
        assert!(hasty.moved(Duration::ZERO, 1 << 40));
        assert!(!hasty.moved(WINDOW + Duration::from_millis(1), 0));
    }

    #[test]
    fn forgiven_it_begins_anew() {
        let mut late = pace(1000);
        assert!(!late.moved(WINDOW * 2, 0));
        late.forgive();
        assert_eq!(late, pace(1000));
    }

    proptest! {
        #[test]
        fn who_keeps_the_rate_is_never_late(rate in 1_u64..1 << 30, steps in proptest::collection::vec(1_u64..4000, 1..200)) {
            let mut steady = pace(rate);
            for millis in steps {
                // Rounded up, so that the rate is really kept.
                prop_assert!(steady.moved(Duration::from_millis(millis), (rate * millis).div_ceil(1000)));
            }
        }

        #[test]
        fn who_moves_half_of_it_is_late_after_two_windows(rate in 2_u64..1 << 30, millis in 1_u64..500) {
            let mut slow = pace(rate);
            let (mut time, step) = (Duration::ZERO, Duration::from_millis(millis));
            while slow.moved(step, rate * millis / 2000) {
                time += step;
                prop_assert!(time <= WINDOW * 2 + step);
            }
        }
    }
}
