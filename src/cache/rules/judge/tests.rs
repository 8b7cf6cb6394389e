//! What is stored and for how long, each rule with the section that it comes from.

use super::*;
use crate::cache::rules::samples::head;
use crate::config::{KeyParts, QueryParts};
use NotStored as N;
use proptest::prelude::*;

const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
const TAG: (&str, &str) = ("etag", "\"a\"");

/// When the responses of these tests come.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

fn caching() -> Caching {
    let key = KeyParts { query: QueryParts::All, headers: Vec::new(), cookies: Vec::new(), body: 0 };
    Caching {
        ttl: None,
        methods: vec![Method::GET, Method::POST],
        key,
        heuristic: false,
        stale_while_revalidate: None,
        stale_if_error: None,
        lock: None,
        bypass: Vec::new(),
        store_set_cookie: false,
        tags: Vec::new(),
    }
}

fn terms(caching: &Caching) -> Terms<'_> {
    Terms { method: &Method::GET, authorized: false, no_store: false, caching, asked_at: now(), answered_at: now() }
}

fn verdict(caching: &Caching, status: u16, fields: &[(&str, &str)]) -> Result<Lifetime, NotStored> {
    judge(&terms(caching), StatusCode::from_u16(status).unwrap(), &head(fields))
}

/// The age and the lifetime of a 200.
#[track_caller]
fn check(fields: &[(&str, &str)], expected: Result<(u64, u64), NotStored>) {
    let found = verdict(&caching(), 200, fields).map(|life| (life.age.as_secs(), life.fresh_for.as_secs()));
    assert_eq!(found, expected, "{fields:?}");
}

/// The lifetime of a 200 that has just been made, or why it is not stored.
#[track_caller]
fn check_cc(line: &str, expected: Result<u64, NotStored>) {
    check(&[("cache-control", line), DATE, TAG], expected.map(|lifetime| (0, lifetime)));
}

#[test]
fn the_lifetime_is_that_of_a_shared_cache_as_rfc_9111_section_4_2_1_says() {
    check_cc("max-age=60", Ok(60));
    check_cc("max-age=3600, s-maxage=1", Ok(1));
    check_cc("s-maxage=3600, max-age=0", Ok(3600));
    check_cc("foobar, MaX-aGe=60", Ok(60));
    check_cc("max-age=0", Ok(0));
    check_cc("max-age=-3600", Ok(0));
    check_cc("max-age=99999999999", Ok(1 << 31));
    check_cc("immutable, max-age=60", Ok(60));
}

#[test]
fn expires_counts_from_date_as_rfc_9111_section_4_2_1_says() {
    let later = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
    check(&[later, DATE], Ok((0, 60)));
    check(&[later], Ok((0, 60)));
    check(&[later, ("date", "foo")], Ok((0, 60)));
    check(&[later, ("date", "Sun, 06 Nov 1994 08:49:27 GMT")], Ok((10, 70)));
    check(&[later, ("date", "Sun, 06 Nov 1994 08:50:27 GMT")], Ok((0, 10)));
    check(&[later, ("date", "Sun, 06 Nov 1994 08:51:00 GMT"), TAG], Ok((0, 0)));
    check(&[("expires", DATE.1), DATE, TAG], Ok((0, 0)));
    check(&[("expires", "Fri, 31 Dec 9999 23:59:59 GMT"), DATE], Ok((0, 1 << 31)));
}

#[test]
fn an_expires_that_is_no_date_has_passed_as_rfc_9111_section_5_3_says() {
    for bad in ["0", "-1", "", "Sun, 06 Nov 2094 08:50:37 UTC", "Sun, 06 Nov 2094 08:50:37 GMT, x"] {
        check(&[("expires", bad), DATE, TAG], Ok((0, 0)));
    }
    check(&[("expires", "Sun, 06 Nov 1994 08:50:37 GMT"), ("expires", "0"), DATE, TAG], Ok((0, 0)));
}

