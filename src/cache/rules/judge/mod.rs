//! May a response be stored (RFC 9111, section 3), and for how long may it be used?

use std::time::{Duration, SystemTime};

use http::header::{ETAG, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};

use super::age::Times;
use super::directives::{Directives, LONGEST, Reach, Source};
use super::freshness::{self, Freshness};
use super::vary::Vary;
use crate::config::Caching;

/// Statuses whose meaning for a cache we know, for `must-understand` (RFC 9111, section 5.2.2.3). Not 206: what we know of
/// it is that we do not store it.
const UNDERSTOOD: &[u16] = &[
    200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409,
    410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426, 500, 501, 502, 503, 504, 505,
];

/// What decides beside the response itself.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// What was asked of the backend: a HEAD that was sent as GET is a GET here.
    pub method: &'a Method,
    /// Whether the request had Authorization.
    pub authorized: bool,
    /// Whether the request said `no-store`.
    pub no_store: bool,
    /// What the operator wants.
    pub caching: &'a Caching,
    /// When the request was sent.
    pub asked_at: SystemTime,
    /// When the head of the response was there.
    pub answered_at: SystemTime,
}

/// How long a stored response may be used. None of these but the age is longer than 2^31 seconds, so that sums fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How old it was when it came.
    pub age: Duration,
    /// At what age it becomes stale; at zero it is revalidated each time.
    pub fresh_for: Duration,
    /// How long after that it may be served while it is revalidated.
    pub stale_while_revalidate: Duration,
    /// How long after that it may be served when no backend answers well.
    pub stale_if_error: Duration,
    /// Whether nobody has said anything of that, so that it may be when no backend answers at all (RFC 9111, section
    /// 4.2.4).
    pub stale_when_cut_off: bool,
    /// Whether it may be served stale at all, as to a request with `max-stale`.
    pub may_be_stale: bool,
    /// Whether nobody has said how long it is fresh.
    pub guessed: bool,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// The method is none whose responses are stored here.
    Method,
    /// The status is not final, or not understood though it must be, or is a failure that nobody has given a lifetime.
    Status,
    /// It is a part of something.
    Partial,
    /// The request said `no-store`.
    RequestNoStore,
    /// The response says `no-store`.
    NoStore,
    /// It is for one user only.
    Private,
    /// The request had Authorization, and the response does not say that others may see it.
    Authorization,
    /// It sets a cookie.
    SetCookie,
    /// It depends on what is not in the request, or on too much.
    Vary,
    /// It would never be of use: it is not fresh for any time, cannot be revalidated, and must not be served stale.
    NoFreshness,
}

/// Whether the response may be stored, and then for how long.
pub fn judge(terms: &Terms<'_>, status: StatusCode, fields: &HeaderMap) -> Result<Lifetime, NotStored> {
    let (directives, source) = Directives::governing(fields);
    match obstacle(terms, status, fields, &directives) {
        Some(reason) => Err(reason),
        None => lifetime(terms, status, fields, (&directives, source)),
    }
}

impl NotStored {
    /// What the access log calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::RequestNoStore => "request_no_store",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set_cookie",
            Self::Vary => "vary",
            Self::NoFreshness => "no_freshness",
        }
    }

    /// Whether the next response to this URL is likely to be one of the same kind, so that nobody should wait for it. What
    /// comes from the one request says nothing about the next.
    pub fn is_lasting(self) -> bool {
        match self {
            Self::NoStore | Self::Private | Self::SetCookie | Self::Vary | Self::NoFreshness => true,
            Self::Method | Self::Status | Self::Partial | Self::RequestNoStore | Self::Authorization => false,
        }
    }
}

