//! What does a store say now? Its keys in memory, read again in the background when the database changes.
//!
//! Requests never wait for a database. One that cannot be read leaves the keys that were read last in use; that is told
//! once, and it is asked again and again, so that it heals by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::StoreReport;
use super::sqlite::{self, StoreError};
use super::table::Table;
use crate::backend::Task;
use crate::files::Place;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// A database whose keys are in memory.
#[derive(Debug)]
pub(super) struct Live {
    path: PathBuf,
    /// `None` until it has been read once.
    now: Arc<ArcSwapOption<Table>>,
    good: Arc<LastGood>,
    is_unusable: Arc<AtomicBool>,
    _reading: Task,
}

/// When the keys in memory were last known to be those in the database.
#[derive(Debug)]
struct LastGood {
    born: Instant,
    /// Milliseconds after that.
    at: AtomicU64,
}

impl LastGood {
    fn new() -> Self {
        Self { born: Instant::now(), at: AtomicU64::new(0) }
    }

    fn is_now(&self) {
        let at = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(at, Relaxed);
    }

    fn age(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.at.load(Relaxed)))
    }
}

/// Whoever reads it.
struct Reader {
    path: PathBuf,
    now: Arc<ArcSwapOption<Table>>,
    good: Arc<LastGood>,
    seen: Option<Look>,
    is_unusable: Arc<AtomicBool>,
}

/// What one look at the file and its journals has shown, without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    file: Option<Place>,
    log: Option<Place>,
}

impl Live {
    /// Reads it, and goes on doing so until this is dropped. Needs a tokio runtime.
    pub(super) fn open(path: &Path) -> Self {
        let (now, is_unusable) = (Arc::new(ArcSwapOption::empty()), Arc::new(AtomicBool::new(false)));
        let good = Arc::new(LastGood::new());
        let mut reader = Reader {
            path: path.to_owned(),
            now: now.clone(),
            good: good.clone(),
            seen: None,
            is_unusable: is_unusable.clone(),
        };
        // Whoever starts with a good store shall not refuse its first requests.
        reader.look();
        Self { path: path.to_owned(), now, good, is_unusable, _reading: Task::spawn(reader.run()) }
    }

    /// Whether it reads this file.
    pub(super) fn reads(&self, path: &Path) -> bool {
        self.path == path
    }

    /// What is to be told of it.
    pub(super) fn report(&self) -> StoreReport {
        let keys = self.now.load().as_ref().map_or(0, |table| table.len());
        StoreReport { path: self.path.clone(), is_usable: !self.is_unusable.load(Relaxed), keys }
    }

    /// Its keys; `None` while it has never been read.
    pub(super) fn now(&self) -> Option<Arc<Table>> {
        self.now.load_full()
    }

    /// Whether it has been out of reach for longer than this, so that its keys may be others by now.
    pub(super) fn is_older_than(&self, time: Duration) -> bool {
        self.good.age() > time.max(2 * EVERY)
    }
}

impl Reader {
    async fn run(mut self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let looked = spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(reader) => self = reader,
                Err(error) => return log::error!("a store of keys is not read any more: {error}"),
            }
        }
    }

    fn look(&mut self) {
        let seen = Look::at(&self.path);
        if self.seen == Some(seen) && !self.is_unusable.load(Relaxed) && !seen.is_fresh() {
            return self.good.is_now();
        }
        // Taken before it is read, so that a change meanwhile is seen the next time.
        self.seen = Some(seen);
        match sqlite::read(&self.path) {
            Ok(keys) => {
                if self.is_unusable.swap(false, Relaxed) {
                    log::info!("the keys in {} can be read again", self.path.display());
                }
                self.now.store(Some(Arc::new(Table::new(keys))));
                self.good.is_now();
            }
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &StoreError) {
        if !self.is_unusable.swap(true, Relaxed) {
            let meanwhile = match self.now.load().is_some() {
                true => "the keys that were read before stay in use, for as long as `stale_for` says",
                false => "it has not been read yet, so `on_store_error` decides who comes in",
            };
            log::error!("the keys in {} cannot be read: {error}; {meanwhile}", self.path.display());
        }
    }
}

impl Look {
    fn at(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // An empty log is there while somebody reads, and says nothing.
        Self { file: Place::of(path), log: Place::of(Path::new(&log)).filter(|log| log.length() > 0) }
    }

    fn is_fresh(self) -> bool {
        [self.file, self.log].into_iter().flatten().any(Place::is_fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_reads_a_store_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Live::open(&folder.path().join("keys.db"));
        let held = Arc::downgrade(&store.now);
        drop(store);
        let gone = async {
            while held.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the task should be gone");
    }

    #[test]
    fn a_store_is_read_again_only_when_its_file_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        assert_eq!(Look::at(&path), Look { file: None, log: None });
        std::fs::write(&path, "1").unwrap();
        let first = Look::at(&path);
        assert!(first.is_fresh());
        std::fs::write(folder.path().join("keys.db-wal"), "").unwrap();
        assert_eq!(Look::at(&path), first, "an empty log is there while somebody reads");
        std::fs::write(folder.path().join("keys.db-wal"), "1").unwrap();
        assert_ne!(Look::at(&path), first);
    }
}
