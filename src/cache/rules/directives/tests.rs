//! What Cache-Control says, also when it is badly written.

use super::*;
use crate::cache::rules::samples::head;
use http::HeaderValue;
use proptest::prelude::*;

fn of(lines: &[&str]) -> Directives {
    let fields: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
    Directives::of(&head(&fields))
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[track_caller]
fn check_max_age(lines: &[&str], expected: Option<u64>) {
    assert_eq!(of(lines).max_age, expected.map(seconds), "{lines:?}");
}

#[test]
fn the_directives_of_rfc_9111_section_5_2_2_are_read() {
    let all =
        "Max-Age=1, must-REVALIDATE, must-understand, no-cache, no-store, no-transform, private, proxy-revalidate";
    let more = "public,s-maxage=2 ,stale-while-revalidate=3,stale-if-error=\"4\", immutable";
    assert_eq!(
        of(&[all, more]),
        Directives {
            no_store: true,
            must_understand: true,
            must_revalidate: true,
            proxy_revalidate: true,
            public: true,
            shared: true,
            no_cache: Reach::Whole,
            private: Reach::Whole,
            max_age: Some(seconds(1)),
            s_maxage: Some(seconds(2)),
            stale_while_revalidate: Some(seconds(3)),
            stale_if_error: Some(seconds(4)),
        }
    );
}

#[test]
fn nothing_and_extensions_say_nothing_as_rfc_9111_section_5_2_3_says() {
    for line in
        ["", ",, ,", "foo, bar=baz, qux=\"max-age=3, no-store\"", "max-agee=3, xno-store, no_store, maxage=3", "="]
    {
        assert_eq!(of(&[line]), Directives::default(), "{line}");
    }
}

#[test]
fn a_number_is_digits_bare_or_quoted_as_rfc_9111_sections_1_2_2_and_5_2_say() {
    check_max_age(&["max-age=3600"], Some(3600));
    check_max_age(&["max-age=003600"], Some(3600));
    check_max_age(&["max-age=\"3600\""], Some(3600));
    check_max_age(&["max-age=0"], Some(0));
    for huge in ["2147483648", "2147483649", "99999999999", "99999999999999999999999999999999999"] {
        check_max_age(&[&format!("max-age={huge}")], Some(1 << 31));
    }
    check_max_age(&["max-age=2147483647"], Some(2_147_483_647));
}

#[test]
fn a_number_that_is_none_is_stale_as_rfc_9111_section_4_2_1_says() {
    for bad in [
        "=-1",
        "=+3600",
        "=3600.0",
        "=3600.5",
        "='3600'",
        "=a3600",
        "=3600a",
        "=0x10",
        "=36e2",
        "=",
        "",
        " =3600",
        "= 3600",
        "=3600 s",
        "=36 00",
        "=3600;foo",
        "=\"3600\"x",
        "=\"36\\00\"",
        "=\"\"",
        "=\"3600",
        "=3600\"",
        "==3600",
        "=3600=",
        "\t=3600",
        "=\u{0663}",
    ] {
        check_max_age(&[&format!("max-age{bad}")], Some(0));
        check_max_age(&[&format!("max-age{bad}, max-age=60")], Some(0));
        check_max_age(&[&format!("max-age=60, max-age{bad}")], Some(0));
    }
}

#[test]
fn of_two_numbers_the_smaller_counts() {
    check_max_age(&["max-age=1800, max-age=1"], Some(1));
    check_max_age(&["max-age=1, max-age=1800"], Some(1));
    check_max_age(&["max-age=1800", "max-age=1"], Some(1));
    check_max_age(&["max-age=1", "max-age=1800"], Some(1));
}

#[test]
fn what_stands_in_quotes_is_no_directive() {
    check_max_age(&["extension=\"max-age=3600\", max-age=1"], Some(1));
    check_max_age(&["max-age=1, extension=\"max-age=3600\""], Some(1));
    check_max_age(&["extension=\"a\\\", max-age=1\", max-age=3600"], Some(3600));
    assert!(!of(&["extension=\"no-store, private\""]).no_store);
}

#[test]
fn a_quote_that_nothing_closes_hides_no_ban_and_makes_stale() {
    for line in ["max-age=60, foo=\"a, no-store", "foo=\"a, no-store, max-age=60", "\"foo, no-store, max-age=60"] {
        let directives = of(&[line]);
        assert!(directives.no_store, "{line}");
        assert_eq!(directives.max_age, Some(Duration::ZERO), "{line}");
    }
    assert_eq!(of(&["foo=\"a, s-maxage=60"]).s_maxage, Some(Duration::ZERO));
    // A quote is closed on its own line or not at all.
    assert!(of(&["foo=\"a", "no-store, bar=\"b\""]).no_store);
}

#[test]
fn a_forgotten_comma_hides_no_ban_and_makes_stale() {
    for line in [
        "max-age=60; private",
        "private; max-age=60",
        "max-age=60 private",
        "private max-age=60",
        "private;",
        "private =",
    ] {
        let directives = of(&[line]);
        assert_eq!(directives.private, Reach::Whole, "{line}");
    }
    check_max_age(&["max-age=60; public"], Some(0));
    check_max_age(&["public max-age=60"], Some(0));
    check_max_age(&["max-age=60;"], Some(60));
}

#[test]
fn what_is_badly_written_is_not_served_stale_and_allows_nothing() {
    for line in
        ["max-age=60; stale-while-revalidate=5, stale-if-error=5", "max-age=60, foo=\"a", "public must-revalidate"]
    {
        let directives = of(&[line]);
        let stale = (directives.stale_while_revalidate, directives.stale_if_error);
        assert_eq!(stale, (Some(Duration::ZERO), Some(Duration::ZERO)), "{line}");
    }
}

#[test]
fn a_ban_with_an_argument_is_a_ban() {
    let directives = of(&["no-store=0, must-revalidate=false, proxy-revalidate=\"\", must-understand=x"]);
    assert!(directives.no_store && directives.must_revalidate && directives.proxy_revalidate);
    assert!(directives.must_understand);
}

#[test]
fn bytes_beyond_ascii_are_bytes() {
    let mut fields = HeaderMap::new();
    fields.append(CACHE_CONTROL, HeaderValue::from_bytes(b"\xff=\xfe, max-age=60, no-store\xff").unwrap());
    assert_eq!(Directives::of(&fields), Directives { max_age: Some(seconds(60)), ..Directives::default() });
}

#[track_caller]
fn check_no_cache(line: &str, expected: Option<&[&str]>) {
    let reach = of(&[line]).no_cache;
    match expected {
        Some(names) => assert_eq!(reach.fields(), names, "{line}"),
        None => assert_eq!(reach, Reach::Whole, "{line}"),
    }
}

#[test]
fn no_cache_and_private_may_name_fields_as_rfc_9111_sections_5_2_2_4_and_7_say() {
    check_no_cache("no-cache=\"a\"", Some(&["a"]));
    check_no_cache("no-cache=\"A, b,,\tc \"", Some(&["a", "b", "c"]));
    check_no_cache("no-cache=Set-Cookie", Some(&["set-cookie"]));
    check_no_cache("no-cache=\"a\", no-cache=\"b\"", Some(&["a", "b"]));
    assert_eq!(of(&["private=\"a\""]).private.fields(), ["a"]);
    assert_eq!(of(&["private=\"a\""]).no_cache, Reach::Nothing);
}

#[test]
fn it_is_the_whole_response_where_no_fields_can_be_read() {
    for line in [
        "no-cache",
        "no-cache=",
        "no-cache=\"\"",
        "no-cache=\",\"",
        "no-cache=\"a/b\"",
        "no-cache=\"a\\\"b\"",
        "no-cache=\"a",
        "no-cache=\"a\"b",
        "no-cache=\"a\", no-cache",
        "no-cache, no-cache=\"a\"",
        "no-cache =\"a\"",
    ] {
        check_no_cache(line, None);
    }
}

#[test]
fn a_field_that_a_store_needs_cannot_be_left_out_so_it_is_the_whole() {
    check_no_cache("no-cache=\"a, Vary\"", None);
    check_no_cache("no-cache=\"content-length\"", None);
}

#[test]
fn who_must_revalidate_may_not_be_stale_as_rfc_9111_section_4_2_4_says() {
    for (line, expected) in [
        ("max-age=1", true),
        ("max-age=1, stale-while-revalidate=5", true),
        ("max-age=1, must-revalidate", false),
        ("max-age=1, proxy-revalidate", false),
        ("max-age=1, no-cache", false),
        ("max-age=1, no-cache=\"a\"", true),
        ("s-maxage=1", false),
        ("s-maxage=1, stale-while-revalidate=5", false),
    ] {
        assert_eq!(of(&[line]).may_be_stale(), expected, "{line}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut fields = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            fields.append(CACHE_CONTROL, value);
        }
        Directives::of(&fields);
    }

    #[test]
    fn a_ban_at_the_end_is_seen_whatever_stands_before_it(text in "([a-z=;, \t\\\\-]|max-age=[0-9]|private|\"){0,30}") {
        // A quote that stands open would be closed by nothing after it.
        let line = format!("{text}, no-store");
        prop_assert!(of(&[&line]).no_store, "{}", line);
    }

    #[test]
    fn more_said_is_never_fresher(first in "((max-age|s-maxage)=[0-9]{1,2},? ?|no-cache|;){0,4}", second in "max-age=[0-9]{1,2}") {
        let (one, both) = (of(&[&first]), of(&[&first, &second]));
        prop_assert!(one.max_age.is_none() || both.max_age <= one.max_age);
    }
}
