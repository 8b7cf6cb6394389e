//! What becomes of a backend's answer? Whether it is stored, what a 304 renews, and what an unsafe method undoes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AGE, AUTHORIZATION, DATE, VARY};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use pingora_cache::{CacheMeta, NoCacheReason, RespCacheable};

use super::doubt;
use super::outcome::Miss;
use crate::answer::httpdate;
use crate::cache::Cache;
use crate::cache::key::url_of;
use crate::cache::rules::{self, Cookies, Lifetime, Target, Terms, Vary};
use crate::cache::storage::{new_meta, object_of, own_key};
use crate::cache::store::Facts;
use crate::filter::announced_length;
use crate::proxy::connection;
use crate::proxy::exchange::Exchange;

/// How long something stale is served while no backend gives any answer, where neither the origin nor the operator says.
/// HTTP allows it to a cache that is cut off (RFC 9111, section 4.2.4), and it bridges a restart.
const CUT_OFF: Duration = Duration::from_secs(10);

/// Tags of one answer that are kept: enough for a page made of many parts, and a bound on what each answer costs.
const TAGS_MAX: usize = 128;

/// Bytes of a tag that are kept.
const TAG_MAX: usize = 1024;

impl Exchange {
    /// A backend is about to be asked.
    pub(in crate::proxy) fn note_asking(&mut self) {
        if let Some(cached) = &mut self.cached {
            cached.asked_at = SystemTime::now();
        }
    }

    /// The head of the final answer is there. An error says that it is given up for what is stored.
    pub(in crate::proxy) fn learn_for_the_store(
        &mut self,
        session: &Session,
        head: &mut ResponseHeader,
        cache: &'static Cache,
    ) -> Result<()> {
        if head.status.is_informational() {
            return Ok(());
        }
        self.invalidate(session, head, cache);
        let Some(cached) = &mut self.cached else { return Ok(()) };
        cached.status = Some(head.status.as_u16());
        cached.read = announced_length(&head.headers).is_none().then_some(0);
        if !session.cache.enabled() && !session.cache.bypassing() {
            return Ok(());
        }
        // RFC 9110, section 6.6.1: whoever stores an answer without a date says when it came.
        if !head.headers.contains_key(DATE) {
            head.insert_header(DATE, httpdate(SystemTime::now()))?;
        }
        if head.status == StatusCode::NOT_MODIFIED && session.cache.enabled() {
            cached.revalidated = Some(head.headers.clone());
        }
        if head.status.is_server_error() && !cached.only_when_cut_off && session.cache.can_serve_stale_error() {
            cached.prefers_stale = true;
            let status = ErrorType::HTTPStatus(head.status.as_u16());
            return Err(Error::explain(status, "what is stored is served, though it is stale").into_up());
        }
        Ok(())
    }

    /// Forgets what an unsafe method has changed (RFC 9111, section 4.4), whichever route has stored it.
    fn invalidate(&self, session: &Session, head: &ResponseHeader, cache: &'static Cache) {
        let (request, queries) = (session.req_header(), &self.snapshot.stored_queries);
        // An API that is asked by POST changes nothing by it.
        let asks = || self.caching().is_some_and(|caching| caching.methods.contains(&request.method));
        if rules::is_safe(&request.method) || queries.is_empty() || asks() {
            return;
        }
        let scheme = self.scheme(request);
        let authority = self.authority(request, scheme);
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        let target = Target { scheme, authority: &authority, path };
        for path in rules::invalidated(&request.method, head.status, &target, &head.headers) {
            for query in queries {
                let mut url = Vec::new();
                self.write_url(&mut url, request, &path, query);
                cache.shelf.invalidate(&url);
            }
        }
    }

