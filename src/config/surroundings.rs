//! What does checking a file need from outside it?
//!
//! The one place in this room that reads the environment, the file system and the clock, and only to hand them on:
//! `parse` itself sees nothing but its arguments, so a test can put any world around a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Access;

use super::problem::{Problem, Problems, Spot};
use super::tree::Mark;
use super::{Checked, parse};
use crate::custom::Additions;

/// Looks up an environment variable.
pub type Environment = dyn Fn(&str) -> Option<String>;
/// Reads a file.
pub type ReadFile = dyn Fn(&Path) -> io::Result<Vec<u8>>;
/// Whether there is such a directory.
pub type HasDirectory = dyn Fn(&Path) -> bool;
/// Whether files can be kept in a directory, which may be one that is still to be made in one that is there.
pub type KeepsFiles = dyn Fn(&Path) -> io::Result<()>;

/// The world around a configuration file.
pub struct Surroundings {
    /// Where relative paths start.
    pub folder: PathBuf,
    /// Looks up an environment variable.
    pub environment: Box<Environment>,
    /// Reads a file.
    pub read_file: Box<ReadFile>,
    /// Whether there is such a directory.
    pub has_directory: Box<HasDirectory>,
    /// Whether files can be kept in a directory.
    pub keeps_files: Box<KeepsFiles>,
    /// Seconds since 1970.
    pub now: i64,
    /// How many files the process may have open at once, if that is known.
    pub open_files: Option<u64>,
    /// What the program brings.
    pub additions: Arc<Additions>,
}

impl Surroundings {
    /// The process's own world, with relative paths starting in this folder.
    pub fn of_process(folder: PathBuf) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            folder,
            environment: Box::new(|name| std::env::var(name).ok()),
            read_file: Box::new(|path| std::fs::read(path)),
            has_directory: Box::new(|path| path.is_dir()),
            keeps_files: Box::new(keeps_files),
            now: i64::try_from(now).unwrap_or(i64::MAX),
            // The program raises its soft limit to the hard one when it starts.
            additions: Arc::default(),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
        }
    }
}

/// Nothing is made or written: a check leaves no trace.
fn keeps_files(path: &Path) -> io::Result<()> {
    let there = |path: &Path| if path.as_os_str().is_empty() { Path::new(".").to_owned() } else { path.to_owned() };
    let folder = match there(path).metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.parent().map_or_else(|| path.into(), there),
        Ok(_) | Err(_) => there(path),
    };
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    rustix::fs::access(&folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(Into::into)
}

/// Reads and checks a file, which may name what the program brings.
pub fn load(path: &Path, additions: &Arc<Additions>) -> Result<Checked, Vec<Problem>> {
    let name = path.display().to_string();
    let unreadable = |what: String, help: &str| {
        let mut problems = Problems::of(&name);
        problems.error(&Spot::root(Mark::default()), what, help);
        problems.into_parts().0
    };
    let bytes = std::fs::read(path).map_err(|error| {
        unreadable(format!("it cannot be read: {error}"), "name a file that exists and that this user may read")
    })?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".into(), "save it as UTF-8"))?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    parse(&text, &name, &Surroundings { additions: additions.clone(), ..Surroundings::of_process(folder) })
}
