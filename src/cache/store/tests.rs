//! The store as its users see it.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cache::key::Writing;

fn store(size: u64) -> &'static Store {
    Box::leak(Box::new(Store::new(size)))
}

fn key(url: &str, parts: &[(&str, &str)]) -> Key {
    let mut writing = Writing::begin("GET", |text| text.extend_from_slice(url.as_bytes()));
    for (name, value) in parts {
        writing.part(name, Some(value.as_bytes()));
    }
    writing.end()
}

fn facts() -> Facts {
    Facts {
        born: SystemTime::UNIX_EPOCH,
        asked_at: SystemTime::UNIX_EPOCH,
        fresh_until: SystemTime::UNIX_EPOCH + Duration::from_secs(60),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        only_when_cut_off: false,
        may_be_stale: true,
        variance: None,
        vary: Arc::new([]),
        tags: Arc::new([]),
    }
}

fn variant(variance: u128, fields: &[&'static str]) -> Facts {
    let vary = fields.iter().map(|name| HeaderName::from_static(name)).collect();
    Facts { variance: Some(variance), vary, ..facts() }
}

fn head() -> ResponseHeader {
    ResponseHeader::build(200, None).expect("200 is a status")
}

/// Stores a body; says whether there was room for it.
fn put(store: &'static Store, key: &Key, facts: Facts, body: &[u8]) -> bool {
    let filling = store.begin(key.clone(), &head(), facts, Some(body.len() as u64));
    filling.is_some_and(|mut filling| filling.write(body) && filling.finish())
}

fn body_of(store: &Store, key: &Key, variance: Option<u128>) -> Option<Bytes> {
    store.find(key, variance)?.body_in_one_piece()
}

#[test]
fn what_is_stored_is_found_under_its_key_alone() {
    let store = store(1 << 20);
    let (one, other) = (key("https://a/1", &[]), key("https://a/1", &[("lang", "en")]));
    assert!(put(store, &one, facts(), b"one") && put(store, &other, facts(), b"other"));
    assert_eq!(body_of(store, &one, None).as_deref(), Some(&b"one"[..]));
    assert_eq!(body_of(store, &other, None).as_deref(), Some(&b"other"[..]));
    assert_eq!(body_of(store, &key("https://a/2", &[]), None), None);
}

#[test]
fn keys_that_collide_are_never_taken_for_each_other() {
    let store = store(1 << 20);
    let victim = key("https://a/1", &[]);
    let mut attacker = Key::decode(key("https://a/2", &[]).encoded(), victim.page).expect("a key");
    attacker.url = victim.url;
    assert!(put(store, &victim, facts(), b"victim"));
    assert_eq!(body_of(store, &attacker, None), None);
    assert!(put(store, &attacker, facts(), b"attacker"));
    assert_eq!(body_of(store, &victim, None), None, "it was replaced, which is a miss");
    assert_eq!(store.len(), 1);
}

#[test]
fn variants_of_one_key_are_told_apart_and_bounded() {
    let store = store(8 << 20);
    let key = key("https://a/", &[]);
    for variance in 0..10_000 {
        assert!(put(store, &key, variant(variance, &["accept-language"]), &variance.to_be_bytes()));
    }
    assert_eq!(store.len(), 64);
    assert_eq!(body_of(store, &key, Some(9_999)).as_deref(), Some(&9_999_u128.to_be_bytes()[..]));
    assert_eq!(body_of(store, &key, Some(0)), None);
    assert_eq!(body_of(store, &key, None).as_deref(), Some(&9_999_u128.to_be_bytes()[..]), "the last");
}

#[test]
fn when_vary_changes_what_was_told_apart_by_other_fields_goes() {
    let store = store(1 << 20);
    let key = key("https://a/", &[]);
    assert!(put(store, &key, variant(1, &["accept"]), b"1") && put(store, &key, variant(2, &["accept"]), b"2"));
    assert!(put(store, &key, variant(3, &["accept-language"]), b"3"));
    assert_eq!((store.len(), body_of(store, &key, Some(1))), (1, None));
    assert!(put(store, &key, facts(), b"for all"));
    assert_eq!((store.len(), body_of(store, &key, None).as_deref()), (1, Some(&b"for all"[..])));
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let store = store(200_000);
    let keys: Vec<_> = (0..1000).map(|index| key(&format!("https://a/{index}"), &[])).collect();
    for key in &keys {
        assert!(put(store, key, facts(), &[0; 1000]));
        assert!(store.find(&keys[0], None).is_some(), "what is used stays");
        assert!(store.bytes() <= store.size());
    }
    assert!(store.len() > 50, "{}", store.len());
    assert!(store.find(&keys[999], None).is_some() && store.find(&keys[1], None).is_none());
}

#[test]
fn what_is_being_read_stays_and_counts_until_it_is_let_go() {
    let store = store(100_000);
    let held: Vec<_> = (0..90)
        .map(|index| {
            let key = key(&format!("https://a/{index}"), &[]);
            assert!(put(store, &key, facts(), &[0; 200]), "{index}");
            store.find(&key, None).expect("it has just been stored")
        })
        .collect();
    assert!(!put(store, &key("https://a/big", &[]), facts(), &[0; 90_000]));
    assert!(store.bytes() <= 100_000 && store.len() == 90);
    drop(held);
    assert!(put(store, &key("https://a/big", &[]), facts(), &[0; 90_000]));
}

#[test]
fn a_smaller_size_is_kept_at_once() {
    let store = store(1 << 20);
    for index in 0..100 {
        assert!(put(store, &key(&format!("https://a/{index}"), &[]), facts(), &[0; 1000]));
    }
    store.set_size(20_000);
    assert!(store.bytes() <= 20_000 && !store.is_empty());
}

#[test]
fn an_address_is_invalidated_under_all_its_keys() {
    let store = store(1 << 20);
    let keys = [key("https://a/1", &[]), key("https://a/1", &[("lang", "en")]), key("https://a/12", &[])];
    for key in &keys {
        assert!(put(store, key, facts(), b"x"));
    }
    assert_eq!(store.invalidate(Key::hash_url(b"https://a/1")), 2);
    assert_eq!(keys.map(|key| store.find(&key, None).is_some()), [false, false, true]);
}

#[test]
fn a_purge_means_addresses_or_tags_and_a_soft_one_keeps_the_body() {
    let store = store(1 << 20);
    let (tagged, plain) = (key("https://a/1", &[]), key("https://b/1", &[]));
    assert!(put(store, &tagged, Facts { tags: Arc::new(["red".into()]), ..facts() }, b"x"));
    assert!(put(store, &plain, facts(), b"y"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    let bytes = store.bytes();
    assert_eq!(store.purge(Depth::Soft(now), |_, tags| tags.iter().any(|tag| &**tag == "red")), 1);
    let object = store.find(&tagged, None).expect("it is stale, not gone");
    assert_eq!((object.is_fresh(now), object.facts.fresh_until, store.bytes()), (false, now, bytes));
    drop(object);
    assert_eq!(store.purge(Depth::Hard, |url, _| url.starts_with(b"https://a/")), 1);
    assert!(store.find(&tagged, None).is_none() && store.find(&plain, None).is_some());
    assert_eq!(store.purge(Depth::Hard, |_, _| true), 1);
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

#[test]
fn a_body_that_breaks_off_is_forgotten_and_costs_nothing() {
    let store = store(1 << 20);
    let key = key("https://a/", &[]);
    for published in [false, true] {
        let mut filling = store.begin(key.clone(), &head(), facts(), Some(10)).expect("there is room");
        if published {
            filling.publish();
            assert!(store.find(&key, None).is_some(), "it is found while it is written");
        }
        assert!(filling.write(b"short"));
        assert!(!filling.finish());
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}

#[test]
fn a_chunked_body_gets_a_length_when_it_is_complete() {
    let store = store(1 << 20);
    let key = key("https://a/", &[]);
    let mut filling = store.begin(key.clone(), &head(), facts(), None).expect("there is room");
    assert!(filling.write(b"two ") && filling.write(b"pieces") && store.find(&key, None).is_none());
    assert!(filling.finish());
    let object = store.find(&key, None).expect("it is complete");
    assert_eq!(object.head.headers.get("content-length").map(|value| value.as_bytes()), Some(&b"10"[..]));
}

#[test]
fn what_was_learned_goes_to_the_object_it_was_learned_of() {
    let store = store(1 << 20);
    let key = key("https://a/", &[]);
    assert!(put(store, &key, facts(), b"body"));
    let old = store.find(&key, None).expect("stored");
    let mut fresh = head();
    fresh.insert_header("x-new", "1").expect("a field");
    assert!(store.renew(&key, &old, &fresh, facts()));
    assert!(!store.renew(&key, &old, &fresh, facts()), "the old one has been replaced");
    let new = store.find(&key, None).expect("stored");
    assert!(new.head.headers.contains_key("x-new"));
    assert_eq!(new.body_in_one_piece().as_deref(), Some(&b"body"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_never_holds_more_than_its_size(steps in prop::collection::vec((0..6_u8, 0..40_u32, 0..30_000_usize), 1..200)) {
        let store = store(64 << 10);
        let mut held = Vec::new();
        for (step, which, len) in steps {
            let key = key(&format!("https://a/{which}"), &[]);
            match step {
                0 => drop(put(store, &key, facts(), &vec![0; len])),
                1 => held.extend(store.find(&key, None)),
                2 => held.clear(),
                3 => drop(store.invalidate(key.url)),
                4 => {
                    let mut filling = store.begin(key, &head(), facts(), None);
                    let _ = filling.as_mut().is_some_and(|filling| filling.write(&vec![0; len]));
                }
                _ => drop(store.purge(Depth::Soft(SystemTime::UNIX_EPOCH), |_, _| which % 2 == 0)),
            }
            prop_assert!(store.bytes() <= store.size());
        }
        held.clear();
        store.purge(Depth::Hard, |_, _| true);
        prop_assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}
