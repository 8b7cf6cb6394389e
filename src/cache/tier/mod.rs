//! How do the two tiers work together? What is stored in memory is copied to disk; what memory does not know is looked
//! for there, brought into memory, and served from it.
//!
//! A hit in memory asks nothing here. A request waits a quarter of a second for the disk at most, and never for what the disk is
//! known not to have; who asks for the same waits for the one who reads it. Answers that differ by request fields lie
//! under keys of their own, and where the key alone leads lies a signpost, which says by which fields.
//!
//! Whoever purges purges the disk first and memory then. What is being read meanwhile is judged once more when it is in
//! memory, so it is gone either way.

mod flights;
mod form;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::time::timeout;

use self::flights::Flights;
use super::disk::purges::{Purge, What};
use super::disk::{Disk, DiskError, DiskNumbers, Found, milliseconds};
use super::key::{Key, url_of};
use super::purge::What as Meant;
use super::store::{Object, Store};

/// The longest that a request waits for the disk. Most backends answer sooner than a disk that takes longer.
const DEADLINE: Duration = Duration::from_millis(250);

/// How old a copy must be for a revalidation to write it anew. What is revalidated each minute would otherwise be written
/// each minute; the older copy only has to be revalidated once more after a restart.
const COPY_ANEW: u64 = 60 * 60 * 1000;

/// The tier on disk, and who reads from it.
pub struct Tier {
    disk: Disk,
    flights: Flights,
}

impl Tier {
    /// Opens the tier. To be called before the first key is made, so that keys are what they were before the restart.
    pub async fn open(path: &Path, size: u64, max_object: u64) -> Result<Arc<Self>, DiskError> {
        let disk = Disk::open(path, size, max_object).await?;
        if !Key::set_seed(disk.secret()) {
            log::debug!("the cache on disk is not the first one of this process: some of it will not be found");
        }
        Ok(Arc::new(Self { disk, flights: Flights::default() }))
    }

    /// What an answer has as its key on disk: nobody can make two that are the same, or knows one.
    fn name(&self, key: &Key, variance: Option<u128>) -> u128 {
        let mut hash = Context::new(&SHA256);
        hash.update(&self.disk.secret().to_be_bytes());
        hash.update(&variance.map_or([0; 17], |variance| {
            let mut bytes = [1; 17];
            bytes[1..].copy_from_slice(&variance.to_be_bytes());
            bytes
        }));
        hash.update(key.text());
        let digest = hash.finish();
        digest.as_ref().first_chunk().copied().map(u128::from_be_bytes).unwrap_or_default()
    }

    /// Looks for an answer that the store in memory does not have, and brings it there.
    pub async fn find(self: Arc<Self>, store: &'static Store, key: Key, variance: Option<u128>) -> Option<Arc<Object>> {
        let name = self.name(&key, variance);
        if !self.disk.may_have(name) {
            return None;
        }
        let (tier, own) = (self.clone(), key.clone());
        let landed = self.flights.join(name, move || async move { tier.bring(store, name, own, variance).await });
        let object = timeout(DEADLINE, landed).await.ok().flatten()?;
        let is_signpost = object.facts.variance != variance;
        // A purge may have come since it was brought, and this request after the purge.
        if is_signpost { Some(object) } else { store.find(&key, variance) }
    }

    async fn bring(&self, store: &'static Store, name: u128, key: Key, variance: Option<u128>) -> Option<Arc<Object>> {
        // What a purge means in between is not stored in memory.
        let began = SystemTime::now();
        let found = self.disk.get(name).await.filter(|found| found.head.url == url_of(key.encoded()))?;
        let (head, facts) = form::revive(&found, began)?;
        if variance.is_none() && !facts.vary.is_empty() {
            let filling = store.begin(key, &head, form::signpost(facts), Some(0))?;
            return Some(filling.read().object().clone());
        }
        let length = u64::try_from(found.body.len()).ok()?;
        let mut filling = store.begin(key.clone(), &head, facts, Some(length))?;
        let whole = found.body.iter().all(|piece| filling.write(piece));
        // Somebody may have fetched it meanwhile: that is the newer one.
        let newer = store.peek(&key, variance);
        if !whole || newer.is_some() || !filling.finish() {
            return newer;
        }
        let object = store.peek(&key, variance)?;
        self.judge_again(store, &key, &found, object)
    }

    /// What is in memory now, unless a purge has come since it was found on disk.
    fn judge_again(&self, store: &Store, key: &Key, found: &Found, object: Arc<Object>) -> Option<Arc<Object>> {
        object.note_copy(found.head.stored_at);
        let holds = self.disk.still(self.name(key, object.facts.variance), found);
        if !holds {
            store.forget(key, &object);
        }
        holds.then_some(object)
    }

    /// Copies what has been stored in memory, if it may be of use later.
    pub fn copy(&self, key: &Key, object: &Object) {
        let name = self.name(key, object.facts.variance);
        let Some(pieces) = object.pieces().filter(|_| form::is_of_use(object, SystemTime::now())) else {
            // What is there is not the latest any more.
            return self.disk.forget(name);
        };
        let head = form::head(object, url_of(key.encoded()));
        object.note_copy(head.stored_at);
        if object.facts.variance.is_some() {
            self.disk.put(self.name(key, None), &form::head_of_signpost(&head), bytes::Bytes::new());
        }
        self.disk.put(name, &head, pieces);
    }

    /// Copies what has been found unchanged, if the copy is an old one.
    pub fn copy_anew(&self, key: &Key, object: &Object) {
        if milliseconds(object.facts.asked_at).saturating_sub(object.copied_at()) >= COPY_ANEW {
            self.copy(key, object);
        }
    }

    /// Forgets all that is stored for an address, in memory too, and also if the process is killed; not if the power
    /// fails within seconds. How many objects went from memory.
    pub fn invalidate(&self, store: &Store, url: &[u8]) -> usize {
        let may_have = self.disk.may_have_of(url);
        if may_have {
            self.disk.invalidate(url);
        }
        let gone = store.invalidate(Key::hash_url(url));
        // One that was there may be on its way to the disk.
        if gone > 0 && !may_have {
            self.disk.invalidate(url);
        }
        gone
    }

    /// Obeys a purge, and returns when that is written down for good. To be called before memory is purged.
    pub async fn purge(&self, purge: Purge) -> Result<(), DiskError> {
        self.disk.purge(purge).await
    }

    /// Obeys an operator's purge.
    pub async fn obey(&self, purge: &crate::cache::Purge) -> Result<(), DiskError> {
        let whats: Vec<What> = match &purge.what {
            Meant::Everything => vec![What::Everything],
            Meant::Url(urls) => urls.iter().map(|url| What::Url(url.as_bytes().to_vec())).collect(),
            Meant::Prefix(all) => all.iter().map(|prefix| What::Prefix(prefix.as_bytes().to_vec())).collect(),
            Meant::Host(host) => vec![What::Host(host.as_bytes().to_vec())],
            Meant::Tag(tag) => vec![What::Tag(tag.as_bytes().to_vec())],
        };
        for what in whats {
            self.purge(Purge { what, at: milliseconds(purge.at), soft: purge.soft }).await?;
        }
        Ok(())
    }

    /// What the disk has done, and what it takes.
    pub fn numbers(&self) -> DiskNumbers {
        self.disk.numbers()
    }

    /// Writes what waits to be written.
    pub async fn close(&self) {
        self.disk.close().await;
    }
}
