//! The access log: one line a request, whatever became of it, with what happened and nothing that is secret.

use crate::support;

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use support::backend::chunked_response;
use support::{Backend, Client, Lb, Portcullis, wait_until};

const FIELDS: [&str; 24] = [
    "time",
    "id",
    "trace_id",
    "client",
    "identity",
    "dry_run",
    "method",
    "host",
    "path",
    "route",
    "upstream",
    "backend",
    "attempts",
    "status",
    "bytes_in",
    "bytes_out",
    "total_ms",
    "first_byte_ms",
    "connect_ms",
    "protocol",
    "tls",
    "cache",
    "encoding",
    "reason",
];

/// The lines as they were written, once there are so many.
async fn raw_lines(lb: &Lb, count: usize) -> Vec<String> {
    lb.access_log(count).await;
    let text = std::fs::read_to_string(lb.folder().join("access.log")).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn millis(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field} in {line}"))
}

#[tokio::test]
async fn the_fields_stand_in_the_documented_order() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).yaml_route("match: { path: /here }").start().await;
    lb.get("/here").await;
    lb.get("/lost").await;

    for line in raw_lines(&lb, 2).await {
        let places = FIELDS.iter().map(|field| line.find(&format!("\"{field}\":")));
        let places = places.collect::<Option<Vec<_>>>().unwrap_or_else(|| panic!("a field is missing: {line}"));
        assert!(places.is_sorted(), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap().as_object().unwrap().len(), FIELDS.len(), "{line}");
    }
}

#[tokio::test]
async fn a_line_says_what_happened() {
    let backend = Backend::answering(201, "made it");
    let lb = Lb::with_backends([&backend]).yaml_route("name: shop").start().await;
    lb.post("/cart?token=secret", "one book").await;

    let line = &lb.access_log(1).await[0];

    let expected = [
        ("client", "127.0.0.1".into()),
        ("method", "POST".into()),
        ("host", "localhost".into()),
        ("path", "/cart".into()),
        ("route", "shop".into()),
        ("upstream", "app".into()),
        ("backend", backend.address().to_string().into()),
        ("status", Value::from(201)),
        ("bytes_in", Value::from(8)),
        ("bytes_out", Value::from(7)),
        ("protocol", "HTTP/1.1".into()),
        ("tls", Value::Null),
        ("cache", Value::Null),
        ("reason", "ok".into()),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!(line["attempts"][0]["outcome"], "ok", "{line}");
    assert_eq!(line["attempts"][0]["backend"], line["backend"], "{line}");
    assert_eq!(backend.only_request().field("x-request-id"), line["id"].as_str());
    assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
}

#[tokio::test]
async fn times_add_up() {
    let backend = Backend::slow(Duration::from_millis(150), "slow");
    let lb = Lb::with_backends([&backend]).start().await;
    lb.get("/").await;
    lb.get("/").await;

    let log = lb.access_log(2).await;

    for line in &log {
        assert!((150.0..1000.0).contains(&millis(line, "first_byte_ms")), "{line}");
        assert!(millis(line, "total_ms") >= millis(line, "first_byte_ms"), "{line}");
        assert!(line["attempts"][0]["ms"].as_f64().unwrap() <= millis(line, "total_ms"), "{line}");
    }
    assert!(millis(&log[0], "connect_ms") < 150.0, "{}", log[0]);
    assert_eq!(log[1]["connect_ms"], Value::Null, "a reused connection was not connected: {}", log[1]);
}

#[tokio::test]
async fn keep_alive_requests_have_a_line_each_as_soon_as_they_end() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.tls().await;

    for number in 1..=3 {
        client.exchange(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(lb.access_log(number).await[number - 1]["path"], format!("/{number}"));
    }

    let log = lb.access_log(3).await;
    assert!(log.iter().all(|line| line["tls"] == "TLSv1.3" && line["protocol"] == "HTTP/1.1"), "{log:#?}");
}

#[tokio::test]
async fn http2_streams_have_a_line_each() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;

    tokio::join!(client.get("/a?secret=1"), client.post("/b", "12345"), client.get("/c"));

    let log = lb.access_log(3).await;
    let mut paths = log.iter().map(|line| line["path"].as_str().unwrap()).collect::<Vec<_>>();
    paths.sort_unstable();
    assert_eq!(paths, ["/a", "/b", "/c"]);
    for line in &log {
        assert_eq!((&line["protocol"], &line["tls"]), (&"HTTP/2".into(), &"TLSv1.3".into()), "{line}");
        assert_eq!((&line["host"], &line["bytes_out"]), (&"localhost".into(), &5.into()), "{line}");
        assert_eq!(line["bytes_in"], if line["path"] == "/b" { 5 } else { 0 }, "{line}");
    }
}

#[tokio::test]
async fn bytes_are_those_of_bodies_without_their_framing() {
    let backend = Backend::writing(chunked_response(&["hello", " ", "you"], &[]));
    let lb = Lb::with_backends([&backend]).start().await;
    lb.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;

    let line = &lb.access_log(1).await[0];

    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &9.into()), "{line}");
}

