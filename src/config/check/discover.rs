//! Does the discovery of backends make sense? Exactly one source, and only the keys that belong to it.

use super::Check;
use super::files::given;
use crate::config::Discover;
use crate::config::file::{self, Marked};

impl Check<'_> {
    /// Where the backends of an upstream come from besides its list, if from anywhere.
    pub(super) fn discover(&mut self, upstream: &file::Upstream) -> Option<Discover> {
        let section = upstream.discover.as_ref()?;
        let sources: Vec<Discover> = [self.discover_file(section)].into_iter().flatten().collect();
        self.only_one(&upstream.discover, sources)
    }

    fn only_one<T>(&mut self, at: &Marked<T>, mut sources: Vec<Discover>) -> Option<Discover> {
        let help = "name one of: file";
        match sources.len() {
            0 if self.problems.speak_of(&at.at.key) => {}
            0 => self.problems.error(&at.at, "it does not say where backends come from", help),
            1 => {}
            _ => self.problems.error(&at.at, "backends can come from one place only", help),
        }
        sources.pop()
    }

    fn discover_file(&self, section: &file::Discover) -> Option<Discover> {
        // It may be written later: a pool that begins empty is better than a program that does not start.
        given(&section.file).map(|path| Discover::File(self.files.joined(&path)))
    }
}
