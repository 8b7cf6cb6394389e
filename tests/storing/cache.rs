//! The cache at the front door: what is answered without a backend, and what never is.

use crate::support;

use support::backend::response;
use support::cached::{ask, backend, backend_saying, caching, fresh, get, words};
use support::{Act, Backend, Lb, Script};

const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

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
    let log = lb.access_log(2).await;
    assert_eq!(
        (log[0]["attempts"].as_array().map(Vec::len), log[1]["attempts"].as_array().map_or(0, Vec::len)),
        (Some(1), 0)
    );
}

#[tokio::test]
async fn an_age_that_an_answer_came_with_goes_on() {
    let backend = backend(&[("Cache-Control", "max-age=600"), ("Age", "100")], "x");
    let lb = caching(&backend, "{}").await;
    assert_eq!(get(&lb, "/", "").await.field("age"), Some("100"));
    let age: u64 = get(&lb, "/", "").await.field("age").unwrap().parse().unwrap();
    assert!((100..110).contains(&age), "{age}");
    assert_eq!(words(&lb, 2).await, ["miss", "hit"]);
}

#[tokio::test]
async fn head_is_answered_by_what_get_has_stored() {
    let backend = backend(&[("Cache-Control", "max-age=60"), ("ETag", "\"1\"")], "hello");
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    let head = ask(&lb, "HEAD", "/", "", "").await;
    assert_eq!((head.status, head.field("content-length"), head.field("etag")), (200, Some("5"), Some("\"1\"")));
    assert_eq!(backend.requests(), 1);
    assert_eq!(words(&lb, 2).await, ["miss", "hit"]);
}

#[tokio::test]
async fn a_head_that_nothing_is_stored_for_gets_no_body_and_leaves_nothing_false() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "hello");
    let lb = caching(&backend, "{}").await;
    let mut client = lb.raw().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let all = client.read_to_end().await;
    assert!(all.ends_with(b"\r\n\r\n"), "{all:?}");
    let got = get(&lb, "/", "").await;
    assert_eq!((got.status, got.text()), (200, "hello".into()));
}

#[tokio::test]
async fn a_condition_that_holds_is_answered_by_304_on_a_hit_and_on_a_miss() {
    let fields = [("Cache-Control", "max-age=60"), ("ETag", "\"1\""), ("Last-Modified", THEN)];
    let backend = backend(&fields, "hello");
    let lb = caching(&backend, "{}").await;
    for line in ["If-None-Match: \"1\"\r\n".to_owned(), format!("If-Modified-Since: {THEN}\r\n")] {
        let target = if line.contains("None") { "/a" } else { "/b" };
        let miss = get(&lb, target, &line).await;
        assert_eq!((miss.status, miss.text(), miss.field("etag")), (304, String::new(), Some("\"1\"")), "{line}");
        let hit = get(&lb, target, &line).await;
        assert_eq!((hit.status, hit.text(), hit.field("etag")), (304, String::new(), Some("\"1\"")), "{line}");
        assert_eq!(get(&lb, target, "").await.text(), "hello", "the whole is what is stored");
    }
    assert_eq!(get(&lb, "/a", "If-None-Match: \"2\"\r\n").await.status, 200);
    assert_eq!(backend.requests(), 2);
    assert!(backend.received().iter().all(|request| request.field("if-none-match").is_none()));
    assert_eq!(words(&lb, 7).await, ["miss", "hit", "hit", "miss", "hit", "hit", "hit"]);
}

#[tokio::test]
async fn parts_are_cut_from_what_is_stored_and_from_what_is_being_stored() {
    let backend = backend(&[("Cache-Control", "max-age=60"), ("ETag", "\"1\""), ("Content-Type", "a/b")], "0123456789");
    let lb = caching(&backend, "{}").await;
    let miss = get(&lb, "/", "Range: bytes=2-4\r\n").await;
    assert_eq!((miss.status, miss.text(), miss.field("content-range")), (206, "234".into(), Some("bytes 2-4/10")));
    let check = async |lines: &str, status: u16, body: &str| {
        let hit = get(&lb, "/", lines).await;
        assert_eq!((hit.status, hit.text().as_str()), (status, body), "{lines}");
        hit
    };
    check("", 200, "0123456789").await;
    check("Range: bytes=-3\r\n", 206, "789").await;
    check("Range: bytes=8-\r\n", 206, "89").await;
    check("Range: bytes=8-99\r\n", 206, "89").await;
    check("Range: bytes=2-4\r\nIf-Range: \"1\"\r\n", 206, "234").await;
    check("Range: bytes=2-4\r\nIf-Range: \"2\"\r\n", 200, "0123456789").await;
    check("Range: lines=2-4\r\n", 200, "0123456789").await;
    let over = get(&lb, "/", "Range: bytes=10-\r\n").await;
    assert_eq!((over.status, over.field("content-range")), (416, Some("bytes */10")));
    let several = get(&lb, "/", "Range: bytes=0-1,8-9\r\n").await;
    assert_eq!(several.status, 206);
    assert!(several.field("content-type").unwrap().starts_with("multipart/byteranges"), "{several:?}");
    assert!(several.text().contains("bytes 0-1/10") && several.text().contains("bytes 8-9/10"), "{several:?}");
    assert_eq!(backend.requests(), 1);
    assert_eq!(backend.only_request().field("range"), None, "the whole is asked for");
}

