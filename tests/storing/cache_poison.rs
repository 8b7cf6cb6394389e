//! The cache as an attacker would use it: whatever he sends, another client never gets the answer that was meant for him.
//!
//! The backends here answer the first request with what the attacker has made of it, and all others honestly; so an
//! honest client that gets the first answer has been poisoned.

use crate::support;

use bytes::Bytes;
use http::HeaderValue;
use support::backend::response;
use support::bytes_on_the_wire::Framing;
use support::cached::{ask, backend, backend_saying, caching, fresh, get};
use support::{Backend, Lb};

const EVIL: &str = "made for the attacker";

/// Lets the attacker send these bytes, then asks honestly. `honest` also if the backend has seen nothing of the attack.
async fn attack(cache: &str, attack: impl AsRef<[u8]>, target: &str, lines: &str) -> (Backend, String) {
    attack_with(cache, &[("Cache-Control", "max-age=60")], attack, target, lines).await
}

async fn attack_with(
    cache: &str,
    fields: &[(&str, &str)],
    attack: impl AsRef<[u8]>,
    target: &str,
    lines: &str,
) -> (Backend, String) {
    let backend = backend_saying([response(200, fields, EVIL), response(200, fields, "honest")]);
    let lb = caching(&backend, cache).await;
    let mut attacker = lb.raw().await;
    attacker.send(attack.as_ref()).await;
    let framing = if attack.as_ref().starts_with(b"HEAD") { Framing::None } else { Framing::UntilClose };
    // Whatever it is.
    let _ = attacker.try_read_response(framing).await;
    lb.until_idle().await;
    let unseen = backend.requests() == 0;
    let text = get(&lb, target, lines).await.text();
    (backend, if unseen { "honest".to_owned() } else { text })
}

/// The attack must not reach the backend, or what comes of it must stay with the attacker.
async fn harmless(cache: &str, what: impl AsRef<[u8]>, target: &str) {
    let name = String::from_utf8_lossy(what.as_ref()).into_owned();
    let (backend, text) = attack(cache, what, target, "").await;
    if text == EVIL {
        let seen = backend.received()[0].text();
        panic!("poisoned by\n{name}\nwhich the backend has seen as\n{seen}");
    }
}

/// The same, unless the backend sees nothing of it.
async fn harmless_or_unseen(line: &str, value: &str) {
    let (backend, text) = attack("{}", format!("GET / HTTP/1.1\r\nHost: a\r\n{line}: {value}\r\n\r\n"), "/", "").await;
    let seen = backend.received().first().map(|request| request.text()).unwrap_or_default();
    assert!(text == "honest" || !seen.contains(value), "{line}: {seen}");
}

#[tokio::test]
async fn fields_that_a_backend_might_reflect_are_replaced_or_keep_the_answer_out() {
    for name in [
        "X-Forwarded-Host",
        "X-Forwarded-Server",
        "X-Forwarded-Scheme",
        "X-Forwarded-Proto",
        "X-Forwarded-Protocol",
        "X-Forwarded-Port",
        "X-Forwarded-For",
        "X-Forwarded-Prefix",
        "X-Forwarded-Path",
        "X-Forwarded-Uri",
        "X-Forwarded-Ssl",
        "X_Forwarded_Host",
        "Forwarded",
        "X-Original-URL",
        "X-Original-URI",
        "X-Original-Host",
        "X-Original-Method",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Host",
        "X-HTTP-Host-Override",
        "X-Url-Scheme",
        "X-Scheme",
        "X-Request-ID",
        "Front-End-Https",
        "Proxy-Host",
        "Proxy",
    ] {
        harmless_or_unseen(name, "evil.example").await;
    }
}

