//! What do all requests share? The store, who waits for whom, and what has turned out not to be worth waiting for.
//!
//! Pingora wants these to live as long as the process, so they are made once and never dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use pingora_cache::lock::CacheLock;
use pingora_cache::predictor::Predictor;
use tokio::time::timeout;

use super::disk::{DiskError, DiskNumbers};
use super::purge::{Purge, What};
use super::storage::Shelf;
use super::store::Store;
use super::tier::Tier;
use crate::config::CacheStore;

/// How long one request may fetch while others wait for it, whatever they themselves are willing to wait. After that
/// another one fetches too.
const FETCH_MAX: Duration = Duration::from_secs(60);

/// Keys that are remembered as not worth waiting for, in each of 16 parts. Each costs about 64 bytes, so it is a
/// mebibyte in all; who is forgotten costs others one wait.
const REMEMBERED: usize = 1024;

/// The cache of a process.
pub struct Cache {
    /// Where answers are kept.
    pub shelf: Shelf,
    /// Who fetches, and who waits for it.
    pub lock: CacheLock,
    /// Which answers turned out not to be storable: nobody waits for the next one (hit-for-miss).
    pub predictor: Predictor<16>,
    /// What has been counted.
    pub counts: Counts,
    max_object: AtomicU64,
}

/// How requests were served that a cache is for.
#[derive(Debug, Default)]
pub struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Counts {
    /// Counts a request; a hit is one that was served from the store.
    pub fn count(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Relaxed);
    }

    /// Hits, and the others.
    pub fn get(&self) -> (u64, u64) {
        (self.hits.load(Relaxed), self.misses.load(Relaxed))
    }
}

impl Cache {
    /// A cache that is there until the process ends; `streams` is [`Shelf::new`]'s.
    pub fn new(config: &CacheStore, streams: fn() -> bool) -> &'static Self {
        Box::leak(Box::new(Self {
            shelf: Shelf::new(Store::new(config.size, config.eviction), streams),
            lock: CacheLock::new(FETCH_MAX),
            // A reason of our own is one that says nothing of the next answer.
            predictor: Predictor::new(REMEMBERED, Some(|_| true)),
            counts: Counts::default(),
            max_object: AtomicU64::new(config.max_object),
        }))
    }

    /// Opens the tier on disk, if there is to be one, within the runtime that shall do its work. If something was purged
    /// before, all that is there is forgotten: it might be meant.
    pub async fn open_disk(&self, config: &CacheStore) -> Result<(), DiskError> {
        let Some(disk) = &config.disk else { return Ok(()) };
        let tier = Tier::open(&disk.path, disk.size, config.max_object).await?;
        self.shelf.set_tier(Some(tier.clone()));
        if self.shelf.has_forgotten_alone() {
            tier.obey(&Purge { what: What::Everything, soft: false, at: SystemTime::now() }).await?;
        }
        Ok(())
    }

    /// Lets go of the tier on disk, and writes what waits to be written, for so long at most.
    pub async fn close_disk(&self, most: Duration) {
        if let Some(tier) = self.shelf.set_tier(None)
            && timeout(most, tier.close()).await.is_err()
        {
            log::warn!("the cache on disk has not written all that waited when the grace period was over");
        }
    }

    /// What the tier on disk has done and what it takes; `None` where there is none.
    pub fn disk_numbers(&self) -> Option<DiskNumbers> {
        self.shelf.tier().map(|tier| tier.numbers())
    }

    /// Takes over other settings, but for the tier on disk; what there is too much goes.
    pub fn resize(&self, config: &CacheStore) {
        self.max_object.store(config.max_object, Relaxed);
        self.shelf.store.set_size(config.size);
    }

    /// The largest body that is stored.
    pub fn max_object(&self) -> u64 {
        self.max_object.load(Relaxed)
    }

    /// Obeys a purge, on disk first and then in memory, and says how many objects were in memory.
    pub async fn purge(&'static self, purge: &Purge) -> usize {
        match self.shelf.tier() {
            None => self.shelf.forgets_alone(),
            Some(tier) => {
                let _ = tier.obey(purge).await.inspect_err(|error| log::error!("{error}"));
            }
        }
        let purge = purge.clone();
        // It looks at all there are: on a thread of its own, so that no request waits for it.
        let obeyed = tokio::task::spawn_blocking(move || self.store().obey(&purge)).await;
        obeyed.inspect_err(|error| log::error!("a purge of the cache broke off: {error}")).unwrap_or_default()
    }

    /// Where answers are kept.
    pub fn store(&'static self) -> &'static Store {
        &self.shelf.store
    }
}
