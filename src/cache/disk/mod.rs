//! The second tier: responses on disk, which survive a restart.
//!
//! One process has one. A lookup that the store in memory cannot answer asks here by the same key. What is broken, older
//! than 30 days, stored in the future, or was purged since it was stored is a miss, never an error.
//!
//! - A crash costs what waited to be written: an entry is on disk whole or not at all, since its checksum is compared
//!   when it is read. Nothing is synced: after a power failure the last minutes may be missing, purges that were waited
//!   for are not.
//! - The oldest objects leave first, a file at a time, whether they are asked for or not. An older version of a response
//!   can come to light again after a restart if the newer one has left; it is as fresh as it says. One that must not
//!   come back is to be removed or purged.
//! - A change of `size` begins anew; so does a folder whose layout cannot be read. A folder that another process uses
//!   is refused: two writers would overwrite each other's objects.

mod addresses;
pub mod encode;
mod engine;
mod folder;
mod ledger;
mod pieces;
pub mod purges;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use foyer::Load;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::addresses::Addresses;
use self::encode::Head;
use self::engine::{Engine, Entry, Waiting};
use self::folder::{Folder, Layout};
use self::ledger::Ledger;
use self::purges::{MOST_AGE, Purge, Verdict, What};

pub use self::folder::LEAST;
pub use self::pieces::Pieces;

/// The most objects that are read at once, and the most that the largest of them may have together: beyond that the disk
/// is busy, and asking a backend is quicker. While one is read it is in memory twice.
const MOST_READS: usize = 64;
const MOST_READ: usize = 128 << 20;

/// The longest that the end waits for what is still to be written.
const MOST_CLOSING: Duration = Duration::from_secs(5);

/// Why there is no second tier.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The folder cannot be made, or written to.
    #[error("{}: {source}; the folder of `cache.disk` must be one that this user can write to", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{}: another process uses this folder; give each its own `cache.disk.path`", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The disk has no room for it.
    #[error("{}: no room for {size} bytes: {source}; make room, or `cache.disk.size` smaller", .path.display())]
    Room {
        /// The folder.
        path: PathBuf,
        /// What was to be reserved.
        size: u64,
        /// What the system says.
        source: io::Error,
    },
    /// It would hold next to nothing.
    #[error("`cache.disk.size` is {size} bytes; it must be at least {} MiB", LEAST >> 20)]
    TooSmall {
        /// What was asked for.
        size: u64,
    },
    /// The engine did not start.
    #[error("{}: the cache on disk does not start: {why}; an empty folder in its place begins anew", .path.display())]
    Engine {
        /// The folder.
        path: PathBuf,
        /// What it says.
        why: String,
    },
    /// A purge is obeyed, but not written down.
    #[error("purged, but the cache on disk cannot write that down: it may forget it when it is restarted")]
    NotWritten,
}

/// What was found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The head of the response.
    pub head: Head,
    /// Its body.
    pub body: Pieces,
    /// Whether a soft purge lets it be served as a stale response only.
    pub stale: bool,
}

/// What the second tier has done since it was opened, and what it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskNumbers {
    /// The bytes on disk that are taken, whether there are objects in them or not.
    pub size: u64,
    /// The memory of its buffers, at most. What it takes to know where objects are comes on top, about 100 bytes each.
    pub buffers: u64,
    /// Lookups that were answered.
    pub hits: u64,
    /// Lookups that were not.
    pub misses: u64,
    /// Those of them that met an object which was broken, purged or too old.
    pub refused: u64,
    /// Those of them that came while too many others were under way.
    pub busy: u64,
    /// Objects given to the writer.
    pub stored: u64,
    /// Objects that were not, because the writer was behind.
    pub dropped: u64,
    /// Objects that were not, because they are too large.
    pub too_large: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes read.
    pub read: u64,
}

/// The second tier of the cache.
#[derive(Debug)]
pub struct Disk {
    engine: Engine,
    waiting: Arc<Waiting>,
    ledger: Arc<Ledger>,
    addresses: Arc<Addresses>,
    layout: Layout,
    reads: Semaphore,
    counts: Counts,
    /// Held until the end.
    _folder: Folder,
    secret: u64,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    stored: AtomicU64,
    dropped: AtomicU64,
    too_large: AtomicU64,
}

