//! What a 304 does to what is stored, and to those who wait for it.

use crate::support;

use bytes::Bytes;
use support::backend::response;
use support::cached::{ask, backend_saying, caching, crowd, get, words};
use support::{Act, Backend, Lb, Script};

const CROWD: usize = 20;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What must be asked for anew each time.
fn tagged(body: &str, cache_control: &str) -> Bytes {
    response(200, &[("Cache-Control", cache_control), ("ETag", "\"1\"")], body)
}

fn not_modified(fields: &[(&str, &str)]) -> Bytes {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Bytes::from(format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n"))
}

/// Answers at once the first time, and when it is told to the second time.
fn holding(first: Bytes, second: Bytes) -> Backend {
    let (first, second) = (vec![Act::ReadBody, Act::Write(first)], vec![Act::ReadBody, Act::Hold, Act::Write(second)]);
    Backend::scripted(Script::each([first, second]))
}

async fn a_crowd_is_asked_for_once(lb: &Lb, backend: &Backend, request: &str) {
    get(lb, "/", "").await;
    let mut clients = crowd(lb, CROWD, request).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == CROWD).await;
    backend.until_requests(2).await;
    backend.release_all();
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "body");
    }
    assert_eq!(backend.requests(), 2, "one revalidation serves all who were waiting for it");
}

#[tokio::test]
async fn a_crowd_that_waits_for_a_revalidation_is_served_by_one() {
    let backend =
        holding(tagged("body", "no-cache"), not_modified(&[("ETag", "\"1\""), ("Cache-Control", "no-cache")]));
    let lb = caching(&backend, "{}").await;
    a_crowd_is_asked_for_once(&lb, &backend, GET).await;
}

#[tokio::test]
async fn a_crowd_that_reloads_a_fresh_page_is_served_by_one_revalidation() {
    let backend = holding(tagged("body", "max-age=60"), not_modified(&[("ETag", "\"1\"")]));
    let lb = caching(&backend, "{}").await;
    let reload = "GET / HTTP/1.1\r\nHost: a\r\nCache-Control: no-cache\r\n\r\n";
    a_crowd_is_asked_for_once(&lb, &backend, reload).await;
}

#[tokio::test]
async fn whoever_comes_after_a_revalidation_is_owed_one_of_its_own() {
    let backend = backend_saying([tagged("body", "no-cache"), not_modified(&[("ETag", "\"1\"")])]);
    let lb = caching(&backend, "{}").await;
    for _ in 0..3 {
        assert_eq!(get(&lb, "/", "").await.text(), "body");
    }
    assert_eq!(backend.requests(), 3);
    assert_eq!(words(&lb, 3).await, ["miss", "revalidated", "revalidated"]);
}

