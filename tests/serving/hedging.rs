//! Hedging: a late answer is asked for once more, of another backend, and the client gets the first good one; never
//! where a second request could do harm, and never beyond the budget.

use crate::support;

use std::time::Duration;

use serde_json::Value;
use support::backend::{chunked_response, response};
use support::bytes_on_the_wire::Framing;
use support::front_door::Builder;
use support::{Act, Backend, H2Backend, Lb, Script};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Requests go to the first backend, and to the second only beside or after it.
fn first_then(first: &str, second: &str, retry: &str) -> Builder {
    Lb::yaml(format!(
        "upstreams:\n  app:\n    backends:\n      - \"{first}\"\n      - {{ url: \"{second}\", backup: true }}\n    \
         health_check: none\n    passive_health: none\n    obey: {{ retry_after: false }}\n\
         routes:\n  - upstream: app\n    retry: {retry}\n"
    ))
}

const QUICKLY: &str = "{ hedge: { after: 50ms } }";

/// The outcome of each attempt, in the order in which they ended.
fn outcomes(line: &Value) -> String {
    let attempts = line["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["outcome"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

async fn all_given_back(lb: &Lb) {
    lb.until_idle().await;
    let upstream = lb.upstream("app");
    for member in upstream.members() {
        assert_eq!(upstream.in_flight(&member.backend), 0, "{}", member.backend.name);
    }
}

/// Answers with this after a while.
fn later(millis: u64, status: u16, body: &str) -> Backend {
    Backend::scripted(Script::each([vec![Act::Delay(MS(millis)), Act::Write(response(status, &[], body))]]))
}

#[tokio::test]
async fn a_second_backend_answers_where_the_first_is_late_and_the_first_is_let_go() {
    for (method, body) in [("GET", "quick"), ("HEAD", "")] {
        let (slow, quick) = (Backend::held("slow"), Backend::named("quick"));
        let lb = first_then(&slow.url(), &quick.url(), QUICKLY).start().await;
        let mut client = lb.raw().await;

        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let framing = if method == "HEAD" { Framing::None } else { Framing::UntilClose };
        let answer = client.try_read_response(framing).await.unwrap();

        assert_eq!((answer.status, answer.text().as_str()), (200, body));
        assert_eq!((slow.requests(), quick.requests()), (1, 1));
        all_given_back(&lb).await;
        let line = &lb.access_log(1).await[0];
        assert_eq!((outcomes(line).as_str(), &line["reason"]), ("hedged_out ok", &"ok".into()), "{line}");
        assert_eq!(line["backend"], quick.address().to_string());
        assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0, "being late is no failure");
    }
}

#[tokio::test]
async fn an_answer_in_time_is_the_only_one() {
    let (first, second) = (Backend::named("first"), Backend::named("second"));
    let lb = first_then(&first.url(), &second.url(), "{ hedge: { after: 5s } }").start().await;
    let mut client = lb.raw().await;

    for _ in 0..5 {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, "first");
    }

    assert_eq!((first.requests(), first.connections(), second.requests()), (5, 1, 0), "connections are kept");
    for line in lb.access_log(5).await {
        assert_eq!(outcomes(&line), "ok");
    }
    all_given_back(&lb).await;
}

#[tokio::test]
async fn what_is_not_safe_or_has_a_body_or_an_upgrade_is_never_asked_twice() {
    let (slow, other) = (later(150, 200, "slow"), Backend::named("other"));
    let lb = first_then(&slow.url(), &other.url(), QUICKLY).start().await;

    for head in [
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n",
    ] {
        assert_eq!(lb.send(head).await.body, "slow", "{head}");
    }

    assert_eq!((slow.requests(), other.requests()), (6, 0));
}

#[tokio::test]
async fn a_session_stays_with_its_backend() {
    let answer = || Act::Write(response(200, &[], "slow"));
    let slow = Backend::scripted(Script::each([vec![answer()], vec![Act::Delay(MS(200)), answer()]]));
    let other = Backend::named("other");
    let app = first_then(&slow.url(), &other.url(), QUICKLY).text();
    let lb =
        Lb::yaml(app.replace("health_check: none", "health_check: none\n    sticky: { cookie: stay }")).start().await;
    let begin = lb.get("/").await;
    let cookie = begin.field("set-cookie").unwrap().split(';').next().unwrap();

    assert_eq!(lb.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).await.body, "slow");
    assert_eq!(lb.get("/").await.body, "other", "who has no session is served by anybody");
}