#[tokio::test]
async fn what_is_stale_is_revalidated_once_and_keeps_its_body_with_new_fields() {
    let old =
        response(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"1\""), ("X-Run", "old"), ("X-Stays", "1")], "body");
    let new = "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: \"1\"\r\nX-Run: new\r\n\r\n";
    let backend = backend_saying([old, new.into(), fresh("never")]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    for word in ["revalidated", "hit"] {
        let got = get(&lb, "/", "").await;
        let fields = ["x-run", "x-stays", "etag"].map(|name| got.field(name));
        assert_eq!(
            (got.status, got.text(), fields),
            (200, "body".into(), [Some("new"), Some("1"), Some("\"1\"")]),
            "{word}"
        );
    }
    assert_eq!(words(&lb, 3).await, ["miss", "revalidated", "hit"]);
    let received = backend.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[1].field("if-none-match"), Some("\"1\""));
    assert_eq!(backend.connections(), 1, "a 304 leaves the connection whole");
}

#[tokio::test]
async fn a_changed_answer_takes_the_place_of_the_stale_one() {
    let old = response(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"1\"")], "old");
    let backend = backend_saying([old, fresh("new"), fresh("never")]);
    let lb = caching(&backend, "{}").await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        bodies.push(get(&lb, "/", "").await.text());
    }
    assert_eq!(bodies, ["old", "new", "new"]);
    assert_eq!(words(&lb, 3).await, ["miss", "expired", "hit"]);
}

#[tokio::test]
async fn a_request_says_what_it_takes() {
    let backend = backend(&[("Cache-Control", "max-age=100"), ("Age", "10")], "x");
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    for (lines, asks) in [
        ("Cache-Control: max-age=50\r\n", false),
        ("Cache-Control: max-age=5\r\n", true),
        ("Cache-Control: min-fresh=50\r\n", false),
        ("Cache-Control: min-fresh=95\r\n", true),
        ("Cache-Control: no-cache\r\n", true),
        ("Pragma: no-cache\r\n", true),
        ("Cache-Control: only-if-cached\r\n", false),
    ] {
        let before = backend.requests();
        assert_eq!(get(&lb, "/", lines).await.status, 200);
        assert_eq!(backend.requests() - before, usize::from(asks), "{lines}");
    }
}

#[tokio::test]
async fn max_stale_takes_what_is_stale_unless_that_is_forbidden() {
    for (says, asks) in
        [("max-age=5", 0), ("max-age=5, must-revalidate", 1), ("max-age=5, proxy-revalidate", 1), ("s-maxage=5", 1)]
    {
        let backend = backend(&[("Cache-Control", says), ("Age", "10"), ("ETag", "\"1\"")], "x");
        let lb = caching(&backend, "{}").await;
        get(&lb, "/", "").await;
        get(&lb, "/", "Cache-Control: max-stale=60\r\n").await;
        assert_eq!(backend.requests(), 1 + asks, "{says}");
    }
}

#[tokio::test]
async fn who_takes_only_what_is_stored_is_told_that_there_is_nothing() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = caching(&backend, "{}").await;
    assert_eq!(get(&lb, "/", "Cache-Control: only-if-cached\r\n").await.status, 504);
    assert_eq!(
        lb.h2()
            .await
            .request(with(lb.h2().await.build("GET", "/"), "cache-control", "only-if-cached"), &[])
            .await
            .unwrap()
            .status,
        504
    );
    let log = lb.access_log(2).await;
    assert_eq!((&log[0]["reason"], &log[1]["reason"]), (&"only_if_cached".into(), &"only_if_cached".into()));
    assert_eq!(backend.requests(), 0);
}

