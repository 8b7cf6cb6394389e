//! What do clients read when something goes wrong? Pages of routes, problems and lines of text, through the front door.

use crate::support;

use std::fs;

use serde_json::{Value, json};
use support::backend::response;
use support::front_door::Builder;
use support::{Backend, Lb, Response};
use tempfile::TempDir;

const HTML: &str = "<h1>not here</h1>\n";
const JSON: &str = "{\"error\":\"gone wrong\"}\n";

fn pages() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("404.html", HTML), ("any.html", "<h1>sorry</h1>\n"), ("any.json", JSON)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn app(backend: &Backend, errors: &str) -> Builder {
    Lb::with_backends([backend]).yaml_route(&format!("errors: {errors}"))
}

async fn open(builder: Builder) -> Lb {
    builder.try_start_in(pages()).await.unwrap()
}

async fn ask(lb: &Lb, method: &str, lines: &str) -> Response {
    lb.send(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await
}

/// Status and announced length of an answer to HEAD.
async fn ask_for_head(lb: &Lb) -> (u16, Option<String>) {
    let mut client = lb.raw().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let head = client.read_response_to_head().await;
    assert_eq!(client.read_to_end().await.len(), 0);
    (head.status, head.field("content-length").map(str::to_owned))
}

/// Type and text of an answer.
fn read(answer: &Response) -> (Option<&str>, String) {
    (answer.field("content-type"), answer.text())
}

#[tokio::test]
async fn a_refusal_is_the_page_that_the_client_reads() {
    let lb = open(app(&Backend::refusing(), "{ 5xx: [any.html, any.json], 404: 404.html }")).await;
    let html = (Some("text/html; charset=utf-8"), "<h1>sorry</h1>\n".to_owned());
    let json = (Some("application/json"), JSON.to_owned());
    for (accept, expected) in [
        ("", &html),
        ("Accept: */*\r\n", &html),
        ("Accept: text/html, */*;q=0.8\r\n", &html),
        ("Accept: application/json\r\n", &json),
        ("Accept: text/html;q=0.4, application/*;q=0.5\r\n", &json),
    ] {
        let answer = ask(&lb, "GET", accept).await;
        assert_eq!((answer.status, read(&answer)), (502, expected.clone()), "{accept}");
        let fields = ["content-length", "vary", "cache-control"].map(|name| answer.field(name).map(str::to_owned));
        let length = expected.1.len().to_string();
        assert_eq!(fields, [Some(length), Some("Accept".into()), Some("no-store".into())]);
        assert!(answer.field("proxy-status").unwrap().contains("connection_refused"));
    }
    assert_eq!(ask_for_head(&lb).await, (502, Some("15".to_owned())));
    let log = lb.access_log(6).await;
    assert!(log.iter().all(|line| (&line["status"], &line["reason"]) == (&json!(502), &json!("connect_refused"))));
}

#[tokio::test]
async fn whoever_reads_none_of_the_pages_gets_our_own_words() {
    let lb = open(app(&Backend::refusing(), "{ 5xx: any.html }")).await;
    let text = ask(&lb, "GET", "Accept: text/plain\r\n").await;
    let words = "502 Bad Gateway: the service could not be reached\n";
    assert_eq!(read(&text), (Some("text/plain; charset=utf-8"), words.to_owned()));
    for accept in ["application/json", "application/problem+json, text/plain;q=0.5"] {
        let problem = ask(&lb, "GET", &format!("Accept: {accept}\r\n")).await;
        assert_eq!(problem.field("content-type"), Some("application/problem+json"));
        let expected = json!({ "title": "Bad Gateway", "status": 502, "detail": "the service could not be reached" });
        assert_eq!(serde_json::from_slice::<Value>(&problem.body).unwrap(), expected);
    }
}

#[tokio::test]
async fn it_is_the_same_over_http2_and_for_upgrades() {
    let backend = Backend::answering(200, "hi");
    let lb = open(app(&backend, "{ 4xx: [any.html, any.json] }").yaml_route("deny: [127.0.0.0/8]")).await;
    let h2 = lb.h2().await;
    let answer = h2.get("/").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (403, &b"<h1>sorry</h1>\n"[..]));
    assert_eq!((answer.field("content-length"), answer.field("vary")), (Some("15"), Some("Accept")));
    let mut request = h2.build("HEAD", "/");
    request.headers_mut().insert("accept", "application/json".parse().unwrap());
    let head = h2.request(request, &[]).await.unwrap();
    assert_eq!((head.field("content-length"), head.body.len()), (Some(&*JSON.len().to_string()), 0));
    let upgrade = ask(&lb, "GET", "Connection: upgrade\r\nUpgrade: websocket\r\n").await;
    assert_eq!((upgrade.status, upgrade.text()), (403, "<h1>sorry</h1>\n".to_owned()));
}

