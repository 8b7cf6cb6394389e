//! When was it? A date in one of the three forms of HTTP (RFC 9110, section 5.6.7).
//!
//! Letters may have any case, and a zone other than GMT makes a date invalid (RFC 9111, section 4.2). The day of the week
//! is read and not compared. A year of two digits is one of 1970 to 2069: to the rule that it lies at most 50 years ahead
//! belongs a clock.

use std::time::{Duration, SystemTime};

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const DAYS: [&[u8]; 7] = [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// The moment that is written; what was before 1970 counts as its first second.
pub(super) fn parse(text: &[u8]) -> Option<SystemTime> {
    // The longest is "Wednesday, 06-Nov-94 08:49:37 GMT".
    let mut lower = [0; 33];
    let lower = lower.get_mut(..text.len())?;
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    let end = lower.iter().position(|byte| matches!(byte, b',' | b' '))?;
    let (weekday, rest) = lower.split_at(end);
    match rest {
        [b',', b' ', rest @ ..] if is_weekday(weekday, 3) => imf(rest),
        [b',', b' ', rest @ ..] if is_weekday(weekday, usize::MAX) => rfc850(rest),
        [b' ', rest @ ..] if is_weekday(weekday, 3) => asctime(rest),
        _ => None,
    }
}

fn is_weekday(text: &[u8], letters: usize) -> bool {
    DAYS.iter().any(|day| text == &day[..letters.min(day.len())])
}

/// `06 nov 1994 08:49:37 gmt`
fn imf(text: &[u8]) -> Option<SystemTime> {
    let [d1, d2, b' ', m1, m2, m3, b' ', year @ .., b' ', _, _, _, _, _, _, _, _, b' ', b'g', b'm', b't'] = text else {
        return None;
    };
    let year = (year.len() == 4).then(|| number(year)).flatten()?;
    moment(year, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?, &text[12..20])
}

/// `06-nov-94 08:49:37 gmt`
fn rfc850(text: &[u8]) -> Option<SystemTime> {
    let [d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ .., b' ', b'g', b'm', b't'] = text else { return None };
    let year = number(&[*y1, *y2])?;
    let century = if year < 70 { 2000 } else { 1900 };
    moment(century + year, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?, time)
}

/// `nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<SystemTime> {
    let [m1, m2, m3, b' ', d1, d2, b' ', time @ .., b' ', y1, y2, y3, y4] = text else { return None };
    let tens = if *d1 == b' ' { b'0' } else { *d1 };
    moment(number(&[*y1, *y2, *y3, *y4])?, month(&[*m1, *m2, *m3])?, number(&[tens, *d2])?, time)
}

fn month(name: &[u8]) -> Option<u64> {
    (1..).zip(MONTHS).find(|(_, known)| *known == name).map(|(month, _)| month)
}

fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'));
    digits.iter().try_fold(0, add)
}

fn moment(year: u64, month: u64, day: u64, time: &[u8]) -> Option<SystemTime> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    // A leap second is one (RFC 9110, section 5.6.7: second is 00 to 60).
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let is_day = (1..=days_of(year, month)).contains(&day);
    (is_time && is_day).then_some(())?;
    let since_1970 =
        days_before(year, month).map(|days| (days + day - 1) * 86_400 + hour * 3600 + minute * 60 + second);
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970.unwrap_or_default()))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970 to the month; `None` for an earlier year.
fn days_before(year: u64, month: u64) -> Option<u64> {
    let years = year.checked_sub(1970)?;
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    Some(years * 365 + leaps(year - 1) - leaps(1969) + months)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::httpdate;
    use proptest::prelude::*;

    const EXAMPLE: u64 = 784_111_777;

    fn check(text: &str, expected: Option<u64>) {
        let since_1970 = parse(text.as_bytes()).map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(since_1970, expected, "{text}");
    }

    #[test]
    fn the_three_forms_of_rfc_9110_section_5_6_7_are_read() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(EXAMPLE));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(EXAMPLE));
        check("Sun Nov  6 08:49:37 1994", Some(EXAMPLE));
        check("Wednesday, 01-Jan-20 00:00:00 GMT", Some(1_577_836_800));
        check("Tuesday, 01-Jan-69 00:00:00 GMT", Some(3_124_224_000));
        check("Thursday, 01-Jan-70 00:00:00 GMT", Some(0));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799));
        check("Sat, 29 Feb 2020 00:00:60 GMT", Some(1_582_934_460));
        check("Mon, 01 Jan 1900 00:00:00 GMT", Some(0));
    }

    #[test]
    fn the_case_of_letters_does_not_matter_as_rfc_9111_section_4_2_says() {
        check("sUN, 06 NOV 1994 08:49:37 gMT", Some(EXAMPLE));
    }

    #[test]
    fn anything_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "now",
            "Sun",
            "Sun,",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 12345 08:49:37 GMT",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMTx",
            "Sun, +6 Nov 1994 08:49:37 GMT",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            parse(&text);
        }

        #[test]
        fn what_we_write_is_what_we_read(seconds in 0_u64..253_402_207_200) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            prop_assert_eq!(parse(httpdate(at).as_bytes()), Some(at));
        }
    }
}