#[test]
fn max_age_stands_above_expires_as_rfc_9111_section_5_3_says() {
    for expires in ["Sun, 06 Nov 1984 08:50:37 GMT", "0", "Sun, 06 Nov 2094 08:50:37 GMT"] {
        check(&[("cache-control", "max-age=60"), ("expires", expires), DATE], Ok((0, 60)));
        check(&[("cache-control", "max-age=0"), ("expires", expires), DATE, TAG], Ok((0, 0)));
    }
}

#[test]
fn the_targeted_field_stands_above_both_as_rfc_9213_section_2_2_says() {
    let (old, long) = (("expires", "0"), ("expires", "Sun, 06 Nov 2094 08:50:37 GMT"));
    check(&[("cdn-cache-control", "max-age=60"), ("cache-control", "no-store"), old], Ok((0, 60)));
    check(&[("cdn-cache-control", "max-age=1"), ("cache-control", "max-age=60")], Ok((0, 1)));
    check(&[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60"), long], Err(N::NoStore));
    check(&[("cdn-cache-control", "private"), ("cache-control", "max-age=60"), long], Err(N::Private));
    check(&[("cdn-cache-control", "no-cache"), ("cache-control", "max-age=60"), long, TAG], Ok((0, 0)));
    check(&[("cdn-cache-control", "foo"), ("cache-control", "max-age=60"), long], Err(N::NoFreshness));
    check(&[("cdn-cache-control", "max-age=\"60\""), ("cache-control", "no-store")], Err(N::NoStore));
    check(&[("cdn-cache-control", "max-age=60"), ("age", "7200")], Ok((7200, 60)));
}

#[test]
fn pragma_and_surrogate_control_say_nothing_in_a_response() {
    check(&[("cache-control", "max-age=60"), ("pragma", "no-cache")], Ok((0, 60)));
    check(&[("pragma", "no-cache"), TAG], Err(N::NoFreshness));
    check(&[("surrogate-control", "max-age=60")], Err(N::NoFreshness));
}

#[test]
fn bans_are_kept_as_rfc_9111_section_3_says() {
    check_cc("max-age=60, no-store", Err(N::NoStore));
    check_cc("No-StOrE", Err(N::NoStore));
    check_cc("private, max-age=60", Err(N::Private));
    check_cc("public, private, s-maxage=60", Err(N::Private));
    check_cc("private=\"x\", max-age=60", Ok(60));
    check_cc("max-age=60, no-cache", Ok(0));
    check_cc("max-age=60, no-cache=\"x\"", Ok(60));
    check_cc("s-maxage=60, no-cache, public", Ok(0));
}

#[test]
fn the_request_has_its_say_as_rfc_9111_sections_3_and_5_2_1_5_say() {
    let caching = Caching { methods: vec![Method::GET], ..caching() };
    let response = head(&[("cache-control", "max-age=60")]);
    let judged = |terms: Terms<'_>| judge(&terms, StatusCode::OK, &response).map(|_| ());
    assert_eq!(judged(terms(&caching)), Ok(()));
    assert_eq!(judged(Terms { no_store: true, ..terms(&caching) }), Err(N::RequestNoStore));
    assert_eq!(judged(Terms { method: &Method::POST, ..terms(&caching) }), Err(N::Method));
    let with_head = Caching { methods: vec![Method::GET, Method::HEAD], ..caching.clone() };
    assert_eq!(judged(Terms { method: &Method::HEAD, ..terms(&with_head) }), Err(N::Method));
}

#[test]
fn what_needs_authorization_is_shared_only_if_it_says_so_as_rfc_9111_section_3_5_says() {
    for (line, expected) in [
        ("max-age=60", Err(N::Authorization)),
        ("max-age=60, proxy-revalidate", Err(N::Authorization)),
        ("max-age=60, public", Ok(())),
        ("max-age=60, must-revalidate", Ok(())),
        ("s-maxage=60", Ok(())),
        ("s-maxage=\"60\"", Ok(())),
        ("max-age=60, s-maxage=x", Err(N::Authorization)),
        ("max-age=60, s-maxage", Err(N::Authorization)),
        ("s-maxage=60; foo", Err(N::Authorization)),
        ("max-age=60, foo=\"a, public, must-revalidate", Err(N::Authorization)),
        ("public, no-store", Err(N::NoStore)),
    ] {
        let (caching, fields) = (caching(), head(&[("cache-control", line), DATE]));
        let judged = judge(&Terms { authorized: true, ..terms(&caching) }, StatusCode::OK, &fields);
        assert_eq!(judged.map(|_| ()), expected, "{line}");
    }
}

#[track_caller]
fn check_status(status: u16, line: &str, expected: Result<u64, NotStored>) {
    let found = verdict(&caching(), status, &[("cache-control", line)]).map(|life| life.fresh_for.as_secs());
    assert_eq!(found, expected, "{status} {line}");
}

#[test]
fn any_final_status_is_stored_with_a_lifetime_as_rfc_9111_section_3_says() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
        check_status(status, "max-age=60", Ok(60));
    }
    for status in [100, 102, 103, 304] {
        check_status(status, "max-age=60", Err(N::Status));
    }
    check_status(206, "max-age=60", Err(N::Partial));
}

