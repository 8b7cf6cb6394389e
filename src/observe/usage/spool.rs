//! Where do events wait until they have arrived? In files of a folder, which a crash leaves as they are.
//!
//! Each process has files of its own, `BOOT-NUMBER.ndjson`, and a lock that says that it lives. What a dead one has left
//! is sent by whoever finds it. `BOOT.sent` says how far they have been sent; it is written after the receiver has taken
//! them, so that after a crash some may be sent twice and none is forgotten. It is as long from the start as it ever gets,
//! and is written over: on a disk that is full nothing new can be made, and what has arrived would be sent again and again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::de::IgnoredAny;
use tokio::sync::Notify;

use crate::observe::writing::lines::{Lines, LogFile, Place};

/// Bytes of a file; smaller where the spool is.
const LARGEST: u64 = 8 << 20;

/// Bytes of one batch.
const LONGEST_BATCH: usize = 1 << 20;

/// How often what was written is put on the disk itself, which matters to a power cut, and not to a crash.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The folder, and what the one who writes and the one who sends know of each other.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    boot: u64,
    /// Held while the process lives.
    _lock: File,
    size: u64,
    /// What is in the folder.
    bytes: AtomicU64,
    /// Events written by this process.
    pub(super) written: AtomicU64,
    pub(super) news: Notify,
    /// The number of the file that is written.
    current: AtomicU64,
    /// Lines that cannot be read.
    corrupt: AtomicU64,
    /// What is known to have arrived, though it could not be written down.
    arrived: Mutex<BTreeMap<u64, Sent>>,
}

impl Shelf {
    /// Opens a folder, which is made if only its last part is missing.
    pub(super) fn open(folder: &Path, size: u64) -> io::Result<Self> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let boot = fastrand::u64(..);
        let lock = lock_of(folder, boot)?.ok_or_else(|| io::Error::from(ErrorKind::AlreadyExists))?;
        let lengths = fs::read_dir(folder)?.filter_map(|entry| {
            let entry = entry.ok()?;
            segment(&entry.file_name().to_string_lossy())?;
            Some(entry.metadata().ok()?.len())
        });
        let bytes = AtomicU64::new(lengths.sum());
        Sent::default().write_to(&folder.join(sent_name(boot)))?;
        Ok(Self {
            folder: folder.to_owned(),
            boot,
            _lock: lock,
            size,
            bytes,
            written: AtomicU64::new(0),
            news: Notify::new(),
            current: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            arrived: Mutex::default(),
        })
    }

    /// What the files of this process are called by.
    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    /// Lines that cannot be read, and are left out.
    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt.load(Relaxed)
    }

    /// Those that have left something here: the dead, and this process last.
    pub(super) fn owners(&self) -> io::Result<Vec<Owner>> {
        let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            if let Some((boot, number)) = segment(&entry?.file_name().to_string_lossy()) {
                numbers.entry(boot).or_default().push(number);
            }
        }
        let mut owners = Vec::new();
        let own = numbers.remove(&self.boot);
        for (boot, numbers) in numbers {
            // One that lives sends what is its own.
            if let Some(lock) = lock_of(&self.folder, boot)? {
                owners.push(Owner::new(self, boot, numbers, Some(lock)));
            }
        }
        owners.extend(own.map(|numbers| Owner::new(self, self.boot, numbers, None)));
        Ok(owners)
    }

    /// Whether this file is still written.
    fn is_written(&self, boot: u64, number: u64) -> bool {
        boot == self.boot && number >= self.current.load(Relaxed)
    }

    fn arrived(&self) -> MutexGuard<'_, BTreeMap<u64, Sent>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn largest(&self) -> u64 {
        (self.size / 8).clamp(4096, LARGEST)
    }
}

/// The writing end.
pub(super) struct Spool {
    shelf: Arc<Shelf>,
    lines: Lines,
    /// Bytes of the file that is written.
    length: u64,
    /// Events that are not flushed yet.
    waiting: u64,
    /// What came after this moment may not be on the disk itself.
    synced: Instant,
    is_synced: bool,
}

impl Spool {
    pub(super) fn begin(shelf: Arc<Shelf>) -> io::Result<Self> {
        let file = open_segment(&shelf, 0)?;
        let lines = Lines::to(Place::File(file), "the spool of usage events");
        Ok(Self { shelf, lines, length: 0, waiting: 0, synced: Instant::now(), is_synced: true })
    }

    pub(super) fn boot(&self) -> u64 {
        self.shelf.boot
    }

