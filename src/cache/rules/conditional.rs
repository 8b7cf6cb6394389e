//! Does the client have it already (RFC 9111, section 4.3.2; RFC 9110, section 13)?

use http::header::{
    DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use std::time::{Duration, SystemTime};

use super::date;
use super::etag;
use super::list::{Quotes, members, trim};

/// Whether a stored response is answered by a 304.
///
/// If-None-Match decides alone where it is there, else If-Modified-Since does, unless its date is none (RFC 9110, section
/// 13.2.2). Where the stored response does not say when it was changed, its Date stands in (RFC 9111, section 4.3.2).
pub fn not_modified(request: &HeaderMap, method: &Method, status: StatusCode, stored: &HeaderMap) -> bool {
    // Conditions are for what would be answered with a 2xx without them (RFC 9110, section 13.2.1).
    let applies = matches!(*method, Method::GET | Method::HEAD) && status.is_success();
    if !applies || is_for_the_origin(request) {
        return false;
    }
    if request.contains_key(IF_NONE_MATCH) {
        return has_one_of(request, stored);
    }
    match (only_date(request, &IF_MODIFIED_SINCE), changed_at(stored)) {
        (Some(since), Some(changed)) => changed <= since,
        (Some(_), None) | (None, _) => false,
    }
}

/// Whether the request has conditions that only the origin can evaluate (RFC 9111, section 4.3.2): it is for nobody to
/// answer from a store.
pub fn is_for_the_origin(request: &HeaderMap) -> bool {
    request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE)
}

/// Whether a Range holds for the stored response: without If-Range, or with one that is the very same (RFC 9110, section
/// 13.1.5).
pub fn if_range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mut lines = request.get_all(IF_RANGE).into_iter();
    match (lines.next().map(|line| trim(line.as_bytes())), lines.next()) {
        (None, _) => true,
        (Some(_), Some(_)) => false,
        (Some(tag), None) if tag.starts_with(b"\"") || etag::is_weak(tag) => {
            stored.get(ETAG).is_some_and(|stored| etag::is_same(tag, stored.as_bytes()))
        }
        (Some(date), None) => date::parse(date).is_some_and(|date| is_the_change(date, stored)),
    }
}

/// Whether it is the date of the last change, and that is a strong validator: a second change within the same second would
/// not be seen (RFC 9110, section 8.8.2.2).
fn is_the_change(date: SystemTime, stored: &HeaderMap) -> bool {
    let made_at = only_date(stored, &DATE);
    let is_strong = made_at.is_some_and(|made| made >= date + Duration::from_secs(1));
    is_strong && only_date(stored, &LAST_MODIFIED) == Some(date)
}

fn has_one_of(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mut tags = members(request, &IF_NONE_MATCH, Quotes::Plain).peekable();
    if tags.peek() == Some(&&b"*"[..]) {
        return tags.count() == 1;
    }
    let Some(stored) = stored.get(ETAG) else { return false };
    tags.any(|tag| etag::is_like(tag, stored.as_bytes()))
}

fn changed_at(stored: &HeaderMap) -> Option<SystemTime> {
    only_date(stored, if stored.contains_key(LAST_MODIFIED) { &LAST_MODIFIED } else { &DATE })
}

