//! Where do lines end up? In a file that is put aside when it is large, on standard output, or anywhere else.
//!
//! Whole lines only: a place that takes half of one, as a disk that is full does, gets its other half before anything else.
//! While nothing can be written, what does not fit is dropped, that is told once, and it is tried again and again.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{AccessLog, Rotate};

/// What comes together before it is written.
const ROOM: usize = 64 << 10;

/// How long until a place that could not be written is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// How long until a file that could not be put aside is tried again.
const ASIDE_AGAIN: Duration = Duration::from_secs(10);

/// Lines on their way to one place.
#[derive(Debug)]
pub(in crate::observe) struct Lines {
    place: Place,
    /// What it is called in the log.
    what: &'static str,
    waiting: Vec<u8>,
    /// What waits begins in the middle of a line.
    is_torn: bool,
    /// Nothing can be written, and when it is tried again.
    stuck: Option<Instant>,
}

/// Where lines end up.
pub(in crate::observe) enum Place {
    /// Nowhere.
    None,
    /// In a file.
    File(LogFile),
    /// Somewhere else.
    Other(Box<dyn Write + Send>),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(file) => write!(f, "File({})", file.path.display()),
            Self::Other(_) => f.write_str("Other(..)"),
        }
    }
}

impl Place {
    /// The place that a configuration names, a file at its end.
    pub(in crate::observe) fn open(access: &AccessLog, rotate: Option<Rotate>) -> io::Result<Self> {
        Ok(match access {
            AccessLog::None => Self::None,
            AccessLog::Stdout => Self::Other(Box::new(io::stdout())),
            AccessLog::File(path) => Self::File(LogFile::open(path.clone(), rotate)?),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None => Ok(bytes.len()),
            Self::File(file) => file.write(bytes),
            Self::Other(sink) => sink.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None | Self::File(_) => Ok(()),
            Self::Other(sink) => sink.flush(),
        }
    }

    /// How many of these lines go there as it is; 0 where it has to be put aside first.
    fn takes(&self, lines: &[u8]) -> usize {
        if let Self::File(file) = self { file.takes(lines) } else { lines.len() }
    }
}

impl Lines {
    /// Lines to this place.
    pub(in crate::observe) fn to(place: Place, what: &'static str) -> Self {
        Self { place, what, waiting: Vec::new(), is_torn: false, stuck: None }
    }

    /// Takes a line with its end; gives how many were dropped.
    pub(in crate::observe) fn put(&mut self, line: &[u8]) -> u64 {
        if self.waiting.len() + line.len() > ROOM && !self.waiting.is_empty() {
            self.flush();
            if self.waiting.len() + line.len() > ROOM && self.stuck.is_some() {
                return 1;
            }
        }
        self.waiting.extend_from_slice(line);
        0
    }

    /// Writes what waits, unless it was tried a moment ago; says when to try again where it could not.
    pub(in crate::observe) fn flush(&mut self) -> Option<Duration> {
        if let Some(left) = self.stuck.and_then(|again| again.checked_duration_since(Instant::now())) {
            return Some(left);
        }
        match self.write_all() {
            Ok(()) => {
                if self.stuck.take().is_some() {
                    log::info!(target: "portcullis::access_log", "{} can be written again", self.what);
                }
                None
            }
            Err(error) => {
                if self.stuck.is_none() {
                    let what = self.what;
                    log::warn!(
                        target: "portcullis::access_log",
                        "{what} cannot be written: {error}; what does not fit into memory is dropped until it can"
                    );
                }
                self.stuck = Some(Instant::now() + AGAIN);
                Some(AGAIN)
            }
        }
    }

    fn write_all(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let takes = if self.is_torn { end_of_line(&self.waiting) } else { self.place.takes(&self.waiting) };
            if takes == 0 {
                if let Place::File(file) = &mut self.place {
                    file.put_aside();
                }
                continue;
            }
            let part = self.waiting.get(..takes).unwrap_or(&self.waiting);
            match self.place.write(part) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_torn = written.checked_sub(1).and_then(|last| part.get(last)) != Some(&b'\n');
                    self.waiting.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.place.flush()
    }

