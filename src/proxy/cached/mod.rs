//! Is it answered from the store? What the corridor does for Pingora's cache: it is switched on, asked, and told.
//!
//! Pingora keeps the order: it looks a request up, waits for who fetches the same, revalidates, and serves. The rules are
//! those of the room `cache`; what is decided here is only which of them is asked when. Conditions and ranges are
//! answered here too while the cache is on, because Pingora then asks the backend for the whole.

mod answer;
mod body;
mod doubt;
mod explain;
mod hit;
mod key;
mod outcome;
mod refresh;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{RangeType, Session, range_header_filter};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_cache::storage::HandleHit;
use pingora_cache::{CacheKey, CacheOptionOverrides, CachePhase, ForcedFreshness};
use tokio::time::timeout;

use self::outcome::Miss;
use super::exchange::Exchange;
use super::record;
use crate::answer::{Ended, Refusal};
use crate::cache::rules::{self, Asked, Use, Vary};
use crate::cache::storage::{self, Hit};
use crate::cache::store::Object;
use crate::cache::{Cache, Key, Store};
use crate::config::Caching;

pub(super) use self::refresh::{Refreshes, ask_without_conditions, head_of};

/// As many as Pingora takes: more than any client that resumes a download asks for.
const RANGES_MAX: Option<usize> = Some(200);

/// What is remembered of a request to a route that caches.
pub(super) struct Cached {
    cache: &'static Cache,
    asked: Asked,
    /// Its key, once it has been worked out.
    key: Option<Key>,
    /// What was found, which may be what is served.
    hit: Option<Arc<Object>>,
    /// Until when that is fresh.
    served_until: Option<SystemTime>,
    /// Why it was not looked up, or not stored.
    miss: Option<Miss>,
    /// When the backend was asked last.
    asked_at: SystemTime,
    /// The fields of a 304 to a revalidation.
    revalidated: Option<HeaderMap>,
    /// An answer is given up because what is stored, though stale, is better.
    prefers_stale: bool,
    /// What is stored was fresh when it was found.
    was_fresh: bool,
    /// What is stored may be served stale only if no backend gives any answer.
    only_when_cut_off: bool,
    /// The digest of the request's body, where that is part of the key.
    body: Option<u128>,
    /// The status of the backend's last answer.
    status: Option<u16>,
    /// Bytes of its body so far, where nothing was announced; `None` where it was.
    read: Option<u64>,
}

impl Cached {
    fn new(cache: &'static Cache, body: Option<u128>) -> Self {
        Self {
            cache,
            asked: Asked::default(),
            key: None,
            hit: None,
            served_until: None,
            miss: None,
            asked_at: SystemTime::UNIX_EPOCH,
            revalidated: None,
            prefers_stale: false,
            was_fresh: false,
            only_when_cut_off: false,
            body,
            status: None,
            read: None,
        }
    }

    /// What the request makes of a stored response.
    fn verdict(&self, object: &Object, now: SystemTime) -> Use {
        let facts = &object.facts;
        let lifetime = facts.fresh_until.duration_since(facts.born).unwrap_or_default();
        self.asked.verdict(object.age(now), lifetime, facts.may_be_stale)
    }

    /// Whether it is the request that wants another answer than what is stored, and fresh.
    fn is_asked_for_anew(&self) -> bool {
        self.was_fresh && (self.asked.no_cache || self.asked.max_age.is_some() || self.asked.min_fresh.is_some())
    }
}

impl Exchange {
    pub(super) fn caching(&self) -> Option<&Arc<Caching>> {
        self.plan.as_ref()?.cache.as_ref()
    }