    /// Takes an event; gives how many were dropped, as where there is no room left.
    pub(super) fn put(&mut self, line: &[u8]) -> u64 {
        let length = line.len() as u64;
        if self.shelf.bytes.load(Relaxed) + length > self.shelf.size {
            return 1;
        }
        let mut torn = 0;
        if self.length + length > self.shelf.largest() && self.length > 0 {
            torn = self.begin_another();
        }
        let dropped = self.lines.put(line);
        if dropped == 0 {
            self.length += length;
            self.waiting += 1;
            self.shelf.bytes.fetch_add(length, Relaxed);
            if std::mem::take(&mut self.is_synced) {
                self.synced = Instant::now();
            } else if self.synced.elapsed() >= SYNC_EVERY {
                // The queue has not been empty for so long.
                self.flush();
            }
        }
        torn + dropped
    }

    pub(super) fn flush(&mut self) -> Option<Duration> {
        let again = self.lines.flush();
        if again.is_none() && self.waiting > 0 {
            self.shelf.written.fetch_add(std::mem::take(&mut self.waiting), Relaxed);
            self.shelf.news.notify_one();
        }
        if self.is_synced {
            return again;
        }
        let Some(left) = SYNC_EVERY.checked_sub(self.synced.elapsed()).filter(|left| !left.is_zero()) else {
            self.lines.sync();
            (self.synced, self.is_synced) = (Instant::now(), again.is_none());
            return again;
        };
        Some(again.map_or(left, |again| again.min(left)))
    }

    /// What was written so far is complete. Where there can be no other file, this one grows.
    fn begin_another(&mut self) -> u64 {
        let number = self.shelf.current.load(Relaxed) + 1;
        let Ok(file) = open_segment(&self.shelf, number) else { return 0 };
        self.lines.sync();
        let dropped = self.lines.move_to(Place::File(file));
        self.length = 0;
        self.shelf.current.store(number, Relaxed);
        dropped
    }
}

fn open_segment(shelf: &Shelf, number: u64) -> io::Result<LogFile> {
    LogFile::open(shelf.folder.join(name(shelf.boot, number)), None)
}

/// How far an owner's events have been sent: all files before this one, and so many bytes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    number: u64,
    offset: u64,
}

impl Sent {
    /// As it is written: always as long, and with a sum that tells whether it was written whole.
    fn text(self) -> String {
        let said = format!("{:020} {:020}", self.number, self.offset);
        format!("{said} {:016x}\n", xxhash_rust::xxh3::xxh3_64(said.as_bytes()))
    }

    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let sent = Self { number: numbers.next()?.ok()?, offset: numbers.next()?.ok()? };
        (sent.text() == text).then_some(sent)
    }

    fn write_to(self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.write_all_at(self.text().as_bytes(), 0)
    }
}

/// What one process has left.
pub(super) struct Owner {
    folder: PathBuf,
    boot: u64,
    numbers: Vec<u64>,
    sent: Sent,
    /// Of one that is dead.
    lock: Option<File>,
}

/// Events that are sent together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) lines: Vec<u8>,
    pub(super) events: usize,
    /// How far everything has been sent once these have.
    pub(super) then: Sent,
}

impl Owner {
    fn new(shelf: &Shelf, boot: u64, mut numbers: Vec<u64>, lock: Option<File>) -> Self {
        numbers.sort_unstable();
        let known = shelf.arrived().get(&boot).copied();
        // What says nothing, as after a crash of the disk, makes events arrive twice rather than never.
        let said = || Sent::read(&fs::read_to_string(shelf.folder.join(sent_name(boot))).ok()?);
        let sent = known.or_else(said).unwrap_or_default();
        Self { folder: shelf.folder.clone(), boot, numbers, sent, lock }
    }

    /// Whose they are.
    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    /// The next events, at most so many; `None` where there are none at the moment.
    pub(super) fn next(&mut self, shelf: &Shelf, most: usize) -> io::Result<Option<Batch>> {
        while let Some(&number) = self.numbers.first() {
            let is_written = shelf.is_written(self.boot, number);
            if number >= self.sent.number {
                let offset = if number == self.sent.number { self.sent.offset } else { 0 };
                if let Some(batch) = self.read(shelf, Sent { number, offset }, most)? {
                    return Ok(Some(batch));
                }
            }
            // Asked before it was read, so that nothing came in between.
            if is_written {
                return Ok(None);
            }
            self.remove(shelf, number);
        }
        if self.lock.take().is_some() {
            shelf.arrived().remove(&self.boot);
            for name in [sent_name(self.boot), lock_name(self.boot)] {
                let _ = fs::remove_file(self.folder.join(name));
            }
        }
        Ok(None)
    }