    /// Whether an answer is stored, and then what is kept of it.
    pub(in crate::proxy) fn judge(&mut self, session: &Session, head: &ResponseHeader) -> Result<RespCacheable> {
        let news = self.cached.as_mut().and_then(|cached| cached.revalidated.take());
        let stored = session.cache.maybe_cache_meta();
        let is_renewed = news.is_some();
        let head = match (news, stored) {
            (Some(news), Some(stored)) => {
                // The body comes from the store: the backend owes nothing more.
                self.response_ended()?;
                if !rules::confirms(&news, stored.headers()) {
                    return Ok(as_it_was(stored));
                }
                self.renewed(stored, &news)?
            }
            (_, _) => head.clone(),
        };
        match self.lifetime(session, &head) {
            Ok(lifetime) => {
                // On HTTP/2 Pingora stops reading for as long as it writes: then a slow client would slow all others.
                let may_stream = !is_renewed && session.as_downstream().supports_proxy_task_api();
                self.keep(head, &lifetime, may_stream).map(RespCacheable::Cacheable)
            }
            Err((miss, lasting)) => {
                self.note_miss(miss);
                if is_renewed {
                    self.forget(session);
                }
                Ok(RespCacheable::Uncacheable(reason(miss, lasting, &head)))
            }
        }
    }

    /// What the backend says is not to be stored any more is forgotten, in both tiers.
    fn forget(&self, session: &Session) {
        let key = session.cache.maybe_cache_key().and_then(own_key);
        if let Some((cached, key)) = self.cached.as_ref().zip(key) {
            cached.cache.shelf.invalidate(url_of(key.encoded()));
        }
    }

    /// What is stored, brought up to date by a 304.
    fn renewed(&self, stored: &CacheMeta, news: &HeaderMap) -> Result<ResponseHeader> {
        let mut head = stored.response_header_copy();
        let mut fields = head.headers.clone();
        rules::merge(&mut fields, news, self.cookies());
        // It is found by the old one; and how old the news are counts.
        keep_field(&mut fields, stored.headers(), VARY);
        keep_field(&mut fields, news, AGE);
        replace_fields(&mut head, &fields)?;
        Ok(head)
    }

    pub(super) fn cookies(&self) -> Cookies {
        let keep = self.caching().is_some_and(|caching| caching.store_set_cookie);
        if keep { Cookies::Keep } else { Cookies::Drop }
    }

    pub(super) fn lifetime(&self, session: &Session, head: &ResponseHeader) -> Result<Lifetime, (Miss, bool)> {
        let (Some(cached), Some(caching)) = (&self.cached, self.caching()) else { return Err((Miss::Method, false)) };
        let request = session.req_header();
        // What asks for HEAD is sent as GET while the cache is on.
        let method = if request.method == Method::HEAD { &Method::GET } else { &request.method };
        let mut matter = caching.key.headers.clone();
        if let Vary::Fields(names) = self.varies_with(&head.headers) {
            matter.extend(names);
        }
        if doubt::is_disguised(&request.headers, &matter) {
            return Err((Miss::Disguise, false));
        }
        let terms = Terms {
            method,
            // Whoever was let in has shown credentials, wherever they stood.
            authorized: self.is_guarded() || self.is_certified() || request.headers.contains_key(AUTHORIZATION),
            no_store: cached.asked.no_store,
            caching,
            asked_at: cached.asked_at,
            answered_at: SystemTime::now(),
        };
        let lifetime = rules::judge(&terms, head.status, &head.headers);
        let lifetime = lifetime.map_err(|why| (Miss::NotStored(why), why.is_lasting()))?;
        // Whose last answer was too large and said so only by going on is believed when it announces less.
        let was_too_large = session.cache.predicted_uncacheable_reason() == Some(NoCacheReason::ResponseTooLarge);
        match announced_length(&head.headers) {
            Some(length) if length > cached.cache.max_object() => Err((Miss::TooLarge, true)),
            None if was_too_large => Err((Miss::TooLarge, true)),
            Some(_) | None => Ok(lifetime),
        }
    }