#[test]
fn who_must_understand_must_know_the_status_as_rfc_9111_section_5_2_2_3_says() {
    check_status(200, "max-age=60, must-understand, no-store", Ok(60));
    check_status(404, "max-age=60, must-understand, no-store", Ok(60));
    for line in ["max-age=60, must-understand", "max-age=60, must-understand, no-store", "must-understand, public"] {
        check_status(599, line, Err(N::Status));
        check_status(299, line, Err(N::Status));
    }
    check_status(200, "max-age=60, must-understand, private", Err(N::Private));
}

#[test]
fn a_cookie_is_for_one_client_unless_the_operator_or_the_origin_says_otherwise() {
    let cookie = ("set-cookie", "a=b");
    check(&[("cache-control", "max-age=60"), cookie], Err(N::SetCookie));
    check(&[("cache-control", "max-age=60, public"), cookie], Err(N::SetCookie));
    check(&[("cache-control", "max-age=60, no-cache=\"Set-Cookie\""), cookie], Ok((0, 60)));
    check(&[("cache-control", "max-age=60, private=\"set-cookie\""), cookie], Ok((0, 60)));
    let told = Caching { store_set_cookie: true, ..caching() };
    assert!(verdict(&told, 200, &[("cache-control", "max-age=60"), cookie]).is_ok());
}

#[test]
fn a_star_in_vary_never_matches_as_rfc_9111_section_4_1_says() {
    check(&[("cache-control", "max-age=60"), ("vary", "a, *")], Err(N::Vary));
    check(&[("cache-control", "max-age=60"), ("vary", "a, b")], Ok((0, 60)));
}

#[test]
fn what_nobody_has_given_a_lifetime_is_not_stored_though_it_could_be_revalidated() {
    check(&[], Err(N::NoFreshness));
    check(&[TAG], Err(N::NoFreshness));
    check(&[("last-modified", "Sun, 06 Nov 1994 08:49:07 GMT"), DATE], Err(N::NoFreshness));
    for line in ["public", "must-revalidate", "stale-if-error=60", "stale-while-revalidate=60", "no-cache=\"x\""] {
        check_cc(line, Err(N::NoFreshness));
    }
    let told = Some(Duration::from_secs(9));
    let told = Caching { stale_while_revalidate: told, stale_if_error: told, ..caching() };
    assert_eq!(verdict(&told, 200, &[TAG]), Err(N::NoFreshness));
}

