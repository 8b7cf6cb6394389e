//! Whose key is it, and does it open here and now? All keys of a store, in memory.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::Method;
use jiff::Timestamp;

use super::text::{LONGEST, SHORTEST, hash};
use crate::answer::{Credentials, Forbidden, Refusal};
use crate::config::{Key, KeyHash, parse_keys};
use crate::hashed::HashedMap;

/// The keys of a store.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By the beginnings of their hashes, so that what is looked up tells nothing about the rest by how long it takes.
    keys: HashedMap<u64, Vec<Key>>,
}

/// Where and when a key is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door<'a> {
    pub(super) route: &'a str,
    pub(super) method: &'a Method,
    pub(super) address: Option<IpAddr>,
    /// Most keys do not ask what time it is.
    pub(super) now: fn() -> Timestamp,
}

impl Table {
    pub(super) fn new(keys: Vec<Key>) -> Self {
        let mut table = Self::default();
        for key in keys {
            table.keys.entry(beginning(&key.hash)).or_default().push(key);
        }
        table
    }

    /// That of a file, for a [`crate::files::Library`].
    pub(super) fn of_file(bytes: &[u8]) -> Result<Self, String> {
        parse_keys(bytes).map(Self::new)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// The key that was shown, if it opens this door.
    pub(super) fn open(&self, shown: &[u8], door: Door<'_>) -> Result<&Key, Refusal> {
        let key = self.find(shown).ok_or(Refusal::Unauthenticated(Credentials::Wrong))?;
        let unauthenticated = |why| Err(Refusal::Unauthenticated(why));
        match () {
            () if key.revoked.is_some() => unauthenticated(Credentials::Revoked),
            () if key.expires.is_some_and(|end| end <= (door.now)()) => unauthenticated(Credentials::Expired),
            () if key.not_before.is_some_and(|start| (door.now)() < start) => unauthenticated(Credentials::TooEarly),
            () if !key.limits.allow_route(door.route) => Err(Refusal::Forbidden(Forbidden::Route)),
            () if !key.limits.allow_method(door.method) => Err(Refusal::Forbidden(Forbidden::Method)),
            () if !key.limits.allow_address(door.address) => Err(Refusal::Forbidden(Forbidden::KeyAddress)),
            () => Ok(key),
        }
    }

    fn find(&self, shown: &[u8]) -> Option<&Key> {
        // A key of an operator's own may be as short as they like in the file; shorter ones than this could be guessed.
        if !(SHORTEST..=LONGEST).contains(&shown.len()) {
            return None;
        }
        let hash = hash(shown);
        let alike = self.keys.get(&beginning(&hash))?;
        alike.iter().find(|key| verify_slices_are_equal(&key.hash.0, &hash.0).is_ok())
    }
}

fn beginning(hash: &KeyHash) -> u64 {
    hash.0.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyLimits;

    const TEXT: &[u8] = b"a key of sixteen bytes or more";
    const NOON: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn key() -> Key {
        Key {
            id: None,
            hash: hash(TEXT),
            name: "ci".into(),
            plan: None,
            limits: KeyLimits::default(),
            not_before: None,
            expires: None,
            revoked: None,
        }
    }

    #[track_caller]
    fn check(key: Key, expected: Result<(), Refusal>) {
        let address = Some("10.0.0.1".parse().unwrap());
        let door = Door { route: "api", method: &Method::POST, address, now: || NOON };
        assert_eq!(Table::new(vec![key]).open(TEXT, door).map(drop), expected);
    }

    #[test]
    fn a_key_opens_from_its_first_second_until_just_before_its_last() {
        let second = |n: i64| Some(Timestamp::from_second(NOON.as_second() + n).unwrap());
        let late = Err(Refusal::Unauthenticated(Credentials::Expired));
        let early = Err(Refusal::Unauthenticated(Credentials::TooEarly));
        check(key(), Ok(()));
        check(Key { not_before: second(0), expires: second(1), ..key() }, Ok(()));
        check(Key { expires: second(0), ..key() }, late);
        check(Key { not_before: second(1), ..key() }, early);
        check(Key { revoked: second(0), ..key() }, Err(Refusal::Unauthenticated(Credentials::Revoked)));
    }

    #[test]
    fn a_key_opens_only_where_it_may() {
        let limits = |limits: KeyLimits| Key { limits, ..key() };
        let none = KeyLimits::default;
        check(limits(KeyLimits { routes: vec!["api".into()], ..none() }), Ok(()));
        check(limits(KeyLimits { routes: vec!["web".into()], ..none() }), Err(Refusal::Forbidden(Forbidden::Route)));
        check(limits(KeyLimits { methods: vec![Method::GET], ..none() }), Err(Refusal::Forbidden(Forbidden::Method)));
        let elsewhere = vec!["11.0.0.0/8".parse().unwrap()];
        check(limits(KeyLimits { addresses: elsewhere, ..none() }), Err(Refusal::Forbidden(Forbidden::KeyAddress)));
    }

    #[test]
    fn a_key_is_told_from_all_others() {
        let table = Table::new(
            (0..100_u8).map(|n| Key { hash: hash(&[n; 20]), name: n.to_string().into(), ..key() }).collect(),
        );
        let door = Door { route: "", method: &Method::GET, address: None, now: || NOON };
        for n in 0..100_u8 {
            assert_eq!(*table.open(&[n; 20], door).unwrap().name, *n.to_string());
        }
        for wrong in [&[100; 20][..], &[1; 19], b"", &[1; 600]] {
            assert_eq!(table.open(wrong, door).map(drop), Err(Refusal::Unauthenticated(Credentials::Wrong)));
        }
    }

    #[test]
    fn a_hash_that_only_begins_alike_is_another_key() {
        let mut other = hash(TEXT);
        other.0[31] ^= 1;
        check(Key { hash: other, ..key() }, Err(Refusal::Unauthenticated(Credentials::Wrong)));
    }

    #[test]
    fn what_could_be_guessed_is_no_key_whatever_the_store_says() {
        let table = Table::new(vec![Key { hash: hash(b"short"), ..key() }]);
        let door = Door { route: "", method: &Method::GET, address: None, now: || NOON };
        assert!(table.open(b"short", door).is_err());
    }
}
