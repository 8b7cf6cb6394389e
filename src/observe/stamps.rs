//! What time is it, as text? Lines that follow each other are mostly of the same second, so the text of the last one is kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Writes times, each form with the second that it wrote last. All are in UTC, whatever the machine's own time is.
#[derive(Debug, Default)]
pub struct Stamps {
    rfc3339: Kept<24>,
    clf: Kept<26>,
}

/// A second, and its text.
#[derive(Debug)]
struct Kept<const LENGTH: usize> {
    second: Option<u64>,
    text: [u8; LENGTH],
}

impl<const LENGTH: usize> Default for Kept<LENGTH> {
    fn default() -> Self {
        Self { second: None, text: [0; LENGTH] }
    }
}

impl Stamps {
    /// RFC 3339 to the millisecond, as in `2026-11-22T20:02:49.120Z`; `None` before 1970 and after 9999.
    pub(super) fn rfc3339(&mut self, time: SystemTime) -> Option<[u8; 24]> {
        let (mut text, since) = self.rfc3339.of(time, |stamp| format!("{stamp:.3}"))?;
        let millis = since.subsec_millis();
        let [.., hundreds, tens, ones, _] = &mut text;
        (*hundreds, *tens, *ones) = (digit(millis / 100), digit(millis / 10), digit(millis));
        Some(text)
    }

    /// As nginx and Apache write it (Common Log Format): `22/Nov/2026:20:02:49 +0000`; `None` before 1970 and after 9999.
    pub(super) fn clf(&mut self, time: SystemTime) -> Option<[u8; 26]> {
        Some(self.clf.of(time, |stamp| stamp.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string())?.0)
    }
}

impl<const LENGTH: usize> Kept<LENGTH> {
    /// The text of the second that the time is in, and the time since 1970.
    fn of(&mut self, time: SystemTime, print: impl FnOnce(Timestamp) -> String) -> Option<([u8; LENGTH], Duration)> {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        let second = since.as_secs();
        if self.second != Some(second) {
            let stamp = Timestamp::from_second(second.try_into().ok()?).ok()?;
            self.text = print(stamp).into_bytes().try_into().ok()?;
            self.second = Some(second);
        }
        Some((self.text, since))
    }
}

fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The last second of the year 9999, less the day that jiff leaves for time zones.
    const LAST: u64 = 253_402_207_200;

    #[test]
    fn times_that_have_no_text_are_none_and_leave_the_next_one_right() {
        let mut stamps = Stamps::default();
        let good = UNIX_EPOCH + Duration::from_millis(1_795_377_769_120);
        for bad in [UNIX_EPOCH - Duration::from_millis(1), UNIX_EPOCH + Duration::from_secs(LAST + 86_400)] {
            assert_eq!((stamps.rfc3339(bad), stamps.clf(bad)), (None, None));
            assert_eq!(stamps.rfc3339(good).unwrap(), *b"2026-11-22T20:02:49.120Z");
            assert_eq!(stamps.clf(good).unwrap(), *b"22/Nov/2026:20:02:49 +0000");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_written_before_a_time_is_as_jiff_writes_it(
            millis in proptest::collection::vec(0..LAST * 1000, 1..5), step in 0..3000_u64,
        ) {
            let mut stamps = Stamps::default();
            for millis in millis.into_iter().flat_map(|millis| [millis, millis + step, millis]) {
                let time = UNIX_EPOCH + Duration::from_millis(millis);
                let Ok(stamp) = Timestamp::try_from(time) else { continue };
                prop_assert_eq!(stamps.rfc3339(time).unwrap().to_vec(), format!("{stamp:.3}").into_bytes());
                let clf = stamp.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
                prop_assert_eq!(stamps.clf(time).unwrap().to_vec(), clf.into_bytes());
            }
        }
    }
}
