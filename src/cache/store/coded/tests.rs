//! Coded bodies as those see them who write and read them.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::segments::SEGMENT;
use super::super::tests::{BOTH, facts, head, key, put, store, store_under};
use super::super::{Depth, Facts};
use super::*;

/// Stores a body of so many bytes, and finds it.
fn stored(store: &'static Store, url: &str, length: usize) -> Arc<Object> {
    let key = key(url, &[]);
    assert!(put(store, &key, facts(), &vec![b'x'; length]));
    store.find(&key, None).expect("it has just been stored")
}

/// Codes a body as so many bytes; says whether all of it was kept.
fn code(store: &'static Store, object: &Arc<Object>, coding: Coding, length: usize) -> bool {
    let filling = store.claim_coding(object, coding);
    filling.is_some_and(|mut filling| filling.write(&vec![b'c'; length]) && filling.finish())
}

fn body(coded: Coded) -> Option<Vec<u8>> {
    match coded {
        Coded::Ready(body) => Some(body.pieces().concat()),
        Coded::NotWorthIt | Coded::Unknown => None,
    }
}

#[test]
fn what_was_coded_is_read_as_it_was_written_under_its_coding_alone() {
    let store = store(4 << 20);
    let object = stored(store, "https://a/", 4 * SEGMENT);
    let mut filling = store.claim_coding(&object, Coding::Br).expect("nobody else does it");
    let all: Vec<u8> = (0..2 * SEGMENT + 17).map(|index| (index % 251) as u8).collect();
    for piece in all.chunks(1000) {
        assert!(filling.write(piece));
    }
    assert!(matches!(object.coded(Coding::Br), Coded::Unknown), "it is not complete");
    assert!(filling.finish());
    let Coded::Ready(coded) = object.coded(Coding::Br) else { panic!("it is complete") };
    assert_eq!((coded.length(), coded.pieces().len()), (all.len() as u64, 3));
    assert_eq!(coded.pieces().concat(), all);
    assert!(matches!(object.coded(Coding::Gzip), Coded::Unknown));
}

#[test]
fn one_at_a_time_makes_a_coding_and_others_may_make_others() {
    let store = store(1 << 20);
    let object = stored(store, "https://a/", 1000);
    let first = store.claim_coding(&object, Coding::Gzip).expect("nobody else does it");
    assert!(store.claim_coding(&object, Coding::Gzip).is_none());
    assert!(code(store, &object, Coding::Zstd, 100));
    drop(first);
    assert!(code(store, &object, Coding::Gzip, 100), "it was given back");
    assert!(store.claim_coding(&object, Coding::Gzip).is_none(), "it is there");
}

#[test]
fn a_body_that_is_not_complete_is_not_coded() {
    let store = store(1 << 20);
    let key = key("https://a/", &[]);
    let mut filling = store.begin(key.clone(), &head(), facts(), Some(10)).expect("there is room");
    filling.publish();
    let object = store.find(&key, None).expect("it is found while it is written");
    assert!(store.claim_coding(&object, Coding::Gzip).is_none());
    assert!(matches!(object.coded(Coding::Gzip), Coded::Unknown));
}

#[test]
fn what_is_hardly_smaller_is_remembered_as_not_worth_it_and_costs_nothing() {
    let store = store(1 << 20);
    for (coded, is_worth_it) in [(950, true), (951, false), (5000, false)] {
        let object = stored(store, &format!("https://a/{coded}"), 1000);
        let before = store.bytes();
        assert_eq!(code(store, &object, Coding::Br, coded), is_worth_it, "{coded}");
        assert_eq!(matches!(object.coded(Coding::Br), Coded::NotWorthIt), !is_worth_it, "{coded}");
        assert!(store.claim_coding(&object, Coding::Br).is_none(), "nobody tries again");
        assert!(is_worth_it || store.bytes() - before == PER_TABLE);
    }
    let nothing = stored(store, "https://a/", 0);
    assert!(!code(store, &nothing, Coding::Br, 20) && matches!(nothing.coded(Coding::Br), Coded::NotWorthIt));
}

#[test]
fn nothing_follows_what_could_not_be_kept() {
    let store = store(1 << 20);
    let object = stored(store, "https://a/", 1000);
    let mut filling = store.claim_coding(&object, Coding::Br).expect("nobody else does it");
    assert!(filling.write(&[0; 900]) && !filling.write(&[0; 900]) && !filling.write(b"") && !filling.finish());
}

