//! What is obeyed, what is not, and that nothing in a field makes us stumble.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

/// Sun, 06 Nov 1994 08:49:37 GMT
const NOW: u64 = 784_111_777;

fn rules() -> Obey {
    Obey { retry_after: true, rate_limit_fields: true, max: Duration::from_secs(600) }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn fields(lines: &[(&str, &str)]) -> HeaderMap {
    let name = |name: &str| name.parse::<HeaderName>().unwrap();
    lines.iter().map(|(key, value)| (name(key), HeaderValue::from_str(value).unwrap())).collect()
}

fn advice(status: u16, lines: &[(&str, &str)]) -> Advice {
    read(StatusCode::from_u16(status).unwrap(), &fields(lines), &rules(), now)
}

/// Seconds to wait, 0 for none.
fn wait(status: u16, lines: &[(&str, &str)]) -> u64 {
    advice(status, lines).wait.map_or(0, |wait| wait.as_secs())
}

fn odd(status: u16, lines: &[(&str, &str)]) -> Option<Odd> {
    advice(status, lines).odd
}

#[test]
fn retry_after_is_obeyed_on_429_and_503_alone() {
    for (status, seconds) in [(429, 7), (503, 7), (200, 0), (301, 0), (500, 0), (502, 0)] {
        assert_eq!(wait(status, &[("retry-after", "7")]), seconds, "{status}");
    }
}

#[test]
fn dates_are_read_in_all_three_forms() {
    for date in ["Sun, 06 Nov 1994 08:49:50 GMT", "Sunday, 06-Nov-94 08:49:50 GMT", "Sun Nov  6 08:49:50 1994"] {
        assert_eq!(wait(503, &[("retry-after", date)]), 13, "{date}");
    }
}

#[test]
fn a_date_is_compared_with_the_clock_of_whoever_wrote_it() {
    let hour_late = [("date", "Sun, 06 Nov 1994 07:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 07:50:07 GMT")];
    assert_eq!(wait(503, &hour_late), 30);
    let no_date = [("date", "yesterday"), ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")];
    assert_eq!(wait(503, &no_date), 30);
}

#[test]
fn nothing_and_the_past_are_no_wait_and_nothing_odd() {
    for value in ["0", "Sun, 06 Nov 1994 08:49:37 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        assert_eq!(advice(429, &[("retry-after", value)]), Advice::default(), "{value}");
    }
}

#[test]
fn what_is_malformed_is_ignored_and_told() {
    for value in ["", "-5", "+5", "5s", "soon", "1e3", "0x10", "5, 6", "Sun, 99 Nov 1994 08:49:37 GMT", "\t", "1."] {
        let expected = Advice { field: "Retry-After", odd: Some(Odd::Malformed), ..Advice::default() };
        assert_eq!(advice(503, &[("retry-after", value)]), expected, "{value:?}");
    }
    let mut bytes = HeaderMap::new();
    bytes.insert(RETRY_AFTER, HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    assert_eq!(read(StatusCode::TOO_MANY_REQUESTS, &bytes, &rules(), now).odd, Some(Odd::Malformed));
}

#[test]
fn what_is_too_long_is_clamped_and_told() {
    for value in ["601", "4294967296", "18446744073709551616", "99999999999999999999999999999999"] {
        assert_eq!(
            (wait(503, &[("retry-after", value)]), odd(503, &[("retry-after", value)])),
            (600, Some(Odd::TooLong))
        );
    }
    assert_eq!(wait(503, &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")]), 600);
    assert_eq!((wait(503, &[("retry-after", "600")]), odd(503, &[("retry-after", "600")])), (600, None));
}

#[test]
fn the_fields_of_the_first_drafts_are_understood() {
    let of = |remaining, reset| {
        wait(200, &[("ratelimit-limit", "100"), ("ratelimit-remaining", remaining), ("ratelimit-reset", reset)])
    };
    assert_eq!((of("0", "30"), of("1", "30"), of("0", "0")), (30, 0, 0));
    assert_eq!(odd(200, &[("ratelimit-remaining", "0")]), Some(Odd::Malformed));
    assert_eq!(odd(200, &[("ratelimit-remaining", "few"), ("ratelimit-reset", "30")]), Some(Odd::Malformed));
    assert_eq!(odd(200, &[("ratelimit-remaining", "9")]), None);
}

#[test]
fn the_field_of_draft_07_is_understood() {
    for (value, seconds) in [
        ("limit=100, remaining=0, reset=30", 30),
        ("limit=100,remaining=0,reset=30", 30),
        ("limit=100, remaining=5, reset=30", 0),
        ("remaining=5", 0),
    ] {
        assert_eq!(advice(200, &[("ratelimit", value)]).wait.map_or(0, |wait| wait.as_secs()), seconds, "{value}");
        assert_eq!(odd(200, &[("ratelimit", value)]), None, "{value}");
    }
    assert_eq!(odd(200, &[("ratelimit", "limit=100, remaining=0")]), Some(Odd::Malformed));
}

#[test]
fn the_fields_of_draft_08_and_later_are_understood() {
    for (value, seconds) in [
        (r#""burst";r=0;t=30"#, 30),
        (r#""burst";r=50;t=30"#, 0),
        (r#""burst";r=0;t=30, "day";r=0;t=300"#, 300),
        (r#""burst";r=0;t=30, "day";r=7"#, 30),
        (r#""a,b;r=9\"";r=0;t=30;pk=:Zm9v:"#, 30),
        (r#"default;r=0;t=5"#, 5),
    ] {
        assert_eq!((wait(200, &[("ratelimit", value)]), odd(200, &[("ratelimit", value)])), (seconds, None), "{value}");
    }
}

#[test]
fn a_quota_without_a_time_comes_back_with_its_window() {
    let policy = ("ratelimit-policy", r#""burst";q=100;w=60, "day";q=1000;w=86400"#);
    assert_eq!(wait(429, &[("ratelimit", r#""burst";r=0"#), policy]), 60);
    assert_eq!(odd(429, &[("ratelimit", r#""other";r=0"#), policy]), Some(Odd::Malformed));
}

#[test]
fn the_older_fields_give_seconds_or_a_moment() {
    let moment = (NOW + 1_000_000_000).to_string();
    let later = || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 1_000_000_000 - 40);
    for (reset, seconds) in [("40", 40), ("39.5", 40), (moment.as_str(), 40), (&format!("{moment}000"), 40)] {
        let fields = fields(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)]);
        let advice = read(StatusCode::OK, &fields, &rules(), later);
        assert_eq!(advice.wait, Some(Duration::from_secs(seconds)), "{reset}");
    }
    assert_eq!(wait(200, &[("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "40")]), 0);
    assert_eq!(wait(200, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "-40")]), 0);
}

#[test]
fn a_quota_of_which_less_than_a_tenth_remains_is_low() {
    let low = |lines: &[(&str, &str)]| advice(200, lines).low.map_or(0, |low| low.as_secs());
    for (remaining, expected) in [("1", 30), ("9", 30), ("10", 0), ("100", 0), ("0", 0)] {
        for dialect in [
            ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
            ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
        ] {
            let (limit, left, reset) = dialect;
            assert_eq!(low(&[(limit, "100"), (left, remaining), (reset, "30")]), expected, "{dialect:?} {remaining}");
        }
        let draft_07 = format!("limit=100, remaining={remaining}, reset=30");
        assert_eq!(low(&[("ratelimit", &draft_07)]), expected, "{draft_07}");
        let draft_08 = format!("\"a\";r={remaining};t=30, \"b\";r=500;t=60");
        let policy = ("ratelimit-policy", "\"a\";q=100;w=60, \"b\";q=1000;w=60");
        assert_eq!(low(&[("ratelimit", &draft_08), policy]), expected, "{draft_08}");
    }
    assert_eq!(low(&[("ratelimit", "remaining=1, reset=30")]), 0, "of how many?");
    assert_eq!(low(&[("ratelimit", "limit=100, remaining=1")]), 0, "until when?");
    assert_eq!(
        low(&[("ratelimit-limit", "100, 100;w=60"), ("ratelimit-remaining", "1"), ("ratelimit-reset", "9000")]),
        600
    );
}

#[test]
fn retry_after_goes_first_and_what_is_wrong_with_it_leaves_room_for_the_others() {
    let quota = ("ratelimit", "limit=1, remaining=0, reset=30");
    assert_eq!(wait(429, &[("retry-after", "7"), quota]), 7);
    assert_eq!(wait(429, &[("retry-after", "soon"), quota]), 30);
    assert_eq!(advice(429, &[("retry-after", "soon"), ("ratelimit", "all")]).field, "Retry-After");
}

#[test]
fn what_is_switched_off_is_not_looked_at() {
    let all = fields(&[("retry-after", "7"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "8")]);
    let seconds = |retry_after, rate_limit_fields| {
        let rules = Obey { retry_after, rate_limit_fields, ..rules() };
        read(StatusCode::TOO_MANY_REQUESTS, &all, &rules, now).wait.map_or(0, |wait| wait.as_secs())
    };
    assert_eq!([seconds(true, true), seconds(false, true), seconds(true, false), seconds(false, false)], [7, 8, 7, 0]);
}

proptest! {
    #[test]
    fn whatever_stands_there_is_read_in_bounds(
        status in prop::sample::select(vec![200_u16, 429, 503]),
        values in prop::collection::vec("([ -~]{0,40}|[0-9,;=\"\\\\.rtw -]{0,30}|[0-9]{1,40})", 7),
    ) {
        let names = ["retry-after", "date", "ratelimit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset",
            "x-ratelimit-reset"];
        let lines: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
        for skipped in 0..lines.len() {
            let some: Vec<_> = lines.iter().copied().skip(skipped).chain([("x-ratelimit-remaining", "0")]).collect();
            let advice = advice(status, &some);
            prop_assert!(advice.wait.is_none_or(|wait| !wait.is_zero() && wait <= rules().max));
            prop_assert!(advice.low.is_none_or(|low| low <= rules().max && advice.wait.is_none()));
            let nothing = advice.wait.is_none() && advice.low.is_none() && advice.odd.is_none();
            prop_assert_eq!(advice == Advice::default(), nothing);
        }
    }

    #[test]
    fn seconds_are_what_they_say(number in 1_u64..=600) {
        prop_assert_eq!(wait(503, &[("retry-after", &number.to_string())]), number);
        prop_assert_eq!(wait(200, &[("ratelimit", &format!("\"a\";r=0;t={number}"))]), number);
    }

    #[test]
    fn a_date_of_ours_is_read_back(after in 1_u64..=600) {
        let date = crate::answer::httpdate(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + after));
        prop_assert_eq!(wait(429, &[("retry-after", &date)]), after);
    }
}