/// What stands against storing it, whatever its lifetime.
fn obstacle(terms: &Terms<'_>, status: StatusCode, fields: &HeaderMap, said: &Directives) -> Option<NotStored> {
    let understood = said.must_understand && UNDERSTOOD.contains(&status.as_u16());
    let sets_cookie = fields.contains_key(SET_COOKIE) && !said.withheld().any(|name| *name == SET_COOKIE);
    let reasons = [
        (!is_stored(terms), NotStored::Method),
        (status == StatusCode::PARTIAL_CONTENT, NotStored::Partial),
        (status.is_informational() || status == StatusCode::NOT_MODIFIED, NotStored::Status),
        (terms.no_store, NotStored::RequestNoStore),
        (said.must_understand && !understood, NotStored::Status),
        // Who understands the status need not heed it (RFC 9111, section 5.2.2.3).
        (said.no_store && !understood, NotStored::NoStore),
        (said.private == Reach::Whole, NotStored::Private),
        // RFC 9111, section 3.5
        (terms.authorized && !said.shared, NotStored::Authorization),
        (sets_cookie && !terms.caching.store_set_cookie, NotStored::SetCookie),
        (Vary::of(fields) == Vary::Star, NotStored::Vary),
    ];
    reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
}

/// A response to HEAD has nothing to store (RFC 9110, section 9.3.2: what it has of fields may be less than GET has).
fn is_stored(terms: &Terms<'_>) -> bool {
    *terms.method != Method::HEAD && terms.caching.methods.contains(terms.method)
}

fn lifetime(
    terms: &Terms<'_>,
    status: StatusCode,
    fields: &HeaderMap,
    (said, source): (&Directives, Source),
) -> Result<Lifetime, NotStored> {
    let times = Times { asked_at: terms.asked_at, answered_at: terms.answered_at };
    let known = |lifetime| Freshness { lifetime, guessed: false };
    let freshness = match freshness::said(said, source, fields, &times) {
        Some(lifetime) => Some(known(lifetime)),
        None if freshness::is_assumable(status, said) => {
            let guess = || freshness::guessed(terms.method, fields, &times);
            let guessed = terms.caching.heuristic.then(guess).flatten();
            let assumed = guessed.or_else(|| freshness::given(terms.caching, status));
            // To be revalidated each time is a lifetime too, if somebody says it.
            assumed.or_else(|| (said.no_cache == Reach::Whole).then(|| known(Duration::ZERO)))
        }
        None => None,
    };
    // A failure will have passed by the next time; what has no lifetime now will not have one then.
    let none = if status.is_server_error() { NotStored::Status } else { NotStored::NoFreshness };
    let freshness = freshness.ok_or(none)?;
    let (may_be_stale, as_told) = (said.may_be_stale(), said.may_be_stale_as_told());
    let stale = |said: Option<Duration>, told: Option<Duration>| {
        said.filter(|_| as_told).or(told.filter(|_| may_be_stale)).unwrap_or_default().min(LONGEST)
    };
    let nobody_says = said.stale_if_error.or(terms.caching.stale_if_error).is_none();
    let lifetime = Lifetime {
        stale_when_cut_off: may_be_stale && nobody_says,
        age: times.age(fields),
        fresh_for: if said.no_cache == Reach::Whole { Duration::ZERO } else { freshness.lifetime },
        stale_while_revalidate: stale(said.stale_while_revalidate, terms.caching.stale_while_revalidate),
        stale_if_error: stale(said.stale_if_error, terms.caching.stale_if_error),
        may_be_stale,
        guessed: freshness.guessed,
    };
    let can_be_revalidated = fields.contains_key(ETAG) || fields.contains_key(LAST_MODIFIED);
    if can_be_revalidated || lifetime.is_ever_used() { Ok(lifetime) } else { Err(NotStored::NoFreshness) }
}

impl Lifetime {
    /// Whether it may be used without being revalidated; be it stale, by a request with `max-stale`.
    fn is_ever_used(&self) -> bool {
        let zero = Duration::ZERO;
        let has_time = self.fresh_for > zero || self.stale_while_revalidate > zero || self.stale_if_error > zero;
        self.fresh_for > self.age || (self.may_be_stale && has_time)
    }
}

#[cfg(test)]
mod tests;
