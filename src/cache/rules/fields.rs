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
}

/// Whether a 304 is about the stored response: RFC 9111, section 4.3.4 forbids to update one with the strong validator of
/// another.
pub fn confirms(answer: &HeaderMap, stored: &HeaderMap) -> bool {
    let tag = |fields: &HeaderMap| fields.get(ETAG).filter(|tag| !etag::is_weak(tag.as_bytes())).cloned();
    match (tag(answer), tag(stored)) {
        (Some(new), Some(old)) => new == old,
        (Some(_), None) | (None, _) => true,
    }
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
    let is_cookie = *name == SET_COOKIE || name.as_str() == "set-cookie2";
    let is_quota = QUOTAS.iter().any(|prefix| name.as_str().starts_with(prefix));
    (is_cookie && cookies == Cookies::Drop) || is_quota || NOT_STORED.contains(&name.as_str())
}

/// RFC 9110, section 7.6.1
fn named_by_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    let named = members(fields, &CONNECTION, Quotes::Plain).filter_map(|name| HeaderName::from_bytes(name).ok());
    named.filter(|name| !is_needed(name)).collect()
}