#[test]
fn coded_bodies_are_charged_and_freed_with_their_body() {
    for purged in [false, true] {
        let store = store(1 << 20);
        let object = stored(store, "https://a/", 10_000);
        let before = store.bytes();
        assert!(code(store, &object, Coding::Br, 1000) && code(store, &object, Coding::Zstd, 2000));
        assert_eq!(store.bytes(), before + 3000 + PER_TABLE + 2 * (PER_BODY + PER_PIECE));
        drop(object);
        if purged {
            store.purge(Depth::Hard, |_, _| true);
        } else {
            assert!(put(store, &key("https://a/", &[]), facts(), b"another"));
            assert!(store.find(&key("https://a/", &[]), None).is_some_and(|new| body(new.coded(Coding::Br)).is_none()));
            store.set_size(0);
        }
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}

#[test]
fn what_is_read_or_written_when_its_body_goes_counts_until_it_is_let_go() {
    let store = store(1 << 20);
    let object = stored(store, "https://a/", 10_000);
    assert!(code(store, &object, Coding::Br, 1000));
    let Coded::Ready(read) = object.coded(Coding::Br) else { panic!("it is complete") };
    let mut written = store.claim_coding(&object, Coding::Gzip).expect("nobody else does it");
    assert!(written.write(&[0; 500]));
    drop(object);
    store.purge(Depth::Hard, |_, _| true);
    assert!(written.write(&[0; 500]) && written.finish(), "of use to nobody, and harmless");
    assert_eq!(store.bytes(), 1000 + PER_BODY + PER_PIECE);
    drop(read);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_new_head_finds_the_coded_bodies_of_the_old_one() {
    let store = store(1 << 20);
    let key = key("https://a/", &[]);
    let old = stored(store, "https://a/", 1000);
    assert!(code(store, &old, Coding::Br, 100));
    let late = store.claim_coding(&old, Coding::Gzip).expect("nobody else does it");
    assert!(store.renew(&key, &old, &head(), facts()));
    let renewed = store.find(&key, None).expect("stored");
    assert!(!Arc::ptr_eq(&old, &renewed) && body(renewed.coded(Coding::Br)).is_some());
    assert!(store.claim_coding(&renewed, Coding::Gzip).is_none(), "of the old one somebody makes it");
    assert!(late.finish() && body(renewed.coded(Coding::Gzip)).is_some());
    store.purge(Depth::Soft(SystemTime::UNIX_EPOCH), |_, _| true);
    let stale = store.find(&key, None).expect("it is stale, not gone");
    assert!(!Arc::ptr_eq(&stale, &renewed) && body(stale.coded(Coding::Br)).is_some());
    assert!(store.renew(&key, &stale, &head(), Facts { fresh_until: SystemTime::now(), ..facts() }));
    assert!(store.find(&key, None).is_some_and(|fresh| body(fresh.coded(Coding::Br)).is_some()));
}

#[test]
fn what_there_is_no_room_for_is_not_kept_and_may_be_tried_again() {
    let store = store(200_000);
    let object = stored(store, "https://a/", 120_000);
    let other = stored(store, "https://b/", 50_000);
    let mut filling = store.claim_coding(&object, Coding::Br).expect("there is room for the claim");
    assert!(!filling.write(&[0; 60_000]), "all there is, is being read");
    assert!(store.bytes() <= store.size());
    assert!(!filling.write(b"x") && !filling.finish());
    drop(other);
    assert!(code(store, &object, Coding::Br, 60_000), "the other one went for it");
    assert_eq!(store.len(), 1);
}

#[test]
fn a_body_is_never_taken_out_to_make_room_for_its_own_coding() {
    let store = store(200_000);
    let object = stored(store, "https://a/", 150_000);
    let mut filling = store.claim_coding(&object, Coding::Br).expect("there is room for the claim");
    drop(object);
    assert!(!filling.write(&[0; 100_000]));
    assert!(store.find(&key("https://a/", &[]), None).is_some());
}

#[test]
fn many_threads_make_each_coding_once_while_others_are_taken_out() {
    for store in BOTH.map(|eviction| store_under(eviction, 4 << 20)) {
        let object = stored(store, "https://hot/", 100_000);
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (object, made) = (&object, &made);
                scope.spawn(move || made.fetch_add(churn(store, object, thread), Relaxed));
            }
        });
        assert_eq!(made.into_inner(), Coding::ALL.len());
        drop(object);
        store.set_size(0);
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}

/// Stores and codes many objects, and this one in between; says how often that succeeded.
fn churn(store: &'static Store, hot: &Arc<Object>, thread: usize) -> usize {
    let mut made = 0;
    for index in 0..200 {
        let key = key(&format!("https://{thread}/{index}"), &[]);
        assert!(put(store, &key, facts(), &[b'x'; 20_000]));
        // Another thread may have taken it out already.
        let one = store.find(&key, None);
        for coding in Coding::ALL {
            one.as_ref().map(|one| code(store, one, coding, 5000));
            made += usize::from(code(store, hot, coding, 50_000));
            assert!(store.bytes() <= store.size());
        }
    }
    made
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_store_with_coded_bodies_never_holds_more_than_its_size(
        policy in 0..2_usize,
        steps in prop::collection::vec((0..7_u8, 0..20_u32, 0..4_usize, 0..30_000_usize), 1..200),
    ) {
        let store = store_under(BOTH[policy], 64 << 10);
        let (mut held, mut begun) = (Vec::new(), Vec::new());
        for (step, which, coding, length) in steps {
            let (key, coding) = (key(&format!("https://a/{which}"), &[]), Coding::ALL[coding]);
            match (step, store.find(&key, None)) {
                (0 | 1, _) => drop(put(store, &key, facts(), &vec![0; length])),
                (2, Some(object)) => drop(code(store, &object, coding, length / 2)),
                (3, Some(object)) => held.push(object.coded(coding)),
                (4, Some(object)) => begun.extend(store.claim_coding(&object, coding)),
                (5, Some(object)) => {
                    let fresh = Facts { fresh_until: SystemTime::UNIX_EPOCH + Duration::from_secs(1), ..facts() };
                    store.renew(&key, &object, &head(), fresh);
                }
                (2 | 3, None) => held.clear(),
                (4 | 5, None) => begun.clear(),
                _ => {
                    for filling in &mut begun {
                        filling.write(&vec![0; length / 8]);
                    }
                }
            }
            prop_assert!(store.bytes() <= store.size());
        }
        drop((held, begun));
        store.purge(Depth::Hard, |_, _| true);
        prop_assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}
