//! How does Pingora's cache reach the store? Its traits, on our objects.
//!
//! Pingora counts, locks and decides; what is kept is ours. Its own eviction and its clock for variants are not used:
//! every object it sees was created at one moment, and says itself when its age was zero.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use pingora::{Error, ErrorType, Result};
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::{
    HandleHit, HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta};

use super::key::Key;
use super::store::{Facts, Filling, Object, Reading, Store};
use super::tier::Tier;

/// When Pingora believes everything was created.
const CREATED: SystemTime = SystemTime::UNIX_EPOCH;

/// The store as Pingora sees it.
pub struct Shelf {
    /// What is kept.
    pub store: Store,
    /// A second tier, on disk, if there is one.
    tier: ArcSwapOption<Tier>,
    /// Whether something was forgotten that a tier which is put in place later might still know.
    forgot_alone: AtomicBool,
    /// Whether the answer that this task fetches is read by its client from the store while it is written there.
    streams: fn() -> bool,
    /// Between the head of an answer and the first reader of its body.
    begun: Mutex<HashMap<u64, Reading>>,
    next: AtomicU64,
}

impl Shelf {
    /// A shelf for a store; `streams` is asked in the task that fetches.
    pub fn new(store: Store, streams: fn() -> bool) -> Self {
        Self {
            store,
            tier: ArcSwapOption::empty(),
            forgot_alone: AtomicBool::new(false),
            streams,
            begun: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Puts a tier below the store, or takes away the one that was there.
    pub fn set_tier(&self, tier: Option<Arc<Tier>>) -> Option<Arc<Tier>> {
        self.tier.swap(tier)
    }

    /// The tier below the store.
    pub fn tier(&self) -> Option<Arc<Tier>> {
        self.tier.load_full()
    }

    /// Forgets all that is stored for an address, on disk too.
    pub fn invalidate(&self, url: &[u8]) {
        match self.tier() {
            Some(tier) => tier.invalidate(&self.store, url),
            None => {
                self.forgets_alone();
                self.store.invalidate(Key::hash_url(url))
            }
        };
    }

    /// Notes that something is forgotten while there is no tier that could be told.
    pub fn forgets_alone(&self) {
        self.forgot_alone.store(true, Relaxed);
    }

    /// Whether something was, since this was asked the last time.
    pub fn has_forgotten_alone(&self) -> bool {
        self.forgot_alone.swap(false, Relaxed)
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<u64, Reading>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key in Pingora's words.
pub fn cache_key(key: Key, variance: Option<u128>) -> CacheKey {
    let page = key.page;
    let mut theirs = CacheKey::new(key.into_encoded(), "");
    theirs.set_primary_bin_override(page.to_be_bytes());
    if let Some(variance) = variance {
        theirs.set_variance_key(variance.to_be_bytes());
    }
    theirs
}

/// A key of Pingora's in ours.
pub fn own_key(theirs: &CacheKey) -> Option<Key> {
    Key::decode(theirs.primary_key(), u128::from_be_bytes(theirs.primary_bin()))
}

fn variance_of(key: &CacheKey) -> Option<u128> {
    key.variance_bin().map(u128::from_be_bytes)
}

/// An object as Pingora wants it. It goes along, so that what is learned of it later is noted at no other.
pub fn meta(object: &Arc<Object>) -> CacheMeta {
    let mut meta = new_meta(object.head.clone(), &object.facts);
    meta.extensions_mut().insert(object.clone());
    meta
}

/// The object that Pingora was told of.
pub fn object_of(meta: &CacheMeta) -> Option<&Arc<Object>> {
    meta.extensions().get::<Arc<Object>>()
}

/// What Pingora is told of a response that may be stored. The facts go along, for [`Storage::get_miss_handler`].
pub fn new_meta(head: pingora::http::ResponseHeader, facts: &Facts) -> CacheMeta {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let (swr, sie) = (seconds(facts.stale_while_revalidate), seconds(facts.stale_if_error));
    let mut meta = CacheMeta::new(facts.fresh_until, CREATED, swr, sie, head);
    meta.set_epoch_override(facts.born);
    if let Some(variance) = facts.variance {
        meta.set_variance(variance.to_be_bytes());
    }
    meta
}

#[async_trait]
impl Storage for Shelf {
    async fn lookup(&'static self, key: &CacheKey, _: &SpanHandle) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(own) = own_key(key) else { return Ok(None) };
        let variance = variance_of(key);
        let mut found = self.store.find(&own, variance);
        if found.is_none()
            && let Some(tier) = self.tier()
        {
            found = tier.find(&self.store, own, variance).await;
        }
        Ok(found.map(|object| (meta(&object), Box::new(Hit(Reading::new(object))) as HitHandler)))
    }

    async fn lookup_streaming_write(
        &'static self,
        _: &CacheKey,
        tag: Option<&[u8]>,
        _: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let tag = tag.and_then(|tag| Some(u64::from_be_bytes(tag.try_into().ok()?)));
        let begun = tag.and_then(|tag| self.begun().remove(&tag));
        Ok(begun.map(|reading| (meta(reading.object()), Box::new(Hit(reading)) as HitHandler)))
    }

    async fn get_miss_handler(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<MissHandler> {
        let facts = meta.extensions().get::<Facts>().cloned();
        let parts = own_key(key).zip(facts);
        let Some((key, mut facts)) = parts else { return Error::e_explain(ErrorType::InternalError, "no facts") };
        facts.variance = meta.variance().map(u128::from_be_bytes);
        let head = meta.response_header();
        let below =
            self.tier().map(|tier| Below { tier, store: &self.store, key: key.clone(), variance: facts.variance });
        let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut filling = self.store.begin(key, head, facts, length);
        let tag = self.next.fetch_add(1, Relaxed);
        if (self.streams)() {
            // Whoever streams from the store has nowhere else to read from.
            let Some(filling) = &mut filling else { return Error::e_explain(ErrorType::InternalError, "no room") };
            filling.publish();
            self.begun().insert(tag, filling.read());
        }
        Ok(Box::new(Miss { filling, tag: tag.to_be_bytes(), below }))
    }

    /// Nobody asks: Pingora's eviction is not used, and a purge goes to the store.
    async fn purge(&'static self, _: PurgeTarget<'_>, _: PurgeType, _: &SpanHandle) -> Result<PurgeOutcome> {
        Ok(PurgeOutcome::NotFound)
    }

    async fn update_meta(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        let facts = meta.extensions().get::<Facts>();
        let Some((key, facts)) = own_key(key).zip(facts) else { return Ok(false) };
        let variance = meta.variance().map(u128::from_be_bytes);
        let Some(old) = object_of(meta).cloned() else { return Ok(false) };
        let facts = Facts { variance, vary: old.facts.vary.clone(), ..facts.clone() };
        let renewed = self.store.renew(&key, &old, meta.response_header(), facts);
        if let (true, Some(tier)) = (renewed, self.tier())
            && let Some(object) = self.store.peek(&key, variance)
        {
            tier.copy_anew(&key, &object);
        }
        Ok(renewed)
    }

    fn support_streaming_partial_write(&self) -> bool {
        (self.streams)()
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// One who is served from the store.
pub struct Hit(Reading);

impl Hit {
    /// What is served.
    pub fn object(&self) -> &Arc<Object> {
        self.0.object()
    }
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        self.0.next().await.map_err(|error| Error::because(ErrorType::ReadError, "cached body", error))
    }

    async fn finish(self: Box<Self>, _: &'static (dyn Storage + Sync), _: &CacheKey, _: &SpanHandle) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        self.0.seek(start as u64, end.map_or(u64::MAX, |end| end as u64));
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// A response that is being stored; nothing once it turned out that there is no room for it.
struct Miss {
    filling: Option<Filling>,
    tag: [u8; 8],
    below: Option<Below>,
}

/// Where a response is copied when it is complete.
struct Below {
    tier: Arc<Tier>,
    store: &'static Store,
    key: Key,
    variance: Option<u128>,
}

impl Below {
    fn copy(self) {
        // Nothing is there if a purge has come meanwhile.
        if let Some(object) = self.store.peek(&self.key, self.variance) {
            self.tier.copy(&self.key, &object);
        }
    }
}

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, data: Bytes, _eof: bool) -> Result<()> {
        if self.filling.as_mut().is_some_and(|filling| !filling.write(&data))
            && let Some(filling) = self.filling.take()
        {
            filling.give_up();
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        if let Some(filling) = self.filling.take()
            && filling.finish()
            && let Some(below) = self.below.take()
        {
            below.copy();
        }
        Ok(MissFinishType::Created(0))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(&self.tag)
    }
}

impl Drop for Miss {
    fn drop(&mut self) {
        if let Some(filling) = self.filling.take() {
            filling.give_up();
        }
    }
}
