//! Where a request belongs: which route it finds, and what of it the backend sees.

use crate::support;

use support::{Backend, Lb, Response};

/// A front door whose routes answer with their names; each is a name and a match.
async fn named_routes(routes: &[(&str, &str)]) -> Lb {
    let line = |(name, matches): &(&str, &str)| {
        format!("  - {{ name: \"{name}\", match: {{ {matches} }}, respond: {{ status: 200, body: \"{name}\" }} }}\n")
    };
    Lb::yaml(format!("routes:\n{}", routes.iter().map(line).collect::<String>())).start().await
}

/// Which route answers: its name, or the status if it is not 200.
fn name(response: Response) -> String {
    if response.status == 200 { response.text() } else { response.status.to_string() }
}

async fn check(lb: &Lb, host: &str, path: &str, wanted: &str) {
    let response = lb.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    assert_eq!(name(response), wanted, "{host}{path}");
}

#[tokio::test]
async fn an_exact_host_beats_a_wildcard_and_a_wildcard_beats_any() {
    let routes = [
        ("any", ""),
        ("wildcard", "host: [\"*.example.com\"]"),
        ("nearer", "host: [\"*.eu.example.com\"]"),
        ("exact", "host: [www.example.com]"),
    ];
    let lb = named_routes(&routes).await;

    check(&lb, "www.example.com", "/", "exact").await;
    check(&lb, "api.example.com", "/", "wildcard").await;
    check(&lb, "a.b.example.com", "/", "wildcard").await;
    check(&lb, "x.eu.example.com", "/", "nearer").await;
    check(&lb, "example.com", "/", "any").await;
    check(&lb, "badexample.com", "/", "any").await;
    check(&lb, "www.example.com.evil.net", "/", "any").await;
}

#[tokio::test]
async fn a_host_is_the_same_with_a_port_in_upper_case_and_with_a_dot() {
    let routes = [("site", "host: [www.example.com]"), ("six", "host: [\"[2001:db8::1]\"]")];
    let lb = named_routes(&routes).await;

    for host in ["WWW.Example.COM", "www.example.com:8443", "www.example.com.", "WWW.EXAMPLE.com.:80"] {
        check(&lb, host, "/", "site").await;
    }
    check(&lb, "[2001:DB8:0::1]:8443", "/", "six").await;
    check(&lb, "example.com", "/", "404").await;
}

