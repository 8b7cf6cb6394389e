//! The store as its users see it.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cache::key::Writing;
use crate::cache::purge::Purge;

pub(super) const BOTH: [Eviction; 2] = [Eviction::Lru, Eviction::S3Fifo];

pub(super) fn store(size: u64) -> &'static Store {
    store_under(Eviction::Lru, size)
}

pub(super) fn store_under(eviction: Eviction, size: u64) -> &'static Store {
    Box::leak(Box::new(Store::new(size, eviction)))
}

pub(super) fn key(url: &str, parts: &[(&str, &str)]) -> Key {
    let mut writing = Writing::begin("GET", |text| text.extend_from_slice(url.as_bytes()));
    for (name, value) in parts {
        writing.part(name, Some(value.as_bytes()));
    }
    writing.end()
}

pub(super) fn facts() -> Facts {
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

pub(super) fn head() -> ResponseHeader {
    ResponseHeader::build(200, None).expect("200 is a status")
}

/// Stores a body; says whether there was room for it.
pub(super) fn put(store: &'static Store, key: &Key, facts: Facts, body: &[u8]) -> bool {
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
    for eviction in BOTH {
        what_is_being_read_stays_in(store_under(eviction, 200_000));
    }
}

fn what_is_being_read_stays_in(store: &'static Store) {
    let held: Vec<_> = (0..90)
        .map(|index| {
            let key = key(&format!("https://a/{index}"), &[]);
            assert!(put(store, &key, facts(), &[0; 200]), "{index}");
            store.find(&key, None).expect("it has just been stored")
        })
        .collect();
    assert!(!put(store, &key("https://a/big", &[]), facts(), &[0; 180_000]));
    assert!(store.bytes() <= 200_000 && store.len() == 90);
    drop(held);
    assert!(put(store, &key("https://a/big", &[]), facts(), &[0; 180_000]));
}

#[test]
fn a_smaller_size_is_kept_at_once() {
    for store in BOTH.map(|eviction| store_under(eviction, 1 << 20)) {
        for index in 0..100 {
            assert!(put(store, &key(&format!("https://a/{index}"), &[]), facts(), &[0; 1000]));
        }
        store.set_size(20_000);
        assert!(store.bytes() <= 20_000 && !store.is_empty());
    }
}

#[test]
fn what_is_asked_for_often_outlives_what_is_asked_for_once_under_s3_fifo() {
    let hot: Vec<_> = (0..40).map(|index| key(&format!("https://hot/{index}"), &[])).collect();
    let left = BOTH.map(|eviction| {
        let store = store_under(eviction, 200_000);
        hot.iter().for_each(|key| assert!(put(store, key, facts(), &[0; 1000])));
        for _ in 0..2 {
            assert!(hot.iter().all(|key| store.find(key, None).is_some()));
        }
        for index in 0..2000 {
            assert!(put(store, &key(&format!("https://once/{index}"), &[]), facts(), &[0; 1000]));
            assert!(store.bytes() <= store.size());
        }
        hot.iter().filter(|key| store.find(key, None).is_some()).count()
    });
    assert_eq!(left, [0, 40]);
}

#[test]
fn what_streams_in_is_on_probation_with_all_its_bytes_under_s3_fifo() {
    let store = store_under(Eviction::S3Fifo, 200_000);
    let hot: Vec<_> = (0..20).map(|index| key(&format!("https://hot/{index}"), &[])).collect();
    hot.iter().for_each(|key| assert!(put(store, key, facts(), &[0; 1000])));
    for _ in 0..2 {
        assert!(hot.iter().all(|key| store.find(key, None).is_some()));
    }
    for index in 0..40 {
        let key = key(&format!("https://once/{index}"), &[]);
        let mut filling = store.begin(key, &head(), facts(), None).expect("there is room");
        filling.publish();
        assert!(filling.write(&[0; 50_000]) && filling.finish());
    }
    assert!(hot.iter().all(|key| store.find(key, None).is_some()));
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

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn purge(query: &str, seconds: u64) -> Purge {
    Purge::read(query, b"", at(seconds)).expect("a purge")
}

#[test]
fn a_purge_holds_for_an_answer_that_was_asked_for_before_it() {
    let key = key("https://a/1", &[]);
    for (asked_at, query, is_stored) in [
        (5, "url=https://a/1", false),
        (15, "url=https://a/1", true),
        (5, "url=https://a/2", true),
        (5, "prefix=a/", false),
        (5, "tag=red", false),
    ] {
        for when in ["before its head", "before its body", "in its body"] {
            let store = self::store(1 << 20);
            let purges = |now: &str| {
                if now == when {
                    store.obey(&purge(query, 10));
                }
            };
            purges("before its head");
            let facts = Facts { asked_at: at(asked_at), tags: Arc::new(["red".into()]), ..facts() };
            let mut filling = store.begin(key.clone(), &head(), facts, None).expect("there is room");
            purges("before its body");
            if when == "in its body" {
                filling.publish();
            }
            assert!(filling.write(b"body"));
            let published = store.len();
            purges("in its body");
            if when == "in its body" {
                // What can be found when it comes is meant whenever it was asked for.
                let meant = query != "url=https://a/2";
                assert_eq!((published, store.len()), (1, usize::from(!meant)), "{query}");
                filling.finish();
                assert_eq!(store.len(), usize::from(!meant), "{query}: it does not come back");
            } else {
                assert_eq!(
                    (filling.finish(), store.len()),
                    (is_stored, usize::from(is_stored)),
                    "{query} {asked_at} {when}"
                );
            }
            assert!(!store.is_empty() || store.bytes() == 0);
        }
    }
}

#[test]
fn a_soft_purge_makes_stale_what_was_asked_for_before_it() {
    for publishes in [false, true] {
        let store = store(1 << 20);
        let key = key("https://a/1", &[]);
        store.obey(&purge("url=a/1&soft=true", 10));
        let mut filling = store.begin(key.clone(), &head(), facts(), None).expect("there is room");
        if publishes {
            filling.publish();
        }
        assert!(filling.write(b"body") && filling.finish());
        assert_eq!(store.find(&key, None).expect("stored").facts.fresh_until, at(10));
        assert!(put(store, &key, Facts { asked_at: at(11), ..facts() }, b"new"));
        assert_eq!(store.find(&key, None).expect("stored").facts.fresh_until, at(60));
    }
}

#[test]
fn what_is_purged_softly_while_it_is_written_is_forgotten_if_it_breaks_off() {
    let store = store(1 << 20);
    let key = key("https://a/1", &[]);
    let mut filling = store.begin(key.clone(), &head(), facts(), Some(10)).expect("there is room");
    filling.publish();
    assert_eq!(store.obey(&purge("all=true&soft=true", 10)), 1);
    assert!(store.find(&key, None).is_some());
    filling.give_up();
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

#[test]
fn a_revalidation_that_was_under_way_undoes_no_purge() {
    let store = store(1 << 20);
    let key = key("https://a/1", &[]);
    assert!(put(store, &key, facts(), b"body"));
    store.obey(&purge("all=true&soft=true", 10));
    let old = store.find(&key, None).expect("stale");
    assert!(store.renew(&key, &old, &head(), Facts { asked_at: at(9), ..facts() }));
    let renewed = store.find(&key, None).expect("stale");
    assert_eq!(renewed.facts.fresh_until, at(10));
    assert!(store.renew(&key, &renewed, &head(), Facts { asked_at: at(11), ..facts() }));
    assert_eq!(store.find(&key, None).expect("fresh").facts.fresh_until, at(60));
}

#[test]
fn nothing_that_was_asked_for_before_a_purge_is_found_after_it_however_they_meet() {
    let store = store(8 << 20);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                for index in 0..400 {
                    let key = key(&format!("https://a/{thread}/{index}"), &[]);
                    put(store, &key, facts(), b"old");
                }
            });
        }
        for _ in 0..20 {
            store.obey(&purge("host=a", 10));
        }
    });
    assert_eq!(store.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_never_holds_more_than_its_size(
        policy in 0..2_usize,
        steps in prop::collection::vec((0..6_u8, 0..40_u32, 0..30_000_usize), 1..200),
    ) {
        let store = store_under(BOTH[policy], 64 << 10);
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
