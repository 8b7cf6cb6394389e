//! Does anybody reach a route by the path of another, or put a line of theirs into a head of ours? Traversal across the
//! borders of routes, and injection through everything that a client may write and an operator may configure.

use crate::support;

use support::attack::sound;
use support::backend::{Received, response};
use support::{Backend, Lb, Response};

/// What a careless backend may make of a path: it decodes as often as it likes, takes a backslash for a slash and what
/// stands behind a semicolon for nothing, and walks.
fn careless(target: &str) -> Vec<String> {
    let mut path = target.split('?').next().unwrap().to_lowercase();
    for _ in 0..2 {
        path = path.replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    }
    let mut read = Vec::new();
    for segment in path.replace('\\', "/").split('/') {
        match segment.split(';').next().unwrap() {
            "" | "." => {}
            ".." => drop(read.pop()),
            name => read.push(name.to_owned()),
        }
    }
    read
}

fn target(received: &Received) -> &str {
    received.head.first_line.split(' ').nth(1).unwrap()
}

const PATHS: &[&str] = &[
    "/public/../private/x",
    "/public/./../private/x",
    "/public/a/../../private/x",
    "/public/%2e%2e/private/x",
    "/public/%2E%2e/private/x",
    "/public/.%2e/private/x",
    "/public/%2e./private/x",
    "/public/..%2fprivate/x",
    "/public/..%2Fprivate/x",
    "/public%2f..%2fprivate/x",
    "/public/%2e%2e%2fprivate/x",
    "/public/..%5cprivate/x",
    "/public/..\\private/x",
    "/public\\..\\private/x",
    "/public//../private/x",
    "/public///../../private/x",
    "/public/a//../../private/x",
    "//private/x",
    "///private/x",
    "/./private/x",
    "/%2e/private/x",
    "/public/../PRIVATE/x",
    "/public/..//private/x",
    "/public/../%70rivate/x",
    "/%70rivate/x",
    "/p%72ivate/../private/x",
    "/private/../public/../private/x",
    "/../private/x",
    "/public/../../private/x",
    "/public/..%00/private/x",
    "/public/%00/../private/x",
    "/public/..%0d%0a/private/x",
    "/public/.. /private/x",
    "/public/%%32%65%%32%65/private/x",
    "/public/%c0%ae%c0%ae/private/x",
    "/public/%u002e%u002e/private/x",
    "/public/?/../../private/x",
    "/public/#/../../private/x",
    "/public/..;/private/x",
    "/public/..;a=b/private/x",
    "/public/%2e%2e;/private/x",
    "/public/a%2f..;/private/x",
    "/.;/private/x",
];

/// They leave their place only for a backend that decodes twice: to everybody else they are names.
const FOR_THE_CARELESS: &[&str] = &["/public/%252e%252e/private/x", "/public/..%252fprivate/x"];

#[tokio::test]
async fn what_is_private_is_reached_by_the_private_route_alone() {
    let (public, private) = (Backend::named("public"), Backend::named("private"));
    let app = |name: &str, backend: &Backend| {
        format!("  {name}: {{ backends: [{:?}], health_check: none }}\n", backend.url())
    };
    let routes = "routes:\n  - { match: { path: /public/* }, upstream: public }\n  \
        - { match: { path: /private/*, headers: { x-key: open } }, upstream: private }\n";
    let upstreams = format!("upstreams:\n{}{}", app("public", &public), app("private", &private));
    let lb = Lb::yaml(format!("{upstreams}{routes}")).start().await;
    let h2 = lb.h2().await;

    for path in PATHS.iter().chain(FOR_THE_CARELESS) {
        // One refusal may close the connection, and a library may refuse to send it: either is fine.
        lb.get(path).await;
        if http::Uri::try_from(*path).is_ok() {
            let _ = h2.request(h2.build("GET", path), &[]).await;
        }
    }

    assert_eq!(private.requests(), 0, "{:#?}", private.received());
    for received in public.received() {
        assert_eq!(sound(&received), Ok(()), "{}", received.text());
        let seen = target(&received);
        let walked = careless(seen);
        let is_known = FOR_THE_CARELESS.iter().any(|path| path == &seen);
        assert!(walked.first().is_some_and(|first| first == "public") || is_known, "{seen} leads to {walked:?}");
    }
    // The private route is one, and what is the same path by another spelling is not locked out of it.
    for path in ["/private/x", "/public/../private/x", "//private/./x"] {
        let answer = lb.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Key: open\r\n\r\n")).await;
        assert_eq!(answer.text(), "private", "{path}");
    }
}

