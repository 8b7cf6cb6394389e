//! `portcullis explain`: does it say of a request what the front door would do with it?

use crate::support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Backend, Lb};
use tempfile::TempDir;

const YAML: &str = "\
listeners:
  - { name: plain, address: 127.0.0.1:8080 }
  - { name: secure, address: 127.0.0.1:8443, tls: { self_signed: [localhost] } }
  - { name: old, address: 127.0.0.1:8081, redirect_to_https: 8443 }
upstreams:
  app:
    balance: round_robin
    backends: [{ url: 127.0.0.1:1, weight: 2 }, { url: 127.0.0.1:2, name: two }, { url: 127.0.0.1:3, tier: 1 }, { url: 127.0.0.1:4, weight: 0 }]
routes:
  - { name: shop, match: { host: [shop.example], path: /cart/* }, upstream: app, rewrite: { strip_prefix: /cart, host: inner.example },
      headers: { request: { set: { X-Api-Key: hush, X-Plain: seen }, remove: [X-Gone] } }, cache: {}, rate_limits: [{ rate: 5/m, key: client_address }] }
  - { name: beta, match: { host: [shop.example], path: /cart/*, headers: { X-Beta: '1' } }, upstream: app }
  - { name: all, match: { host: [shop.example] }, upstream: app, deny: [203.0.113.0/24] }
  - { name: away, match: { host: [old.example] }, redirect: { to: 'https://new.example/*', status: 301 } }
  - { name: post, match: { host: [shop.example], path: /cart/*, methods: [POST] }, upstream: app, body_limit: 1KiB }
";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("portcullis.yaml"), YAML).unwrap();
    folder
}

/// The exit code, and what was printed.
fn explain_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = command.arg("explain").args(arguments).current_dir(folder).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn explain(arguments: &[&str]) -> (Option<i32>, String) {
    explain_in(folder().path(), arguments)
}

fn json(arguments: &[&str]) -> Value {
    let (code, text) = explain(&[arguments, &["--json"]].concat());
    assert!(matches!(code, Some(0 | 1)), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn it_says_where_a_request_goes_and_why_and_what_the_backend_gets() {
    let (code, text) = explain(&["GET", "https://shop.example:8443/cart/a?b=c", "-H", "X-Gone: 1", "-H", "X-Kept: 2"]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "GET /cart/a?b=c on shop.example",
        "listener   secure on 127.0.0.1:8443 with TLS",
        "client     127.0.0.1",
        "route      shop: host shop.example, path /cart/*",
        "not beta: it wants field x-beta: 1",
        "not post: it wants method POST",
        "not all: it matches too, and is less specific",
        "strip /cart, host inner.example",
        "by client address",
        "cache      https://shop.example:8443/cart/a?b=c",
        "upstream   app: round_robin",
        "  1. ",
        "127.0.0.1:3 PENDING, tier 1, weight 1, once no other is left",
        "127.0.0.1:1 PENDING, tier 0, weight 2",
        "two PENDING, tier 0, weight 1",
        "127.0.0.1:4 PENDING, tier 0, weight 0, not asked: weight",
        "GET /a?b=c HTTP/1.1",
        "host: inner.example",
        "x-kept: 2",
        "x-plain: seen",
        "x-api-key: (not shown)",
        "x-forwarded-proto: https",
        "outcome    forwarded",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("x-gone:") && !text.contains("hush"), "{text}");
}

#[test]
fn refusals_answers_and_redirects_have_their_exit_codes() {
    let denied = json(&["GET", "http://shop.example:8080/", "--from", "203.0.113.9"]);
    assert_eq!(
        (&denied["outcome"]["kind"], &denied["outcome"]["reason"]),
        (&"refused".into(), &"address_denied".into())
    );
    assert_eq!((&denied["steps"][0]["step"], &denied["steps"][0]["verdict"]), (&"addresses".into(), &"refuses".into()));
    assert!(denied["upstream"].is_null() && denied["head"].as_array().unwrap().is_empty());
    for (arguments, code, part) in [
        (&["GET", "http://shop.example:8080/", "--from", "203.0.113.9"][..], 1, "refused 403 address_denied"),
        (&["GET", "http://nobody.example:8080/"], 1, "refused 404 no_route"),
        (&["GET", "http://shop.example:8080/%zz"], 1, "refused 400 bad_target"),
        (&["POST", "http://shop.example:8080/cart/a", "-H", "Content-Length: 5000"], 1, "refused 413 body_too_large"),
        (&["GET", "http://old.example:8080/a?b"], 0, "answered 301 location: https://new.example/a?b"),
        (&["GET", "http://shop.example:8081/a"], 0, "answered 308 location: https://shop.example:8443/a"),
        (&["GET", "http://10.0.0.1:8080/cart/x", "--host", "shop.example"], 0, "route      shop"),
        (&["GET", "http://shop.example/cart/x"], 0, "no listener for http has port 80"),
        (&["GET", "shop.example/cart"], 64, "no URL with http or https"),
        (&["GET", "http://shop.example/", "-H", "nonsense"], 64, "is no field"),
        (&["GET", "http://shop.example/", "-c", "none.yaml"], 78, "cannot be read"),
    ] {
        let (found, text) = explain(arguments);
        assert!(found == Some(code) && text.contains(part), "{arguments:?} gives {found:?}:\n{text}");
    }
}

#[test]
fn a_field_that_a_route_asks_for_takes_the_request_there() {
    let found = json(&["GET", "http://shop.example:8080/cart/a", "-H", "X-Beta: 1"]);
    assert_eq!(found["routes"]["route"], "beta");
    assert_eq!(found["routes"]["others"][0], serde_json::json!({ "route": "shop", "missing": [] }));
}

#[test]
fn the_cache_is_asked_with_its_own_rules() {
    let says = |fields: &[&str]| json(&[&["GET", "http://shop.example:8080/cart/a"], fields].concat())["cache"].clone();
    assert_eq!((&says(&[])["not_stored"], &says(&[])["bypass"]), (&Value::Null, &Value::Null));
    assert_eq!(says(&["-H", "Authorization: Basic eDp5"])["not_stored"], "authorization");
    assert_eq!(says(&["-H", "If-Match: \"a\""])["bypass"], "precondition");
}

/// The same file in a front door: the route, the outcome and the head are those that were foretold.
#[tokio::test]
async fn what_was_foretold_is_what_happens() {
    let backend = Backend::answering(200, "hello");
    let yaml = format!(
        "upstreams: {{ app: {{ backends: ['{}'], health_check: none }} }}\nroutes:\n  - {{ name: api, match: {{ path: /api/* }}, \
         upstream: app, rewrite: {{ strip_prefix: /api }}, headers: {{ request: {{ set: {{ X-Plain: seen }} }} }} }}\n",
        backend.url()
    );
    let lb = Lb::yaml(yaml.clone()).start().await;
    lb.send("GET /api/a HTTP/1.1\r\nHost: a.example\r\nX-Other: 1\r\n\r\n").await;
    let received = backend.only_request();
    let folder = tempfile::tempdir().unwrap();
    let listeners = format!("listeners: [{{ address: '{}' }}]\n", lb.address(0));
    std::fs::write(folder.path().join("portcullis.yaml"), format!("{listeners}{yaml}")).unwrap();
    let url = format!("http://a.example:{}/api/a", lb.address(0).port());

    let (code, text) = explain_in(folder.path(), &["GET", &url, "--host", "a.example", "-H", "X-Other: 1", "--json"]);

    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &found["routes"]["route"]), (Some(0), &lb.access_log(1).await[0]["route"]));
    let lines: Vec<_> =
        found["head"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect();
    assert_eq!(lines[0], received.head.first_line);
    // Each request has an id of its own.
    let same = |name: &str| !name.eq_ignore_ascii_case("x-request-id");
    let mut foretold: Vec<_> =
        lines[1..].iter().filter(|line| same(line.split(':').next().unwrap())).cloned().collect();
    let fields = received.head.fields.iter().filter(|(name, _)| same(name));
    let mut came: Vec<_> = fields.map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect();
    foretold.sort();
    came.sort();
    assert_eq!(foretold, came);
}
