//! How did the cache serve it? The word for the access log, and the field for the client (RFC 9211).

use std::borrow::Cow;
use std::fmt::Write;
use std::time::SystemTime;

use http::HeaderName;
use http::header::AGE;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora_cache::key::CacheHashKey;
use pingora_cache::{CachePhase, NoCacheReason};

use crate::cache::rules::NotStored;
use crate::proxy::exchange::Exchange;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request was not looked up, or its answer not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Its method is not one that the route caches.
    Method,
    /// It has a body that is not part of the key.
    Body,
    /// It has conditions for the origin alone.
    Precondition,
    /// The route says so.
    Bypass,
    /// It may be taken for another request by a backend that heeds such fields.
    Disguise,
    /// The answer is larger than what is stored.
    TooLarge,
    /// HTTP does not allow it.
    NotStored(NotStored),
}

impl Miss {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::Precondition => "precondition",
            Self::Bypass => "bypass",
            Self::Disguise => "disguise",
            Self::TooLarge => "too_large",
            Self::NotStored(why) => why.label(),
        }
    }

    /// Whether it is because of what this one request says.
    pub(super) fn is_of_the_request(self) -> bool {
        match self {
            Self::Disguise | Self::NotStored(NotStored::RequestNoStore | NotStored::Authorization) => true,
            Self::Method | Self::Body | Self::Precondition | Self::Bypass | Self::TooLarge | Self::NotStored(_) => {
                false
            }
        }
    }

    /// Whether the store was not even asked.
    fn is_unasked(self) -> bool {
        match self {
            Self::Method | Self::Body | Self::Precondition | Self::Bypass => true,
            Self::Disguise | Self::TooLarge | Self::NotStored(_) => false,
        }
    }
}

/// How a request was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// From the store.
    Hit,
    /// From the store, once another request had fetched it.
    Collapsed,
    /// From the store, though it was stale.
    Stale,
    /// From the store, after the backend had said that it is still true.
    Revalidated,
    /// By the backend, in the place of what was stale.
    Expired,
    /// By the backend, and stored.
    Miss,
    /// By the backend, and not stored.
    NotStored(&'static str),
    /// As if there were no store.
    Bypass(&'static str),
}

impl Outcome {
    fn text(self) -> Cow<'static, str> {
        match self {
            Self::Hit => "hit".into(),
            Self::Collapsed => "collapsed".into(),
            Self::Stale => "stale".into(),
            Self::Revalidated => "revalidated".into(),
            Self::Expired => "expired".into(),
            Self::Miss => "miss".into(),
            Self::NotStored(why) => format!("miss:{why}").into(),
            Self::Bypass(why) => format!("bypass:{why}").into(),
        }
    }

    /// Without the reason, of which there are many.
    fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Collapsed => "collapsed",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Expired => "expired",
            Self::Miss => "miss",
            Self::NotStored(_) => "not_stored",
            Self::Bypass(_) => "bypass",
        }
    }

    fn is_hit(self) -> bool {
        match self {
            Self::Hit | Self::Collapsed | Self::Stale | Self::Revalidated => true,
            Self::Expired | Self::Miss | Self::NotStored(_) | Self::Bypass(_) => false,
        }
    }
}

