//! The two tiers together: what one brings to the other, and what does not come back.

use std::future::pending;

use bytes::Bytes;
use http::HeaderName;
use pingora::http::ResponseHeader;
use tempfile::TempDir;

use super::*;
use crate::cache::disk::LEAST;
use crate::cache::key::Writing;
use crate::cache::store::Facts;
use crate::config::Eviction;

const URL: &str = "https://a/b?c";

struct Both {
    store: &'static Store,
    tier: Arc<Tier>,
    _folder: TempDir,
}

async fn both() -> Both {
    let folder = tempfile::tempdir().unwrap();
    let tier = Tier::open(folder.path(), LEAST, 1 << 20).await.unwrap();
    Both { store: store(), tier, _folder: folder }
}

/// As after a restart: with nothing in it.
fn store() -> &'static Store {
    Box::leak(Box::new(Store::new(8 << 20, Eviction::Lru)))
}

fn key() -> Key {
    let mut writing = Writing::begin("GET", |text| text.extend_from_slice(URL.as_bytes()));
    writing.part("route", Some(b"r"));
    writing.end()
}

fn facts() -> Facts {
    let now = SystemTime::now();
    Facts {
        born: now - Duration::from_secs(10),
        asked_at: now - Duration::from_secs(1),
        fresh_until: now + Duration::from_secs(60),
        stale_while_revalidate: Duration::from_secs(3),
        stale_if_error: Duration::from_secs(4),
        only_when_cut_off: true,
        may_be_stale: false,
        variance: None,
        vary: Arc::new([]),
        tags: Arc::new(["red".into()]),
    }
}

fn head() -> ResponseHeader {
    let mut head = ResponseHeader::build(203, None).unwrap();
    for (name, value) in [("content-type", "text/plain"), ("link", "a"), ("link", "b"), ("x-latin", "\u{e9}")] {
        head.append_header(name, value).unwrap();
    }
    head
}

/// A body of several pieces.
fn body() -> Bytes {
    (0..200_000).map(|index| (index % 251) as u8).collect()
}

fn stored(store: &'static Store, facts: Facts) -> Arc<Object> {
    let variance = facts.variance;
    let mut filling = store.begin(key(), &head(), facts, None).unwrap();
    assert!(filling.write(&body()) && filling.finish());
    store.find(&key(), variance).unwrap()
}

impl Both {
    async fn find(&self, variance: Option<u128>) -> Option<Arc<Object>> {
        self.tier.clone().find(self.store, key(), variance).await
    }