fn with(mut request: http::Request<()>, name: &'static str, value: &'static str) -> http::Request<()> {
    request.headers_mut().insert(name, http::HeaderValue::from_static(value));
    request
}

#[tokio::test]
async fn a_request_with_no_store_leaves_nothing_behind() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "Cache-Control: no-store\r\n").await;
    get(&lb, "/", "").await;
    assert_eq!(words(&lb, 2).await, ["miss:request_no_store", "miss"]);
}

/// Stores `/a` (and `/b`), does this, and says how often the backend was asked for `/a` afterwards.
async fn asked_again_after(cache: &str, method: &str, target: &str, answer: bytes::Bytes) -> usize {
    let backend = backend_saying([fresh("a"), answer, fresh("a")]);
    let lb = caching(&backend, cache).await;
    get(&lb, "/a?x=1", "").await;
    ask(&lb, method, target, "", "").await;
    get(&lb, "/a?x=1", "").await;
    backend.requests() - 2
}

#[tokio::test]
async fn an_unsafe_method_makes_what_is_stored_there_untrue() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "FOO"] {
        assert_eq!(asked_again_after("{}", method, "/a?x=1", response(200, &[], "")).await, 1, "{method}");
        assert_eq!(asked_again_after("{}", method, "/a?x=1", response(404, &[], "")).await, 0, "{method}: error");
        assert_eq!(asked_again_after("{}", method, "/a?x=1", response(503, &[], "")).await, 0, "{method}: error");
    }
    assert_eq!(asked_again_after("{}", "OPTIONS", "/a?x=1", response(200, &[], "")).await, 0);
}

