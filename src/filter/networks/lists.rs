//! May this address come in? The lists of a route, from the configuration and from files that are read again.

use std::net::IpAddr;
use std::sync::Arc;

use super::Networks;
use crate::config::AddressList;
use crate::config::networks::parse;
use crate::files::{Followed, Library, Unusable};

/// Which addresses may come in. Who is denied may not, whatever else is said.
#[derive(Debug)]
pub struct Lists {
    /// `None`: all.
    allow: Option<List>,
    deny: Option<List>,
}

impl Lists {
    /// The lists of a route; `None` where there are none.
    pub fn new(allow: &AddressList, deny: &AddressList, library: &Library) -> Result<Option<Self>, Unusable> {
        let list = |list: &AddressList| (!list.is_empty()).then(|| List::new(list, library)).transpose();
        let lists = Self { allow: list(allow)?, deny: list(deny)? };
        Ok((lists.allow.is_some() || lists.deny.is_some()).then_some(lists))
    }

    /// Whether whoever is at this address may come in. Who has none, as on a unix socket, is on no list.
    pub fn admit(&self, address: Option<IpAddr>) -> bool {
        let on = |list: &List| address.is_some_and(|address| list.contains(address));
        !self.deny.as_ref().is_some_and(on) && self.allow.as_ref().is_none_or(on)
    }
}

/// One list.
#[derive(Debug)]
struct List {
    own: Networks,
    files: Vec<Arc<Followed<Networks>>>,
}

impl List {
    fn new(list: &AddressList, library: &Library) -> Result<Self, Unusable> {
        let files = list.files.iter().map(|path| library.open(path, read)).collect::<Result<_, _>>()?;
        Ok(Self { own: Networks::new(list.networks.iter().copied()), files })
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.own.contains(address) || self.files.iter().any(|file| file.now().contains(address))
    }
}

fn read(bytes: &[u8]) -> Result<Networks, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    parse(text).map(Networks::new).map_err(|bad| bad.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(networks: &[&str]) -> AddressList {
        AddressList { networks: networks.iter().map(|network| network.parse().unwrap()).collect(), files: Vec::new() }
    }

    fn admits(allow: &[&str], deny: &[&str], address: &str) -> bool {
        let lists = Lists::new(&list(allow), &list(deny), &Library::default()).unwrap().unwrap();
        lists.admit(address.parse().ok())
    }

    #[test]
    fn who_is_denied_stays_out_though_he_is_allowed() {
        assert!(admits(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.0.1"));
        assert!(!admits(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.0.1"));
        assert!(!admits(&["10.1.0.0/16"], &["10.0.0.0/8"], "10.1.0.1"));
        assert!(!admits(&["10.0.0.0/8"], &[], "192.0.2.1"));
        assert!(admits(&[], &["10.0.0.0/8"], "192.0.2.1"));
    }

    #[test]
    fn who_has_no_address_comes_in_only_where_all_do_that_are_not_denied() {
        assert!(admits(&[], &["0.0.0.0/0", "::/0"], ""));
        assert!(!admits(&["0.0.0.0/0", "::/0"], &[], ""));
    }

    #[test]
    fn a_list_that_is_an_empty_file_allows_nobody() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = AddressList { networks: Vec::new(), files: vec![file.path().to_owned()] };
        let lists = Lists::new(&files, &AddressList::default(), &Library::default()).unwrap().unwrap();
        assert!(!lists.admit("10.0.0.1".parse().ok()));
        assert!(Lists::new(&AddressList::default(), &AddressList::default(), &Library::default()).unwrap().is_none());
    }
}
