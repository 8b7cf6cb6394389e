//! How `foyer` is used: as the store on disk alone. Its memory tier is bypassed, its log of removals is off (the purges
//! are ours, and survive a crash), its buffers are as small as the largest object allows.
//!
//! It writes entries one behind the other into files of one size, begins anew in the file that was full the longest,
//! and keeps where each entry is in memory: about 100 bytes an object. Each entry has a checksum, which is compared
//! whenever it is read.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use foyer::{
    BlockEngineConfig, Code, DeviceBuilder, Error, ErrorKind, FifoPicker, FsDeviceBuilder, HybridCache,
    HybridCacheBuilder, HybridCachePolicy, RecoverMode,
};

use super::folder::Layout;
use super::pieces::Pieces;

/// The store on disk.
pub(super) type Engine = HybridCache<u128, Entry>;

/// What is in front of a head: how long it is.
const FRONT: usize = 4;
/// What the engine puts around an entry, and what it rounds up to.
const AROUND: usize = 36 + 16;
const PAGE: usize = 4096;

/// A head and a body, and while they wait to be written, the room they take.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) head: Bytes,
    pub(super) body: Pieces,
    /// None in one that was read.
    _room: Option<Room>,
}

impl Entry {
    /// One that waits to be written; `None` if as much waits as may.
    pub(super) fn new(key: u128, head: Bytes, body: Pieces, waiting: &Arc<Waiting>) -> Option<Self> {
        let room = waiting.claim(key, &head, &body)?;
        Some(Self { head, body, _room: Some(room) })
    }
}

/// The bytes that an entry takes on disk.
pub(super) fn space(head: usize, body: usize) -> usize {
    (AROUND + FRONT + head + body).next_multiple_of(PAGE)
}

impl Code for Entry {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let head = u32::try_from(self.head.len()).map_err(|_| odd("a head beyond 4 GiB"))?;
        let front = [&head.to_be_bytes(), &self.head[..]];
        let body = self.body.iter().map(|piece| &piece[..]);
        front.into_iter().chain(body).try_for_each(|part| writer.write_all(part)).map_err(Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(Error::io_error)?;
        let mut bytes = Bytes::from(bytes);
        let head = bytes.try_get_u32().map_err(|_| odd("no length"))?;
        let head = usize::try_from(head).ok().filter(|head| *head <= bytes.len()).ok_or_else(|| odd("a short head"))?;
        Ok(Self { head: bytes.split_to(head), body: bytes.into(), _room: None })
    }

    fn estimated_size(&self) -> usize {
        FRONT + self.head.len() + self.body.len()
    }
}

fn odd(what: &'static str) -> Error {
    Error::new(ErrorKind::Parse, what)
}

/// What waits to be written, and how much may. The engine itself would drop what is too much without a word, and while
/// two versions of an object wait, it may find the older one.
#[derive(Debug)]
pub(super) struct Waiting {
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: usize,
    /// The turn of the last one that came.
    turn: u64,
    /// The latest that waits of each key.
    latest: HashMap<u128, (u64, Bytes, Pieces)>,
}

impl Waiting {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, queue: Mutex::default() })
    }

    /// The head and the body of the latest with this key, if it waits.
    pub(super) fn get(&self, key: u128) -> Option<(Bytes, Pieces)> {
        let queue = self.queue();
        let (_, head, body) = queue.latest.get(&key)?;
        Some((head.clone(), body.clone()))
    }

    /// Whether one with this key waits.
    pub(super) fn has(&self, key: u128) -> bool {
        self.queue().latest.contains_key(&key)
    }

    /// From now on nothing that waits is the latest with this key.
    pub(super) fn forget(&self, key: u128) {
        self.queue().latest.remove(&key);
    }

    fn claim(self: &Arc<Self>, key: u128, head: &Bytes, body: &Pieces) -> Option<Room> {
        let bytes = space(head.len(), body.len());
        let mut queue = self.queue();
        if queue.bytes + bytes > self.most {
            return None;
        }
        queue.bytes += bytes;
        queue.turn += 1;
        let turn = queue.turn;
        queue.latest.insert(key, (turn, head.clone(), body.clone()));
        Some(Room { waiting: self.clone(), key, turn, bytes })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that is done under the lock leaves it half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room of one that waits; it is given back when the engine lets go of the entry.
#[derive(Debug)]
struct Room {
    waiting: Arc<Waiting>,
    key: u128,
    turn: u64,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut queue = self.waiting.queue();
        queue.bytes -= self.bytes;
        if queue.latest.get(&self.key).is_some_and(|(turn, ..)| *turn == self.turn) {
            queue.latest.remove(&self.key);
        }
    }
}

/// Opens the store in this folder, and finds what is in it. Broken entries are left out without a word.
pub(super) async fn open(objects: &Path, layout: Layout) -> foyer::Result<Engine> {
    let device = FsDeviceBuilder::new(objects).with_capacity(layout.blocks * layout.block).build()?;
    let engine = BlockEngineConfig::new(device)
        .with_block_size(layout.block)
        .with_buffer_pool_size(layout.buffer)
        // `Waiting` decides before this does.
        .with_submit_queue_size_threshold(layout.buffer * 2)
        .with_recover_concurrency(2)
        .with_clean_block_threshold(2)
        .with_eviction_pickers(vec![Box::<FifoPicker>::default()]);
    HybridCacheBuilder::new()
        .with_name("portcullis")
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .with_flush_on_close(false)
        // One entry, which is never made: `storage_writer` and `storage` go past it.
        .memory(1)
        .with_shards(1)
        .storage()
        .with_engine_config(engine)
        .with_recover_mode(RecoverMode::Quiet)
        .build()
        .await
}