    /// Switches the cache on for a request that may be answered from it, or may be stored.
    pub(super) fn begin_caching(&mut self, session: &mut Session, cache: &'static Cache) {
        let Some(caching) = self.caching().cloned() else { return };
        // A look for a hit has worked it all out, unless there was none.
        if self.cached.as_ref().is_none_or(|cached| cached.key.is_none()) {
            let body = self.cached.as_ref().and_then(|cached| cached.body);
            let miss = self.bypasses(session, &caching, body);
            let asked = miss.map_or_else(|| Asked::of(&session.req_header().headers), |_| Asked::default());
            self.cached = Some(Box::new(Cached { asked, miss, ..Cached::new(cache, body) }));
            if miss.is_some() {
                return;
            }
        }
        // Who is not to wait finds the time for it used up.
        let mut waits = CacheOptionOverrides::default();
        waits.wait_timeout = Some(caching.lock.unwrap_or_default());
        // So that what is stored is not read at the pace of the client that it is fetched for.
        session.as_downstream_mut().set_proxy_tasks_enabled(true);
        session.cache.enable(&cache.shelf, None, Some(&cache.predictor), Some(&cache.lock), Some(waits));
    }

    /// Why this request has nothing to do with the store, if it has not.
    fn bypasses(&self, session: &mut Session, caching: &Caching, body: Option<u128>) -> Option<Miss> {
        // HTTP/2 announces no body: it just comes.
        let has_body = announces_a_body(session.req_header()) || !session.as_downstream_mut().is_body_empty();
        let head = session.req_header();
        let stored_as = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        if !caching.methods.contains(stored_as)
            || (head.method == Method::HEAD && !caching.methods.contains(&head.method))
        {
            return Some(Miss::Method);
        }
        // A backend may heed what is in it, and the key would not tell.
        let misplaced = if head.method == Method::POST { body.is_none() } else { has_body };
        if misplaced || session.is_upgrade_req() {
            return Some(Miss::Body);
        }
        if rules::is_for_the_origin(&head.headers) {
            return Some(Miss::Precondition);
        }
        caching.bypass.iter().any(|part| key::has(head, part)).then_some(Miss::Bypass)
    }

    /// The key of this request, and which of the answers to it, as far as that is known before a look at them.
    pub(super) fn cache_key(&mut self, head: &RequestHeader) -> Result<CacheKey> {
        let known = self.cached.as_mut().and_then(|cached| cached.key.take());
        let body = self.cached.as_ref().and_then(|cached| cached.body);
        let parts = known.or_else(|| self.key(head, body)).zip(self.cached.as_ref());
        let Some((key, cached)) = parts else { return Error::e_explain(ErrorType::InternalError, "no key") };
        let vary = cached.cache.store().vary(&key).filter(|names| !names.is_empty());
        let variance = vary.map(|names| rules::variance(&names, &head.headers, Key::seed()));
        Ok(storage::cache_key(key, variance))
    }

    /// What a stored response is to this request.
    pub(super) fn weigh(
        &mut self,
        session: &Session,
        hit: &(dyn HandleHit + Sync + Send),
        is_fresh: bool,
    ) -> Option<ForcedFreshness> {
        let now = SystemTime::now();
        let arrived = now.checked_sub(self.began.elapsed());
        let (cached, hit) = (self.cached.as_mut()?, hit.as_any().downcast_ref::<Hit>()?);
        let object = hit.object();
        (cached.was_fresh, cached.only_when_cut_off) = (is_fresh, object.facts.only_when_cut_off);
        cached.hit = Some(object.clone());
        // The backend has answered another request since this one came, which waited for that: it need not ask again (RFC
        // 9111, section 4).
        let waited = session.cache.lock_duration().is_some();
        if waited && arrived.is_some_and(|arrived| object.answered_at >= arrived) {
            return Some(ForcedFreshness::ForceFresh);
        }
        match cached.verdict(object, now) {
            Use::AsStored => None,
            Use::Revalidate => Some(ForcedFreshness::ForceExpired),
            Use::FreshEnough => Some(ForcedFreshness::ForceFresh),
        }
    }