impl Disk {
    /// Opens the tier in this folder, which is made if there is none, with so many bytes, for responses with bodies of
    /// at most so many. Takes the room on disk at once. To be called within the runtime that shall do the work.
    pub async fn open(path: &Path, size: u64, max_object: u64) -> Result<Self, DiskError> {
        let layout = Layout::new(size, max_object).ok_or(DiskError::TooSmall { size })?;
        let broken = |why: &dyn ToString| DiskError::Engine { path: path.to_owned(), why: why.to_string() };
        let prepare = {
            let path = path.to_owned();
            move || {
                let folder = Folder::take(&path)?;
                let kept = folder.prepare(layout)?;
                let secret = folder.secret().map_err(|source| DiskError::Folder { path, source })?;
                Ok((folder, kept, secret))
            }
        };
        let (folder, kept, secret) = tokio::task::spawn_blocking(prepare).await.map_err(|error| broken(&error))??;
        let objects = folder.objects();
        let engine = tokio::spawn(async move { engine::open(&objects, layout).await }).await;
        let engine = engine.map_err(|error| broken(&error))?.map_err(|error| broken(&error))?;
        let ledger = Ledger::open(&folder.purges(), kept, now());
        let refused = |source| DiskError::Folder { path: path.to_owned(), source };
        let ledger = ledger.map_err(refused)?;
        let taken = (layout.block * layout.blocks) as u64;
        let addresses = Addresses::open(folder.addresses(), secret, taken, kept).map_err(refused)?;
        let (waiting, counts) = (Waiting::new(layout.buffer), Counts::default());
        let reads = Semaphore::new((MOST_READ / layout.buffer).clamp(1, MOST_READS));
        Ok(Self { engine, waiting, ledger, addresses, layout, reads, counts, _folder: folder, secret })
    }

    /// Stores a response under this key, in place of what was there. Never waits: when as much waits to be written as
    /// may, or this is too large, it is dropped, and what was there with it: that is not the latest any more.
    pub fn put(&self, key: u128, head: &Head, body: impl Into<Pieces>) {
        let body = body.into();
        let encoded = head.encode().filter(|head| engine::space(head.len(), body.len()) <= self.layout.most());
        let Some(encoded) = encoded else { return self.refuse(key, &self.counts.too_large) };
        let Some(entry) = Entry::new(key, encoded, body, &self.waiting) else {
            return self.refuse(key, &self.counts.dropped);
        };
        self.addresses.add(&head.url, self.written());
        drop(self.engine.storage_writer(key).force().insert(entry));
        add(&self.counts.stored);
    }

    /// What is kept in the folder for as long as its objects are, and known to nobody else.
    pub fn secret(&self) -> u64 {
        self.secret
    }

    /// Whether there may be something with this key, as far as that is known without reading. What there is not counts
    /// as a lookup.
    pub fn may_have(&self, key: u128) -> bool {
        let may = self.waiting.has(key) || self.engine.storage().may_contains(&key);
        if !may {
            add(&self.counts.misses);
        }
        may
    }

    /// Whether what was found is still what the purges leave of it.
    pub fn still(&self, key: u128, found: &Found) -> bool {
        let Head { url, tags, stored_at, .. } = &found.head;
        let as_found = if found.stale { Verdict::Stale } else { Verdict::Untouched };
        self.ledger.verdict(key, url, tags, *stored_at) == as_found
    }

    /// The response with this key.
    pub async fn get(&self, key: u128) -> Option<Found> {
        let found = self.find(key).await;
        add(if found.is_some() { &self.counts.hits } else { &self.counts.misses });
        found
    }

    /// Removes what has this key, so that it does not come back, not even after a crash (but for a failure of power
    /// within seconds). It costs a line in the list of purges: meant for what must not be served any more.
    pub fn remove(&self, key: u128) {
        self.ledger.add(Purge { what: What::Key(key), at: now(), soft: false });
        self.forget(key);
    }

