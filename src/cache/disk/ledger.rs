//! The list of purges, in memory and on disk. Memory knows a purge at once; one task writes the journal, so that nobody
//! who purges waits for a disk unless they ask to.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::folder::write_whole;
use super::purges::journal::{self, append};
use super::purges::{MOST_AGE, MOST_BYTES, Purge, Purges, Verdict, What};

/// A journal that has grown by so much is written anew, with what is still remembered.
const MOST_JOURNAL: u64 = 2 << 20;

/// The list of purges.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<State>,
    /// There is something to write, or nothing will come any more.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    purges: Purges,
    /// Records that the journal does not have yet.
    records: Vec<u8>,
    /// Whether the journal is to be written anew instead.
    anew: bool,
    /// Whether the journal may end in half of a record, or lack one.
    spoiled: bool,
    /// Who waits for the journal to have them.
    waiters: Vec<oneshot::Sender<bool>>,
    closed: bool,
}

/// What is to be written at once.
struct Batch {
    bytes: Vec<u8>,
    anew: bool,
    waiters: Vec<oneshot::Sender<bool>>,
}

impl Ledger {
    /// Reads the journal. One that cannot be read whole (or is not there, though there are objects) may have had any
    /// purge in it, so everything stored until now counts as purged.
    pub(super) fn open(path: &Path, objects_kept: bool, now: u64) -> io::Result<Arc<Self>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let journal::Read { mut purges, whole } = journal::read(&bytes);
        if objects_kept && !whole {
            log::warn!("the cache on disk begins anew: its list of purges cannot be read");
            purges.add(Purge { what: What::Everything, at: now, soft: false });
        }
        purges.forget_before(now.saturating_sub(MOST_AGE));
        write_whole(path, &journal::write(&purges))?;
        let state = Mutex::new(State { purges, ..State::default() });
        let ledger = Arc::new(Self { state, wake: Notify::new() });
        tokio::spawn(ledger.clone().keep(path.to_owned()));
        Ok(ledger)
    }

    /// What the purges leave of an object.
    pub(super) fn verdict(&self, key: u128, url: &[u8], tags: &[impl AsRef<[u8]>], stored_at: u64) -> Verdict {
        self.state().purges.verdict(key, url, tags, stored_at)
    }

    /// Adds a purge, to be written soon.
    pub(super) fn add(&self, purge: Purge) {
        self.add_and(purge, None);
    }

    /// Adds a purge; whether it is on disk, to stay there even if the power fails.
    pub(super) async fn add_for_good(&self, purge: Purge) -> bool {
        let (done, written) = oneshot::channel();
        self.add_and(purge, Some(done));
        written.await.unwrap_or(false)
    }

    /// Writes what is left, and ends the task that writes.
    pub(super) async fn close(&self) {
        let (done, written) = oneshot::channel();
        self.state().waiters.push(done);
        self.end();
        let _ = written.await;
    }

    /// Lets the task that writes end when nothing is left to write.
    pub(super) fn end(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    fn add_and(&self, purge: Purge, waiter: Option<oneshot::Sender<bool>>) {
        {
            let mut state = self.state();
            if !state.anew {
                append(&mut state.records, &purge);
            }
            state.purges.add(purge);
            state.waiters.extend(waiter);
            if state.records.len() > MOST_BYTES {
                state.records = Vec::new();
                state.anew = true;
            }
        }
        self.wake.notify_one();
    }

    /// The task that writes, until the ledger is closed.
    async fn keep(self: Arc<Self>, path: PathBuf) {
        let mut length = 0;
        loop {
            let (batch, closed) = self.batch(length);
            if let Some(batch) = batch {
                length = self.write(&path, batch, length).await;
            } else if closed {
                return;
            } else {
                self.wake.notified().await;
            }
        }
    }

    /// What there is to write, if there is something, and whether nothing will come any more.
    fn batch(&self, length: u64) -> (Option<Batch>, bool) {
        let mut state = self.state();
        let waiters = std::mem::take(&mut state.waiters);
        let records = std::mem::take(&mut state.records);
        let mut anew = std::mem::take(&mut state.anew);
        if records.is_empty() && waiters.is_empty() && !anew {
            return (None, state.closed);
        }
        anew |= state.spoiled || length + records.len() as u64 > MOST_JOURNAL;
        let bytes = if anew { journal::write(&state.purges) } else { records };
        (Some(Batch { bytes, anew, waiters }), state.closed)
    }

    /// Writes a batch; how many bytes were added to the journal since it was written anew.
    async fn write(&self, path: &Path, batch: Batch, length: u64) -> u64 {
        let Batch { bytes, anew, waiters } = batch;
        let (path, sync, added) = (path.to_owned(), !waiters.is_empty(), bytes.len() as u64);
        let write = move || if anew { write_whole(&path, &bytes) } else { write_more(&path, &bytes, sync) };
        let result = tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = &result {
            log::error!("the purges of the cache on disk are not written down, and may not outlast a restart: {error}");
        }
        // The next purge, or the end, tries again with all of them.
        self.state().spoiled = result.is_err();
        for waiter in waiters {
            let _ = waiter.send(result.is_ok());
        }
        if anew { 0 } else { length + added }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_more(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.write_all(bytes)?;
    if sync { file.sync_data() } else { Ok(()) }
}