#[tokio::test]
async fn a_304_of_another_version_changes_nothing() {
    let other = not_modified(&[("ETag", "\"2\""), ("Cache-Control", "max-age=600"), ("X-Version", "2")]);
    let backend = backend_saying([tagged("body", "max-age=0"), other]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    for _ in 0..2 {
        let answer = get(&lb, "/", "").await;
        assert_eq!((answer.field("etag"), answer.field("x-version")), (Some("\"1\""), None));
    }
    assert_eq!(backend.requests(), 3, "it is no fresher than before");
}

#[tokio::test]
async fn what_a_304_forbids_to_store_is_forgotten() {
    let forbidden = not_modified(&[("ETag", "\"1\""), ("Cache-Control", "no-store")]);
    let backend = backend_saying([tagged("body", "max-age=60"), forbidden, tagged("new", "max-age=60")]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    assert_eq!(get(&lb, "/", "Cache-Control: no-cache\r\n").await.text(), "body");
    assert_eq!(get(&lb, "/", "").await.text(), "new");
}

#[tokio::test]
async fn how_old_the_news_of_a_304_are_counts() {
    let news = not_modified(&[("ETag", "\"1\""), ("Cache-Control", "max-age=60"), ("Age", "50")]);
    let backend = backend_saying([tagged("body", "max-age=0"), news]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    for _ in 0..2 {
        let age: u32 = get(&lb, "/", "").await.field("age").unwrap().parse().unwrap();
        assert!((50..55).contains(&age), "{age}");
    }
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn a_client_that_forbids_storing_does_not_switch_off_waiting_for_the_others() {
    let fresh = || Act::Write(tagged("body", "max-age=60"));
    let held = vec![Act::ReadBody, Act::Hold, fresh()];
    let backend = Backend::scripted(Script::each([held.clone(), held, vec![Act::ReadBody, fresh()]]));
    let lb = caching(&backend, "{}").await;
    let mut spoiler = crowd(&lb, 1, "GET / HTTP/1.1\r\nHost: a\r\nCache-Control: no-store\r\n\r\n").await.remove(0);
    backend.until_requests(1).await;
    let mut clients = crowd(&lb, CROWD, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == CROWD + 1).await;
    backend.release();
    assert_eq!(spoiler.read_response().await.text(), "body");
    backend.until_requests(2).await;
    backend.release_all();
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "body");
    }
    assert_eq!(backend.requests(), 2, "one of those who waited fetches for all of them");
}

#[tokio::test]
async fn an_answer_from_before_a_change_is_not_stored_after_it() {
    let old = vec![Act::ReadBody, Act::Hold, Act::Write(tagged("old", "max-age=60"))];
    let done = vec![Act::ReadBody, Act::Write(response(200, &[], "done"))];
    let new = vec![Act::ReadBody, Act::Write(tagged("new", "max-age=60"))];
    let backend = Backend::scripted(Script::each([old, done, new]));
    let lb = caching(&backend, "{}").await;
    let mut slow = crowd(&lb, 1, GET).await.remove(0);
    backend.until_requests(1).await;
    assert_eq!(ask(&lb, "PUT", "/", "", "x").await.text(), "done");
    backend.release_all();
    assert_eq!(slow.read_response().await.text(), "old");
    assert_eq!(get(&lb, "/", "").await.text(), "new");
}

#[tokio::test]
async fn a_change_by_way_of_another_route_counts_too() {
    let backend =
        backend_saying([tagged("old", "max-age=60"), response(200, &[], "done"), tagged("new", "max-age=60")]);
    let lb = Lb::yaml(format!(
        "upstreams:\n  app:\n    backends: [\"{}\"]\n    health_check: none\nroutes:\n  - match: {{ methods: [GET] }}\n    \
         upstream: app\n    cache: {{ key: {{ query: none }} }}\n  - upstream: app\n",
        backend.url()
    ));
    let lb = lb.start().await;
    assert_eq!(get(&lb, "/?a", "").await.text(), "old");
    assert_eq!(ask(&lb, "POST", "/?b", "", "x").await.text(), "done");
    assert_eq!(get(&lb, "/?c", "").await.text(), "new");
}

#[tokio::test]
async fn cache_status_tells_why_the_backend_was_asked() {
    let fresh = || tagged("x", "max-age=60");
    let stale = || response(200, &[("Cache-Control", "max-age=1"), ("Age", "5"), ("ETag", "\"1\"")], "x");
    for (stored, lines, expected) in [
        (fresh(), "", "portcullis; hit; ttl="),
        (fresh(), "Cache-Control: no-cache\r\n", "portcullis; fwd=request; fwd-status=200; stored; ttl="),
        (stale(), "", "portcullis; fwd=stale; fwd-status=200; stored; ttl="),
        (stale(), "Cache-Control: max-age=100\r\n", "portcullis; fwd=stale; fwd-status=200; stored; ttl="),
        (
            response(200, &[("Cache-Control", "private")], "x"),
            "",
            "portcullis; fwd=uri-miss; fwd-status=200; stored; ttl=",
        ),
    ] {
        let backend = backend_saying([stored, fresh()]);
        let lb = caching(&backend, "{}").await;
        get(&lb, "/", "").await;
        let answer = get(&lb, "/", lines).await;
        assert!(answer.field("cache-status").unwrap().starts_with(expected), "{answer:?} {expected}");
    }
    let backend = backend_saying([response(200, &[("Cache-Control", "no-store")], "x")]);
    let lb = caching(&backend, "{}").await;
    assert_eq!(
        get(&lb, "/", "").await.field("cache-status"),
        Some("portcullis; fwd=uri-miss; fwd-status=200; detail=no_store")
    );
    let answer = ask(&lb, "POST", "/", "", "x").await;
    assert_eq!(answer.field("cache-status"), Some("portcullis; fwd=method; fwd-status=200; detail=method"));
}