#[tokio::test]
async fn a_head_answer_has_no_body_bytes() {
    let backend = Backend::writing("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_response_to_head().await;

    let line = &lb.access_log(1).await[0];

    assert_eq!((&line["bytes_out"], &line["reason"]), (&0.into(), &"ok".into()), "{line}");
}

#[tokio::test]
async fn answers_of_our_own_are_logged_without_a_backend() {
    let yaml = "upstreams: {}\nroutes:\n  - { match: { path: /hi }, respond: { status: 200, body: hello } }\n  \
                - { match: { path: /old }, redirect: { to: 'https://example.com/', status: 308 } }\n";
    let lb = Lb::yaml(yaml).start().await;
    lb.get("/hi").await;
    lb.get("/old").await;
    lb.get("/nothing").await;

    let log = lb.access_log(3).await;

    let facts = log.iter().map(|line| (line["status"].as_u64().unwrap(), line["reason"].as_str().unwrap()));
    assert_eq!(facts.collect::<Vec<_>>(), [(200, "ok"), (308, "ok"), (404, "no_route")]);
    for line in &log {
        assert_eq!((&line["backend"], &line["upstream"]), (&Value::Null, &Value::Null), "{line}");
        assert_eq!(line["attempts"], Value::Array(Vec::new()), "{line}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_has_its_line_and_the_backend_is_not_blamed() {
    let backend = Backend::held("late");
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.until_requests(1).await;
    drop(client);

    let line = &lb.access_log(1).await[0];

    assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &Value::Null), "{line}");
    assert_eq!(line["attempts"][0]["outcome"], "client_gone", "{line}");
    lb.until_idle().await;
    let reading = lb.upstream("app").members()[0].backend.reading();
    assert_eq!((reading.errors, reading.failures_in_row), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_response_has_its_line() {
    let backend = Backend::answering(200, &"x".repeat(16 << 20));
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_exactly(100).await;
    drop(client);

    let line = &lb.access_log(1).await[0];

    assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &200.into()), "{line}");
}

#[tokio::test]
async fn an_http2_stream_that_is_reset_has_its_line() {
    let backend = Backend::held("late");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    {
        let request = client.request(client.build("GET", "/"), &[]);
        tokio::pin!(request);
        let asked = backend.until_requests(1);
        tokio::select! { _ = &mut request => panic!("nobody answered"), () = asked => {} }
    }

    let line = &lb.access_log(1).await[0];

    assert_eq!(line["reason"], "client_gone", "{line}");
    lb.until_idle().await;
}

#[tokio::test]
async fn what_a_client_writes_cannot_break_a_line() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let long = "y".repeat(10_000);
    lb.get(&format!("/{long}?q")).await;
    lb.get("/%0a%22,%22reason%22:%22ok").await;
    lb.send("GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: \"}{\r\n\r\n").await;

    let lines = raw_lines(&lb, 3).await;

    assert!(lines[0].len() < 4000, "{} bytes", lines[0].len());
    assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_request() {
    let backend = Backend::answering(200, "hello");
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("access.fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Open at both ends, so that opening it waits for nobody; never read.
    let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let builder = Lb::with_backends([&backend]).yaml_section("log: { access: access.fifo, dashboard: none }");
    let lb = builder.try_start_in(folder).await.unwrap();
    let mut client = lb.raw().await;

    // A pipe holds 64 KiB, and a line has some 500 bytes.
    for _ in 0..500 {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, "hello");
    }

    assert!(lb.shutdown().await);
}

/// More than the queue and a pipe hold.
const FLOOD: usize = 9_500;

#[tokio::test]
async fn lines_that_do_not_fit_are_dropped_and_told_and_requests_pass() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("access.fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let yaml = "listeners: [{ address: 127.0.0.1:0 }]\n\
                routes: [{ respond: { status: 200, body: ok } }]\nadmin: { address: none }\n\
                log: { access: access.fifo, dashboard: none }\n";
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    let program = Portcullis::start(folder, &["run"]);
    let address = program.line_with("listening on ").await.rsplit(' ').next().unwrap().parse().unwrap();

    let mut client = Client::tcp(address).await;
    for _ in 0..FLOOD / 100 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(client.read_response().await.body, "ok");
        }
    }
    // Until now nobody has read a line.
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    std::thread::spawn(move || {
        for _ in BufReader::new(reader).lines() {
            count.fetch_add(1, Relaxed);
        }
    });

    let line = program.line_with(" access log lines were dropped").await;
    let dropped: usize = line.split(' ').rev().nth(5).unwrap().parse().unwrap();
    assert!(dropped > 0 && dropped < FLOOD / 2, "{line}");
    wait_until("each line is read or counted", || read.load(Relaxed) + dropped == FLOOD).await;
}
