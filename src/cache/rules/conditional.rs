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