    fn read(&mut self, shelf: &Shelf, from: Sent, most: usize) -> io::Result<Option<Batch>> {
        let mut file = match File::open(self.folder.join(name(self.boot, from.number))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(from.offset))?;
        let mut bytes = Vec::new();
        file.take(LONGEST_BATCH as u64).read_to_end(&mut bytes)?;
        let (mut read, mut batch) = (0, Batch { lines: Vec::new(), events: 0, then: from });
        // The last one without an end is being written, or its writer has died over it.
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            if batch.events == most {
                break;
            }
            read += line.len() as u64;
            if line.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line).is_ok() {
                batch.lines.extend_from_slice(line);
                batch.events += 1;
            } else {
                shelf.corrupt.fetch_add(1, Relaxed);
            }
        }
        batch.then.offset += read;
        if batch.events == 0 && read > 0 {
            self.sent = batch.then;
            return self.read(shelf, batch.then, most);
        }
        Ok((batch.events > 0).then_some(batch))
    }

    /// So much has arrived.
    pub(super) fn has_sent(&mut self, shelf: &Shelf, then: Sent) -> io::Result<()> {
        self.sent = then;
        shelf.arrived().insert(self.boot, then);
        then.write_to(&self.folder.join(sent_name(self.boot)))
    }

    fn remove(&mut self, shelf: &Shelf, number: u64) {
        let path = self.folder.join(name(self.boot, number));
        let length = path.metadata().map_or(0, |facts| facts.len());
        if fs::remove_file(path).is_ok() {
            let _ = shelf.bytes.fetch_update(Relaxed, Relaxed, |bytes| Some(bytes.saturating_sub(length)));
        }
        self.numbers.remove(0);
    }
}

fn name(boot: u64, number: u64) -> String {
    format!("{boot:016x}-{number:08}.ndjson")
}

fn sent_name(boot: u64) -> String {
    format!("{boot:016x}.sent")
}

fn lock_name(boot: u64) -> String {
    format!("{boot:016x}.lock")
}

/// Whose file it is, and which of them.
fn segment(name: &str) -> Option<(u64, u64)> {
    let (boot, number) = name.strip_suffix(".ndjson")?.split_once('-')?;
    Some((u64::from_str_radix(boot, 16).ok()?, number.parse().ok()?))
}

