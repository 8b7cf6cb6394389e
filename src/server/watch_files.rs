//! Has a file changed? Looked up by asking, not by being told.
//!
//! Editors replace a file, Kubernetes swaps the link above its folder, and network file systems send no events: what
//! all of them change is what `stat` says of the path. One call a file every quarter of a second costs nothing that
//! can be measured.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Some files, as they were when they were last looked at.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// What `stat` says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl FileWatch {
    /// Watches these files, which need not exist.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { files: paths.into_iter().map(|path| (path.clone(), Stamp::of(&path))).collect() }
    }

    /// Watches these files from now on. Those that were watched before stay as they were last seen, so that no change
    /// is lost in between.
    pub fn watch(&mut self, paths: Vec<PathBuf>) {
        let known = |path: &PathBuf| self.files.iter().find(|(other, _)| other == path).map(|(_, stamp)| *stamp);
        let stamped = paths.into_iter().map(|path| {
            let stamp = known(&path).unwrap_or_else(|| Stamp::of(&path));
            (path, stamp)
        });
        self.files = stamped.collect();
    }

    /// Whether any of them has changed, come or gone since the last look.
    pub fn changed(&mut self) -> bool {
        let mut any = false;
        for (path, known) in &mut self.files {
            let now = Stamp::of(path);
            any |= now != *known;
            *known = now;
        }
        any
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_just_before_other_files_are_watched_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let mut watch = FileWatch::new(vec![old.clone()]);

        fs::write(&old, "one").unwrap();
        watch.watch(vec![old, new]);

        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_that_is_written_replaced_or_removed_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let mut watch = FileWatch::new(vec![path.clone()]);
        assert!(!watch.changed());

        fs::write(&path, "one").unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());

        // As editors do: a new file takes the place of the old one.
        fs::write(folder.path().join("b.yaml"), "two").unwrap();
        fs::rename(folder.path().join("b.yaml"), &path).unwrap();
        assert!(watch.changed());

        fs::remove_file(&path).unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
    }
}