#[tokio::test]
async fn an_attackers_answer_is_not_kept_by_a_trusted_proxy_either() {
    for name in ["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Original-URL"] {
        let backend = backend_saying([fresh(EVIL), fresh("honest")]);
        let lb = Lb::with_backends([&backend])
            .yaml_route("cache: {}")
            .yaml_section("server: { trusted_proxies: [127.0.0.0/8] }")
            .start()
            .await;
        get(&lb, "/", &format!("{name}: evil.example\r\n")).await;
        assert_eq!(get(&lb, "/", "").await.text(), "honest", "{name}");
    }
}

#[tokio::test]
async fn hosts_that_only_look_alike_are_not_alike() {
    for host in [
        "evil",
        "a.evil",
        "a.",
        "a:81",
        "a:443",
        "a:080",
        "evil@a",
        "a@evil",
        "a#",
        "a/",
        "a\\evil",
        "a:80@evil",
        "a:",
        "a evil",
        " a",
        "A,evil",
    ] {
        let what = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (backend, text) = attack("{}", &what, "/", "").await;
        let seen = backend.received().first().and_then(|one| one.field("host").map(str::to_owned)).unwrap_or_default();
        assert!(text == "honest" || seen.trim() == "a", "{host:?} reached the backend as {seen:?}");
    }
}

#[tokio::test]
async fn two_ways_to_name_a_host_must_agree() {
    for what in [
        "GET http://evil/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n",
        "GET http://evil@a/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET https://a/ HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: evil\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n Host: evil\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : evil\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: evil\r\nConnection: close\r\n\r\n",
        "GET http://evil/ HTTP/1.0\r\nConnection: close\r\n\r\n",
    ] {
        harmless("{}", what, "/").await;
    }
}

#[tokio::test]
async fn paths_that_a_backend_may_take_for_another_are_others() {
    for path in [
        "//a",
        "/./a",
        "/x/../a",
        "/%61",
        "/a/",
        "/a;x",
        "/a;",
        "/A",
        "/a%00",
        "/a%2f",
        "/a%2F..%2fa",
        "/a%3f",
        "/a%3Fx",
        "/a?",
        "/a%23",
        "/a%20",
        "/a%0d%0aX:%20y",
        "/a.",
        "/a/.",
        "/a%2e",
        "/x/%2e%2e/a",
        "/a??",
        "/a?&",
        "/a?x",
        "/a\\",
        "/a\x00",
        "/a\x7f",
        "/a?\x0b",
    ] {
        harmless("{}", format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), "/a").await;
    }
    for byte in [0x80, 0xa0, 0xc3, 0xff_u8] {
        for other in [0x81, 0xfe] {
            let path = |byte| [&b"GET /"[..], &[byte], b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
            let backend = backend_saying([fresh(EVIL), fresh("honest")]);
            let lb = caching(&backend, "{}").await;
            let mut client = lb.raw().await;
            client.send(path(byte)).await;
            let _ = client.try_read_to_end().await;
            let mut client = lb.raw().await;
            client.send(path(other)).await;
            let got = client.try_read_to_end().await.unwrap_or_default();
            assert!(!String::from_utf8_lossy(&got).contains(EVIL), "{byte:x} {other:x}");
        }
    }
}