#[tokio::test]
async fn a_page_is_read_again_and_one_that_is_broken_is_not() {
    let lb = open(app(&Backend::refusing(), "{ 5xx: any.html }")).await;
    let page = lb.folder().join("any.html");
    assert!(lb.front().followed_files().contains(&page));
    for (text, expected) in [("<p>new", "<p>new"), ("", "<p>new"), ("<p>newer", "<p>newer")] {
        fs::write(&page, text).unwrap();
        lb.front().reread_files();
        assert_eq!(ask(&lb, "GET", "").await.text(), expected);
    }
    fs::write(&page, vec![b'x'; (256 << 10) + 1]).unwrap();
    lb.front().reread_files();
    assert_eq!(ask(&lb, "GET", "").await.text(), "<p>newer");
}

#[tokio::test]
async fn what_backends_say_is_left_alone_unless_the_route_says_so() {
    let theirs = response(404, &[("ETag", "\"1\""), ("X-Kept", "yes"), ("Content-Type", "text/x")], "theirs");
    let backend = Backend::writing(theirs.clone());
    let lb = open(app(&backend, "{ 404: 404.html }")).await;
    let answer = ask(&lb, "GET", "").await;
    assert_eq!((answer.status, answer.text(), answer.field("etag")), (404, "theirs".to_owned(), Some("\"1\"")));

    let backend = Backend::writing(theirs);
    let lb = open(app(&backend, "{ 404: 404.html, of_backends: true }")).await;
    for _ in 0..2 {
        let answer = ask(&lb, "GET", "").await;
        assert_eq!((answer.status, read(&answer)), (404, (Some("text/html; charset=utf-8"), HTML.to_owned())));
        assert_eq!((answer.field("etag"), answer.field("x-kept")), (None, Some("yes")));
        assert_eq!((answer.field("cache-control"), answer.field("vary")), (Some("no-store"), Some("Accept")));
    }
    let plain = ask(&lb, "GET", "Accept: text/plain\r\n").await;
    assert_eq!((plain.status, plain.text()), (404, "theirs".to_owned()), "no page that this client reads");
    let h2 = lb.h2().await.get("/").await;
    assert_eq!((h2.status.as_u16(), &h2.body[..]), (404, HTML.as_bytes()));
    assert_eq!(ask_for_head(&lb).await, (404, Some(HTML.len().to_string())));
    let posted = lb.post("/", "body").await;
    assert_eq!((posted.status, posted.text()), (404, HTML.to_owned()));
    for line in lb.access_log(6).await {
        assert_eq!((&line["status"], &line["reason"]), (&json!(404), &json!("ok")), "{line}");
        assert_eq!(line["attempts"].as_array().unwrap().len(), 1, "{line}");
    }
}

#[tokio::test]
async fn a_page_in_the_place_of_an_answer_comes_after_retries_and_is_not_stored() {
    let bad = Backend::writing(response(503, &[("Cache-Control", "max-age=60")], "theirs"));
    let more = "retry: { attempts: 2, when: [503] }";
    let app = app(&bad, "{ 5xx: any.html, of_backends: true }").yaml_route(more).yaml_route("cache: {}");
    let lb = open(app).await;
    for _ in 0..2 {
        let answer = ask(&lb, "GET", "").await;
        assert_eq!((answer.status, answer.text()), (503, "<h1>sorry</h1>\n".to_owned()));
    }
    assert!(bad.requests() >= 2, "a page is not stored in the place of an answer");
}
