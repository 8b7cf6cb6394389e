//! Has the operator changed a file? Asked again and again, as every other way fails on some file system.
//!
//! It looks through symbolic links, so that a link that now leads elsewhere (as Kubernetes swaps whole directories) is a
//! change, as is a file that an editor has replaced. A file that was only touched is none. It does not wait, and does not
//! know what the files are for.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::files::Place;

/// Files to look at, as they were when they were last looked at.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<(PathBuf, Look)>,
}

/// What one look at a file has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// `None` when there is no file, or none that we may see.
    place: Option<Place>,
    /// `None` when it cannot be read.
    contents: Option<u128>,
}

impl FileWatch {
    /// Begins to watch. To be made *before* the files are read, so that no change falls between the two.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let look = |path: PathBuf| {
            let look = Look { place: Place::of(&path), contents: contents(&path) };
            (path, look)
        };
        Self { files: paths.into_iter().map(look).collect() }
    }

    /// Watches these files from now on. Those that were watched before stay as they were last seen, so that no change
    /// is lost in between.
    pub fn watch(&mut self, paths: Vec<PathBuf>) {
        let before = std::mem::take(&mut self.files);
        let known = |path: &PathBuf| before.iter().find(|(other, _)| other == path).map(|(_, look)| *look);
        let looked = paths.into_iter().map(|path| {
            let look = known(&path).unwrap_or_else(|| Look { place: Place::of(&path), contents: contents(&path) });
            (path, look)
        });
        self.files = looked.collect();
    }

    /// Whether the contents of any file differ from the last time this was asked. Reads files, so not for a thread that
    /// serves requests.
    pub fn changed(&mut self) -> bool {
        // All are looked at, so that one change of several files is told once.
        self.files.iter_mut().fold(false, |any, (path, look)| look.again(path) | any)
    }
}

impl Look {
    fn again(&mut self, path: &Path) -> bool {
        let place = Place::of(path);
        if place == self.place && !place.is_some_and(|place| place.is_fresh()) {
            return false;
        }
        let now = Self { place, contents: contents(path) };
        let differs = now.contents != self.contents;
        *self = now;
        differs
    }
}

fn contents(path: &Path) -> Option<u128> {
    std::fs::read(path).ok().map(|bytes| xxh3_128(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn watched(contents: &str) -> (tempfile::TempDir, PathBuf, FileWatch) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, contents).unwrap();
        let watch = FileWatch::new(vec![path.clone()]);
        (directory, path, watch)
    }

    #[test]
    fn a_change_just_before_other_files_are_watched_is_not_lost() {
        let (directory, path, mut watch) = watched("old");
        fs::write(&path, "new").unwrap();
        watch.watch(vec![path, directory.path().join("other")]);
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_change_is_told_once() {
        let (_directory, path, mut watch) = watched("old");
        assert!(!watch.changed());
        fs::write(&path, "new").unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_that_was_only_touched_is_no_change() {
        let (_directory, path, mut watch) = watched("same");
        fs::write(&path, "same").unwrap();
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_that_an_editor_replaced_is_a_change() {
        let (directory, path, mut watch) = watched("old");
        let draft = directory.path().join("draft");
        fs::write(&draft, "new").unwrap();
        fs::rename(&draft, &path).unwrap();
        assert!(watch.changed());
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (release, contents) in [("v1", "old"), ("v2", "new")] {
            fs::create_dir(at(release)).unwrap();
            fs::write(at(release).join("file"), contents).unwrap();
        }
        std::os::unix::fs::symlink(at("v1"), at("current")).unwrap();
        let mut watch = FileWatch::new(vec![at("current").join("file")]);
        std::os::unix::fs::symlink(at("v2"), at("next")).unwrap();
        fs::rename(at("next"), at("current")).unwrap();
        assert!(watch.changed());
    }

    #[test]
    fn a_file_that_goes_and_comes_back_the_same_is_two_changes() {
        let (_directory, path, mut watch) = watched("same");
        fs::remove_file(&path).unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
        fs::write(&path, "same").unwrap();
        assert!(watch.changed());
    }
}
