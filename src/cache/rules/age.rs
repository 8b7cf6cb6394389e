//! How old was the response when it came (RFC 9111, section 4.2.3)?

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{AGE, DATE};

use super::date;
use super::directives::seconds;
use super::list::trim;

/// The moments of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) asked_at: SystemTime,
    pub(super) answered_at: SystemTime,
}

impl Times {
    /// The `corrected_initial_age`.
    pub(super) fn age(&self, fields: &HeaderMap) -> Duration {
        let delay = self.answered_at.duration_since(self.asked_at).unwrap_or_default();
        let said = said(fields).unwrap_or_default() + delay;
        said.max(self.apparent(fields))
    }

    /// When the origin says that it made the response; when it came, if it does not say (RFC 9110, section 6.6.1).
    pub(super) fn date(&self, fields: &HeaderMap) -> SystemTime {
        fields.get(DATE).and_then(|date| date::parse(date.as_bytes())).unwrap_or(self.answered_at)
    }

    /// What the clocks say, in whole seconds: Date has no parts of them, and a response of this second is not old.
    fn apparent(&self, fields: &HeaderMap) -> Duration {
        let apparent = self.answered_at.duration_since(self.date(fields)).unwrap_or_default();
        Duration::from_secs(apparent.as_secs())
    }
}

/// The first value of Age; what is no number is ignored (RFC 9111, section 5.1). Parameters, which Age never had, take
/// nothing from a number before them.
fn said(fields: &HeaderMap) -> Option<Duration> {
    let line = fields.get(AGE)?.as_bytes();
    let first = line.split(|byte| matches!(byte, b',' | b';')).next()?;
    seconds(trim(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(lines: &[&str], expected: Option<u64>) {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(AGE, HeaderValue::from_str(line).unwrap());
        }
        assert_eq!(said(&fields), expected.map(Duration::from_secs), "{lines:?}");
    }

    #[test]
    fn the_first_age_counts_as_rfc_9111_section_5_1_says() {
        check(&["0"], Some(0));
        check(&["7200, 0"], Some(7200));
        check(&["0,7200"], Some(0));
        check(&["7200", "0"], Some(7200));
        check(&["0", "7200"], Some(0));
        check(&["007"], Some(7));
        check(&["7200;foo=bar"], Some(7200));
    }

    #[test]
    fn an_age_that_is_no_number_is_ignored_as_rfc_9111_section_5_1_says() {
        for line in ["", "abc", "-7200", "+7200", "7200.0", "72 00", "\"7200\"", ", 7200", "0x10"] {
            check(&[line], None);
        }
    }

    #[test]
    fn a_huge_age_is_a_large_one_as_rfc_9111_section_1_2_2_says() {
        for line in ["2147483648", "2147483649", "99999999999999999999999999"] {
            check(&[line], Some(1 << 31));
        }
    }

    fn age(lines: &[(&str, &str)]) -> Duration {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds);
        let fields = lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
        // Asked at 08:49:37, answered half a second into 08:49:40.
        Times { asked_at: at(784_111_777_000), answered_at: at(784_111_780_500) }.age(&fields.collect())
    }

    #[test]
    fn the_delay_is_added_to_what_is_said_as_rfc_9111_section_4_2_3_says() {
        assert_eq!(age(&[]), Duration::from_millis(3500));
        assert_eq!(age(&[("age", "10")]), Duration::from_millis(13_500));
    }

    #[test]
    fn the_clocks_count_where_they_say_more() {
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 08:49:30 GMT"), ("age", "1")]), Duration::from_secs(10));
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 08:49:40 GMT")]), Duration::from_millis(3500));
    }

    #[test]
    fn a_date_that_is_absent_invalid_or_ahead_adds_nothing() {
        for date in ["foo", "0", "Sun, 06 Nov 2094 08:49:30 GMT"] {
            assert_eq!(age(&[("date", date)]), Duration::from_millis(3500), "{date}");
        }
    }

    #[test]
    fn times_that_run_backwards_are_no_time() {
        let (early, late) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        assert_eq!(Times { asked_at: late, answered_at: early }.age(&HeaderMap::new()), Duration::ZERO);
    }
}