#[test]
fn a_lifetime_of_nothing_is_stored_only_to_be_revalidated() {
    check(&[("cache-control", "max-age=0"), TAG], Ok((0, 0)));
    check(&[("expires", "0"), DATE, TAG], Ok((0, 0)));
    assert_eq!(verdict(&caching(), 500, &[("cache-control", "no-cache"), TAG]), Err(N::Status));
    check(&[("cache-control", "max-age=0")], Err(N::NoFreshness));
    check(&[("cache-control", "no-cache")], Err(N::NoFreshness));
    check(&[("cache-control", "no-cache"), TAG], Ok((0, 0)));
    assert_eq!(verdict(&caching(), 302, &[TAG]), Err(N::NoFreshness));
    assert_eq!(verdict(&caching(), 500, &[TAG]), Err(N::Status));
}

#[test]
fn what_came_stale_is_stored_only_if_it_can_be_of_use() {
    check(&[("cache-control", "max-age=60"), ("age", "60")], Ok((60, 60)));
    check(&[("cache-control", "s-maxage=60"), ("age", "60")], Err(N::NoFreshness));
    check(&[("cache-control", "s-maxage=60"), ("age", "60"), TAG], Ok((60, 60)));
}

/// The lifetime that is assumed of a response changed 1000 seconds ago.
fn assumed(caching: &Caching, method: &Method, status: u16, line: &str) -> Result<(u64, bool), NotStored> {
    let fields = [("last-modified", "Sun, 06 Nov 1994 08:32:57 GMT"), DATE, ("cache-control", line)];
    let terms = Terms { method, ..terms(caching) };
    let judged = judge(&terms, StatusCode::from_u16(status).unwrap(), &head(&fields));
    judged.map(|life| (life.fresh_for.as_secs(), life.guessed))
}

#[test]
fn a_lifetime_is_assumed_for_statuses_that_are_cacheable_by_themselves_as_rfc_9110_section_15_1_says() {
    let guessing = Caching { heuristic: true, ..caching() };
    let told = Caching { ttl: Some(Duration::from_secs(7)), ..caching() };
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert_eq!(assumed(&guessing, &Method::GET, status, ""), Ok((100, true)), "{status}");
    }
    for status in [200, 203, 301, 308] {
        assert_eq!(assumed(&told, &Method::GET, status, ""), Ok((7, false)), "{status}");
    }
    for status in [204, 300, 404, 405, 410, 414] {
        for line in ["", "public"] {
            assert_eq!(assumed(&told, &Method::GET, status, line), Err(N::NoFreshness), "{status} {line}");
        }
        assert_eq!(assumed(&told, &Method::GET, status, "max-age=5"), Ok((5, false)), "{status}");
    }
    assert_eq!(assumed(&told, &Method::GET, 501, ""), Err(N::Status));
    for status in [201, 202, 302, 303, 307, 400, 401, 403, 421, 500, 502, 503, 504, 599] {
        let expected = if status < 500 { N::NoFreshness } else { N::Status };
        assert_eq!(assumed(&guessing, &Method::GET, status, ""), Err(expected), "{status}");
        assert_eq!(assumed(&told, &Method::GET, status, ""), Err(expected), "{status}");
        assert_eq!(assumed(&guessing, &Method::GET, status, "public"), Ok((100, true)), "{status}");
    }
}

#[test]
fn a_guess_is_a_tenth_of_the_time_since_the_change_as_rfc_9111_section_4_2_2_says() {
    let guessing = Caching { heuristic: true, ttl: Some(Duration::from_secs(7)), ..caching() };
    assert_eq!(assumed(&guessing, &Method::GET, 200, ""), Ok((100, true)));
    assert_eq!(assumed(&guessing, &Method::GET, 200, "max-age=5"), Ok((5, false)));
    assert_eq!(assumed(&guessing, &Method::GET, 200, "no-cache"), Ok((0, true)));
    assert_eq!(assumed(&guessing, &Method::POST, 200, ""), Ok((7, false)));
    for (changed, expected) in [
        ("Mon, 06 Nov 1894 08:49:37 GMT", (86_400, true)),
        ("Tue, 06 Nov 1984 08:49:37 GMT", (86_400, true)),
        ("Sat, 06 Nov 2004 08:49:37 GMT", (7, false)),
        ("yesterday", (7, false)),
    ] {
        let life = verdict(&guessing, 200, &[("last-modified", changed), DATE]).unwrap();
        assert_eq!((life.fresh_for.as_secs(), life.guessed), expected, "{changed}");
    }
}

