//! Which fields of a response are stored (RFC 9111, section 3.1), and which does a 304 replace (section 3.2)?
//!
//! Kept as they came: Retry-After, Cache-Status (RFC 9211, section 2: one member a cache), Proxy-Status, CDN-Cache-Control
//! and Surrogate-Control, which may be meant for a cache in front of us as well.

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, EXPIRES,
    LAST_MODIFIED, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName};

use super::directives::Directives;
use super::list::{Quotes, members};
use super::{etag, targeted};

/// Whether cookies are stored with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookies {
    /// They are for the one client that caused the response.
    Drop,
    /// The operator knows that everybody gets the same.
    Keep,
}

/// Fields that are about one connection, or about one exchange on it: of RFC 9110, section 7.6.1 and of RFC 9111, section
/// 3.1; and Age, of which we send our own.
const NOT_STORED: &[&str] = &[
    "age",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a client has left of its quota is nobody else's, and not so any more when it is replayed.
const QUOTAS: &[&str] = &["ratelimit", "x-ratelimit", "x-rate-limit"];

/// Fields that say what the stored bytes are: those stay the same, whatever a 304 says. RFC 9111, section 3.2 demands it of
/// Content-Length and allows it for others "on which processing depends".
const OF_THE_BODY: &[&str] = &["content-encoding", "content-length", "content-md5", "content-range", "etag"];

/// Takes away what must not be replayed to others.
pub fn strip(fields: &mut HeaderMap, cookies: Cookies) {
    let mut unwanted: Vec<HeaderName> = fields.keys().filter(|name| is_never_stored(name, cookies)).cloned().collect();
    unwanted.extend(named_by_connection(fields));
    let (directives, _) = Directives::governing(fields);
    unwanted.extend(directives.withheld().cloned());
    for name in unwanted {
        fields.remove(name);
    }
}

/// Brings the stored fields up to date with a 304 (RFC 9111, section 4.3.4): each field that it has takes the place of all
/// the stored ones of that name.
pub fn merge(stored: &mut HeaderMap, answer: &HeaderMap, cookies: Cookies) {
    let mut update = answer.clone();
    strip(&mut update, cookies);
    for name in update.keys().filter(|name| !OF_THE_BODY.contains(&name.as_str())) {
        stored.remove(name);
        for value in update.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
    // Its Cache-Control may name fields that were stored before.
    strip(stored, cookies);
}

/// Whether a 304 is about the stored response: with a strong validator it is about those alone that have the same (RFC
/// 9111, section 4.3.4).
pub fn confirms(answer: &HeaderMap, stored: &HeaderMap) -> bool {
    let tag = |fields: &HeaderMap| fields.get(ETAG).filter(|tag| !etag::is_weak(tag.as_bytes())).cloned();
    tag(answer).is_none_or(|new| tag(stored) == Some(new))
}

/// Whether a field decides how a stored response may be used. No other field can have it left out: a Connection that names
/// Vary would mix up the variants of a URL.
pub(super) fn is_needed(name: &HeaderName) -> bool {
    let needed = [
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        DATE,
        ETAG,
        EXPIRES,
        LAST_MODIFIED,
        VARY,
        targeted::CDN_CACHE_CONTROL,
    ];
    needed.contains(name)
}

fn is_never_stored(name: &HeaderName, cookies: Cookies) -> bool {
    let is_quota = QUOTAS.iter().any(|prefix| name.as_str().starts_with(prefix));
    (*name == SET_COOKIE && cookies == Cookies::Drop) || is_quota || NOT_STORED.contains(&name.as_str())
}

/// RFC 9110, section 7.6.1
fn named_by_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    let named = members(fields, &CONNECTION, Quotes::Plain).filter_map(|name| HeaderName::from_bytes(name).ok());
    named.filter(|name| !is_needed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::samples::{head, lines};

    #[track_caller]
    fn check(before: &[(&str, &str)], cookies: Cookies, after: &[&str]) {
        let mut fields = head(before);
        strip(&mut fields, cookies);
        assert_eq!(lines(&fields), after);
    }

    #[test]
    fn fields_of_a_connection_are_not_stored_as_rfc_9111_section_3_1_says() {
        for name in NOT_STORED {
            check(&[(name, "x"), ("a", "1")], Cookies::Keep, &["a: 1"]);
        }
    }

    #[test]
    fn fields_that_connection_names_are_not_stored_as_rfc_9110_section_7_6_1_says() {
        check(
            &[("connection", "a, B"), ("connection", ",c"), ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")],
            Cookies::Drop,
            &["d: 4"],
        );
    }

    #[test]
    fn no_connection_takes_away_what_a_store_needs() {
        let all = [("cache-control", "max-age=1"), ("date", "x"), ("etag", "\"x\""), ("vary", "a")];
        let with_connection = [&all[..], &[("connection", "cache-control, date, etag, vary")]].concat();
        check(&with_connection, Cookies::Drop, &["cache-control: max-age=1", "date: x", "etag: \"x\"", "vary: a"]);
    }

    #[test]
    fn fields_that_the_origin_withholds_are_not_stored_as_rfc_9111_sections_5_2_2_4_and_7_say() {
        let named = "no-cache=\"a, b\", private=c";
        check(
            &[("cache-control", named), ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")],
            Cookies::Drop,
            &["cache-control: no-cache=\"a, b\", private=c", "d: 4"],
        );
    }

    #[test]
    fn the_targeted_field_alone_says_what_is_withheld_as_rfc_9213_section_2_2_says() {
        let fields = [("cdn-cache-control", "max-age=9"), ("cache-control", "no-cache=\"a\""), ("a", "1")];
        check(&fields, Cookies::Drop, &["a: 1", "cache-control: no-cache=\"a\"", "cdn-cache-control: max-age=9"]);
    }

    #[test]
    fn a_cookie_is_stored_only_when_told() {
        check(&[("set-cookie", "a=b"), ("set-cookie2", "a=b")], Cookies::Drop, &["set-cookie2: a=b"]);
        check(&[("set-cookie", "a=b"), ("set-cookie", "c=d")], Cookies::Keep, &["set-cookie: a=b", "set-cookie: c=d"]);
    }

    #[test]
    fn what_one_client_has_left_is_not_told_to_others() {
        let quotas = [
            ("ratelimit", "x"),
            ("ratelimit-policy", "x"),
            ("x-ratelimit-remaining", "1"),
            ("x-rate-limit-reset", "1"),
        ];
        check(&quotas, Cookies::Keep, &[]);
    }

    #[test]
    fn other_fields_are_stored_as_they_came() {
        let all = [
            "cache-status: a; hit",
            "content-foo: x",
            "proxy-status: a",
            "retry-after: 3",
            "surrogate-control: a",
            "warning: x",
        ];
        let fields: Vec<_> = all.iter().map(|line| line.split_once(": ").unwrap()).collect();
        check(&fields, Cookies::Drop, &all);
    }

    #[track_caller]
    fn check_merge(stored: &[(&str, &str)], answer: &[(&str, &str)], after: &[&str]) {
        let mut fields = head(stored);
        merge(&mut fields, &head(answer), Cookies::Drop);
        assert_eq!(lines(&fields), after);
    }

    #[test]
    fn a_304_replaces_what_it_has_and_leaves_the_rest_as_rfc_9111_section_3_2_says() {
        check_merge(
            &[("a", "1"), ("a", "2"), ("b", "1"), ("content-type", "x/y"), ("date", "old")],
            &[("a", "3"), ("a", "4"), ("c", "1"), ("content-type", "x/z"), ("date", "new")],
            &["a: 3", "a: 4", "b: 1", "c: 1", "content-type: x/z", "date: new"],
        );
    }

    #[test]
    fn a_304_does_not_change_what_the_stored_bytes_are() {
        for name in OF_THE_BODY {
            check_merge(&[(name, "1")], &[(name, "2")], &[&format!("{name}: 1")]);
            check_merge(&[], &[(name, "2")], &[]);
        }
    }

    #[test]
    fn a_304_brings_nothing_in_that_a_response_would_not() {
        check_merge(
            &[],
            &[("connection", "a"), ("a", "1"), ("age", "3"), ("set-cookie", "a=b"), ("ratelimit", "x")],
            &[],
        );
    }

    #[test]
    fn what_a_304_may_not_bring_leaves_what_is_stored() {
        check_merge(&[("a", "1")], &[("connection", "a"), ("a", "2")], &["a: 1"]);
    }

    #[test]
    fn a_304_that_withholds_a_field_takes_it_out_of_the_store() {
        check_merge(&[("a", "1")], &[("cache-control", "no-cache=\"a\"")], &["cache-control: no-cache=\"a\""]);
    }

    #[test]
    fn a_304_with_the_strong_tag_of_another_is_not_about_this_one_as_rfc_9111_section_4_3_4_says() {
        let holds = |new: &str, old: &str| confirms(&head(&[("etag", new)]), &head(&[("etag", old)]));
        assert!(holds("\"a\"", "\"a\""));
        assert!(!holds("\"b\"", "\"a\""));
        assert!(holds("W/\"b\"", "\"a\""));
        assert!(!holds("\"b\"", "W/\"a\""));
        assert!(!holds("\"a\"", "W/\"a\""));
        assert!(holds("W/\"a\"", "W/\"a\""));
        assert!(confirms(&head(&[]), &head(&[("etag", "\"a\"")])));
        assert!(!confirms(&head(&[("etag", "\"a\"")]), &head(&[])));
    }
}
