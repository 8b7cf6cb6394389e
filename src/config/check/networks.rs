//! Can the lists of addresses be read?

use super::Check;
use crate::config::AddressList;
use crate::config::file::{Addresses, FilePath, Marked};
use crate::config::networks::parse;

impl Check<'_> {
    pub(super) fn addresses(&mut self, entries: &[Marked<Addresses>]) -> AddressList {
        let mut list = AddressList::default();
        for entry in entries {
            match &entry.value {
                Addresses::Network(network) => list.networks.push(network.trunc()),
                Addresses::File(path) => {
                    let path = Marked { value: path.clone(), at: entry.at.clone(), written: true };
                    self.list(&path);
                    list.files.push(self.files.joined(&path));
                }
            }
        }
        list
    }

    fn list(&mut self, path: &Marked<FilePath>) {
        let Some(bytes) = self.files.contents(path, self.problems) else { return };
        let read = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8 text".to_owned());
        if let Err(why) = read.and_then(|text| parse(text).map(drop).map_err(|bad| bad.to_string())) {
            let what = format!("`{}`: {why}", self.files.joined(path).display());
            self.problems.error(&path.at, what, "write a network or an address a line; `#` begins a comment");
        }
    }
}