    /// Goes on in another place; gives how many lines were dropped.
    pub(in crate::observe) fn move_to(&mut self, place: Place) -> u64 {
        // If it fails, that has been told, or does not matter any more.
        let _ = self.write_all();
        let torn = self.is_torn && !self.waiting.is_empty();
        if torn {
            self.waiting.drain(..end_of_line(&self.waiting));
        }
        // The new place may be better than the old one, which is then told.
        (self.place, self.is_torn, self.stuck) = (place, false, self.stuck.map(|_| Instant::now()));
        u64::from(torn)
    }

    /// Opens the file anew, at the path that it had; gives how many lines were dropped.
    pub(in crate::observe) fn reopen(&mut self) -> u64 {
        let Place::File(file) = &self.place else { return 0 };
        match LogFile::open(file.path.clone(), file.rotate) {
            Ok(opened) => self.move_to(Place::File(opened)),
            Err(error) => {
                let path = file.path.display();
                log::error!(target: "portcullis::access_log", "{path} cannot be opened again: {error}; the old file is kept");
                0
            }
        }
    }

    /// Puts what was written on the disk itself, where it is a file.
    pub(in crate::observe) fn sync(&mut self) {
        self.flush();
        if let Place::File(file) = &self.place {
            // What cannot be synced may still be read.
            let _ = file.file.sync_data();
        }
    }

    /// Puts the file aside with another size from now on.
    pub(in crate::observe) fn set_rotation(&mut self, rotate: Option<Rotate>) {
        if let Place::File(file) = &mut self.place {
            file.rotate = rotate.filter(|_| file.is_file);
        }
    }

    /// What has not been written yet.
    #[cfg(test)]
    pub(in crate::observe) fn waiting(&self) -> &[u8] {
        &self.waiting
    }
}

/// A file that lines are added to.
#[derive(Debug)]
pub(in crate::observe) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// What is no file, as a pipe, has no length, and cannot be put aside.
    is_file: bool,
    rotate: Option<Rotate>,
    /// It could not be put aside, and when it is tried again.
    stays_until: Option<Instant>,
}

impl LogFile {
    pub(in crate::observe) fn open(path: PathBuf, rotate: Option<Rotate>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let facts = file.metadata()?;
        let is_file = facts.is_file();
        let rotate = rotate.filter(|_| is_file);
        Ok(Self { path, file, length: facts.len(), is_file, rotate, stays_until: None })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.length += written as u64;
        Ok(written)
    }

    /// Whole lines, as many as fit; one at least in a file that is empty.
    fn takes(&self, lines: &[u8]) -> usize {
        let Some(rotate) = self.rotate else { return lines.len() };
        if self.stays_until.is_some_and(|until| Instant::now() < until) {
            return lines.len();
        }
        let room = usize::try_from(rotate.size.saturating_sub(self.length)).unwrap_or(usize::MAX);
        let fits = lines.get(..room).unwrap_or(lines);
        match memchr::memrchr(b'\n', fits) {
            Some(last) => last + 1,
            None if self.length == 0 => end_of_line(lines),
            None => 0,
        }
    }

    /// `access.log` becomes `access.log.1`, which was `access.log.2` before. Each step is one rename, so that each line is
    /// in one file at any moment.
    fn put_aside(&mut self) {
        if let Err(error) = self.try_put_aside() {
            let path = self.path.display();
            log::warn!(target: "portcullis::access_log", "{path} cannot be put aside: {error}; it grows meanwhile");
            self.stays_until = Some(Instant::now() + ASIDE_AGAIN);
        }
    }

    fn try_put_aside(&mut self) -> io::Result<()> {
        if !self.is_there() {
            // Somebody else has put it aside, as another process that writes to it too.
            *self = Self::open(self.path.clone(), self.rotate)?;
            return Ok(());
        }
        let keep = self.rotate.map_or(1, |rotate| rotate.keep);
        for number in (1..keep).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        *self = Self::open(self.path.clone(), self.rotate)?;
        Ok(())
    }
}