    /// Stores an object in another memory than that which is asked later.
    fn copy(&self, facts: Facts) -> Arc<Object> {
        let object = stored(store(), facts);
        self.tier.copy(&key(), &object);
        object
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_comes_back_as_it_was() {
    let both = both().await;
    let old = both.copy(facts());
    let new = both.find(None).await.unwrap();
    assert_eq!((new.head.status, &new.head.headers), (old.head.status, &old.head.headers));
    assert_eq!(new.pieces().unwrap().concat(), body());
    let said = |object: &Object| {
        let Facts { born, asked_at: _, fresh_until, stale_while_revalidate, stale_if_error, .. } = object.facts.clone();
        let Facts { only_when_cut_off, may_be_stale, variance, vary, tags, .. } = object.facts.clone();
        let moments = [born, fresh_until].map(milliseconds);
        (moments, stale_while_revalidate, stale_if_error, only_when_cut_off, may_be_stale, variance, vary, tags)
    };
    assert_eq!(said(&new), said(&old));
    assert!(Arc::ptr_eq(&both.store.find(&key(), None).unwrap(), &new), "it is in memory from now on");
    assert_eq!(new.copied_at(), milliseconds(old.facts.asked_at));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_have_it_read_once() {
    let both = both().await;
    both.copy(facts());
    let asking = (0..50).map(|_| tokio::spawn(both.tier.clone().find(both.store, key(), None)));
    let asking = asking.collect::<Vec<_>>();
    let mut found = Vec::new();
    for one in asking {
        found.push(one.await.unwrap().unwrap());
    }
    assert!(found.iter().all(|one| Arc::ptr_eq(one, &found[0])));
    assert_eq!(both.store.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_differs_by_fields_is_found_by_way_of_its_signpost() {
    let both = both().await;
    let vary: Arc<[HeaderName]> = Arc::new([HeaderName::from_static("accept-language")]);
    for variance in [7, 8] {
        both.copy(Facts { variance: Some(variance), vary: vary.clone(), ..facts() });
    }
    let signpost = both.find(None).await.unwrap();
    assert_eq!(signpost.facts.vary, vary);
    assert!(![Some(7), Some(8)].contains(&signpost.facts.variance));
    assert!(both.store.is_empty(), "it is nothing that could be served");
    for variance in [Some(7), Some(8)] {
        assert_eq!(both.find(variance).await.unwrap().facts.variance, variance);
    }
    assert!(both.find(Some(9)).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_while_it_is_read_is_gone_from_memory_too() {
    let both = both().await;
    both.copy(facts());
    let name = both.tier.name(&key(), None);
    for soft in [true, false] {
        let found = both.tier.disk.get(name).await.unwrap();
        let what = What::Url(URL.into());
        both.tier.purge(Purge { what, at: milliseconds(SystemTime::now()), soft }).await.unwrap();
        // Memory was purged before this came into it.
        let late = stored(both.store, facts());
        assert!(both.tier.judge_again(both.store, &key(), &found, late).is_none());
        assert!(both.store.is_empty());
    }
    assert!(both.find(None).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_leaves_something_stale_and_an_invalidation_nothing() {
    let both = both().await;
    both.copy(facts());
    let purge = Purge { what: What::Tag("red".into()), at: milliseconds(SystemTime::now()), soft: true };
    both.tier.purge(purge).await.unwrap();
    let found = both.find(None).await.unwrap();
    assert!(found.facts.fresh_until < SystemTime::now());
    assert_eq!(both.tier.invalidate(both.store, URL.as_bytes()), 1);
    assert!(both.find(None).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_meanwhile_stays() {
    let both = both().await;
    both.copy(facts());
    let newer = stored(both.store, facts());
    assert!(Arc::ptr_eq(&both.find(None).await.unwrap(), &newer));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_no_use_later_is_not_copied_and_takes_the_place_of_what_was() {
    let both = both().await;
    both.copy(facts());
    let over = SystemTime::now() - Duration::from_secs(1);
    let stale = Facts { fresh_until: over, stale_while_revalidate: Duration::ZERO, ..facts() };
    both.copy(stale.clone());
    assert!(both.find(None).await.is_none());
    both.copy(Facts { only_when_cut_off: false, ..stale });
    assert!(both.find(None).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revalidation_writes_a_copy_anew_when_that_is_an_hour_old() {
    let both = both().await;
    let object = both.copy(facts());
    let written = || both.tier.numbers().stored;
    let at_first = written();
    both.tier.copy_anew(&key(), &object);
    assert_eq!(written(), at_first);
    object.note_copy(milliseconds(object.facts.asked_at) - COPY_ANEW);
    both.tier.copy_anew(&key(), &object);
    assert_eq!(written(), at_first + 1);
    both.tier.copy_anew(&key(), &object);
    assert_eq!(written(), at_first + 1);
}

#[tokio::test]
async fn a_disk_that_does_not_answer_in_time_is_a_miss() {
    let both = both().await;
    both.copy(facts());
    let name = both.tier.name(&key(), None);
    let stuck = both.tier.flights.join(name, pending);
    let asked = tokio::time::Instant::now();
    let (_, found) = tokio::join!(timeout(2 * DEADLINE, stuck), both.find(None));
    assert!(found.is_none());
    assert!(asked.elapsed() >= DEADLINE && asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_on_disk_differ_by_key_variance_and_folder() {
    let (one, two) = (both().await, both().await);
    let other = Writing::begin("GET", |text| text.extend_from_slice(b"https://a/c")).end();
    let names = [
        one.tier.name(&key(), None),
        one.tier.name(&key(), Some(0)),
        one.tier.name(&key(), Some(1)),
        one.tier.name(&other, None),
        two.tier.name(&key(), None),
    ];
    assert!(names.iter().enumerate().all(|(at, name)| !names[..at].contains(name)));
    assert_eq!(one.tier.name(&key(), Some(1)), names[2]);
}
