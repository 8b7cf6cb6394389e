//! The cache at the front door: what is answered without a backend, and what never is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use support::backend::response;
use support::{Act, Backend, Lb, Response, Script};

/// A front door whose one route caches as `cache` says.
async fn caching(backend: &Backend, cache: &str) -> Lb {
    Lb::with_backends([backend]).yaml_route("expose: [cache]").yaml_route(&format!("cache: {cache}")).start().await
}

fn backend(fields: &[(&str, &str)], body: &str) -> Backend {
    Backend::scripted(Script::each([vec![Act::Write(response(200, fields, body))]]))
}

async fn get(lb: &Lb, target: &str, fields: &str) -> Response {
    let mut client = lb.raw().await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    client.read_response().await
}

async fn words(lb: &Lb, count: usize) -> Vec<String> {
    let log = lb.access_log(count).await;
    log.iter().map(|line| line["cache"].as_str().unwrap_or("none").to_owned()).collect()
}

#[tokio::test]
async fn what_is_fresh_is_served_without_the_backend_and_with_its_age() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "hello");
    let lb = caching(&backend, "{}").await;
    let first = get(&lb, "/a", "").await;
    let second = get(&lb, "/a", "").await;
    assert_eq!((first.text(), second.text()), ("hello".into(), "hello".into()));
    assert_eq!((first.field("age"), second.field("age")), (None, Some("0")));
    assert_eq!(backend.requests(), 1);
    assert_eq!(words(&lb, 2).await, ["miss", "hit"]);
}