    /// The stored object that is the answer, if one is.
    pub(super) fn served(&self, session: &Session) -> Option<&Arc<Object>> {
        let cached = self.cached.as_ref()?;
        let is_served = match session.cache.phase() {
            CachePhase::Hit
            | CachePhase::Stale
            | CachePhase::StaleUpdating
            | CachePhase::Revalidated
            | CachePhase::RevalidatedNoCache(_) => true,
            CachePhase::Disabled(_)
            | CachePhase::Uninit
            | CachePhase::CacheKey
            | CachePhase::Bypass
            | CachePhase::Miss
            | CachePhase::Expired => cached.served_until.is_some(),
        };
        cached.hit.as_ref().filter(|_| is_served)
    }

    /// Where that is kept.
    pub(super) fn store(&self) -> Option<&'static Store> {
        self.cached.as_ref().map(|cached| cached.cache.store())
    }

    /// The client would have only what is stored, and it is not.
    pub(super) fn wants_only_what_is_stored(&self) -> bool {
        self.cached.as_ref().is_some_and(|cached| cached.asked.only_if_cached)
    }

    /// Which of the stored answers to its key a request may get; `None` where there is only one.
    pub(super) fn variance(&self, fields: &HeaderMap, head: &RequestHeader) -> Option<u128> {
        match self.varies_with(fields) {
            Vary::Fields(names) => Some(rules::variance(&names, &head.headers, Key::seed())),
            // What varies with everything is not stored.
            Vary::Nothing | Vary::Star => None,
        }
    }

    /// Which bytes of the body the client gets.
    pub(super) fn range(&self, session: &mut Session, head: &mut ResponseHeader) -> RangeType {
        refresh::speak_as_before(session);
        let request = session.req_header();
        // RFC 9110, section 14.2: only GET has ranges.
        let has_range = request.method == Method::GET && request.headers.contains_key(RANGE);
        if !has_range || !rules::if_range_holds(&request.headers, &head.headers) {
            return RangeType::None;
        }
        range_header_filter(request, head, RANGES_MAX)
    }

    /// The status of the answer that was given up for what is stored, if one was.
    pub(super) fn gives_way_to_stale(&self) -> Option<StatusCode> {
        let cached = self.cached.as_ref().filter(|cached| cached.prefers_stale)?;
        StatusCode::from_u16(cached.status?).ok()
    }

    /// Whether the failure of an exchange is one that something stale is better than.
    pub(super) fn takes_stale_for(&mut self, session: &mut Session, error: &Error) -> bool {
        // An answer is weighed when everybody has been asked who may be asked.
        let is_status = matches!(error.etype(), ErrorType::HTTPStatus(_)) && *error.esource() == ErrorSource::Upstream;
        let prefers_stale = self.cached.as_ref().is_some_and(|cached| cached.prefers_stale);
        let takes = match record::ending(self, Some(error)) {
            _ if is_status => prefers_stale,
            Ended::Refused(why) => why.fault().is_of_the_backend() || why.retry_after().is_some(),
            Ended::Complete | Ended::ClientGone => false,
        };
        if takes {
            self.refusal = None;
            // Pingora ends the connection after this, so the answer must say it.
            self.end_connection(session);
        }
        takes
    }
}

/// Whether a body follows, as far as the head tells.
fn announces_a_body(head: &RequestHeader) -> bool {
    let length = head.headers.get(CONTENT_LENGTH);
    length.is_some_and(|length| length != "0") || head.headers.contains_key(http::header::TRANSFER_ENCODING)
}

impl super::Gateway {
    /// Reads the body of a request that is told from others by it.
    pub(super) async fn read_key_body(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        let Some(limit) = exchange.caching().map(|caching| caching.key.body).filter(|limit| *limit > 0) else {
            return Ok(());
        };
        if session.req_header().method == Method::POST {
            body::ask_for_it(session).await?;
            // In all, and not between two reads: it is short, and nothing else watches it yet.
            let patience = exchange.listener().map_or(Duration::from_secs(30), |listener| listener.timeouts.body);
            let Ok(digest) = timeout(patience, body::digest(session, limit)).await else {
                return Err(exchange.refused(Refusal::BodyTimeout));
            };
            let digest = digest?;
            exchange.keep_digest(self.belongings.cache, digest);
        }
        Ok(())
    }
}
