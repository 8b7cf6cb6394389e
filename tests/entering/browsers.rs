//! What browsers are told, and closed routes: CORS, security headers and maintenance through the front door.

use crate::support;

use support::backend::response;
use support::front_door::Builder;
use support::{Backend, Lb, Response};

const PREFLIGHT: &str = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a, authorization\r\n";

fn with(backend: &Backend, lines: &[&str]) -> Builder {
    lines.iter().fold(Lb::with_backends([backend]), |lb, line| lb.yaml_route(line))
}

async fn send(lb: &Lb, method: &str, lines: &str) -> Response {
    lb.send(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await
}

/// Allow-Origin, Allow-Credentials and Vary.
fn told(answer: &Response) -> [String; 3] {
    ["access-control-allow-origin", "access-control-allow-credentials", "vary"]
        .map(|name| answer.fields(name).join(" | "))
}

#[tokio::test]
async fn a_preflight_is_answered_before_anybody_is_asked_for_anything() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), format!("ann:{}\n", bcrypt::hash("opensesame", 4).unwrap())).unwrap();
    let backend = Backend::answering(200, "in");
    let cors = "cors: { origins: [\"https://app.example.com\", \"https://*.example.org\"], methods: [GET, PUT], headers: [x-a, authorization], credentials: true, max_age: 1h }";
    let lines = [cors, "auth: { basic: users }", "rate_limits: [{ rate: 1/h }]"];
    let lb = with(&backend, &lines).try_start_in(folder).await.unwrap();
    for origin in ["https://app.example.com", "https://a.b.example.org"] {
        let answer = send(&lb, "OPTIONS", &format!("Origin: {origin}\r\n{PREFLIGHT}")).await;
        assert_eq!((answer.status, answer.body.len(), answer.field("content-length")), (204, 0, None));
        assert_eq!(told(&answer)[..2], [origin, "true"]);
        assert!(told(&answer)[2].starts_with("Origin, Access-Control-Request-Method"));
        let fields = ["methods", "headers"].map(|it| answer.field(&format!("access-control-allow-{it}")).unwrap());
        assert_eq!(
            (fields, answer.field("access-control-max-age")),
            (["GET, PUT", "x-a, authorization"], Some("3600"))
        );
    }
    for origin in [
        "https://evil.com",
        "http://app.example.com",
        "https://example.org",
        "null",
        "https://app.example.com.evil.com",
    ] {
        let answer = send(&lb, "OPTIONS", &format!("Origin: {origin}\r\n{PREFLIGHT}")).await;
        let allowed: Vec<_> =
            answer.headers.iter().filter(|(name, _)| name.to_lowercase().starts_with("access-control")).collect();
        assert_eq!((answer.status, allowed.len()), (204, 0), "{origin}");
    }
    // A page can read why it was refused; an OPTIONS that is no preflight is one request like all others.
    let refused = send(&lb, "OPTIONS", "Origin: https://app.example.com\r\n").await;
    assert_eq!(
        (refused.status, told(&refused)),
        (401, ["https://app.example.com", "true", "Accept | Origin"].map(str::to_owned))
    );
    assert_eq!(send(&lb, "GET", "Origin: https://app.example.com\r\n").await.status, 429);
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn each_page_is_told_for_itself_also_from_the_store() {
    let fields = [("Cache-Control", "max-age=60"), ("Access-Control-Allow-Origin", "*"), ("Vary", "Accept-Language")];
    let backend = Backend::writing(response(200, &fields, "hi"));
    let cors = "cors: { origins: [\"https://a.com\", \"https://b.com\"], expose: [x-total] }";
    let lb = with(&backend, &[cors, "cache: {}"]).start().await;
    for (origin, allowed) in
        [("https://a.com", "https://a.com"), ("https://b.com", "https://b.com"), ("https://c.com", "")]
    {
        let answer = send(&lb, "GET", &format!("Origin: {origin}\r\n")).await;
        assert_eq!(told(&answer), [allowed, "", "Accept-Language | Origin"], "{origin}");
        assert_eq!(answer.field("access-control-expose-headers"), (!allowed.is_empty()).then_some("x-total"));
    }
    assert_eq!(told(&send(&lb, "GET", "").await), ["", "", "Accept-Language | Origin"]);
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn everybody_is_told_the_same_where_everybody_may() {
    let backend = Backend::answering(200, "in");
    let lb = with(&backend, &["cors: { origins: [\"*\"], headers: [\"*\"] }"]).start().await;
    assert_eq!(told(&send(&lb, "GET", "Origin: null\r\n").await), ["*", "", ""]);
    assert_eq!(told(&send(&lb, "GET", "").await), ["*", "", ""]);
    let preflight = send(&lb, "OPTIONS", &format!("Origin: https://a.com\r\n{PREFLIGHT}")).await;
    assert_eq!(preflight.field("access-control-allow-headers"), Some("x-a, authorization"));
    assert_eq!(lb.h2().await.get("/").await.field("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn browsers_are_made_careful_where_the_backend_says_nothing_else() {
    let backend = Backend::writing(response(200, &[("X-Frame-Options", "DENY")], "hi"));
    let lines = ["security_headers: { referrer_policy: none, content_security_policy: \"default-src 'self'\" }"];
    let lb = with(&backend, &lines).start().await;
    let fields = |answer: &Response| {
        [
            "strict-transport-security",
            "x-content-type-options",
            "x-frame-options",
            "referrer-policy",
            "content-security-policy",
        ]
        .map(|name| answer.fields(name).join(" | "))
    };
    let plain = send(&lb, "GET", "").await;
    assert_eq!(fields(&plain), ["", "nosniff", "DENY", "", "default-src 'self'"]);
    let secure = lb.tls().await.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(fields(&secure), ["max-age=31536000", "nosniff", "DENY", "", "default-src 'self'"]);
    let own = with(&backend, &["security_headers: {}", "deny: [127.0.0.1]"]).start().await;
    assert_eq!(send(&own, "GET", "").await.field("x-frame-options"), Some("SAMEORIGIN"));
}

#[tokio::test]
async fn each_security_header_says_what_the_file_says() {
    let backend = Backend::answering(200, "hi");
    let own = [
        ("strict_transport_security", "Strict-Transport-Security", "max-age=60; preload"),
        ("content_type_options", "X-Content-Type-Options", "of-our-own"),
        ("frame_options", "X-Frame-Options", "DENY"),
        ("referrer_policy", "Referrer-Policy", "no-referrer"),
        ("content_security_policy", "Content-Security-Policy", "default-src 'none'"),
        ("permissions_policy", "Permissions-Policy", "camera=()"),
        ("cross_origin_opener_policy", "Cross-Origin-Opener-Policy", "same-origin"),
        ("cross_origin_resource_policy", "Cross-Origin-Resource-Policy", "same-site"),
    ];
    let keys = own.map(|(key, _, value)| format!("{key}: \"{value}\"")).join(", ");
    let lb = with(&backend, &[&format!("security_headers: {{ {keys} }}")]).start().await;
    let answer = lb.tls().await.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let bytes = String::from_utf8_lossy(&answer.raw).to_lowercase();
    for (key, name, value) in own {
        let line = format!("\r\n{name}: {value}\r\n").to_lowercase();
        assert_eq!(bytes.matches(&line).count(), 1, "{key}: {bytes}");
        assert_eq!(answer.fields(name), [value], "{key}");
    }
    let none = own.map(|(key, ..)| format!("{key}: none")).join(", ");
    let silent = with(&backend, &[&format!("security_headers: {{ {none} }}")]).start().await;
    let answer = silent.tls().await.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let said: Vec<_> = own.iter().filter(|(_, name, _)| answer.field(name).is_some()).collect();
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test]
async fn a_closed_route_is_open_for_some() {
    let backend = Backend::answering(200, "in");
    let closed = "maintenance: { retry_after: 2m, body: \"<h1>back at noon</h1>\", except: [192.0.2.0/24] }";
    let lb = with(&backend, &[closed]).yaml_section("server: { trusted_proxies: [127.0.0.0/8] }").start().await;
    let answer = send(&lb, "GET", "").await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("120")));
    assert_eq!(
        (&*answer.text(), answer.field("content-type")),
        ("<h1>back at noon</h1>", Some("text/html; charset=utf-8"))
    );
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(lb.h2().await.get("/").await.status, 503);
    assert_eq!(send(&lb, "GET", "X-Forwarded-For: 192.0.2.7\r\n").await.status, 200);
    let reasons: Vec<_> = lb.access_log(3).await.iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, ["maintenance", "maintenance", "ok"]);
}
