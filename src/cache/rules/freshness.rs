//! How long is it fresh (RFC 9111, section 4.2.1)? The origin's word, a guess, or the operator's, in this order.

use std::time::Duration;

use http::header::{EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, Method, StatusCode};

use super::age::Times;
use super::date;
use super::directives::{Directives, LONGEST, Source};
use crate::config::Caching;

/// A tenth of the time since the last change is what RFC 9111, section 4.2.2 names as typical; and no longer than a day,
/// since a file of ten years ago may change today.
const MOST_GUESSED: Duration = Duration::from_secs(86_400);

/// Statuses that are cacheable though nothing says for how long (RFC 9110, section 15.1). 206 is not stored at all, and
/// 308 is one of them.
const CACHEABLE_BY_ITSELF: &[u16] = &[200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// Statuses that the operator's `ttl` is for: what is there, and what has moved for good. Errors are not: one that has
/// passed would be told for as long as a page.
const GIVEN_A_LIFETIME: &[u16] = &[200, 203, 301, 308];

/// A lifetime and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) lifetime: Duration,
    pub(super) guessed: bool,
}

/// How long the origin says that it is fresh; `None` if it does not say.
pub(super) fn said(directives: &Directives, source: Source, fields: &HeaderMap, times: &Times) -> Option<Duration> {
    let expires = || match source {
        Source::CacheControl => expires(fields, times),
        // Expires does not count beside a targeted field (RFC 9213, section 2.2).
        Source::Targeted => None,
    };
    directives.s_maxage.or(directives.max_age).or_else(expires).map(|lifetime| lifetime.min(LONGEST))
}

/// How long it may be taken for fresh where the origin says no more than when it was changed last.
pub(super) fn guessed(method: &Method, fields: &HeaderMap, times: &Times) -> Option<Freshness> {
    // What a POST has answered is reused only as long as somebody says (RFC 9110, section 9.3.3).
    let guess = (*method == Method::GET).then(|| guess(fields, times)).flatten();
    guess.map(|lifetime| Freshness { lifetime, guessed: true })
}

/// How long the operator takes it for fresh where the origin does not say.
pub(super) fn given(caching: &Caching, status: StatusCode) -> Option<Freshness> {
    let ttl = caching.ttl.filter(|_| GIVEN_A_LIFETIME.contains(&status.as_u16()));
    ttl.map(|ttl| Freshness { lifetime: ttl.min(LONGEST), guessed: false })
}

/// Whether a lifetime may be assumed (RFC 9111, section 4.2.2).
pub(super) fn is_assumable(status: StatusCode, directives: &Directives) -> bool {
    directives.public || CACHEABLE_BY_ITSELF.contains(&status.as_u16())
}

/// The shortest that Expires says: an invalid date is one that has passed (RFC 9111, section 5.3).
fn expires(fields: &HeaderMap, times: &Times) -> Option<Duration> {
    let date = times.date(fields);
    let lifetime = |line: &http::HeaderValue| {
        let expires = date::parse(line.as_bytes());
        expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default()
    };
    fields.get_all(EXPIRES).into_iter().map(lifetime).min()
}

fn guess(fields: &HeaderMap, times: &Times) -> Option<Duration> {
    let changed = date::parse(fields.get(LAST_MODIFIED)?.as_bytes())?;
    let unchanged_for = times.date(fields).duration_since(changed).ok()?;
    Some((unchanged_for / 10).min(MOST_GUESSED))
}