    /// Obeys a purge at once, and returns when it is written down for good.
    pub async fn purge(&self, purge: Purge) -> Result<(), DiskError> {
        self.ledger.add_for_good(purge).await.then_some(()).ok_or(DiskError::NotWritten)
    }

    /// Whether something may be stored for an address.
    pub fn may_have_of(&self, url: &[u8]) -> bool {
        self.addresses.may_have(url)
    }

    /// Forgets at once what was stored for an address until now, and writes that down soon: after a failure of power
    /// within seconds it may come back.
    pub fn invalidate(&self, url: &[u8]) {
        self.ledger.add(Purge { what: What::Url(url.to_vec()), at: now(), soft: false });
    }

    /// Forgets everything. The room is used again by and by.
    pub fn clear(&self) {
        self.ledger.add(Purge { what: What::Everything, at: now(), soft: false });
    }

    /// What it has done and what it takes.
    pub fn numbers(&self) -> DiskNumbers {
        let Counts { hits, misses, refused, busy, stored, dropped, too_large } = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DiskNumbers {
            size: (self.layout.block * self.layout.blocks) as u64,
            buffers: 3 * self.layout.buffer as u64,
            hits: read(hits),
            misses: read(misses),
            refused: read(refused),
            busy: read(busy),
            stored: read(stored),
            dropped: read(dropped),
            too_large: read(too_large),
            written: self.written(),
            read: self.engine.statistics().disk_read_bytes() as u64,
        }
    }

    /// Writes what waits. Nothing is stored afterwards; another process may have the folder when this is dropped.
    pub async fn close(&self) {
        match timeout(MOST_CLOSING, self.engine.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("the cache on disk did not end well: {error}"),
            Err(_) => log::warn!("the cache on disk did not write what waited within {} s", MOST_CLOSING.as_secs()),
        }
        self.ledger.close().await;
        let (addresses, written) = (self.addresses.clone(), self.written());
        if !matches!(tokio::task::spawn_blocking(move || addresses.close(written)).await, Ok(Ok(()))) {
            log::warn!("the cache on disk could not write down what it has");
        }
    }

    fn written(&self) -> u64 {
        self.engine.statistics().disk_write_bytes() as u64
    }

    fn refuse(&self, key: u128, why: &AtomicU64) {
        self.forget(key);
        add(why);
    }

    /// Lets go of what has this key, until the next restart at least.
    pub fn forget(&self, key: u128) {
        self.waiting.forget(key);
        self.engine.storage().delete(&key);
    }

    async fn find(&self, key: u128) -> Option<Found> {
        let entry = match self.waiting.get(key) {
            Some(entry) => entry,
            None => self.load(key).await?,
        };
        let found = self.judge(key, entry);
        if found.is_none() {
            add(&self.counts.refused);
            self.forget(key);
        }
        found
    }

    async fn load(&self, key: u128) -> Option<(Bytes, Pieces)> {
        let Ok(_permit) = self.reads.try_acquire() else {
            add(&self.counts.busy);
            return None;
        };
        match self.engine.storage().load(&key).await {
            Ok(Load::Entry { value, .. }) => Some((value.head, value.body)),
            // One that waits, but is not the latest any more.
            Ok(Load::Piece { .. } | Load::Miss | Load::Throttled) => None,
            Err(error) => {
                log::debug!("an object of the cache on disk cannot be read: {error}");
                add(&self.counts.refused);
                None
            }
        }
    }

    fn judge(&self, key: u128, (head, body): (Bytes, Pieces)) -> Option<Found> {
        let head = Head::decode(head)?;
        let now = now();
        if head.stored_at > now || head.stored_at.saturating_add(MOST_AGE) <= now {
            return None;
        }
        let verdict = self.ledger.verdict(key, &head.url, &head.tags, head.stored_at);
        (verdict != Verdict::Gone).then_some(Found { head, body, stale: verdict == Verdict::Stale })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.ledger.end();
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn now() -> u64 {
    milliseconds(SystemTime::now())
}

/// A moment in milliseconds since the Unix epoch.
pub fn milliseconds(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