#[tokio::test]
async fn a_query_that_a_backend_reads_otherwise_is_another_one() {
    // The honest one asks for `/?q=1`; `q` alone is part of the key.
    for query in [
        "q=1&q=2",
        "q=2&q=1",
        "q=1&%71=2",
        "%71=1&q=1",
        "q=1&Q=2",
        "q=1;q=2",
        "x=1;q=2&q=1",
        "q=1&x=1;q=2",
        "q=1&q[]=2",
        "q=1&q%5b%5d=2",
        "q=1&+q=2",
        "q=1&%20q=2",
        "q=1&q%00=2",
        "q=1&q+=2",
        "q=1&&q=2",
        "q=1%26q=2",
        "q=1&x=%26q=2",
        "q=1?q=2",
        "q=1&?q=2",
        "q=1&amp;q=2",
        "q=1&%u0071=2",
    ] {
        let what = format!("GET /?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        // A backend that knows no percent-encoding in a value makes nothing of it.
        if query != "q=1&x=%26q=2" {
            harmless("{ key: { query: [q] } }", what, "/?q=1").await;
        }
    }
    let (_, text) = attack(
        "{ key: { query: [q] } }",
        "GET /?q=1&utm_source=x&gclid=a%20b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "/?q=1",
        "",
    )
    .await;
    assert_eq!(text, EVIL, "what is harmless is left out of the key");
}

#[tokio::test]
async fn an_encoded_name_does_not_get_around_a_bypass() {
    let cache = "{ key: { query: none }, bypass: [\"query:preview\"] }";
    for query in ["preview=1", "%70review=1", "x=1;preview=1", "Preview=1", "preview[]=1", "preview"] {
        harmless(cache, format!("GET /?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), "/").await;
    }
}

#[tokio::test]
async fn a_cookie_that_is_named_twice_is_not_the_first_of_them() {
    for cookie in [
        "lang=en; lang=evil",
        "lang=evil; lang=en",
        "lang=en;lang=evil",
        "lang=\"en\"; lang=evil",
        "lang=en; Lang=evil",
    ] {
        let what = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
        let (_, text) = attack("{ key: { cookies: [lang] } }", what, "/", "Cookie: lang=en\r\n").await;
        assert!(text == "honest" || cookie.contains("Lang"), "{cookie}");
    }
    let two = "GET / HTTP/1.1\r\nHost: a\r\nCookie: lang=en\r\nCookie: lang=evil\r\nConnection: close\r\n\r\n";
    assert_eq!(attack("{ key: { cookies: [lang] } }", two, "/", "Cookie: lang=en\r\n").await.1, "honest");
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: lang=\xff\r\nConnection: close\r\n\r\n";
    assert_eq!(attack("{ key: { cookies: [lang] } }", bytes, "/", "").await.1, "honest");
}

#[tokio::test]
async fn header_fields_in_the_key_are_told_apart_whole() {
    let key = "{ key: { headers: [X-Site] } }";
    for lines in [
        &b"X-Site: one\r\nX-Site: two"[..],
        b"X-Site: one, two",
        b"X-Site: two",
        b"X-Site:",
        b"X-Site: one\x80",
        b"X_Site: one",
        b"",
    ] {
        let end = if lines.is_empty() { "\r\n" } else { "\r\n\r\n" };
        let what = [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", lines, end.as_bytes()].concat();
        assert_eq!(attack(key, what, "/", "X-Site: one\r\n").await.1, "honest", "{:?}", String::from_utf8_lossy(lines));
    }
    for value in ["one\rX-Evil: 1", "one\nX-Evil: 1", "one\0"] {
        let what = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Site: {value}\r\n\r\n");
        let (backend, text) = attack(key, what, "/", "X-Site: one\r\n").await;
        assert!(text == "honest" || backend.received()[0].field("x-evil").is_none(), "{value:?}");
    }
}

#[tokio::test]
async fn a_field_that_connection_takes_away_does_not_choose_what_is_stored() {
    let varies = [("Cache-Control", "max-age=60"), ("Vary", "X-Lang")];
    for (cache, fields) in [("{}", &varies[..]), ("{ key: { headers: [X-Lang] } }", &varies[..1])] {
        for hop in ["X-Lang", "close, x-lang", "keep-alive, X-LANG"] {
            // The backend sees no X-Lang, and answers in a language that nobody has asked for.
            let what = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {hop}\r\nX-Lang: de\r\n\r\n");
            let (backend, text) = attack_with(cache, fields, what, "/", "X-Lang: de\r\n").await;
            assert_eq!(text, "honest", "{hop}: {:?}", backend.received()[0].text());
        }
    }
    let what = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Cookie\r\nCookie: lang=de\r\n\r\n";
    assert_eq!(attack("{ key: { cookies: [lang] } }", what, "/", "Cookie: lang=de\r\n").await.1, "honest");
    let what = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization\r\nAuthorization: x\r\n\r\n";
    assert_eq!(attack("{}", what, "/", "").await.1, "honest");
}

#[tokio::test]
async fn a_get_or_head_with_a_body_stays_with_its_sender() {
    for method in ["GET", "HEAD"] {
        for body in [
            "Content-Length: 4\r\n\r\nevil",
            "Content-Length: 04\r\n\r\nevil",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            harmless("{}", format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}"), "/").await;
        }
    }
}

#[tokio::test]
async fn a_get_with_a_body_on_http_2_stays_with_its_sender() {
    let backend = backend_saying([fresh(EVIL), fresh("honest")]);
    let lb = caching(&backend, "{}").await;
    let client = lb.h2().await;
    client.request(client.build("GET", "/"), &["evil"]).await.unwrap();
    let got = client.get("/").await;
    assert_eq!(got.body, "honest", "the backend has seen {:?}", backend.received()[0].text());
}

#[tokio::test]
async fn a_post_with_another_body_on_http_2_is_another_one() {
    let backend = backend_saying([fresh(EVIL), fresh("honest")]);
    let lb = caching(&backend, "{ methods: [GET, POST], key: { body: 1KiB } }").await;
    let client = lb.h2().await;
    assert_eq!(client.post("/", "evil").await.body, EVIL);
    assert_eq!(client.post("/", "good").await.body, "honest");
    assert_eq!(client.get("/").await.body, "honest");
    assert_eq!(client.post("/", "evil").await.body, EVIL);
    assert_eq!(backend.requests(), 3);
}

#[tokio::test]
async fn a_part_is_never_stored_as_the_whole() {
    let part = response(206, &[("Cache-Control", "max-age=60"), ("Content-Range", "bytes 0-3/10")], "part");
    let backend = backend_saying([part, fresh("honest")]);
    let lb = caching(&backend, "{ ttl: 60s }").await;
    get(&lb, "/", "Range: bytes=0-3\r\n").await;
    assert_eq!(get(&lb, "/", "").await.text(), "honest");
    // Nor does a range that no body has.
    let backend = backend_saying([
        response(416, &[("Cache-Control", "max-age=60"), ("Content-Range", "bytes */4")], EVIL),
        fresh("honest"),
    ]);
    let lb = caching(&backend, "{ ttl: 60s }").await;
    let got = get(&lb, "/", "Range: bytes=99999-\r\n").await;
    assert_eq!(backend.received()[0].field("range"), None, "{got:?}");
}

#[tokio::test]
async fn ranges_by_the_hundred_cost_no_more_than_the_whole() {
    let backend = backend(&[("Cache-Control", "max-age=60")], &"x".repeat(1000));
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    let ranges = (0..500).map(|_| "0-999").collect::<Vec<_>>().join(",");
    let got = get(&lb, "/", &format!("Range: bytes={ranges}\r\n")).await;
    assert!(got.body.len() < 10_000, "{} {}", got.status, got.body.len());
    let ranges = (0..150).map(|_| "0-").collect::<Vec<_>>().join(",");
    let got = get(&lb, "/", &format!("Range: bytes={ranges}\r\n")).await;
    assert!(got.body.len() < 10_000, "{} {}", got.status, got.body.len());
}

#[tokio::test]
async fn a_request_behind_another_one_is_a_request_of_its_own() {
    for smuggled in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /a HTTP/1.1\r\nHost: evil\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nGET /a HTTP/1.1\r\nHost: evil\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\nGET /a HTTP/1.1\r\nHost: evil\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /a HTTP/1.1\r\nHost: evil\r\n\r\n",
        "Content-Length: +5\r\n\r\nGET /a HTTP/1.1\r\nHost: evil\r\n\r\n",
        "\r\nGET /a HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n",
    ] {
        harmless("{}", format!("GET /x HTTP/1.1\r\nHost: a\r\n{smuggled}"), "/a").await;
        harmless("{}", format!("POST /x HTTP/1.1\r\nHost: a\r\n{smuggled}"), "/a").await;
    }
}

#[tokio::test]
async fn a_stored_field_cannot_begin_another_one() {
    for value in ["x\rSet-Cookie: evil=1", "x\nSet-Cookie: evil=1", "x\0y"] {
        let evil: Bytes =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-Echo: {value}\r\nContent-Length: 1\r\n\r\nx")
                .into();
        let backend = backend_saying([evil]);
        let lb = caching(&backend, "{}").await;
        let (first, second) = (get(&lb, "/", "").await, get(&lb, "/", "").await);
        if value.contains('\n') {
            // That is a line of its own, or a body: of the backend's making.
            continue;
        }
        for got in [first, second] {
            assert!(!got.raw.contains(&0) && got.field("set-cookie").is_none(), "{value:?}: {got:?}");
        }
    }
}

#[tokio::test]
async fn where_an_answer_contradicts_itself_the_stricter_word_counts() {
    for fields in [
        &[("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")][..],
        &[("Cache-Control", "max-age=60, max-age=0")],
        &[("Cache-Control", "public, private, max-age=60")],
        &[("Cache-Control", "max-age=60"), ("Cache-Control", "PRIVATE")],
        &[("Cache-Control", "max-age=abc")],
        &[("Cache-Control", "max-age=-1")],
        &[("Cache-Control", "s-maxage=0, max-age=60")],
        &[("Cache-Control", "max-age=60"), ("Age", "61")],
        &[("Cache-Control", "max-age=60"), ("Age", "99999999999999999999999")],
        &[("Cache-Control", "max-age=60"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT")],
        &[("Expires", "0")],
        &[("Expires", "Thu, 99 Foo 9999 99:99:99 GMT")],
        &[("Expires", "Thu, 01 Jan 1970 00:00:00 GMT")],
        &[("Expires", "Fri, 31 Dec 9999 23:59:59 GMT"), ("Cache-Control", "no-cache")],
        &[("Expires", "Fri, 31 Dec 9999 23:59:59 GMT"), ("Expires", "0")],
        &[("CDN-Cache-Control", "no-store"), ("Cache-Control", "max-age=60")],
    ] {
        let backend = backend_saying([response(200, fields, EVIL), response(200, fields, "honest")]);
        let lb = caching(&backend, "{ ttl: 60s }").await;
        get(&lb, "/", "").await;
        assert_eq!(get(&lb, "/", "").await.text(), "honest", "{fields:?}");
    }
}

#[tokio::test]
async fn absurd_times_do_no_harm() {
    for fields in [
        &[("Cache-Control", "max-age=99999999999999999999"), ("Age", "0")][..],
        &[("Cache-Control", "max-age=60"), ("Date", "Fri, 31 Dec 9999 23:59:59 GMT")],
        &[("Cache-Control", "max-age=60"), ("Age", "-5")],
        &[("Cache-Control", "max-age=60"), ("Age", "x")],
        &[("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")],
        &[
            ("Cache-Control", "max-age=2147483648, stale-while-revalidate=99999999999, stale-if-error=99999999999"),
            ("Age", "2147483647"),
        ],
    ] {
        let backend = backend(fields, "x");
        let lb = caching(&backend, "{}").await;
        for _ in 0..3 {
            assert_eq!(get(&lb, "/", "").await.text(), "x", "{fields:?}");
        }
    }
}

#[tokio::test]
async fn what_is_private_is_not_stored_under_a_name_that_looks_public() {
    for fields in [
        &[("Cache-Control", "private, max-age=60")][..],
        &[("Set-Cookie", "session=1")],
        &[("Cache-Control", "no-store")],
        &[("Vary", "Cookie"), ("Cache-Control", "max-age=60")],
    ] {
        let backend = backend_saying([response(200, fields, EVIL), response(200, fields, "honest")]);
        let lb = caching(&backend, "{ ttl: 60s }").await;
        get(&lb, "/account/x.css", "Cookie: session=1\r\n").await;
        assert_eq!(get(&lb, "/account/x.css", "").await.text(), "honest", "{fields:?}");
    }
}

#[tokio::test]
async fn errors_that_a_request_provokes_are_not_stored_without_being_told() {
    for status in [400, 403, 404, 405, 410, 413, 414, 417, 421, 426, 431, 500, 501, 502, 503, 504] {
        let backend = backend_saying([response(status, &[], EVIL), fresh("honest")]);
        let lb = Lb::with_backends([&backend])
            .yaml_route("cache: { ttl: 60s }")
            .yaml_route("retry: { attempts: 1 }")
            .start()
            .await;
        get(&lb, "/", "X-Strange: 1\r\n").await;
        let text = get(&lb, "/", "").await.text();
        // A page that is not there is worth remembering, for as long as the operator says.
        assert!(text == "honest" || [404, 405, 410, 414, 501].contains(&status), "{status}");
    }
}

#[tokio::test]
async fn compressed_variants_stay_apart() {
    let fields = |coding| [("Cache-Control", "max-age=60"), ("Vary", "Accept-Encoding"), ("Content-Encoding", coding)];
    let backend = backend_saying([
        response(200, &fields("br"), "br"),
        response(200, &fields("gzip"), "gzip"),
        response(200, &fields("identity"), "plain"),
    ]);
    let lb = caching(&backend, "{}").await;
    for _ in 0..2 {
        assert_eq!(get(&lb, "/", "Accept-Encoding: br\r\n").await.text(), "br");
        assert_eq!(get(&lb, "/", "Accept-Encoding: gzip\r\n").await.text(), "gzip");
        assert_eq!(get(&lb, "/", "").await.text(), "plain");
    }
    assert_eq!(backend.requests(), 3);
}

#[tokio::test]
async fn two_routes_to_one_address_do_not_share() {
    let (one, two) = (backend_saying([fresh(EVIL)]), backend_saying([fresh("honest")]));
    let text = format!(
        "upstreams:\n  one: {{ backends: [\"{}\"], health_check: none }}\n  two: {{ backends: [\"{}\"], health_check: none }}\nroutes:\n  \
         - {{ upstream: one, match: {{ headers: {{ X-Beta: \"1\" }} }}, cache: {{}} }}\n  - {{ upstream: two, cache: {{}} }}\n",
        one.url(),
        two.url()
    );
    let lb = Lb::yaml(text).start().await;
    assert_eq!(get(&lb, "/", "X-Beta: 1\r\n").await.text(), EVIL);
    assert_eq!(get(&lb, "/", "").await.text(), "honest");
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_nothing_to_store() {
    let evil: Bytes = "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: \"1\"\r\n\r\n".into();
    let backend = backend_saying([evil, fresh("honest")]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "If-None-Match: \"1\"\r\n").await;
    assert_eq!(get(&lb, "/", "").await.text(), "honest");
}

#[tokio::test]
async fn a_revalidation_in_disguise_changes_nothing_for_others() {
    let old = response(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"1\""), ("X-Stays", "1")], "honest");
    let evil = "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nX-Stays: evil\r\n\r\n";
    let backend = backend_saying([old.clone(), evil.into(), old]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    get(&lb, "/", "X-Original-URL: /evil\r\n").await;
    assert_eq!(get(&lb, "/", "").await.field("x-stays"), Some("1"));
}

#[tokio::test]
async fn nobody_empties_the_store_of_another_origin_or_by_what_fails() {
    let backend = backend_saying([
        fresh("honest"),
        response(200, &[("Location", "http://a/a")], EVIL),
        response(400, &[("Location", "/a")], EVIL),
    ]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/a", "").await;
    let mut attacker = lb.raw().await;
    attacker.exchange("POST /x HTTP/1.1\r\nHost: evil\r\nContent-Length: 0\r\n\r\n").await;
    ask(&lb, "POST", "/a", "", "").await;
    assert_eq!(get(&lb, "/a", "").await.text(), "honest");
    assert_eq!(backend.requests(), 3);
}

#[tokio::test]
async fn names_and_values_of_eight_bits_are_told_apart() {
    let fields = [("Cache-Control", "max-age=60"), ("Vary", "X-Lang")];
    let what = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Lang: \xe9\r\n\r\n";
    let (_, text) = attack_with("{}", &fields, what, "/", "X-Lang: e\r\n").await;
    assert_eq!(text, "honest");
    let backend = backend_saying([response(200, &fields, EVIL), response(200, &fields, "honest")]);
    let lb = caching(&backend, "{}").await;
    let client = lb.h2().await;
    let with = |value: &[u8]| {
        let mut request = client.build("GET", "/");
        request.headers_mut().insert("x-lang", HeaderValue::from_bytes(value).unwrap());
        request
    };
    client.request(with(b"\xe9"), &[]).await.unwrap();
    assert_eq!(client.request(with(b"\xea"), &[]).await.unwrap().body, "honest");
}

#[tokio::test]
async fn a_body_in_the_key_is_told_from_the_same_bytes_of_another_kind() {
    for name in ["Content-Type", "Content-Encoding", "Content-Language"] {
        let backend = backend_saying([fresh(EVIL), fresh("honest")]);
        let lb = caching(&backend, "{ methods: [GET, POST], key: { body: 1KiB } }").await;
        ask(&lb, "POST", "/", &format!("{name}: evil\r\n"), "a=1").await;
        assert_eq!(ask(&lb, "POST", "/", &format!("{name}: good\r\n"), "a=1").await.text(), "honest", "{name}");
    }
}

#[tokio::test]
async fn every_line_that_a_trusted_proxy_passes_on_tells_requests_apart() {
    for (evil, good) in [
        ("X-Forwarded-Host: a\r\nX-Forwarded-Host: evil\r\n", "X-Forwarded-Host: a\r\n"),
        ("Forwarded: for=10.0.0.1;host=evil\r\n", "Forwarded: for=10.0.0.1;host=a\r\n"),
        ("Forwarded: for=10.0.0.1;proto=https\r\n", "Forwarded: for=10.0.0.1;proto=http\r\n"),
        ("Forwarded: for=\"a;host=b,\";host=evil\r\n", "Forwarded: for=\"a;host=b,\"\r\n"),
    ] {
        let backend = backend_saying([fresh(EVIL), fresh("honest")]);
        let lb = Lb::with_backends([&backend])
            .yaml_route("cache: {}")
            .yaml_section("server: { trusted_proxies: [127.0.0.0/8] }")
            .start()
            .await;
        get(&lb, "/", evil).await;
        assert_eq!(get(&lb, "/", good).await.text(), "honest", "{evil}");
        let asked = backend.requests();
        get(&lb, "/", &good.replace("10.0.0.1", "10.0.0.2")).await;
        assert_eq!(backend.requests(), asked, "whom it is for tells nothing apart");
    }
}

#[tokio::test]
async fn chosen_parameters_in_another_order_are_another_request() {
    let backend = backend_saying([fresh(EVIL), fresh("honest")]);
    let lb = caching(&backend, "{ key: { query: [a, b] } }").await;
    get(&lb, "/?a=1&b%5B=2&b=3&x=1", "").await;
    get(&lb, "/?b=3&a=1", "").await;
    let asked = backend.requests();
    get(&lb, "/?a=1&b=3", "").await;
    assert_eq!(backend.requests(), asked + 1);
    get(&lb, "/?x=2&a=1&y&b=3", "").await;
    assert_eq!(backend.requests(), asked + 1);
}