impl Exchange {
    fn outcome(&self, session: &Session) -> Option<Outcome> {
        let cached = self.cached.as_ref()?;
        let waited = session.cache.lock_duration().is_some();
        Some(match (session.cache.phase(), cached.miss) {
            _ if cached.served_until.is_some() => Outcome::Hit,
            (_, Some(miss)) if miss.is_unasked() => Outcome::Bypass(miss.label()),
            (CachePhase::Hit, _) if waited => Outcome::Collapsed,
            (CachePhase::Hit, _) => Outcome::Hit,
            (CachePhase::Stale | CachePhase::StaleUpdating, _) => Outcome::Stale,
            (CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_), _) => Outcome::Revalidated,
            (CachePhase::Expired, _) => Outcome::Expired,
            (CachePhase::Miss, _) => Outcome::Miss,
            (_, Some(miss)) => Outcome::NotStored(miss.label()),
            (CachePhase::Disabled(reason), None) => Outcome::NotStored(word(reason)),
            (CachePhase::Uninit | CachePhase::CacheKey | CachePhase::Bypass, None) => Outcome::NotStored("error"),
        })
    }

    /// What the access log says of the cache.
    pub(in crate::proxy) fn cache_word(&self, session: &Session) -> Option<Cow<'static, str>> {
        self.outcome(session).map(Outcome::text)
    }

    /// Counts how a client was served, where its route has a cache.
    pub(in crate::proxy) fn count_outcome(&self, session: &Session) {
        if let Some((cached, outcome)) = self.cached.as_ref().filter(|_| !self.in_background).zip(self.outcome(session))
        {
            cached.cache.counts.count(outcome.is_hit());
            if let Some(plan) = &self.plan {
                plan.counts.cache.say(outcome.word());
            }
        }
    }

    /// Tells the client how old an answer is that came from the store after all: it may have been old when the backend
    /// said that it still holds. Pingora says it of hits alone.
    pub(in crate::proxy) fn tell_age(&self, session: &Session, head: &mut ResponseHeader) -> Result<()> {
        if session.cache.phase() != CachePhase::Revalidated {
            return Ok(());
        }
        let age = session.cache.maybe_cache_meta().map_or(0, |meta| meta.age().as_secs());
        if age > 0 {
            head.insert_header(AGE, age)?;
        }
        Ok(())
    }

    /// Tells the client how the cache has served it, after what caches behind us have said.
    pub(in crate::proxy) fn expose_cache(&self, session: &Session, head: &mut ResponseHeader) -> Result<()> {
        let (Some(outcome), Some(cached)) = (self.outcome(session), &self.cached) else { return Ok(()) };
        let known = session.cache.maybe_cache_meta().map(|meta| meta.fresh_until());
        let fresh_until = cached.served_until.or(known);
        let now = SystemTime::now();
        let ttl = fresh_until.map(|until| match until.duration_since(now) {
            Ok(left) => left.as_secs().to_string(),
            Err(over) => format!("-{}", over.duration().as_secs().max(1)),
        });
        let by_vary = session.cache.maybe_cache_key().is_some_and(|key| key.variance_bin().is_some());
        let mut text = String::from("portcullis; ");
        text.push_str(match outcome {
            Outcome::Hit | Outcome::Stale => "hit",
            Outcome::Revalidated | Outcome::Expired if cached.is_asked_for_anew() => "fwd=request",
            Outcome::Revalidated | Outcome::Expired => "fwd=stale",
            Outcome::Bypass("method") => "fwd=method",
            Outcome::Bypass(_) => "fwd=bypass",
            Outcome::Miss | Outcome::Collapsed | Outcome::NotStored(_) if by_vary => "fwd=vary-miss",
            Outcome::Miss | Outcome::Collapsed | Outcome::NotStored(_) => "fwd=uri-miss",
        });
        if let Some(status) = cached.status.filter(|_| !matches!(outcome, Outcome::Hit | Outcome::Stale)) {
            let _ = write!(text, "; fwd-status={status}");
        }
        match outcome {
            Outcome::Miss | Outcome::Expired => text.push_str("; stored"),
            Outcome::Collapsed => text.push_str("; collapsed"),
            Outcome::NotStored(why) | Outcome::Bypass(why) => {
                let _ = write!(text, "; detail={why}");
            }
            Outcome::Hit | Outcome::Stale | Outcome::Revalidated => {}
        }
        if let Some(ttl) = ttl.filter(|_| !matches!(outcome, Outcome::NotStored(_) | Outcome::Bypass(_))) {
            let _ = write!(text, "; ttl={ttl}");
        }
        head.append_header(CACHE_STATUS, text)?;
        Ok(())
    }
}

/// What Pingora's reasons are called, where there is none of ours.
fn word(reason: NoCacheReason) -> &'static str {
    match reason {
        NoCacheReason::CacheLockTimeout => "lock_timeout",
        NoCacheReason::CacheLockGiveUp => "not_storable",
        NoCacheReason::CacheLockRetryLimit => "lock_retries",
        NoCacheReason::ResponseTooLarge | NoCacheReason::PredictedResponseTooLarge => "too_large",
        NoCacheReason::DeclinedToUpstream => "only_if_cached",
        NoCacheReason::StorageError => "no_room",
        NoCacheReason::Deferred => "deferred",
        NoCacheReason::Custom(word) => word,
        NoCacheReason::NeverEnabled
        | NoCacheReason::OriginNotCache
        | NoCacheReason::InternalError
        | NoCacheReason::UpstreamError => "error",
    }
}