#[tokio::test]
async fn an_unsafe_method_reaches_what_its_answer_names_of_its_own_origin() {
    for name in ["Location", "Content-Location"] {
        for (value, asks) in [
            ("/a?x=1", 1),
            ("a?x=1", 1),
            ("http://a/a?x=1", 1),
            ("http://a:80/a?x=1", 1),
            ("http://A/a?x=1#f", 1),
            ("http://b/a?x=1", 0),
            ("https://a/a?x=1", 0),
            ("//b/a?x=1", 0),
            ("http://a@b/a?x=1", 0),
        ] {
            let answer = response(201, &[(name, value)], "");
            assert_eq!(asked_again_after("{}", "POST", "/other", answer).await, asks, "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn an_unsafe_method_reaches_what_is_stored_under_less_than_the_whole_query() {
    let done = || response(200, &[], "");
    assert_eq!(asked_again_after("{ key: { query: none } }", "POST", "/a?y=2", done()).await, 1);
    assert_eq!(asked_again_after("{ key: { query: none } }", "POST", "/a", done()).await, 1);
    assert_eq!(asked_again_after("{ key: { query: [x] } }", "POST", "/a?y=2&x=1", done()).await, 1);
    assert_eq!(asked_again_after("{ key: { query: [x] } }", "POST", "/a?x=2", done()).await, 0);
    let named = response(201, &[("Location", "/a?z=3")], "");
    assert_eq!(asked_again_after("{ key: { query: none } }", "POST", "/other", named).await, 1);
}

#[tokio::test]
async fn what_may_not_be_shared_is_not() {
    for (fields, word) in [
        (&[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")][..], "miss:set_cookie"),
        (&[("Cache-Control", "max-age=60, private")], "miss:private"),
        (&[("Cache-Control", "max-age=60, no-store")], "miss:no_store"),
        (&[("Cache-Control", "max-age=60"), ("Vary", "*")], "miss:vary"),
        (&[("Cache-Control", "max-age=60"), ("Vary", "a, *")], "miss:vary"),
        (&[], "miss:no_freshness"),
    ] {
        let backend = backend(fields, "x");
        let lb = caching(&backend, "{}").await;
        get(&lb, "/", "").await;
        get(&lb, "/", "").await;
        assert_eq!(backend.requests(), 2, "{fields:?}");
        assert_eq!(words(&lb, 2).await[0], word, "{fields:?}");
    }
}

#[tokio::test]
async fn an_answer_to_authorization_is_shared_only_if_it_says_so() {
    for (says, requests) in
        [("max-age=60", 2), ("max-age=60, public", 1), ("s-maxage=60", 1), ("max-age=60, must-revalidate", 1)]
    {
        let backend = backend(&[("Cache-Control", says)], "x");
        let lb = caching(&backend, "{}").await;
        get(&lb, "/", "Authorization: Basic x\r\n").await;
        get(&lb, "/", "").await;
        assert_eq!(backend.requests(), requests, "{says}");
    }
}

#[tokio::test]
async fn cookies_are_stored_where_the_operator_says_so() {
    let backend = backend(&[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")], "x");
    let lb = caching(&backend, "{ store_set_cookie: true }").await;
    get(&lb, "/", "").await;
    assert_eq!(get(&lb, "/", "").await.field("set-cookie"), Some("a=b"));
    assert_eq!(words(&lb, 2).await, ["miss", "hit"]);
}

#[tokio::test]
async fn variants_are_told_apart_by_the_fields_that_vary_names() {
    let backend = backend_saying([
        response(200, &[("Cache-Control", "max-age=60"), ("Vary", "X-Lang")], "de"),
        response(200, &[("Cache-Control", "max-age=60"), ("Vary", "X-Lang")], "en"),
        fresh("never"),
    ]);
    let lb = caching(&backend, "{}").await;
    for _ in 0..2 {
        assert_eq!(get(&lb, "/", "X-Lang: de\r\n").await.text(), "de");
        assert_eq!(get(&lb, "/", "X-Lang: en\r\n").await.text(), "en");
    }
    assert_eq!(words(&lb, 4).await, ["miss", "miss", "hit", "hit"]);
}

#[tokio::test]
async fn ten_thousand_variants_of_one_url_stay_few_and_hurt_nobody_else() {
    let backend = backend(&[("Cache-Control", "max-age=60"), ("Vary", "X-Lang")], "x");
    let lb = caching(&backend, "{}").await;
    let mut attacker = lb.raw().await;
    for number in 0..10_000 {
        let answer = attacker.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Lang: {number}\r\n\r\n")).await;
        assert_eq!(answer.status, 200);
    }
    let before = backend.requests();
    get(&lb, "/", "X-Lang: honest\r\n").await;
    get(&lb, "/", "X-Lang: honest\r\n").await;
    assert_eq!(backend.requests(), before + 1);
}

#[tokio::test]
async fn fields_for_the_first_client_are_not_told_to_others() {
    for (says, name) in [
        ("max-age=60, private=\"X-Mine\"", "X-Mine"),
        ("max-age=60, no-cache=\"X-Mine\"", "X-Mine"),
        ("max-age=60", "RateLimit"),
        ("max-age=60", "X-RateLimit-Remaining"),
        ("max-age=60, private=\"Set-Cookie\"", "Set-Cookie"),
    ] {
        let backend = backend(&[("Cache-Control", says), (name, "1"), ("X-All", "1")], "x");
        let lb = caching(&backend, "{}").await;
        let (first, second) = (get(&lb, "/", "").await, get(&lb, "/", "").await);
        assert_eq!((first.field(name), first.field("x-all")), (Some("1"), Some("1")), "{says} {name}");
        assert_eq!((second.field(name), second.field("x-all")), (None, Some("1")), "{says} {name}");
        assert_eq!(backend.requests(), 1);
    }
}

#[tokio::test]
async fn fields_of_a_connection_reach_nobody() {
    let fields =
        [("Cache-Control", "max-age=60"), ("Connection", "X-Hop"), ("X-Hop", "1"), ("Proxy-Authenticate", "Basic")];
    let backend = backend(&fields, "x");
    let lb = caching(&backend, "{}").await;
    assert_eq!(get(&lb, "/", "").await.field("x-hop"), None);
    let hit = get(&lb, "/", "").await;
    assert_eq!((hit.field("x-hop"), hit.field("proxy-authenticate"), hit.text()), (None, None, "x".into()));
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn interim_answers_are_passed_on_and_never_stored() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nCache-Control: max-age=60\r\n\r\n";
    let acts = vec![Act::ReadBody, Act::Write(hints.into()), Act::Hold, Act::Write(fresh("final"))];
    let backend = Backend::scripted(Script::each([acts]));
    let lb = caching(&backend, "{}").await;
    let mut client = lb.raw().await;
    let first = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.release();
    assert_eq!((first.status, client.read_response().await.text()), (103, "final".into()));
    let hit = get(&lb, "/", "").await;
    assert_eq!((hit.status, hit.field("link"), hit.text()), (200, None, "final".into()));
    assert_eq!(words(&lb, 2).await, ["miss", "hit"]);
}

#[tokio::test]
async fn tls_and_plain_are_different_addresses_and_http_2_is_not() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = caching(&backend, "{}").await;
    let host = format!("localhost:{}", lb.address(1).port());
    let get = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    lb.raw().await.exchange(&get).await;
    lb.tls().await.exchange(&get).await;
    assert_eq!(backend.requests(), 2);
    assert_eq!(lb.h2().await.get("/").await.field("age"), Some("0"));
    assert_eq!(words(&lb, 3).await, ["miss", "miss", "hit"]);
}

#[tokio::test]
async fn the_case_of_a_host_and_its_usual_port_do_not_count() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = caching(&backend, "{}").await;
    for (host, asks) in [
        ("a.example", 1),
        ("A.Example", 1),
        ("a.example:80", 1),
        ("a.example:81", 2),
        ("a.example:443", 3),
        ("b.example", 4),
    ] {
        lb.raw().await.exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(backend.requests(), asks, "{host}");
    }
}

#[tokio::test]
async fn the_scheme_that_a_trusted_proxy_names_counts_and_that_of_others_does_not() {
    for (trusted, asks) in [("[127.0.0.0/8]", 2), ("[]", 1)] {
        let backend = backend(&[("Cache-Control", "max-age=60")], "x");
        let lb = Lb::with_backends([&backend])
            .yaml_route("cache: {}")
            .yaml_section(&format!("server: {{ trusted_proxies: {trusted} }}"))
            .start()
            .await;
        get(&lb, "/", "X-Forwarded-Proto: http\r\n").await;
        get(&lb, "/", "X-Forwarded-Proto: https\r\n").await;
        assert_eq!(backend.requests(), asks, "{trusted}");
    }
}

#[tokio::test]
async fn requests_that_bypass_are_neither_answered_nor_stored() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = caching(&backend, "{ bypass: [\"header:X-Debug\", \"cookie:session\", \"query:preview\"] }").await;
    for (target, lines) in [("/", "X-Debug: 1\r\n"), ("/", "Cookie: a=b; session=1\r\n"), ("/?preview=1", "")] {
        let before = backend.requests();
        for _ in 0..2 {
            get(&lb, target, lines).await;
        }
        assert_eq!(backend.requests(), before + 2, "{target} {lines}");
    }
    get(&lb, "/", "").await;
    let mut expected = vec!["bypass:bypass"; 6];
    expected.push("miss");
    assert_eq!(words(&lb, 7).await, expected);
}

#[tokio::test]
async fn what_nobody_has_given_a_lifetime_is_not_served_stale_to_whoever_takes_that() {
    let backend = backend(&[("ETag", "\"1\""), ("Last-Modified", THEN)], "x");
    let lb = caching(&backend, "{ stale_if_error: 1h }").await;
    for _ in 0..2 {
        assert_eq!(get(&lb, "/", "Cache-Control: max-stale\r\n").await.status, 200);
    }
    assert_eq!(backend.requests(), 2);
    assert_eq!(words(&lb, 2).await, ["miss:no_freshness"; 2]);
    backend.stop().await;
    assert_eq!(get(&lb, "/", "").await.status, 502);
}

#[tokio::test]
async fn the_lifetime_that_the_operator_gives_is_not_for_errors() {
    for (status, asks, word) in [(200, 1, "miss"), (301, 1, "miss"), (404, 2, "miss:no_freshness")] {
        let backend = backend_saying([response(status, &[("ETag", "\"1\"")], "x")]);
        let lb = caching(&backend, "{ ttl: 10m }").await;
        for _ in 0..2 {
            assert_eq!(get(&lb, "/", "").await.status, status);
        }
        assert_eq!(backend.requests(), asks, "{status}");
        assert_eq!(words(&lb, 2).await[0], word, "{status}");
    }
}

#[tokio::test]
async fn what_depends_on_a_field_that_is_written_here_is_not_stored() {
    for name in ["X-Forwarded-For", "Forwarded", "X-Request-Id", "Via"] {
        let backend = backend(&[("Cache-Control", "max-age=60"), ("Vary", name)], "x");
        let lb = caching(&backend, "{}").await;
        get(&lb, "/", "").await;
        get(&lb, "/", "").await;
        assert_eq!(backend.requests(), 2, "{name}");
        assert_eq!(words(&lb, 2).await, ["miss:vary"; 2], "{name}");
    }
}

#[tokio::test]
async fn what_never_has_a_body_is_stored_without_a_length() {
    let backend = Backend::writing("HTTP/1.1 204 No Content\r\nCache-Control: max-age=60\r\n\r\n");
    let lb = caching(&backend, "{}").await;
    for _ in 0..2 {
        let got = get(&lb, "/", "").await;
        assert_eq!((got.status, got.field("content-length"), got.field("transfer-encoding")), (204, None, None));
    }
    assert_eq!(words(&lb, 2).await, ["miss", "hit"]);
}