#[tokio::test]
async fn the_authority_of_an_absolute_target_and_of_http2_is_the_host() {
    let lb = named_routes(&[("site", "host: [localhost], path: /a"), ("other", "host: [other]")]).await;

    let absolute = lb.send("GET http://localhost/a?b HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(name(absolute), "site");
    let torn = lb.send("GET http://localhost/a HTTP/1.1\r\nHost: other\r\n\r\n").await;
    assert_eq!(torn.status, 400, "two hosts are none");
    assert_eq!(lb.h2().await.get("/a").await.body, "site");
}

#[tokio::test]
async fn the_more_specific_path_wins_whatever_the_order() {
    let routes = [
        ("any", ""),
        ("v1", "path: /v1/*"),
        ("users", "path: /v1/users/*"),
        ("me", "path: /v1/users/me"),
        ("root", "path: /"),
    ];
    let lb = named_routes(&routes).await;

    for (path, wanted) in [
        ("/", "root"),
        ("/?x", "root"),
        ("/v1", "v1"),
        ("/v1/", "v1"),
        ("/v1?x=/v1/users/me", "v1"),
        ("/v1x", "any"),
        ("/V1/users", "any"),
        ("/v1/users", "users"),
        ("/v1/usersx", "v1"),
        ("/v1/users/me", "me"),
        ("/v1/users/me/", "users"),
        ("/v1/users/me2", "users"),
    ] {
        check(&lb, "h", path, wanted).await;
    }
}

#[tokio::test]
async fn a_better_host_beats_a_better_path() {
    let lb = named_routes(&[("path", "path: /a/b"), ("host", "host: [x.net]"), ("rest", "")]).await;

    check(&lb, "x.net", "/a/b", "host").await;
    check(&lb, "y.net", "/a/b", "path").await;
    check(&lb, "y.net", "/a", "rest").await;
}

#[tokio::test]
async fn a_host_that_does_not_want_the_request_leaves_it_to_the_next() {
    let routes =
        [("exact", "host: [a.x.net], path: /only"), ("wildcard", "host: [\"*.x.net\"], methods: [PUT]"), ("any", "")];
    let lb = named_routes(&routes).await;

    check(&lb, "a.x.net", "/only", "exact").await;
    check(&lb, "a.x.net", "/else", "any").await;
    assert_eq!(lb.send("PUT /else HTTP/1.1\r\nHost: a.x.net\r\nContent-Length: 0\r\n\r\n").await.body, "wildcard");
}

#[tokio::test]
async fn methods_fields_and_queries_choose_and_more_conditions_win() {
    let routes = [
        ("plain", ""),
        ("read", "methods: [GET]"),
        ("beta", "methods: [GET], headers: { x-beta: \"1\" }"),
        ("page", "methods: [GET], headers: { x-beta: \"1\" }, query: { page: \"a b\" }"),
    ];
    let lb = named_routes(&routes).await;

    for (request, wanted) in [
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n", "plain"),
        ("GET / HTTP/1.1\r\nHost: h\r\n", "read"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-BETA: 1\r\n", "beta"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-Beta: 2\r\n", "read"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-Beta: 1\r\nX-Beta: 2\r\n", "read"),
        ("GET /?page=a%20b HTTP/1.1\r\nHost: h\r\nX-Beta: 1\r\n", "page"),
        ("GET /?x&page=a+b HTTP/1.1\r\nHost: h\r\nX-Beta: 1\r\n", "page"),
        ("GET /?page=a HTTP/1.1\r\nHost: h\r\nX-Beta: 1\r\n", "beta"),
        ("GET /?page=a+b&page=c HTTP/1.1\r\nHost: h\r\nX-Beta: 1\r\n", "beta"),
    ] {
        assert_eq!(name(lb.send(&format!("{request}\r\n")).await), wanted, "{request}");
    }
}

#[tokio::test]
async fn get_implies_head() {
    let lb = named_routes(&[("read", "methods: [GET]")]).await;
    let mut client = lb.raw().await;

    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let head = client.read_response_to_head().await;

    assert_eq!((head.status, head.field("content-length")), (200, Some("4")));
    // Had a body followed, this would not be read as a response.
    let wrong = client.exchange("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wrong.status, 404);
}

#[tokio::test]
async fn a_route_may_ask_for_its_listener() {
    let lb = named_routes(&[("plain", "listener: plain"), ("secure", "listener: secure")]).await;
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    assert_eq!(lb.raw().await.exchange(get).await.body, "plain");
    assert_eq!(lb.tls().await.exchange(get).await.body, "secure");
}

#[tokio::test]
async fn no_route_is_404_and_says_so_in_the_log() {
    let lb = named_routes(&[("site", "host: [x.net]")]).await;

    let response = lb.get("/secret/path?token=1").await;

    assert_eq!(response.status, 404);
    assert!(!response.text().contains("secret"), "{response:?}");
    let line = &lb.access_log(1).await[0];
    assert_eq!((&line["reason"], &line["status"]), (&"no_route".into(), &404.into()));
    assert_eq!((&line["route"], &line["attempts"]), (&serde_json::Value::Null, &serde_json::json!([])));
}

#[tokio::test]
async fn a_path_is_matched_in_one_spelling_and_forwarded_byte_for_byte() {
    let (inner, outer) = (Backend::named("inner"), Backend::named("outer"));
    let yaml = format!(
        "upstreams:\n  inner: {{ backends: [\"{}\"], health_check: none }}\n  outer: {{ backends: [\"{}\"], \
         health_check: none }}\nroutes:\n  - {{ match: {{ path: /inner/* }}, upstream: inner }}\n  - {{ upstream: outer }}\n",
        inner.url(),
        outer.url()
    );
    let lb = Lb::yaml(yaml).start().await;
    let mut client = lb.raw().await;

    for (target, wanted) in [
        ("/inner/a?b=%2e%2E//", &inner),
        ("/x/../inner/a", &inner),
        ("/x/%2e%2E/inner", &inner),
        ("/x/.%2e/./inner//a/", &inner),
        ("//inner///a", &inner),
        ("/%69nner/a", &inner),
        ("/inner/../y", &outer),
        ("/inner/%2e./y", &outer),
        ("/inner/..//y?q", &outer),
        ("/inner%2fa", &outer),
        ("/inner/%252e%252e/y", &inner),
        ("/?/inner/a", &outer),
    ] {
        let before = wanted.requests();
        client.exchange(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let received = wanted.received();
        assert_eq!(received.len(), before + 1, "{target}");
        assert_eq!(received[before].head.first_line, format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_path_above_the_root_is_refused() {
    let backend = Backend::named("any");
    let lb = Lb::with_backends([&backend]).start().await;

    let above = ["/..", "/a/../../b", "/%2e%2e/a", "/a%00b", "/%zz"];
    let in_two_ways = ["/a//../b", "/inner%2F..%2Fa", "/x/..%2finner/a", "/inner/%5c..%5c..%5cy"];
    for target in above.into_iter().chain(in_two_ways) {
        let response = lb.get(target).await;
        assert_eq!(response.status, 400, "{target}");
    }

    assert_eq!(backend.requests(), 0);
    for line in lb.access_log(9).await {
        assert_eq!(line["reason"], "bad_target");
    }
}

#[tokio::test]
async fn http2_normalises_the_same_way() {
    let (inner, outer) = (Backend::named("inner"), Backend::named("outer"));
    let yaml = format!(
        "upstreams:\n  inner: {{ backends: [\"{}\"], health_check: none }}\n  outer: {{ backends: [\"{}\"], \
         health_check: none }}\nroutes:\n  - {{ match: {{ path: /inner/* }}, upstream: inner }}\n  - {{ upstream: outer }}\n",
        inner.url(),
        outer.url()
    );
    let lb = Lb::yaml(yaml).start().await;
    let client = lb.h2().await;

    assert_eq!(client.get("/inner/%2e%2e/y").await.body, "outer");
    assert_eq!(client.get("/y/..//inner%2fx/%2e./inner").await.body, "inner");
    assert_eq!(outer.only_request().head.first_line, "GET /inner/%2e%2e/y HTTP/1.1");
    assert_eq!(client.get("/../y").await.status, 400);
}

#[tokio::test]
async fn a_redirect_keeps_path_and_query_where_its_star_stands() {
    let lb = Lb::yaml(
        "routes:\n\
         - { match: { path: /star/* }, redirect: { to: \"https://new.example.com/*\", status: 301 } }\n\
         - { match: { path: /sub/* }, redirect: { to: \"https://new.example.com/base/*\" } }\n\
         - { redirect: { to: \"https://plain.example.com/\", status: 302 } }\n",
    )
    .start()
    .await;

    for (target, status, location) in [
        ("/star/a%2fb/../c?d=e&f", 301, "https://new.example.com/star/a%2fb/../c?d=e&f"),
        ("//star//a", 301, "https://new.example.com//star//a"),
        ("/sub/x", 308, "https://new.example.com/base/sub/x"),
        ("/anything?x", 302, "https://plain.example.com/"),
    ] {
        let response = lb.get(target).await;
        assert_eq!((response.status, response.field("location")), (status, Some(location)), "{target}");
        assert!(response.body.is_empty());
    }
}

#[tokio::test]
async fn a_route_answers_by_itself_with_its_own_fields() {
    let lb = Lb::yaml(
        "routes:\n\
         - match: { path: /closed/* }\n  respond: { status: 503, body: \"until noon\\n\" }\n  \
         headers: { response: { set: { retry-after: \"3600\" } } }\n\
         - { match: { path: /empty }, respond: { status: 204 } }\n",
    )
    .start()
    .await;
    let mut client = lb.raw().await;

    let closed = client.exchange("GET /closed/now HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(
        (closed.status, closed.text().as_str(), closed.field("retry-after")),
        (503, "until noon\n", Some("3600"))
    );
    let empty = client.exchange("GET /empty HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!((empty.status, empty.field("content-length")), (204, None));
    // A body that nobody reads does not become the next request.
    let post = "POST /closed/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /";
    assert_eq!(client.exchange(post).await.status, 503);
}

#[tokio::test]
async fn ten_thousand_routes_find_the_first_and_the_last() {
    let route = |n: usize| {
        format!(
            "- {{ match: {{ host: [h{n}.example.com], path: /p{n}/* }}, respond: {{ status: 200, body: \"{n}\" }} }}\n"
        )
    };
    let lb = Lb::yaml(format!("routes:\n{}", (0..10_000).map(route).collect::<String>())).start().await;

    check(&lb, "h0.example.com", "/p0/x", "0").await;
    check(&lb, "h9999.example.com", "/p9999", "9999").await;
    check(&lb, "h9999.example.com", "/p0", "404").await;
}