#[tokio::test]
async fn there_are_no_more_second_requests_than_the_budget_has() {
    let (slow, other) = (later(150, 200, "slow"), Backend::named("other"));
    let retry = "{ hedge: { after: 20ms }, budget: { share: 0%, min_per_second: 1 } }";
    let lb = first_then(&slow.url(), &other.url(), retry).start().await;
    let lb = &lb;

    support::all_of((0..40).map(|_| async move { assert_eq!(lb.get("/").await.status, 200) })).await;

    assert!((1..=10).contains(&other.requests()), "{}", other.requests());
    all_given_back(lb).await;
}

#[tokio::test]
async fn an_attempt_that_is_given_up_counts_in_the_quota_all_the_same() {
    let (slow, other) = (later(150, 200, "slow"), Backend::named("other"));
    let quota = |backend: &Backend, more: &str| format!("{{ url: \"{}\", quota: [3/h]{more} }}", backend.url());
    let app = first_then("FIRST", "SECOND", QUICKLY).text();
    let app = app.replace("\"FIRST\"", &quota(&slow, ""));
    let app = app.replace("{ url: \"SECOND\", backup: true }", &quota(&other, ", backup: true"));
    let lb =
        Lb::yaml(app.replace("health_check: none", "health_check: none\n    queue: { timeout: 50ms }")).start().await;

    for _ in 0..8 {
        assert!([200, 503].contains(&lb.get("/").await.status));
    }

    assert_eq!((slow.requests(), other.requests()), (3, 3));
    all_given_back(&lb).await;
}

#[tokio::test]
async fn where_the_first_to_answer_fails_the_other_is_waited_for() {
    for (first, outcome) in [
        (later(150, 503, "busy"), "status_503"),
        (Backend::scripted(Script::each([vec![Act::Delay(MS(150)), Act::Reset]])), "backend_closed"),
        (Backend::scripted(Script::each([vec![Act::Delay(MS(150)), Act::Close]])), "backend_closed"),
    ] {
        let second = later(300, 200, "good");
        let lb = first_then(&first.url(), &second.url(), QUICKLY).start().await;

        assert_eq!(lb.get("/").await.body, "good", "{outcome}");

        assert_eq!(outcomes(&lb.access_log(1).await[0]), format!("{outcome} ok"));
        assert_eq!((first.requests(), second.requests()), (1, 1));
        assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 1, "{outcome}");
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn the_second_may_fail_too_and_the_first_still_be_good() {
    let (first, second) = (later(200, 200, "good"), Backend::answering(503, "busy"));
    let lb = first_then(&first.url(), &second.url(), QUICKLY).start().await;

    assert_eq!(lb.get("/").await.body, "good");

    assert_eq!(outcomes(&lb.access_log(1).await[0]), "status_503 ok");
}

#[tokio::test]
async fn a_second_backend_that_cannot_be_reached_changes_nothing() {
    let (first, second) = (later(200, 200, "good"), Backend::refusing());
    let lb = first_then(&first.url(), &second.url(), QUICKLY).start().await;

    assert_eq!(lb.get("/").await.body, "good");

    assert_eq!(outcomes(&lb.access_log(1).await[0]), "connect_refused ok");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn where_both_fail_the_last_answer_arrives_whole() {
    let (first, second) = (later(150, 503, "busy"), later(200, 502, "broken"));
    let lb = first_then(&first.url(), &second.url(), "{ attempts: 2, hedge: { after: 50ms } }").start().await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, answer.text().as_str()), (502, "broken"));
    let line = &lb.access_log(1).await[0];
    assert_eq!(
        (outcomes(line).as_str(), &line["attempts"][1]["no_retry"]),
        ("status_503 ok", &"attempts_used_up".into())
    );
}