    fn keep(&mut self, head: ResponseHeader, lifetime: &Lifetime, may_stream: bool) -> Result<CacheMeta> {
        let now = SystemTime::now();
        let born = now.checked_sub(lifetime.age).unwrap_or(SystemTime::UNIX_EPOCH);
        // To Pingora what is fresh until now is fresh.
        let moment = Duration::from_millis(u64::from(lifetime.fresh_for.is_zero()));
        let fresh_until = born.checked_add(lifetime.fresh_for).unwrap_or(now) - moment;
        let when_cut_off = lifetime.stale_when_cut_off;
        let vary = match self.varies_with(&head.headers) {
            Vary::Fields(names) => names.into(),
            Vary::Nothing | Vary::Star => Arc::new([]) as Arc<[HeaderName]>,
        };
        let facts = Facts {
            born,
            asked_at: self.cached.as_ref().map_or(born, |cached| cached.asked_at),
            fresh_until,
            stale_while_revalidate: lifetime.stale_while_revalidate,
            stale_if_error: if when_cut_off { CUT_OFF } else { lifetime.stale_if_error },
            only_when_cut_off: when_cut_off,
            may_be_stale: lifetime.may_be_stale,
            variance: None,
            vary,
            tags: self.tags(&head),
        };
        let mut kept = head.clone();
        let mut fields = head.headers.clone();
        rules::strip(&mut fields, self.cookies());
        replace_fields(&mut kept, &fields)?;
        // Its own client reads from the store too, unless something is withheld from all others.
        let withheld = |name: &HeaderName| !fields.contains_key(name) && !is_of_this_hop(name);
        let streams = may_stream && announced_length(&head.headers).is_some() && !head.headers.keys().any(withheld);
        connection::stream_from_the_store(streams);
        let mut meta = new_meta(kept, &facts);
        meta.extensions_mut().insert(facts);
        Ok(meta)
    }

    fn tags(&self, head: &ResponseHeader) -> Arc<[Box<str>]> {
        let names = self.caching().map_or(&[][..], |caching| &caching.tags);
        let lines = names.iter().flat_map(|name| head.headers.get_all(name)).filter_map(|line| line.to_str().ok());
        let tags = lines.flat_map(|line| line.split([' ', ','])).filter(|tag| !tag.is_empty() && tag.len() <= TAG_MAX);
        tags.take(TAGS_MAX).map(Box::from).collect()
    }

    /// Part of the answer has been read: one of unknown length may turn out to be too large.
    pub(in crate::proxy) fn watch_the_size(&mut self, session: &mut Session, bytes: usize) {
        let Some(cached) = self.cached.as_mut().filter(|_| session.cache.enabled()) else { return };
        let Some(read) = &mut cached.read else { return };
        *read += bytes as u64;
        if *read > cached.cache.max_object() {
            cached.miss = Some(Miss::TooLarge);
            session.cache.response_became_uncacheable(NoCacheReason::ResponseTooLarge);
            session.cache.disable(NoCacheReason::ResponseTooLarge);
        }
    }

    pub(super) fn note_miss(&mut self, miss: Miss) {
        if let Some(cached) = &mut self.cached {
            cached.miss = Some(miss);
        }
    }
}

/// What another version's 304 leaves: the stored response, neither newer nor fresher (RFC 9111, section 4.3.4).
fn as_it_was(stored: &CacheMeta) -> RespCacheable {
    match object_of(stored) {
        Some(object) => {
            let mut meta = new_meta(object.head.clone(), &object.facts);
            meta.extensions_mut().insert(object.facts.clone());
            RespCacheable::Cacheable(meta)
        }
        None => RespCacheable::Uncacheable(NoCacheReason::InternalError),
    }
}

/// What Pingora does about an answer that is not stored. Who waited for it shall try in its turn where it was the request
/// that forbade it, and go its own way where it was the answer. The key is remembered for the next ones only where all
/// answers to it are likely to be of that kind.
fn reason(miss: Miss, lasting: bool, head: &ResponseHeader) -> NoCacheReason {
    if miss.is_of_the_request() {
        NoCacheReason::Deferred
    } else if lasting && !matches!(Vary::of(&head.headers), Vary::Fields(_)) {
        NoCacheReason::OriginNotCache
    } else {
        NoCacheReason::Custom(miss.label())
    }
}

/// Fields that no client gets anyway, or gets anew.
fn is_of_this_hop(name: &HeaderName) -> bool {
    matches!(name.as_str(), "connection" | "keep-alive" | "proxy-connection" | "upgrade" | "te" | "transfer-encoding")
}

fn keep_field(fields: &mut HeaderMap, stored: &HeaderMap, name: HeaderName) {
    fields.remove(&name);
    for value in stored.get_all(&name) {
        fields.append(name.clone(), value.clone());
    }
}

fn replace_fields(head: &mut ResponseHeader, fields: &HeaderMap) -> Result<()> {
    let names: Vec<HeaderName> = head.headers.keys().cloned().collect();
    for name in names {
        head.remove_header(&name);
    }
    for (name, value) in fields {
        head.append_header(name, value)?;
    }
    Ok(())
}