#[tokio::test]
async fn a_rewrite_never_leads_out_of_the_prefix_that_it_adds() {
    let backend = Backend::answering(200, "");
    let rewrite = "match: { path: /public/* }\n    rewrite: { strip_prefix: /public, add_prefix: /files/open }";
    let lb = Lb::with_backends([&backend]).yaml_route(rewrite).start().await;

    for path in PATHS.iter().filter(|path| path.starts_with("/public")) {
        lb.get(path).await;
        lb.get(&path.replacen("/public", "/public//public", 1)).await;
    }

    for received in backend.received() {
        let seen = target(&received).split('?').next().unwrap();
        assert!(seen.starts_with("/files/open/") && !seen.contains("/../") && !seen.contains("//"), "{seen}");
        assert_eq!(careless(seen)[..2], ["files", "open"], "{seen}");
    }
}

/// What would end a line or a response, as clients can write it in a target or in a field.
const LINES: &[&str] = &[
    "%0d%0aX-Evil:%20yes",
    "%0D%0A%0D%0AHTTP/1.1%20200%20OK%0d%0a",
    "%0aX-Evil:yes",
    "%0dX-Evil:yes",
    "%E5%98%8A%E5%98%8DX-Evil:yes",
    "%u000d%u000aX-Evil:yes",
    "\\r\\nX-Evil:yes",
    "%250d%250aX-Evil:yes",
    "%00X-Evil:yes",
    "\u{560a}\u{560d}X-Evil:yes",
    "\u{85}X-Evil:yes",
    "\"><X-Evil:yes",
    ";X-Evil=yes",
    ",X-Evil:yes",
];

/// Whether a head has lines that are fields, of which none is the evil one.
fn clean(head: &str) -> bool {
    let mut lines = head.strip_suffix("\r\n\r\n").unwrap_or(head).split("\r\n");
    lines.next().is_some()
        && lines.all(|line| line.contains(':') && !line.to_lowercase().starts_with("x-evil"))
        && !head.replace("\r\n", "").contains(['\r', '\n', '\0'])
}

/// Panics unless this is one answer, and its head is clean.
#[track_caller]
fn assert_one(answer: &Response, rest: &[u8], what: &str) {
    let raw = String::from_utf8_lossy(&answer.raw).into_owned();
    let head = raw.split_inclusive("\r\n\r\n").next().unwrap();
    assert!(clean(head), "{what}: {raw}");
    assert!(rest.is_empty(), "{what}: behind the answer came {:?}", String::from_utf8_lossy(rest));
}

const REDIRECTS: &str = "upstreams: {}\nroutes:\n  \
    - { match: { path: /moved/* }, redirect: { to: https://new.example/base/* } }\n  \
    - { match: { path: /here/* }, redirect: { to: /there/*, status: 302 } }\n  \
    - { match: { path: /fixed/* }, redirect: { to: https://new.example/fixed } }\n";

