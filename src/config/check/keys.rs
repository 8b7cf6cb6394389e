//! Do the stores of API keys make sense? Each is in one place, and what is in a file of keys can be read.

use std::path::Path;
use std::sync::Arc;

use super::files::given;
use super::{Check, Names};
use crate::config::file::{self, Map, Marked};
use crate::config::keys;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::{KeySource, KeyStore, OnStoreError};

impl Check<'_> {
    pub(super) fn keys(&mut self, stores: &Map<file::KeyStore>, routes: &[Marked<file::Route>]) -> Vec<KeyStore> {
        let mut names = Names::default();
        let mut checked = Vec::new();
        for named in &stores.0 {
            names.claim(&named.name, &named.at, "the store of keys", self.problems);
            let Some(store) = &named.value else { continue };
            let Some(source) = self.key_source(store, &named.at, routes) else { continue };
            checked.push(KeyStore { name: Arc::from(named.name.as_str()), source });
        }
        checked
    }

    fn key_source(&mut self, store: &file::KeyStore, at: &Spot, routes: &[Marked<file::Route>]) -> Option<KeySource> {
        let help = "name one of `file` and `sqlite`";
        match (given(&store.file), given(&store.sqlite)) {
            (Some(_), Some(second)) => {
                self.problems.error(&second.at, "a store of keys is in one place only", help);
                None
            }
            (None, None) => {
                if !self.problems.speak_of(&at.key) {
                    self.problems.error(at, "it does not say where keys are kept", help);
                }
                None
            }
            (Some(path), None) => {
                if store.on_store_error.written {
                    let what = "a file that cannot be read keeps the program from starting";
                    self.problems.error(&store.on_store_error.at, what, "it belongs to `sqlite`: leave it out");
                }
                if store.stale_for.written {
                    let what = "what was read of a file last is good until it is read again";
                    self.problems.error(&store.stale_for.at, what, "it belongs to `sqlite`: leave it out");
                }
                self.key_file(&path, routes);
                Some(KeySource::File(self.files.joined(&path)))
            }
            (None, Some(path)) => {
                self.key_database(&path);
                let on_error = *store.on_store_error;
                if on_error == OnStoreError::Allow {
                    let what = "as long as this store cannot be read, everybody comes in without a key";
                    self.problems.warning(&store.on_store_error.at, what, "`deny` is safe: it answers 503 meanwhile");
                }
                let stale_for = store.stale_for.as_ref().map(|time| time.0);
                Some(KeySource::Sqlite { path: self.files.joined(&path), on_error, stale_for })
            }
        }
    }

    /// What is wrong in the file is told with its places there.
    fn key_file(&mut self, path: &Marked<file::FilePath>, routes: &[Marked<file::Route>]) {
        let Some(bytes) = self.files.contents(path, self.problems) else { return };
        let mut theirs = Problems::of(&self.files.joined(path).display().to_string());
        for (key, at) in keys::parse(&bytes, &mut theirs).unwrap_or_default() {
            let known = || routes.iter().map(|route| route.name.as_deref().unwrap_or(&route.at.key));
            for unknown in key.limits.routes.iter().filter(|name| !known().any(|route| *route == ***name)) {
                let help = suggest(unknown, "routes", known());
                theirs.warning(&at, format!("no route is called `{unknown}`"), help);
            }
        }
        self.problems.take_over(theirs);
    }

    /// It may be made later: until then nobody has a key.
    fn key_database(&mut self, path: &Marked<file::FilePath>) {
        let joined = self.files.joined(path);
        let folder = joined.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // That of the configuration is there: it was read from it.
        if folder != self.files.folder() && !(self.around.has_directory)(folder) {
            let what = format!("there is no directory `{}`", folder.display());
            self.problems.error(&path.at, what, "create it first; `portcullis keys new` makes the file in it");
        }
    }
}
