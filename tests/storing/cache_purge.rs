//! Purges at the admin address: what is forgotten, what is only revalidated, and what stays.

use crate::support;

use serde_json::{Value, json};
use support::backend::response;
use support::{Act, Backend, Client, Lb, Response, Script};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=600");

async fn caching(backend: &Backend) -> Lb {
    Lb::with_backends([backend])
        .yaml_route("expose: [cache]")
        .yaml_route("cache: {}")
        .yaml_section("admin: { address: 127.0.0.1:0 }")
        .start()
        .await
}

async fn ask(lb: &Lb, host: &str, path: &str) -> Response {
    lb.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

/// Whether the front door has it.
async fn is_stored(lb: &Lb, host: &str, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nCache-Control: only-if-cached\r\n\r\n");
    lb.send(&request).await.status == 200
}

/// Sends a purge as curl does, with the query in the path or in the body.
async fn purge(lb: &Lb, query: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST /cache/purge{query} HTTP/1.1\r\nHost: localhost:9901\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = Client::tcp(lb.admin_address()).await.exchange(&request).await;
    (answer.status, serde_json::from_str(&answer.text()).unwrap())
}

const PAGES: [(&str, &str); 4] = [("a", "/x/1"), ("a", "/x/2?q=1"), ("a:8080", "/x/1"), ("b", "/x/1")];

#[tokio::test]
async fn a_purge_forgets_what_it_names_and_nothing_else() {
    for (query, body, left) in [
        ("?url=http://A:80/x/1", "", [false, true, true, true]),
        ("", r#"{"url": "a/x/2?q=1"}"#, [true, false, true, true]),
        ("?prefix=a/x/", "", [false, false, true, true]),
        ("", "host=A", [false, false, false, true]),
        ("?host=a:8080", "", [true, true, false, true]),
        ("?tag=on-b", "", [true, true, true, false]),
        ("?all=true", "", [false; 4]),
        ("?tag=on", "", [true; 4]),
        ("?url=https://a/x/1", "", [true; 4]),
    ] {
        let fields =
            |host: &str| vec![Act::Write(response(200, &[FRESH, ("Surrogate-Key", &format!("page on-{host}"))], "x"))];
        let backend = Backend::scripted(Script::each(PAGES.map(|(host, _)| fields(host))));
        let lb = caching(&backend).await;
        for (host, path) in PAGES {
            assert_eq!(ask(&lb, host, path).await.status, 200);
            assert!(is_stored(&lb, host, path).await);
        }
        let purged = left.iter().filter(|left| !**left).count();
        assert_eq!(purge(&lb, query, body).await, (200, json!({ "purged": purged })), "{query}{body}");
        for ((host, path), left) in PAGES.into_iter().zip(left) {
            assert_eq!(is_stored(&lb, host, path).await, left, "{query}{body}: {host}{path}");
        }
    }
}

#[tokio::test]
async fn what_is_purged_softly_is_revalidated_and_not_sent_again() {
    let first = vec![Act::Write(response(200, &[FRESH, ("ETag", "\"1\"")], "body"))];
    let second =
        vec![Act::Write("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nCache-Control: max-age=600\r\n\r\n".into())];
    let backend = Backend::scripted(Script::each([first, second]));
    let lb = caching(&backend).await;
    ask(&lb, "a", "/1").await;
    assert_eq!(purge(&lb, "?url=a/1&soft=true", "").await.1["purged"], 1);
    let answer = ask(&lb, "a", "/1").await;
    assert_eq!((answer.status, answer.text()), (200, "body".to_owned()));
    assert_eq!(backend.received()[1].head.field("if-none-match"), Some("\"1\""));
    assert_eq!((ask(&lb, "a", "/1").await.text(), backend.requests()), ("body".to_owned(), 2));
}

#[tokio::test]
async fn a_purge_holds_for_answers_that_are_on_their_way() {
    let early = [Act::Hold, Act::Write(response(200, &[FRESH], "old"))];
    let half = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 3\r\n\r\no";
    let late = [Act::Write(half.into()), Act::Hold, Act::Write("ld".into())];
    for answer in [early.to_vec(), late.to_vec()] {
        let backend = Backend::scripted(Script::each([answer, vec![Act::Write(response(200, &[FRESH], "new"))]]));
        let lb = caching(&backend).await;
        let mut client = lb.raw().await;
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        backend.until_requests(1).await;
        assert_eq!(purge(&lb, "?url=http://a/1", "").await.0, 200);
        backend.release();
        assert_eq!(client.read_response().await.text(), "old", "it is still the answer to this request");
        assert!(!is_stored(&lb, "a", "/1").await);
        assert_eq!(ask(&lb, "a", "/1").await.text(), "new");
        assert!(is_stored(&lb, "a", "/1").await);
    }
}

#[tokio::test]
async fn a_purge_that_is_not_clear_changes_nothing_and_says_why() {
    let backend = Backend::scripted(Script::each([vec![Act::Write(response(200, &[FRESH], "x"))]]));
    let lb = caching(&backend).await;
    ask(&lb, "a", "/1").await;
    for (query, body) in [
        ("", ""),
        ("?prefix=", ""),
        ("?url=/1", ""),
        ("?url=a/1&b=2", ""),
        ("?prefix=a&host=a", ""),
        ("", "{\"url\": []}"),
        ("?all=false", ""),
    ] {
        let (status, answer) = purge(&lb, query, body).await;
        assert!(status == 400 && answer["detail"].as_str().is_some_and(|why| !why.is_empty()), "{query}: {answer}");
    }
    let page = "POST /cache/purge?all=true HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\n\r\n";
    assert_eq!(Client::tcp(lb.admin_address()).await.exchange(page).await.status, 403);
    assert!(is_stored(&lb, "a", "/1").await);
}

#[tokio::test]
async fn the_admin_address_says_how_the_cache_is() {
    let backend = Backend::scripted(Script::each([vec![Act::Write(response(200, &[FRESH], "x"))]]));
    let lb = caching(&backend).await;
    for _ in 0..4 {
        ask(&lb, "a", "/1").await;
    }
    lb.until_idle().await;
    let answer = Client::tcp(lb.admin_address()).await.exchange("GET /cache HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let status: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((answer.status, &status["hits"], &status["misses"]), (200, &json!(3), &json!(1)));
    assert_eq!(
        (&status["objects"], &status["hit_ratio"], &status["size"]),
        (&json!(1), &json!(0.75), &json!(256 << 20))
    );
    assert!(status["bytes"].as_u64().is_some_and(|bytes| (100..4096).contains(&bytes)), "{status}");
}