#[tokio::test]
async fn no_redirect_tells_more_than_where_to_go() {
    let lb = Lb::yaml(REDIRECTS).start().await;

    for line in LINES {
        for (path, base) in [
            ("/moved/", "https://new.example/base/moved/"),
            ("/here/", "/there/here/"),
            ("/fixed/", "https://new.example/fixed"),
            ("/here/?", "/there/here/?"),
            ("/moved//evil.example/", "https://new.example/base/moved//evil.example/"),
        ] {
            let mut client = lb.raw().await;
            let what = format!("{path}{line}");
            client.send(format!("GET {what} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
            let answer = client.read_response().await;
            let rest = client.try_read_to_end().await.unwrap_or_default();
            assert_one(&answer, &rest, &what);
            let locations = answer.fields("location");
            let leads_there = locations.len() == 1 && locations[0].starts_with(base);
            assert!(answer.status == 400 || leads_there, "{what}: {} {locations:?}", answer.status);
        }
    }
}

#[tokio::test]
async fn a_redirect_to_https_goes_to_the_host_that_was_asked() {
    let listener = "listeners:\n  - { address: 127.0.0.1:0, redirect_to_https: 443 }";
    let lb = Lb::yaml("upstreams: {}\nroutes: []\n").yaml_section(listener).start().await;

    for target in ["//evil.example/x", "/@evil.example/", "/%0d%0aX-Evil:yes", "/.evil.example", "/\\evil.example"] {
        let mut client = lb.raw().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n")).await;
        let answer = client.read_response().await;
        let rest = client.try_read_to_end().await.unwrap_or_default();
        assert_one(&answer, &rest, target);
        let wanted = format!("https://good.example{target}");
        assert!(answer.status == 400 || answer.fields("location") == [wanted], "{target}: {answer:?}");
    }
    for host in ["evil.example/@good.example", "good.example@evil.example", "a\u{e9}b", "a:80,b", "a%0d%0aX-Evil:yes"] {
        let answer = lb.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((answer.status, answer.field("location")), (400, None), "{host}");
    }
}

#[tokio::test]
async fn nothing_that_a_client_writes_becomes_a_field_of_ours() {
    let backend = Backend::writing(response(200, &[("Set-Cookie", "a=b")], "hello"));
    let edits = "sticky: { cookie: sid }";
    let lb = Lb::with_backends([&backend])
        .yaml_upstream(edits)
        .yaml_route(
            "headers: { request: { set: { X-Tenant: a }, add: { X-More: b } }, response: { set: { X-Own: c } } }",
        )
        .yaml_route("rewrite: { add_prefix: /in }")
        .yaml_route("expose: [backend, timing]")
        .yaml_section("server: { trusted_proxies: [127.0.0.0/8] }")
        .start()
        .await;
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "Forwarded",
        "X-Request-Id",
        "Cookie",
        "X-Tenant",
        "X-More",
        "X-Own",
        "Via",
        "Referer",
    ];

    for line in LINES {
        for request in names.iter().map(|name| format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: sid={line}\r\n")).chain([
            format!("GET /{line} HTTP/1.1\r\nHost: a\r\n"),
            format!("GET /?{line} HTTP/1.1\r\nHost: a\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a{line}\r\n"),
        ]) {
            let before = backend.requests();
            let mut client = lb.raw().await;
            client.send(format!("{request}Connection: close\r\n\r\n")).await;
            let answer = client.read_response().await;
            let rest = client.try_read_to_end().await.unwrap_or_default();
            assert_one(&answer, &rest, &request);
            assert!(matches!(answer.status, 200 | 400), "{request}: {}", answer.status);
            assert_eq!(backend.requests() - before, usize::from(answer.status == 200), "{request}");
        }
    }

    for received in backend.received() {
        let head = String::from_utf8_lossy(&received.head.raw).into_owned();
        assert!(clean(&head), "{head}");
        let once = |name: &str| received.head.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count() == 1;
        assert!(["host", "x-tenant", "x-request-id"].into_iter().all(once), "{head}");
        assert_eq!(received.field("x-tenant"), Some("a"));
    }
}

#[tokio::test]
async fn what_an_operator_configures_is_one_field_or_is_refused() {
    use portcullis::config::{Surroundings, parse};
    let file = |route: &str| {
        format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ backends: [127.0.0.1:1], sticky: {{ cookie: COOKIE }} }} }}\nroutes:\n  - {{ {route} }}\n"
        )
    };
    let check = |text: String| parse(&text, "test.yaml", &Surroundings::of_process(".".into())).is_ok();
    let cookie = |route: &str, name: &str| file(route).replace("COOKIE", name);
    assert!(check(cookie("upstream: app", "sid")));

    for evil in ["a\\r\\nX-Evil: yes", "a\\nX-Evil: yes", "a\\rb", "a\\0b"] {
        for route in [
            format!("upstream: app, headers: {{ request: {{ set: {{ X-A: \"{evil}\" }} }} }}"),
            format!("upstream: app, headers: {{ request: {{ add: {{ X-A: \"{evil}\" }} }} }}"),
            format!("upstream: app, headers: {{ response: {{ set: {{ X-A: \"{evil}\" }} }} }}"),
            format!("upstream: app, headers: {{ response: {{ set: {{ \"{evil}\": b }} }} }}"),
            format!("upstream: app, rewrite: {{ host: \"{evil}\" }}"),
            format!("upstream: app, rewrite: {{ add_prefix: \"/{evil}\" }}"),
            format!("redirect: {{ to: \"https://new.example/{evil}\" }}"),
            format!("redirect: {{ to: \"/{evil}/*\" }}"),
        ] {
            assert!(!check(cookie(&route, "sid")), "{route}");
        }
        assert!(!check(cookie("upstream: app", &format!("\"{evil}\""))), "a cookie of the name {evil}");
    }
    // A path alone would begin with the two slashes that make a client's path a host.
    assert!(!check(cookie("redirect: { to: /* }", "sid")));
}