#[test]
fn how_long_it_may_be_stale_is_the_origins_word_before_the_operators_as_rfc_5861_says() {
    let told = Some(Duration::from_secs(9));
    let caching = Caching { stale_while_revalidate: told, stale_if_error: told, ..caching() };
    for (line, expected) in [
        ("max-age=60", (9, 9, true)),
        ("max-age=60, stale-while-revalidate=5", (5, 9, true)),
        ("max-age=60, stale-if-error=5", (9, 5, true)),
        ("max-age=60, stale-if-error=x, stale-while-revalidate=0", (0, 0, true)),
        ("max-age=60, stale-if-error=5, must-revalidate", (0, 0, false)),
        ("max-age=60, stale-if-error=5, proxy-revalidate", (0, 0, false)),
        ("s-maxage=60, stale-while-revalidate=5", (5, 0, false)),
        ("max-age=60, stale-if-error=5, no-cache", (0, 0, false)),
    ] {
        let life = verdict(&caching, 200, &[("cache-control", line), TAG]).unwrap();
        let found = (life.stale_while_revalidate.as_secs(), life.stale_if_error.as_secs(), life.may_be_stale);
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn what_is_never_fresh_is_stored_if_it_may_be_served_stale() {
    for line in ["max-age=0, stale-while-revalidate=5", "max-age=0, stale-if-error=5"] {
        check(&[("cache-control", line)], Ok((0, 0)));
        check(&[("cache-control", &format!("{line}, must-revalidate"))], Err(N::NoFreshness));
    }
}

#[test]
fn no_time_is_longer_than_rfc_9111_section_1_2_2_asks_for() {
    let (forever, longest) = (Some(Duration::MAX), Duration::from_secs(1 << 31));
    let caching = Caching { ttl: forever, stale_while_revalidate: forever, stale_if_error: forever, ..caching() };
    let life = verdict(&caching, 200, &[]).unwrap();
    assert_eq!([life.fresh_for, life.stale_while_revalidate, life.stale_if_error], [longest; 3]);
}

#[test]
fn each_reason_has_a_label_of_its_own() {
    let all = [
        N::Method,
        N::Status,
        N::Partial,
        N::RequestNoStore,
        N::NoStore,
        N::Private,
        N::Authorization,
        N::SetCookie,
        N::Vary,
        N::NoFreshness,
    ];
    let labels: std::collections::HashSet<_> = all.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), all.len());
    let lasting: Vec<_> = all.into_iter().filter(|reason| reason.is_lasting()).map(NotStored::label).collect();
    assert_eq!(lasting, ["no_store", "private", "set_cookie", "vary", "no_freshness"]);
}

proptest! {
    #[test]
    fn no_head_makes_it_panic(
        lines in proptest::collection::vec((0..8_usize, "([a-z-]|[0-9]|[=\",;* :]|max-age=|GMT){0,20}"), 0..6), status in 100..600_u16,
    ) {
        let names = ["age", "date", "expires", "cache-control", "cdn-cache-control", "last-modified", "etag", "vary"];
        let fields: Vec<_> = lines.iter().map(|(name, value)| (names[*name], value.as_str())).collect();
        let caching = Caching { heuristic: true, ttl: Some(Duration::MAX), ..caching() };
        let _ = verdict(&caching, status, &fields);
    }

    #[test]
    fn what_forbids_is_never_stored(before in "[a-z0-9=\"; -]{0,12}", after in "[a-z0-9=\"; -]{0,12}") {
        let line = format!("max-age=60, {before}, no-store, {after}");
        // Two quotes, one before and one after, make it the text of an extension.
        prop_assume!(!before.contains('"') || !after.contains('"'));
        prop_assert!(verdict(&caching(), 200, &[("cache-control", &line)]).is_err());
    }
}
