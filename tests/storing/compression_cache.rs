//! Compression through the cache: identity is stored once, what it is in a coding is made once, and conditions, parts
//! and purges hold for all of it.

use crate::support;

use bytes::Bytes;
use support::bytes_on_the_wire::Framing;
use support::cached::{ask, backend_saying, crowd, get, request, words};
use support::coded::{CODINGS, JSON, answer, content, encode, text};
use support::{Act, Backend, Client, Lb, Response, Script, wait_for};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=600");
const TAG: (&str, &str) = ("ETag", "\"1\"");

async fn caching(backend: &Backend) -> Lb {
    Lb::with_backends([backend])
        .yaml_route("expose: [cache]")
        .yaml_route("cache: {}")
        .yaml_route("compress: { algorithms: [zstd, br, gzip, deflate] }")
        .start()
        .await
}

async fn get_in(lb: &Lb, coding: &str) -> Response {
    get(lb, "/", &format!("Accept-Encoding: {coding}\r\n")).await
}

fn stored(body: &str) -> Bytes {
    answer(&[JSON, FRESH, TAG], body.as_bytes())
}

/// The coding of an answer, which must have this content.
#[track_caller]
fn coding_of(got: &Response, body: &str) -> String {
    assert_eq!(got.status, 200, "{got:?}");
    assert!(content(got) == body.as_bytes(), "{:?}", got.headers);
    assert_eq!(got.fields("vary"), ["Accept-Encoding"]);
    let coding = got.field("content-encoding").unwrap_or("identity");
    assert_eq!(got.field("etag"), Some(if coding == "identity" { "\"1\"" } else { "W/\"1\"" }));
    coding.to_owned()
}

#[tokio::test]
async fn one_stored_answer_serves_every_coding_whichever_is_asked_for_first() {
    let all = ["identity", "zstd", "br", "gzip", "deflate"];
    for first in 0..all.len() {
        let (body, order) = (text(20_000), all.iter().cycle().skip(first).take(all.len()));
        let backend = Backend::writing(stored(&body));
        let lb = caching(&backend).await;
        for coding in order {
            assert_eq!(coding_of(&get_in(&lb, coding).await, &body), *coding);
        }
        assert_eq!(backend.requests(), 1);
        assert_eq!(backend.only_request().field("accept-encoding"), Some("identity"));
        assert_eq!(words(&lb, 5).await, ["miss", "hit", "hit", "hit", "hit"]);
    }
}

/// Asks until the answer in this coding has its length, which it has once it is stored in it.
async fn until_stored_in(lb: &Lb, coding: &str) -> Response {
    for _ in 0..500 {
        let got = get_in(lb, coding).await;
        if matches!(got.framing, Framing::Length(_)) {
            return got;
        }
    }
    panic!("{coding} is never stored");
}