/// The lock of a process, if nobody has it.
fn lock_of(folder: &Path, boot: u64) -> io::Result<Option<File>> {
    let path = folder.join(lock_name(boot));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 100;

    fn event(number: usize) -> Vec<u8> {
        format!("{{\"id\":{number}}}\n").into_bytes()
    }

    /// A process with a spool in this folder, and this many events in it.
    fn with_events(folder: &Path, size: u64, events: std::ops::Range<usize>) -> Spool {
        let mut spool = Spool::begin(Arc::new(Shelf::open(folder, size).unwrap())).unwrap();
        for number in events {
            spool.put(&event(number));
        }
        spool.flush();
        spool
    }

    /// All that is to be sent, which is then said to have arrived, or not.
    fn all(shelf: &Shelf, arrives: bool) -> String {
        let mut sent = Vec::new();
        for mut owner in shelf.owners().unwrap() {
            while let Some(batch) = owner.next(shelf, MOST).unwrap() {
                assert!(batch.events <= MOST);
                sent.extend(batch.lines);
                if !arrives {
                    break;
                }
                owner.has_sent(shelf, batch.then).unwrap();
            }
        }
        String::from_utf8(sent).unwrap()
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_was_sent_is_not_sent_again_and_what_was_not_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = with_events(folder.path(), 1 << 20, 0..3);
        let shelf = spool.shelf.clone();
        let first = all(&shelf, false);
        assert_eq!(first.lines().count(), 3);
        assert_eq!(all(&shelf, true), first);
        assert_eq!(all(&shelf, true), "");
        spool.put(&event(3));
        spool.flush();
        assert_eq!(all(&shelf, true), "{\"id\":3}\n");
    }

    #[test]
    fn what_a_dead_process_has_left_is_sent_by_the_next_and_a_living_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dead = with_events(folder.path(), 1 << 20, 0..3);
        let living = with_events(folder.path(), 1 << 20, 3..5);
        drop(dead);
        let next = with_events(folder.path(), 1 << 20, 5..6);
        let sent = all(&next.shelf, true);
        let mut ids: Vec<_> = sent.lines().collect();
        ids.sort_unstable();
        assert_eq!(ids, ["{\"id\":0}", "{\"id\":1}", "{\"id\":2}", "{\"id\":5}"]);
        assert_eq!(all(&living.shelf, true).lines().count(), 2);
        // Nothing of the dead one is left.
        assert_eq!(files(folder.path()), 2 * 3);
    }

    #[test]
    fn half_a_line_and_what_is_no_event_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let dead = with_events(folder.path(), 1 << 20, 0..2);
        let path = folder.path().join(name(dead.boot(), 0));
        drop(dead);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"\0\0\0\0\n{\"id\":\n");
        bytes.extend_from_slice(&event(7));
        bytes.extend_from_slice(b"{\"id\":8");
        fs::write(&path, bytes).unwrap();
        let next = with_events(folder.path(), 1 << 20, 0..0);
        assert_eq!(all(&next.shelf, true), "{\"id\":0}\n{\"id\":1}\n{\"id\":7}\n");
        assert_eq!(next.shelf.corrupt(), 2);
        assert!(!path.exists());
    }

    #[test]
    fn a_spool_has_an_end_and_room_again_once_events_have_arrived() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = with_events(folder.path(), 16 << 10, 0..0);
        let (line, shelf) = (event(1_000_000), spool.shelf.clone());
        let taken = (0..2000).filter(|_| spool.put(&line) == 0).count();
        spool.flush();
        assert_eq!(taken, (16 << 10) / line.len());
        let sent = all(&shelf, true);
        assert_eq!(sent.lines().count(), taken);
        assert_eq!(spool.put(&line), 0, "what has arrived makes room");
        let names = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        assert!(names.filter(|name| segment(name).is_some()).count() <= 2, "what has arrived is gone");
    }

    #[test]
    fn what_says_how_far_it_was_sent_may_be_lost() {
        // The last is how one looks of which half was written.
        for (said, twice) in
            [("gar\0bage", 3), ("", 3), (&*Sent { number: 0, offset: 27 }.text().replace("27 ", "99 "), 3)]
        {
            let folder = tempfile::tempdir().unwrap();
            let dead = with_events(folder.path(), 1 << 20, 0..3);
            all(&dead.shelf, true);
            fs::write(folder.path().join(sent_name(dead.boot())), said).unwrap();
            drop(dead);
            let next = with_events(folder.path(), 1 << 20, 0..0);
            assert_eq!(all(&next.shelf, true).lines().count(), twice, "{said}");
        }
    }

    #[test]
    fn what_has_arrived_is_not_sent_again_where_that_cannot_be_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let spool = with_events(folder.path(), 1 << 20, 0..3);
        let said = folder.path().join(sent_name(spool.boot()));
        let before = fs::metadata(&said).unwrap().len();
        assert_eq!(before as usize, Sent { number: u64::MAX, offset: u64::MAX }.text().len(), "it never grows");
        // Nothing can be written to a folder.
        fs::remove_file(&said).unwrap();
        fs::create_dir(&said).unwrap();
        let mut owner = spool.shelf.owners().unwrap().pop().unwrap();
        let batch = owner.next(&spool.shelf, 2).unwrap().unwrap();
        assert!(owner.has_sent(&spool.shelf, batch.then).is_err());
        let rest = spool.shelf.owners().unwrap().pop().unwrap().next(&spool.shelf, MOST).unwrap().unwrap();
        assert_eq!(rest.lines, event(2));
    }

    #[test]
    fn what_was_written_is_on_the_disk_within_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::begin(Arc::new(Shelf::open(folder.path(), 1 << 20).unwrap())).unwrap();
        assert_eq!(spool.flush(), None, "there is nothing to wait for");
        spool.put(&event(0));
        assert!(spool.flush().is_some_and(|wait| wait <= SYNC_EVERY), "somebody comes back for it");
        spool.synced = spool.synced.checked_sub(SYNC_EVERY).unwrap();
        assert_eq!((spool.flush(), spool.is_synced), (None, true));
        // Also where the queue never runs empty.
        spool.put(&event(1));
        spool.synced = spool.synced.checked_sub(SYNC_EVERY).unwrap();
        spool.put(&event(2));
        assert!(spool.is_synced && spool.shelf.written.load(Relaxed) == 3);
    }
}
