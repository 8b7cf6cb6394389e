//! One reason for each request that fails: is it the same in the log, in `Proxy-Status` and in the status, for every
//! refusal there is?

use crate::support;

use std::collections::BTreeSet;

use jiff::Timestamp;
use portcullis::answer::Refusal;
use portcullis::auth::keys::NewKey;
use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Lb, Response, Script};

/// What is said after an answer has begun, to nobody, or to a client that is still sending and may not listen: only the log
/// is sure to say it. Other tests look there.
const ONLY_LOGGED: [&str; 5] = ["slow_reader", "http2_flood", "stalled_request", "stalled_response", "backend_removed"];

/// What no client and no backend can bring about.
const NEVER: [&str; 1] = ["internal"];

/// The reasons that were told.
#[derive(Default)]
struct Told(BTreeSet<&'static str>);

impl Told {
    /// Compares the three, for the last request of a front door.
    async fn check(&mut self, lb: &Lb, answer: &Response, label: &str) {
        let refusal = Refusal::ALL.iter().find(|refusal| refusal.label() == label).unwrap();
        assert_eq!(answer.status, refusal.status().as_u16(), "{label}");
        assert_eq!(answer.field("proxy-status"), Some(refusal.proxy_status().as_str()), "{label}");
        let log = lb.folder().join("access.log");
        let logged = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .find(|line| line["reason"] == label)
        };
        let line = support::wait_for(&format!("{label} should be in the log"), logged).await;
        assert_eq!(line["status"], refusal.status().as_u16(), "{label}");
        self.0.insert(refusal.label());
    }

    async fn send(&mut self, lb: &Lb, request: &str, label: &str) {
        let answer = lb.send(request).await;
        self.check(lb, &answer, label).await;
    }
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[tokio::test]
async fn every_refusal_is_one_word_to_the_client_the_log_and_proxy_status() {
    let mut told = Told::default();
    heads(&mut told).await;
    slow_clients(&mut told).await;
    who_may_come_in(&mut told).await;
    backends(&mut told).await;
    full_backends(&mut told).await;

    let all: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
    let elsewhere = ONLY_LOGGED.into_iter().chain(NEVER).collect::<BTreeSet<_>>();
    let missing: BTreeSet<_> = all.difference(&told.0).copied().collect();
    assert_eq!(missing, elsewhere, "refusals that nobody has provoked");
}

async fn heads(told: &mut Told) {
    let backend = Backend::answering(200, "");
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ headers: 20 }} }}]\nupstreams: {{ app: {{ backends: ['{}'], \
         health_check: none }} }}\nroutes:\n  - {{ match: {{ path: /app/* }}, upstream: app, body_limit: 10B, cache: {{}} }}\n",
        backend.url()
    );
    let lb = Lb::yaml(yaml).start().await;
    let post = |fields: &str| format!("POST /app/a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    for (request, label) in [
        ("nonsense\r\n\r\n".to_owned(), "malformed_request"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "bad_host"),
        (get("/%zz", ""), "bad_target"),
        (get("/", &"X-A: b\r\n".repeat(30)), "header_too_large"),
        (get(&format!("/{}", "a".repeat(17_000)), ""), "target_too_long"),
        (post("Content-Length: 100"), "body_too_large"),
        (post("Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "malformed_body"),
        (get("/app/a", "Expect: miracles\r\n"), "unknown_expectation"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), "method_not_supported"),
        (get("/lost", ""), "no_route"),
        (get("/app/a", "Cache-Control: only-if-cached\r\n"), "only_if_cached"),
    ] {
        told.send(&lb, &request, label).await;
    }
}

async fn slow_clients(told: &mut Told) {
    let backend = Backend::answering(200, "");
    let door = |keys: &str| {
        let listeners = format!("listeners: [{{ address: 127.0.0.1:0, {keys} }}]");
        Lb::with_backends([&backend]).yaml_section(&listeners)
    };
    let begun = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc";
    for (keys, sent, label) in [
        ("timeouts: { header: 200ms }", "GET / HTT", "header_timeout"),
        ("timeouts: { body: 200ms }", begun, "body_timeout"),
        ("timeouts: { request: 300ms }", begun, "request_timeout"),
        ("limits: { min_rate: 100KiB/s }", begun, "slow_body"),
    ] {
        let lb = door(keys).start().await;
        let mut client = lb.raw().await;
        client.send(sent).await;
        let answer = client.read_response().await;
        told.check(&lb, &answer, label).await;
    }
}

/// A key of a file, and what is shown for it.
fn key(more: &str) -> (String, String) {
    let key = NewKey::make();
    let entry = format!("- {{ name: ci, hash: {}, {more} }}\n", key.hash().show());
    (entry, get("/", &format!("X-API-Key: {}\r\n", key.text())))
}

async fn who_may_come_in(told: &mut Told) {
    let (yesterday, tomorrow) = {
        let at = |seconds: i64| Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
        (at(-86_400), at(86_400))
    };
    let keys = [
        (key(&format!("expires: {yesterday}")), "credentials_expired"),
        (key(&format!("not_before: {tomorrow}")), "credentials_too_early"),
        (key("routes: [another]"), "key_route"),
        (key("methods: [POST]"), "key_method"),
        (key("addresses: [203.0.113.0/24]"), "key_address"),
    ];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("keys.yaml"),
        keys.iter().map(|((entry, _), _)| entry.as_str()).collect::<String>(),
    )
    .unwrap();
    let yaml = |route: &str| {
        let routes = "  - { match: { path: /another }, name: another, respond: {} }\n";
        Lb::yaml(format!(
            "keys: {{ team: {{ file: keys.yaml }}, gone: {{ sqlite: gone.db }} }}\nroutes:\n{routes}  - {{ respond: {{}}, {route} }}\n"
        ))
    };
    let lb = yaml("name: api, auth: { api_keys: team }").try_start_in(folder).await.unwrap();
    for ((_, request), label) in &keys {
        told.send(&lb, request, label).await;
    }
    told.send(&lb, &get("/", ""), "credentials_missing").await;
    told.send(&lb, &get("/", "X-API-Key: a\r\nX-API-Key: b\r\n"), "credentials_malformed").await;
    told.send(&lb, &get("/", &format!("X-API-Key: {}\r\n", NewKey::make().text())), "credentials_wrong").await;
    revoked(told).await;
    for (route, label) in [
        ("auth: { api_keys: gone }", "auth_unavailable"),
        ("deny: [127.0.0.0/8]", "address_denied"),
        ("maintenance: {}", "maintenance"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.yaml"), "[]").unwrap();
        // A database that is none.
        std::fs::write(folder.path().join("gone.db"), "not a database").unwrap();
        let lb = yaml(route).try_start_in(folder).await.unwrap();
        told.send(&lb, &get("/", ""), label).await;
    }
    let lb = Lb::yaml("routes: [{ respond: {}, rate_limits: [{ rate: 1/h, key: client_address }] }]\n").start().await;
    assert_eq!(lb.get("/").await.status, 200);
    told.send(&lb, &get("/", ""), "rate_limited").await;
}

/// Only a database can take a key back.
async fn revoked(told: &mut Told) {
    let folder = tempfile::tempdir().unwrap();
    let key = NewKey::make();
    let entry = format!("- {{ name: ci, id: abcd1234, hash: {} }}\n", key.hash().show());
    let mut database = portcullis::auth::keys::Database::open_or_make(&folder.path().join("keys.db")).unwrap();
    let parsed = portcullis::config::parse_keys(entry.as_bytes()).unwrap().remove(0);
    database.add(&parsed, Timestamp::now()).unwrap();
    database.revoke("ci", Timestamp::now()).unwrap();
    drop(database);
    let yaml = "keys: { team: { sqlite: keys.db } }\nroutes: [{ respond: {}, auth: { api_keys: team } }]\n";
    let lb = Lb::yaml(yaml).try_start_in(folder).await.unwrap();
    told.send(&lb, &get("/", &format!("X-API-Key: {}\r\n", key.text())), "credentials_revoked").await;
}

async fn backends(told: &mut Told) {
    let timeouts = "timeouts: { connect: 300ms, first_byte: 200ms }";
    for (backend, route, label) in [
        (Backend::refusing(), "retry: none", "connect_refused"),
        (Backend::black_hole(), "retry: none", "connect_timeout"),
        (Backend::over_tls(Script::answering(200, "")), "retry: none", "backend_tls"),
        (Backend::closing_after_request(), "retry: none", "backend_closed"),
        (Backend::writing("HTTP/1.1 banana\r\n\r\n"), "retry: none", "backend_protocol"),
        (Backend::hanging(), "retry: none", "first_byte_timeout"),
        (Backend::hanging(), "retry: { attempts: 1, per_attempt: 100ms }", "attempt_timeout"),
        (Backend::hanging(), "timeout: 100ms", "route_timeout"),
    ] {
        let tls = if label == "backend_tls" { "tls: { server_name: localhost }" } else { "balance: random" };
        let lb =
            Lb::with_backends([&backend]).yaml_upstream(timeouts).yaml_upstream(tls).yaml_route(route).start().await;
        told.send(&lb, &get("/", ""), label).await;
    }
    let backend = Backend::answering(200, "");
    let yaml = format!(
        "upstreams: {{ app: {{ backends: [{{ url: '{}', weight: 0 }}], health_check: none }} }}\nroutes: [{{ upstream: app }}]\n",
        backend.url()
    );
    told.send(&Lb::yaml(yaml).start().await, &get("/", ""), "no_backend").await;
}

async fn full_backends(told: &mut Told) {
    let app = |backend: &Backend, keys: &str, upstream: &str| -> Builder {
        Lb::yaml(format!(
            "upstreams:\n  app:\n    backends: [{{ url: '{}', {keys} }}]\n    health_check: none\n    {upstream}\nroutes: [{{ upstream: app, retry: none }}]\n",
            backend.url()
        ))
    };
    let held = Backend::held("served");
    for (queue, label) in [("queue: none", "queue_full"), ("queue: { size: 1, timeout: 100ms }", "queue_timeout")] {
        let lb = app(&held, "max_connections: 1", queue).start().await;
        let before = held.requests();
        let mut first = lb.raw().await;
        first.send(get("/", "")).await;
        held.until_requests(before + 1).await;
        told.send(&lb, &get("/", ""), label).await;
    }
    let backend = Backend::answering(200, "");
    let lb = app(&backend, "quota: [1/h]", "queue: none").start().await;
    assert_eq!(lb.get("/").await.status, 200);
    told.send(&lb, &get("/", ""), "quota_used_up").await;
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
    let busy =
        Backend::scripted(Script::each([vec![Act::Write(busy.into())], vec![Act::Write(response(200, &[], ""))]]));
    let lb = app(&busy, "weight: 1", "queue: none").start().await;
    assert_eq!(lb.get("/").await.status, 429);
    told.send(&lb, &get("/", ""), "throttled").await;
}

/// Rows of the table in the manual: reason, status, error type.
fn rows() -> Vec<(String, String, String)> {
    let manual = std::fs::read_to_string("docs/reasons.md").unwrap();
    let rows = manual.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> =
            row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        assert!(cells.len() == 5 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        (cells[0].clone(), cells[1].clone(), cells[2].clone())
    })
    .collect()
}

#[test]
fn the_manual_has_a_row_for_each_reason_and_none_that_is_wrong() {
    let all = Refusal::ALL.iter().map(|refusal| {
        let (status, error) = (refusal.status().as_u16().to_string(), refusal.error_type().to_owned());
        (refusal.label().to_owned(), status, error)
    });
    assert_eq!(rows().into_iter().collect::<BTreeSet<_>>(), all.collect::<BTreeSet<_>>());
    assert_eq!(rows().len(), Refusal::ALL.len());
}

#[test]
fn whoever_guesses_is_not_told_how_near_it_was() {
    for refusal in Refusal::ALL.iter().filter(|refusal| matches!(refusal.status().as_u16(), 401 | 403)) {
        assert!(matches!(refusal.told(), "unauthenticated" | "forbidden"), "{refusal:?}");
        assert!(!refusal.proxy_status().contains(refusal.label()), "{refusal:?}");
    }
}