impl LogFile {
    /// Whether the file that is written is the one at its path.
    fn is_there(&self) -> bool {
        let same = |own: Metadata, there: Metadata| (own.dev(), own.ino()) == (there.dev(), there.ino());
        self.file.metadata().ok().zip(fs::metadata(&self.path).ok()).is_some_and(|(own, there)| same(own, there))
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The length of the first line with its end.
fn end_of_line(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A place with room for so many bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn give(&self, room: usize) {
            self.0.lock().unwrap().1 += room;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let taken = bytes.len().min(*room);
            *room -= taken;
            written.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn to_disk() -> (Disk, Lines) {
        let disk = Disk::default();
        (disk.clone(), Lines::to(Place::Other(Box::new(disk)), "the log"))
    }

    /// As if the time until the next try were over.
    fn try_again(lines: &mut Lines) -> Option<Duration> {
        lines.stuck = lines.stuck.and_then(|_| Instant::now().checked_sub(Duration::from_secs(1)));
        lines.flush()
    }

    #[test]
    fn a_disk_that_is_full_loses_what_does_not_fit_and_never_half_a_line() {
        let (disk, mut lines) = to_disk();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        disk.give(150);
        let dropped: u64 = (0..1000).map(|_| lines.put(&line)).sum();
        assert!(dropped > 300 && disk.text().len() == 150, "{dropped}");
        disk.give(usize::MAX >> 1);
        assert_eq!(try_again(&mut lines), None);
        let text = disk.text();
        assert_eq!(text.len() as u64, 100 * (1000 - dropped));
        assert!(text.lines().all(|line| line.len() == 99));
        assert_eq!(lines.put(&line), 0);
    }

    #[test]
    fn a_new_place_does_not_begin_with_the_end_of_a_line() {
        let (disk, mut lines) = to_disk();
        disk.give(3);
        lines.put(b"first\n");
        lines.flush();
        lines.put(b"second\n");
        let (other, _) = to_disk();
        other.give(100);
        assert_eq!(lines.move_to(Place::Other(Box::new(other.clone()))), 1);
        lines.flush();
        assert_eq!((disk.text().as_str(), other.text().as_str()), ("fir", "second\n"));
        assert_eq!(lines.waiting(), b"");
    }

    fn named(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap_or_default()
    }

    #[test]
    fn a_file_is_put_aside_before_it_is_too_large_and_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let open = || LogFile::open(path.clone(), Some(Rotate { size: 20, keep: 2 })).unwrap();
        let mut lines = Lines::to(Place::File(open()), "the log");
        for number in 1..=7 {
            lines.put(format!("line {number}\n").as_bytes());
        }
        lines.put(b"one that is longer than all of a file\n");
        lines.flush();
        assert_eq!(named(folder.path(), "access.log"), "one that is longer than all of a file\n");
        assert_eq!(named(folder.path(), "access.log.1"), "line 7\n");
        assert_eq!(named(folder.path(), "access.log.2"), "line 5\nline 6\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        // After a restart it is as long as it was.
        let mut lines = Lines::to(Place::File(open()), "the log");
        lines.put(b"short\n");
        lines.flush();
        assert_eq!(named(folder.path(), "access.log"), "short\n");
    }

    /// As in an upgrade, while the old process still has requests.
    #[test]
    fn two_that_write_to_one_file_put_it_aside_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let open = || Place::File(LogFile::open(path.clone(), Some(Rotate { size: 24, keep: 5 })).unwrap());
        let (mut old, mut new) = (Lines::to(open(), "the log"), Lines::to(open(), "the log"));
        for lines in [&mut old, &mut new] {
            lines.put(b"0123456789abc\n");
            lines.flush();
        }
        new.put(b"of the new\n");
        new.flush();
        old.put(b"of the old\n");
        old.flush();
        assert_eq!(named(folder.path(), "access.log"), "of the new\nof the old\n");
        assert!(!folder.path().join("access.log.2").exists());
    }

    #[test]
    fn a_file_that_was_moved_is_opened_anew_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut lines = Lines::to(Place::File(LogFile::open(path.clone(), None).unwrap()), "the log");
        lines.put(b"one\n");
        fs::rename(&path, folder.path().join("moved")).unwrap();
        lines.put(b"two\n");
        assert_eq!(lines.reopen(), 0);
        lines.put(b"three\n");
        lines.flush();
        assert_eq!(
            (named(folder.path(), "moved"), named(folder.path(), "access.log")),
            ("one\ntwo\n".into(), "three\n".into())
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/access.log");
        fs::create_dir(folder.path().join("logs")).unwrap();
        let mut lines = Lines::to(Place::File(LogFile::open(path, None).unwrap()), "the log");
        fs::rename(folder.path().join("logs"), folder.path().join("moved")).unwrap();
        lines.reopen();
        lines.put(b"one\n");
        lines.flush();
        assert_eq!(named(&folder.path().join("moved"), "access.log"), "one\n");
    }
}
