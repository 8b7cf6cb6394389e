//! What does the file say now? Files whose contents may change while we run.
//!
//! A [`Library`] hands out one [`Followed`] for each file and each way of reading it, whoever asks and however often the
//! configuration is read again. What cannot be read leaves the last good contents in use, and is told once. It does not
//! look for changes by itself: whoever does calls [`Library::reread`].

mod place;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};
use xxhash_rust::xxh3::xxh3_128;

pub use self::place::Place;

/// Makes something of a file's bytes, or says in words for the operator why it cannot. It names no secret.
pub type Read<T> = fn(&[u8]) -> Result<T, String>;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Unusable {
    path: PathBuf,
    why: String,
}

/// What a file said when it was last read well.
pub struct Followed<T> {
    path: PathBuf,
    read: Read<T>,
    now: ArcSwap<T>,
    /// Of the contents that were looked at last, so that a file is read into something only once.
    digest: Mutex<Option<u128>>,
    is_unusable: AtomicBool,
}

impl<T> Followed<T> {
    fn open(path: &Path, read: Read<T>) -> Result<Self, Unusable> {
        let (contents, digest) = contents(path);
        let now = ArcSwap::from_pointee(understand(path, contents, read)?);
        Ok(Self { path: path.to_owned(), read, now, digest: Mutex::new(digest), is_unusable: AtomicBool::new(false) })
    }

    /// What it says.
    pub fn now(&self) -> Guard<Arc<T>> {
        self.now.load()
    }

    /// Whether it could not be used when it was last read, so that what is in use is older.
    pub fn is_unusable(&self) -> bool {
        self.is_unusable.load(Relaxed)
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followed").field(&self.path).finish()
    }
}

/// A file of any kind.
trait Reread: Any + Send + Sync {
    fn path(&self) -> &Path;
    fn reread(&self);
    fn is_unusable(&self) -> bool;
}

impl<T: Send + Sync + 'static> Reread for Followed<T> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn is_unusable(&self) -> bool {
        Followed::is_unusable(self)
    }

    fn reread(&self) {
        let (contents, digest) = contents(&self.path);
        if std::mem::replace(&mut *self.digest.lock().unwrap_or_else(PoisonError::into_inner), digest) == digest {
            return;
        }
        match understand(&self.path, contents, self.read) {
            Ok(now) => {
                self.now.store(Arc::new(now));
                if self.is_unusable.swap(false, Relaxed) {
                    log::info!("{}: it can be used again", self.path.display());
                } else {
                    log::info!("{}: it was read again", self.path.display());
                }
            }
            Err(error) => {
                if !self.is_unusable.swap(true, Relaxed) {
                    log::error!("{error}; what it said before stays in use");
                }
            }
        }
    }
}

/// Every file that somebody follows.
#[derive(Default)]
pub struct Library {
    files: Mutex<Vec<Weak<dyn Reread>>>,
}

impl Library {
    /// The file at `path`; it is read now unless somebody follows it in this way already.
    pub fn open<T: Send + Sync + 'static>(&self, path: &Path, read: Read<T>) -> Result<Arc<Followed<T>>, Unusable> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| file.strong_count() > 0);
        if let Some(known) = files.iter().filter_map(Weak::upgrade).find_map(|file| same(file, path)) {
            return Ok(known);
        }
        let file = Arc::new(Followed::open(path, read)?);
        let weak: Weak<Followed<T>> = Arc::downgrade(&file);
        files.push(weak);
        Ok(file)
    }

    /// The files that are followed.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.followed().iter().map(|file| file.path().to_owned()).collect()
    }

    /// The same, each once, and whether what it says now is in use.
    pub fn reports(&self) -> BTreeMap<PathBuf, bool> {
        let mut reports = BTreeMap::new();
        for file in self.followed() {
            *reports.entry(file.path().to_owned()).or_insert(true) &= !file.is_unusable();
        }
        reports
    }

    /// Reads all of them again; those that cannot be used stay as they were. Not for a thread that serves requests.
    pub fn reread(&self) {
        for file in self.followed() {
            file.reread();
        }
    }

    fn followed(&self) -> Vec<Arc<dyn Reread>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Library").field(&self.paths()).finish()
    }
}

/// The same file, if it is read into the same type.
fn same<T: Send + Sync + 'static>(file: Arc<dyn Reread>, path: &Path) -> Option<Arc<Followed<T>>> {
    if file.path() != path {
        return None;
    }
    let file: Arc<dyn Any + Send + Sync> = file;
    file.downcast().ok()
}

/// What is in a file, and a number that is the same only for the same contents.
fn contents(path: &Path) -> (io::Result<Vec<u8>>, Option<u128>) {
    let contents = fs::read(path);
    let digest = contents.as_ref().ok().map(|bytes| xxh3_128(bytes));
    (contents, digest)
}

fn understand<T>(path: &Path, contents: io::Result<Vec<u8>>, read: Read<T>) -> Result<T, Unusable> {
    let bytes = contents.map_err(|error| format!("it cannot be read: {error}"));
    bytes.and_then(|bytes| read(&bytes)).map_err(|why| Unusable { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Result<u32, String> {
        std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| "no number".to_owned())
    }

    fn length(bytes: &[u8]) -> Result<usize, String> {
        Ok(bytes.len())
    }

    #[test]
    fn what_cannot_be_read_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let library = Library::default();
        let file = library.open(&path, number).unwrap();
        for (contents, expected, unusable) in [("2", 2, false), ("two", 2, true), ("3", 3, false)] {
            fs::write(&path, contents).unwrap();
            library.reread();
            assert_eq!((**file.now(), file.is_unusable()), (expected, unusable), "{contents}");
        }
        fs::remove_file(&path).unwrap();
        library.reread();
        assert_eq!((**file.now(), file.is_unusable()), (3, true));
    }

    #[test]
    fn a_file_is_followed_once_for_each_way_of_reading_it_and_no_longer_than_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "17").unwrap();
        let library = Library::default();
        let (one, two) = (library.open(&path, number).unwrap(), library.open(&path, number).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(**library.open(&path, length).unwrap().now(), 2);
        assert_eq!(library.paths(), std::slice::from_ref(&path));
        drop((one, two));
        assert!(library.paths().is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_used_at_first_is_told() {
        let error = Library::default().open(Path::new("/does/not/exist"), number).unwrap_err().to_string();
        assert!(error.starts_with("/does/not/exist: it cannot be read: "), "{error}");
    }
}
