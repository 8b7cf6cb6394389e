//! The folder of the second tier: who may use it, what is in it, and the room for it, which is taken at once.
//!
//! ```text
//! lock      locked while a process uses the folder
//! layout    how the objects are laid out; the folder begins anew if that is not what is asked for
//! purges    the journal of purges
//! addresses of which there may be objects; there after an end in order only
//! secret    what the keys of the objects are made with; for its owner's eyes only, as is the folder if it is made here
//! objects/  files of one size, all of them there from the start
//! ```
//! Nothing else in it is ever touched.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};

use super::DiskError;

/// The least that the second tier can work with.
pub const LEAST: u64 = 32 << 20;
/// What is kept back for the journal of purges, and for its copy while it is written anew.
const FOR_PURGES: u64 = 12 << 20;
/// To be changed with the form of what is in `objects`, ours or the engine's.
const FORM: u32 = 1;
const MIB: usize = 1 << 20;
/// What the engine has at the front of a file; zeros are an empty file.
const PAGE: usize = 4096;

/// How the objects are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The size of one file; objects leave the tier a file at a time.
    pub(super) block: usize,
    /// How many files there are.
    pub(super) blocks: usize,
    /// The size of a buffer, of which there are two, and the most that waits to be written.
    pub(super) buffer: usize,
}

impl Layout {
    /// The one for a tier of so many bytes with objects of at most so many. An object may take an eighth of the tier.
    pub(super) fn new(size: u64, max_object: u64) -> Option<Self> {
        let usable = usize::try_from(size.checked_sub(FOR_PURGES).filter(|_| size >= LEAST)?).ok()?;
        let eighth = (usable / 8 / MIB).max(1) * MIB;
        let object = usize::try_from(max_object).unwrap_or(usize::MAX).min(eighth);
        // Beside a body there is its head.
        let object = (object + MIB / 16).next_multiple_of(MIB / 16).max(MIB);
        // Files of 16 MiB, but not too few of them, and no more than can be open at once.
        let block = (usable / 64).clamp(MIB, 16 * MIB).max(usable / 1024).max(object);
        let block = block.next_multiple_of(MIB).min(eighth);
        Some(Self { block, blocks: usable / block, buffer: object.min(block) })
    }

    /// The most that one entry may take: what a file can hold beside its own index.
    pub(super) fn most(&self) -> usize {
        self.buffer.min(self.block - 4096)
    }

    fn text(&self) -> String {
        format!("portcullis cache, form {FORM}: {} files of {} bytes\n", self.blocks, self.block)
    }
}

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What the lock hangs on.
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub(super) fn take(path: &Path) -> Result<Self, DiskError> {
        let refused = |source| DiskError::Folder { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(refused)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::InUse { path: path.to_owned() }),
            Err(error) => Err(refused(error.into())),
        }
    }

    /// Makes it what is asked for; whether what was in it is still there.
    pub(super) fn prepare(&self, layout: Layout) -> Result<bool, DiskError> {
        let kept = fs::read_to_string(self.layout()).is_ok_and(|text| text == layout.text()) && self.objects().is_dir();
        let size = layout.block as u64 * layout.blocks as u64;
        if !kept {
            self.empty().map_err(|source| DiskError::Folder { path: self.path.clone(), source })?;
        }
        let made = self.make(layout, size, kept).and_then(|()| match kept {
            true => Ok(()),
            false => write_whole(&self.layout(), layout.text().as_bytes()),
        });
        made.map_err(|source| {
            // Whoever found no room shall not be left with a full disk. What was there before is left as it is.
            let _ = if kept { Ok(()) } else { self.empty() };
            DiskError::Room { path: self.path.clone(), size, source }
        })?;
        Ok(kept)
    }

    /// The secret of the folder. Without it nothing that is left would be found, so it is only made anew if it is lost.
    pub(super) fn secret(&self) -> io::Result<u64> {
        let path = self.path.join("secret");
        let kept = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            other => <[u8; 8]>::try_from(other?).ok(),
        };
        if let Some(secret) = kept {
            return Ok(u64::from_be_bytes(secret));
        }
        let mut secret = [0; 8];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| io::Error::other("no random bytes"))?;
        write_whole(&path, &secret)?;
        Ok(u64::from_be_bytes(secret))
    }

    /// The journal of purges.
    pub(super) fn purges(&self) -> PathBuf {
        self.path.join("purges")
    }

    /// The addresses that there may be objects of.
    pub(super) fn addresses(&self) -> PathBuf {
        self.path.join("addresses")
    }

    /// Where the engine has its files.
    pub(super) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    fn layout(&self) -> PathBuf {
        self.path.join("layout")
    }

    /// The layout goes first: without it nothing that is left counts.
    fn empty(&self) -> io::Result<()> {
        unless_missing(fs::remove_file(self.layout()))?;
        unless_missing(fs::remove_file(self.purges()))?;
        unless_missing(fs::remove_dir_all(self.objects()))?;
        fs::create_dir(self.objects())
    }

    /// Takes the room for all of the engine's files.
    fn make(&self, layout: Layout, size: u64, kept: bool) -> io::Result<()> {
        let disk = statvfs(&self.path)?;
        if !kept && size > disk.f_bavail.saturating_mul(disk.f_frsize) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        (0..layout.blocks).try_for_each(|block| self.reserve(block, layout.block as u64))?;
        self.keep_one_clean(layout.blocks)
    }

    /// Empties the oldest of the engine's files if none is empty. A process that is killed while it empties the next
    /// one leaves none, and then the engine would wait for one without emptying any.
    fn keep_one_clean(&self, blocks: usize) -> io::Result<()> {
        let mut oldest = None;
        for path in (0..blocks).map(|block| self.block(block)) {
            let (file, mut front) = (File::open(&path)?, [0; PAGE]);
            file.read_exact_at(&mut front, 0)?;
            if front == [0; PAGE] {
                return Ok(());
            }
            let written = file.metadata()?.modified()?;
            if oldest.as_ref().is_none_or(|(earliest, _)| written < *earliest) {
                oldest = Some((written, path));
            }
        }
        let Some((_, path)) = oldest else { return Ok(()) };
        File::options().write(true).open(path)?.write_all_at(&[0; PAGE], 0)
    }

    fn block(&self, block: usize) -> PathBuf {
        self.objects().join(format!("foyer-storage-direct-fs-{block:08}"))
    }

    /// Takes the room for one of the engine's files, so that the disk cannot be full when it is written to.
    fn reserve(&self, block: usize, size: u64) -> io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(self.block(block))?;
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // Some file systems cannot; there the disk may turn out to be full later, and objects are lost then.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size),
            other => other.map_err(io::Error::from),
        }
    }
}

/// Replaces a file as a whole: after a crash it is the old one or the new one.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

pub(super) fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