/// The date in a field that has one line.
fn only_date(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = fields.get_all(name).into_iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    date::parse(trim(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::samples::head;

    const EARLY: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATE: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[track_caller]
    fn check(request: &[(&str, &str)], stored: &[(&str, &str)], expected: bool) {
        let answer = not_modified(&head(request), &Method::GET, StatusCode::OK, &head(stored));
        assert_eq!(answer, expected, "{request:?} {stored:?}");
    }

    #[test]
    fn a_tag_is_compared_weakly_as_rfc_9110_section_13_1_2_says() {
        for (asked, stored, expected) in [
            ("\"a\"", "\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("\"a\"", "W/\"a\"", true),
            ("W/\"a\"", "W/\"a\"", true),
            ("\"b\"", "\"a\"", false),
            ("\"A\"", "\"a\"", false),
            ("w/\"a\"", "\"a\"", false),
            ("\"x\", \"a\", \"y\"", "\"a\"", true),
            ("\"x\",\"y\" , W/\"a\"", "\"a\"", true),
            ("\"x,\"a\",y\"", "\"a\"", false),
            ("\"x, y\"", "\"x, y\"", true),
            ("\"x\\\", \"a\"", "\"a\"", true),
            ("a", "a", true),
            ("a", "\"a\"", false),
            ("", "", false),
            (",", "", false),
            ("W/", "", false),
            ("*", "\"a\"", true),
            ("*, \"b\"", "\"a\"", false),
            ("\"*\"", "\"a\"", false),
        ] {
            check(&[("if-none-match", asked)], &[("etag", stored)], expected);
        }
    }

    #[test]
    fn tags_on_several_lines_are_one_list() {
        check(&[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")], &[("etag", "\"a\"")], true);
    }

    #[test]
    fn a_star_is_for_all_that_is_stored() {
        check(&[("if-none-match", "*")], &[], true);
        check(&[("if-none-match", "\"a\"")], &[], false);
    }

    #[test]
    fn a_tag_decides_alone_as_rfc_9110_section_13_2_2_says() {
        let stored = [("etag", "\"a\""), ("last-modified", THEN)];
        check(&[("if-none-match", "\"a\""), ("if-modified-since", EARLY)], &stored, true);
        check(&[("if-none-match", "\"b\""), ("if-modified-since", LATE)], &stored, false);
    }

    #[test]
    fn a_date_that_is_no_earlier_than_the_change_is_enough_as_rfc_9110_section_13_1_3_says() {
        for (since, expected) in [
            (EARLY, false),
            (THEN, true),
            (LATE, true),
            ("Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("Sun Nov  6 08:49:37 1994", true),
            ("0", false),
            ("tomorrow", false),
            ("Sun, 06 Nov 2094 08:49:37 CET", false),
        ] {
            check(&[("if-modified-since", since)], &[("last-modified", THEN)], expected);
        }
        check(&[("if-modified-since", LATE), ("if-modified-since", LATE)], &[("last-modified", THEN)], false);
        check(&[("if-modified-since", LATE)], &[("last-modified", "0"), ("date", THEN)], false);
    }

    #[test]
    fn date_stands_in_for_last_modified_as_rfc_9111_section_4_3_2_says() {
        check(&[("if-modified-since", THEN)], &[("date", THEN)], true);
        check(&[("if-modified-since", EARLY)], &[("date", THEN)], false);
        check(&[("if-modified-since", THEN)], &[], false);
    }

    #[test]
    fn conditions_of_the_origin_are_left_to_it_as_rfc_9111_section_4_3_2_says() {
        let stored = [("etag", "\"a\"")];
        check(&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], &stored, false);
        check(&[("if-unmodified-since", THEN), ("if-none-match", "\"a\"")], &stored, false);
    }

    #[test]
    fn only_what_would_be_a_2xx_for_get_or_head_becomes_a_304_as_rfc_9110_section_13_2_1_says() {
        let (request, stored) = (head(&[("if-none-match", "\"a\"")]), head(&[("etag", "\"a\"")]));
        let answer = |method, status| not_modified(&request, &method, status, &stored);
        assert!(answer(Method::HEAD, StatusCode::OK));
        assert!(answer(Method::GET, StatusCode::NON_AUTHORITATIVE_INFORMATION));
        assert!(!answer(Method::POST, StatusCode::OK));
        assert!(!answer(Method::GET, StatusCode::NOT_FOUND));
        assert!(!answer(Method::GET, StatusCode::MOVED_PERMANENTLY));
    }

    #[track_caller]
    fn check_range(lines: &[&str], stored: &[(&str, &str)], expected: bool) {
        let request: Vec<_> = lines.iter().map(|line| ("if-range", *line)).collect();
        assert_eq!(if_range_holds(&head(&request), &head(stored)), expected, "{lines:?} {stored:?}");
    }

    #[test]
    fn if_range_is_compared_strongly_as_rfc_9110_section_13_1_5_says() {
        let tag = [("etag", "\"a\"")];
        check_range(&[], &tag, true);
        check_range(&["\"a\""], &tag, true);
        check_range(&["\"b\""], &tag, false);
        check_range(&["W/\"a\""], &tag, false);
        check_range(&["W/\"a\""], &[("etag", "W/\"a\"")], false);
        check_range(&["\"a\""], &[("etag", "W/\"a\"")], false);
        check_range(&["\"a\", \"b\""], &tag, false);
        check_range(&["\"a\"", "\"a\""], &tag, false);
        check_range(&["\"a\""], &[], false);
        check_range(&["a"], &[("etag", "a")], false);
        check_range(&[""], &tag, false);
    }

    #[test]
    fn a_date_in_if_range_must_be_the_same_and_strong_as_rfc_9110_section_8_8_2_2_says() {
        let stored = [("last-modified", THEN), ("date", LATE)];
        check_range(&[THEN], &stored, true);
        check_range(&[LATE], &stored, false);
        check_range(&[EARLY], &stored, false);
        check_range(&[THEN], &[("last-modified", THEN), ("date", THEN)], false);
        check_range(&[THEN], &[("last-modified", THEN)], false);
        check_range(&[THEN], &[("date", LATE)], false);
    }
}