#[tokio::test]
async fn what_is_hot_is_coded_once_and_then_sent_with_its_length() {
    let body = text(20_000);
    let backend = Backend::writing(stored(&body));
    let lb = caching(&backend).await;
    get_in(&lb, "identity").await;
    for coding in CODINGS {
        let first = get_in(&lb, coding).await;
        let second = get_in(&lb, coding).await;
        assert_eq!(second.framing, Framing::Length(second.body.len()), "{coding}");
        assert_eq!(coding_of(&second, &body), coding);
        assert!(first.body == second.body, "{coding}: what is stored is what was sent");
        assert!(second.field("age").is_some());
    }
    let log = lb.access_log(1 + 2 * CODINGS.len()).await;
    for pair in log[1..].chunks(2) {
        let [first, second] = [&pair[0]["encoding"], &pair[1]["encoding"]];
        assert_eq!((&first["before"], &first["after"]), (&20_000.into(), &second["after"]), "{pair:#?}");
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn a_condition_holds_for_every_coding() {
    let body = text(20_000);
    let backend = Backend::writing(stored(&body));
    let lb = caching(&backend).await;
    for round in 0..3 {
        for coding in CODINGS.into_iter().chain(["identity"]) {
            for tag in ["W/\"1\"", "\"1\"", "\"0\", W/\"1\"", "*"] {
                let lines = format!("Accept-Encoding: {coding}\r\nIf-None-Match: {tag}\r\n");
                let got = get(&lb, "/", &lines).await;
                assert_eq!((got.status, got.body.len()), (304, 0), "{round} {coding} {tag}");
                assert_eq!(got.fields("vary"), ["Accept-Encoding"], "{round} {coding} {tag}");
                // It is that of the form that the client has; `*` tells nothing of it, but what it would get now.
                let weak = tag.contains("W/\"1\"") || (tag == "*" && coding != "identity");
                assert_eq!(got.field("etag"), Some(if weak { "W/\"1\"" } else { "\"1\"" }), "{round} {coding} {tag}");
                assert_eq!(got.field("content-encoding"), None);
            }
            let lines = format!("Accept-Encoding: {coding}\r\nIf-None-Match: W/\"2\"\r\n");
            assert_eq!(coding_of(&get(&lb, "/", &lines).await, &body), coding);
        }
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn a_part_is_cut_from_what_was_not_coded() {
    let body = text(20_000);
    let backend = Backend::writing(stored(&body));
    let lb = caching(&backend).await;
    for round in ["on a miss", "while it is not stored in the coding", "when it is"] {
        for coding in CODINGS {
            let lines = format!("Accept-Encoding: {coding}\r\nRange: bytes=10000-10099\r\n");
            let got = get(&lb, "/", &lines).await;
            assert_eq!((got.status, got.field("content-range")), (206, Some("bytes 10000-10099/20000")), "{round}");
            assert_eq!((got.field("content-encoding"), got.text().as_str()), (None, &body[10_000..10_100]), "{round}");
            assert_eq!(got.field("etag"), Some("\"1\""), "{round}");
            // A weak tag names no bytes, so there is no part of it to go on with.
            let got = get(&lb, "/", &format!("{lines}If-Range: W/\"1\"\r\n")).await;
            assert_eq!(coding_of(&got, &body), coding, "{round}");
        }
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn head_tells_of_what_is_stored_what_get_would_tell() {
    let body = text(20_000);
    let backend = Backend::writing(stored(&body));
    let lb = caching(&backend).await;
    for coding in CODINGS {
        let lines = format!("Accept-Encoding: {coding}\r\n");
        let full = until_stored_in(&lb, coding).await;
        let head = ask(&lb, "HEAD", "/", &lines, "").await;
        let but_age = |got: &Response| {
            got.headers.iter().filter(|(n, _)| !n.eq_ignore_ascii_case("age")).cloned().collect::<Vec<_>>()
        };
        assert_eq!((head.status, but_age(&head)), (200, but_age(&full)), "{coding}");
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn a_head_before_any_get_costs_no_coding_and_breaks_nothing() {
    let body = text(20_000);
    let backend = Backend::writing(stored(&body));
    let lb = caching(&backend).await;
    for _ in 0..2 {
        let head = ask(&lb, "HEAD", "/", "Accept-Encoding: br\r\n", "").await;
        assert_eq!((head.status, head.field("content-encoding"), head.body.len()), (200, Some("br"), 0));
    }
    assert_eq!(coding_of(&get_in(&lb, "br").await, &body), "br");
}

async fn purge(lb: &Lb, query: &str) {
    let request = format!("POST /cache/purge{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(Client::tcp(lb.admin_address()).await.exchange(&request).await.text().trim(), "{\"purged\":1}");
}

#[tokio::test]
async fn a_purge_takes_every_coding_too() {
    let (old, new) = (text(20_000), text(30_000));
    let backend = backend_saying([stored(&old), stored(&new)]);
    let lb = caching(&backend).await;
    for coding in CODINGS {
        until_stored_in(&lb, coding).await;
    }
    purge(&lb, "?url=a/").await;
    for coding in CODINGS {
        assert_eq!(coding_of(&get_in(&lb, coding).await, &new), coding);
    }
    assert_eq!(backend.requests(), 2);
}

/// `304` for what is stored, with these fields.
fn not_modified(fields: &str) -> Bytes {
    format!("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n{fields}\r\n").into()
}

#[tokio::test]
async fn what_is_revalidated_serves_every_coding_as_before() {
    let body = text(20_000);
    let stale = answer(&[JSON, ("Cache-Control", "max-age=0"), TAG], body.as_bytes());
    let backend = backend_saying([
        stale,
        not_modified("Cache-Control: max-age=0\r\n"),
        not_modified("Cache-Control: max-age=600\r\n"),
    ]);
    let lb = caching(&backend).await;
    for coding in ["br", "br", "gzip", "br", "identity", "zstd"] {
        assert_eq!(coding_of(&get_in(&lb, coding).await, &body), coding);
    }
    assert_eq!(words(&lb, 6).await, ["miss", "revalidated", "revalidated", "hit", "hit", "hit"]);
    assert!(backend.received()[1..].iter().all(|request| request.field("if-none-match") == Some("\"1\"")));
}

#[tokio::test]
async fn a_soft_purge_keeps_what_is_coded_where_nothing_has_changed() {
    let body = text(20_000);
    let backend = backend_saying([stored(&body), not_modified("Cache-Control: max-age=600\r\n")]);
    let lb = caching(&backend).await;
    let before = until_stored_in(&lb, "br").await;
    purge(&lb, "?url=a/&soft=true").await;
    assert_eq!(coding_of(&get_in(&lb, "br").await, &body), "br");
    let after = get_in(&lb, "br").await;
    assert_eq!(coding_of(&after, &body), "br");
    assert!(after.framing == before.framing && after.body == before.body, "nobody made it anew");
    assert_eq!(coding_of(&until_stored_in(&lb, "gzip").await, &body), "gzip");
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn what_has_changed_is_never_sent_as_it_was_in_a_coding() {
    let (old, new) = (text(20_000), text(30_000));
    let stale = answer(&[JSON, ("Cache-Control", "max-age=0"), TAG], old.as_bytes());
    let backend = backend_saying([stale.clone(), stale, stored(&new)]);
    let lb = caching(&backend).await;
    for body in [&old, &old, &new, &new, &new] {
        assert_eq!(coding_of(&get_in(&lb, "zstd").await, body), "zstd");
    }
    assert_eq!(backend.requests(), 3);
}

#[tokio::test]
async fn a_backend_that_varies_by_accept_encoding_does_not_split_the_store() {
    for (vary, merged) in
        [("Accept-Encoding", "Accept-Encoding"), ("X-Lang, accept-encoding", "X-Lang, accept-encoding")]
    {
        let body = text(20_000);
        let backend = Backend::writing(answer(&[JSON, FRESH, ("Vary", vary)], body.as_bytes()));
        let lb = caching(&backend).await;
        for coding in CODINGS.into_iter().chain(["identity", "gzip, br", "x"]) {
            let got = get_in(&lb, coding).await;
            assert!(content(&got) == body.as_bytes(), "{coding}");
            assert_eq!(got.fields("vary"), [merged], "{coding}");
        }
        assert_eq!(backend.requests(), 1, "{vary}");
        get(&lb, "/", "X-Lang: x\r\nAccept-Encoding: gzip\r\n").await;
        assert_eq!(backend.requests(), if merged == vary && vary.starts_with('X') { 2 } else { 1 }, "{vary}");
    }
}

#[tokio::test]
async fn a_backend_that_codes_though_it_was_asked_not_to_is_read_by_everybody() {
    let body = text(20_000);
    for sent in CODINGS {
        let fields = [JSON, FRESH, TAG, ("Content-Encoding", sent)];
        let backend = Backend::writing(answer(&fields, &encode(sent, body.as_bytes())));
        let lb = caching(&backend).await;
        for coding in CODINGS.into_iter().chain(["identity"]).chain(CODINGS) {
            let got = get_in(&lb, coding).await;
            assert!(content(&got) == body.as_bytes(), "{sent} for {coding}: {:?}", got.headers);
            let came = got.field("content-encoding");
            assert!(came.is_none() || came == Some(coding), "{sent} for {coding}: {:?}", got.headers);
            assert_eq!(got.fields("vary"), ["Accept-Encoding"], "{sent} for {coding}");
        }
    }
}

#[tokio::test]
async fn a_crowd_of_every_coding_asks_the_backend_once() {
    let body = text(20_000);
    let backend = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Hold, Act::Write(stored(&body))]]));
    let lb = caching(&backend).await;
    let mut clients = Vec::new();
    for coding in CODINGS.into_iter().chain(["identity"]) {
        clients.extend(crowd(&lb, 4, &request("GET", "/", &format!("Accept-Encoding: {coding}\r\n"), "")).await);
    }
    wait_for("all should be there", || (lb.in_flight() == 20).then_some(())).await;
    backend.release_all();
    for (number, client) in clients.iter_mut().enumerate() {
        let wanted = CODINGS.get(number / 4).unwrap_or(&"identity");
        assert_eq!(coding_of(&client.read_response().await, &body), *wanted);
    }
    assert_eq!(backend.requests(), 1);
}