#[tokio::test]
async fn what_fails_early_is_tried_again_as_always() {
    for (first, outcome) in [
        (Backend::refusing(), "connect_refused"),
        (Backend::resetting_before_head(), "backend_closed"),
        (Backend::answering(503, "busy"), "status_503"),
    ] {
        let second = Backend::named("second");
        let lb = first_then(&first.url(), &second.url(), "{ hedge: { after: 5s } }").start().await;

        assert_eq!(lb.get("/").await.body, "second", "{outcome}");

        assert_eq!(outcomes(&lb.access_log(1).await[0]), format!("{outcome} ok"));
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn a_stale_connection_gets_its_free_try() {
    let (first, second) = (Backend::stale_after(1, "first"), Backend::named("second"));
    let lb = first_then(&first.url(), &second.url(), "{ hedge: { after: 5s } }").start().await;

    assert_eq!(lb.get("/").await.body, "first");
    assert_eq!(lb.get("/").await.body, "first");

    assert_eq!(outcomes(&lb.access_log(2).await[1]), "backend_closed ok");
    assert_eq!(second.requests(), 0);
}

#[tokio::test]
async fn a_connection_that_goes_stale_while_another_backend_is_asked_is_not_the_backends_failure() {
    let answer = || Act::Write(response(200, &[], "first"));
    let script = Script::each_on_a_connection([vec![answer()], vec![Act::Delay(MS(150)), Act::Close]]);
    let (first, second) = (Backend::scripted(script), later(300, 200, "second"));
    let lb = first_then(&first.url(), &second.url(), QUICKLY).start().await;

    assert_eq!(lb.get("/").await.body, "first");
    assert_eq!(lb.get("/").await.body, "second");

    assert_eq!(outcomes(&lb.access_log(2).await[1]), "backend_closed ok");
    assert_eq!((first.requests(), first.connections()), (2, 1));
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0);
    all_given_back(&lb).await;
}

#[tokio::test]
async fn both_have_no_more_time_than_there_is() {
    for (retry, reason) in [
        ("{ hedge: { after: 50ms } }\n    timeout: 300ms", "route_timeout"),
        ("{ per_attempt: 200ms, attempts: 2, hedge: { after: 50ms } }", "attempt_timeout"),
    ] {
        let (first, second) = (Backend::hanging(), Backend::hanging());
        let lb = first_then(&first.url(), &second.url(), retry).start().await;

        assert_eq!(lb.get("/").await.status, 504, "{reason}");

        let line = &lb.access_log(1).await[0];
        assert_eq!((&line["reason"], line["attempts"].as_array().unwrap().len()), (&reason.into(), 2), "{line}");
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn answers_of_all_shapes_arrive_whole() {
    let long = "0123456789".repeat(100_000);
    let close = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{long}");
    for (bytes, status, body) in [
        (response(200, &[("x-a", "1")], &long), 200, long.as_str()),
        (chunked_response(&["hel", "lo"], &[]), 200, "hello"),
        (close.into(), 200, long.as_str()),
        ("HTTP/1.1 204 No Content\r\n\r\n".into(), 204, ""),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n".into(), 304, ""),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".into(),
            200,
            "hi",
        ),
        (response(404, &[], "nobody"), 404, "nobody"),
    ] {
        let closes = bytes.starts_with(b"HTTP/1.1 200 OK\r\nConnection: close");
        let mut acts = vec![Act::Write(bytes)];
        acts.extend(closes.then_some(Act::Close));
        let (first, second) = (Backend::scripted(Script::each([acts])), Backend::named("second"));
        let lb = first_then(&first.url(), &second.url(), "{ hedge: { after: 5s } }").start().await;
        let mut client = lb.raw().await;

        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let framing = if body.is_empty() { Framing::None } else { Framing::UntilClose };
            let answer = client.try_read_response(framing).await.unwrap();
            assert!(answer.status == status && answer.body == body, "{status}: {} bytes", answer.body.len());
        }
        assert!(lb.h2().await.get("/").await.body == body, "{status} over HTTP/2");
        let mut old = lb.raw().await;
        old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(old.read_to_end().await.ends_with(format!("\r\n\r\n{body}").as_bytes()), "{status} over HTTP/1.0");
        assert_eq!(second.requests(), 0);
        for line in lb.access_log(4).await {
            assert_eq!((&line["reason"], &line["bytes_out"]), (&"ok".into(), &body.len().into()), "{line}");
        }
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn backends_that_speak_http2_are_asked_twice_too() {
    let (late, quick) = (H2Backend::plain(), H2Backend::plain());
    let app = first_then(&late.url(), &quick.url(), QUICKLY).text();
    let app = app.replace("health_check: none", "health_check: none\n    protocol: http2");
    let lb = Lb::yaml(app).start().await;
    let client = lb.h2().await;

    let answer = client.get(&format!("/late/{}", late.address().port())).await;
    assert_eq!((answer.status.as_u16(), answer.trailer("grpc-status")), (200, Some("0")));
    assert_eq!(lb.get(&format!("/not/{}", late.address().port())).await.status, 200, "the connection still serves");

    assert_eq!([&late, &quick].map(|backend| backend.heads().len()), [2, 2]);
    let lines = lb.access_log(2).await;
    assert_eq!([outcomes(&lines[0]), outcomes(&lines[1])], ["hedged_out ok", "status_503 ok"]);
    all_given_back(&lb).await;
}

#[tokio::test]
async fn answers_of_http2_arrive_over_http1_too_whether_they_end_with_their_heads_or_not() {
    let (late, quick) = (H2Backend::plain(), H2Backend::plain());
    let app = first_then(&late.url(), &quick.url(), QUICKLY).text();
    let app = app.replace("health_check: none", "health_check: none\n    protocol: http2");
    let lb = Lb::yaml(app).start().await;
    let late_path = format!("/late/{}", late.address().port());
    let mut client = lb.raw().await;

    for path in [late_path.as_str(), "/error", "/any"] {
        let answer = client.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{path}: on one connection of the client");
        assert_eq!((answer.field("transfer-encoding"), answer.field("via")), (Some("chunked"), Some("2.0 portcullis")));
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.try_read_response(Framing::None).await.unwrap().status, 200, "HEAD {path}");
    }

    for line in lb.access_log(6).await {
        assert_eq!(line["reason"], "ok", "{line}");
    }
    all_given_back(&lb).await;
}

#[tokio::test]
async fn backends_get_the_same_head_as_on_any_route() {
    let backend = Backend::named("app");
    let upstreams = format!("upstreams:\n  app: {{ backends: [\"{}\"], health_check: none }}\n", backend.url());
    let route = |path: &str, retry: &str| {
        format!(
            "  - match: {{ path: /{path}/* }}\n    upstream: app\n    retry: {retry}\n    rewrite: {{ strip_prefix: /{path}, \
             add_prefix: /new }}\n    headers: {{ request: {{ set: {{ x-set: \"1\" }}, remove: [x-gone] }} }}\n"
        )
    };
    let hedged = route("hedged", "{ hedge: { after: 5s } }");
    let lb = Lb::yaml(format!("{upstreams}routes:\n{}{hedged}", route("usual", "{}"))).start().await;

    let fields = "Host: a.example:81\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nTE: trailers\r\nX-Gone: 1\r\n\
        Proxy-Authorization: b\r\nProxy-Connection: c\r\nCookie: d=e\r\nX-Two: 1\r\nX-Two: 2\r\nX-Forwarded-For: 6.6.6.6\r\n";
    for path in ["usual", "hedged"] {
        lb.send(&format!("GET /{path}/a%2Fb?c=d&e HTTP/1.1\r\n{fields}\r\n")).await;
        lb.send(&format!("GET http://a.example:81/{path}/x HTTP/1.1\r\n{fields}\r\n")).await;
        lb.send(&format!("GET /{path}/y HTTP/1.0\r\n\r\n")).await;
        let client = lb.h2().await;
        client.get(&format!("/{path}/z?q")).await;
    }

    let heads = backend.received().into_iter().map(|received| {
        let mut fields = received.head.fields;
        let volatile = ["x-request-id", "x-forwarded-port"];
        fields.retain(|(name, _)| !volatile.contains(&name.to_ascii_lowercase().as_str()));
        fields.sort();
        (received.head.first_line, fields)
    });
    let heads: Vec<_> = heads.collect();
    assert_eq!(heads.len(), 8);
    assert_eq!(heads[..4], heads[4..]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let (bad, other) = (Backend::resetting_mid_body(), Backend::named("other"));
    let lb = first_then(&bad.url(), &other.url(), "{ hedge: { after: 5s } }").start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    bad.until_requests(1).await;
    bad.release();

    client.try_read_response(Framing::UntilClose).await.unwrap_err();

    assert_eq!((outcomes(&lb.access_log(1).await[0]).as_str(), other.requests()), ("backend_closed", 0));
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut_off() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.";
    let bad = Backend::scripted(Script::each([vec![Act::Write(half.into()), Act::Hang]]));
    let app = first_then(&bad.url(), &Backend::named("other").url(), "{ hedge: { after: 5s } }").text();
    let lb = Lb::yaml(app.replace("health_check: none", "health_check: none\n    timeouts: { between_bytes: 200ms }"));
    let lb = lb.start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

    client.try_read_response(Framing::UntilClose).await.unwrap_err();

    assert_eq!(lb.access_log(1).await[0]["reason"], "stalled_response");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_client_that_leaves_leaves_both() {
    let (first, second) = (Backend::hanging(), Backend::hanging());
    let lb = first_then(&first.url(), &second.url(), QUICKLY).start().await;

    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    second.until_requests(1).await;
    drop(client);

    let line = &lb.access_log(1).await[0];
    assert_eq!((outcomes(line).as_str(), &line["reason"]), ("client_gone client_gone", &"client_gone".into()));
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_quantile_is_of_what_the_upstream_has_lately_answered() {
    let quick = vec![Act::Write(response(200, &[], "first"))];
    let mut script = vec![quick; 80];
    script.push(vec![Act::Hang]);
    let (first, second) = (Backend::scripted(Script::each(script)), Backend::named("second"));
    let lb = first_then(&first.url(), &second.url(), "{ per_attempt: 400ms, hedge: { after: p95 } }").start().await;

    for _ in 0..80 {
        assert_eq!(lb.get("/").await.status, 200);
    }
    // The quantile may be a second old, and then be of too few answers.
    for _ in 0..10 {
        assert_eq!(lb.get("/").await.body, "second");
    }

    let lines = lb.access_log(90).await;
    assert!(lines[..50].iter().all(|line| outcomes(line) == "ok"), "nothing is known yet");
    assert!(lines[80..].iter().any(|line| outcomes(line) == "hedged_out ok"), "{:#?}", &lines[80..]);
}

#[tokio::test]
async fn nobody_is_in_flight_after_a_flood_and_no_post_arrives_twice() {
    let all = [
        later(60, 200, "late"),
        later(5, 503, "busy"),
        Backend::resetting_before_head(),
        Backend::scripted(Script::each([vec![Act::Delay(MS(30)), Act::Close]])),
        Backend::stale_after(2, "hello"),
        Backend::refusing(),
        Backend::answering(200, "hello"),
        Backend::hanging(),
    ];
    let app = Lb::with_backends(&all).yaml_upstream("timeouts: { first_byte: 150ms }").yaml_upstream("balance: random");
    let lb = &app.yaml_route("retry: { hedge: { after: 10ms } }").start().await;

    support::all_of((0..8).map(|client| async move {
        for number in 0..20 {
            let method = if number % 2 == 0 { "POST" } else { "GET" };
            lb.send(&format!("{method} /{method}/{client}/{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        }
    }))
    .await;
    all_given_back(lb).await;

    for line in lb.access_log(160).await {
        let target = format!("{} {} HTTP/1.1", line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
        let came =
            all.iter().map(|backend| backend.received().iter().filter(|it| it.head.first_line == target).count());
        let came: Vec<_> = came.collect();
        let most = if line["method"] == "POST" { 1 } else { 4 };
        assert!(came.iter().sum::<usize>() <= most, "{line}: {came:?}");
    }
}
