//! Retries: what one backend fails at another serves, nothing is sent twice that may not be, a breakdown is not made
//! larger, and who asked gets the best answer that there was.

use crate::support;

use std::time::Duration;

use serde_json::Value;
use support::backend::response;
use support::bytes_on_the_wire::Framing;
use support::front_door::Builder;
use support::{Act, Backend, H2Backend, Lb, Response, Script};

/// `backend=outcome` of each attempt, with `a`, `b`, ... for the backends of the test, and why none followed.
fn attempts(line: &Value, backends: &[&Backend]) -> String {
    let letter = |name: &str| {
        let place = backends.iter().position(|backend| backend.address().to_string() == name).unwrap();
        (b'a' + u8::try_from(place).unwrap()) as char
    };
    let words = line["attempts"].as_array().unwrap().iter().map(|attempt| {
        let why = attempt["no_retry"].as_str().map_or(String::new(), |why| format!("!{why}"));
        format!("{}={}{why}", letter(attempt["backend"].as_str().unwrap()), attempt["outcome"].as_str().unwrap())
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Requests go to the first backend, and to the second only once the first has failed; however often it does.
fn first_then(first: &Backend, second: &Backend, retry: &str) -> Builder {
    Lb::yaml(format!(
        "upstreams:\n  app:\n    backends:\n      - \"{}\"\n      - {{ url: \"{}\", backup: true }}\n    \
         health_check: none\n    passive_health: none\n    obey: {{ retry_after: false }}\n    \
         timeouts: {{ first_byte: 400ms }}\n\
         routes:\n  - upstream: app\n    retry: {retry}\n",
        first.url(),
        second.url()
    ))
}

async fn send(lb: &Lb, method: &str, body: &str) -> Response {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    lb.send(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}")).await
}

/// Nobody is in flight any more, on any backend.
async fn all_given_back(lb: &Lb) {
    lb.until_idle().await;
    let upstream = lb.upstream("app");
    for member in upstream.members() {
        assert_eq!(upstream.in_flight(&member.backend), 0, "{}", member.backend.name);
    }
}

fn failing() -> [(Backend, u16, &'static str, &'static str); 6] {
    [
        (Backend::closing_after_request(), 502, "backend_closed", "backend_closed"),
        (Backend::resetting_before_head(), 502, "backend_closed", "backend_closed"),
        (Backend::hanging(), 504, "first_byte_timeout", "first_byte_timeout"),
        (Backend::answering(502, "bad"), 502, "status_502", "ok"),
        (Backend::answering(503, "busy"), 503, "status_503", "ok"),
        (Backend::answering(504, "slow"), 504, "status_504", "ok"),
    ]
}

#[tokio::test]
async fn what_may_arrive_twice_is_served_by_another_backend() {
    for (bad, _, outcome, _) in failing() {
        let good = Backend::answering(200, "hello");
        let lb = first_then(&bad, &good, "{}").start().await;

        for (method, body) in [("GET", ""), ("PUT", "all of it"), ("DELETE", ""), ("OPTIONS", "")] {
            let answer = send(&lb, method, body).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{method} after {outcome}");
        }

        assert_eq!((bad.requests(), good.requests()), (4, 4), "{outcome}");
        assert_eq!(good.received()[1].body.content, "all of it", "{outcome}");
        for line in lb.access_log(4).await {
            assert_eq!(attempts(&line, &[&bad, &good]), format!("a={outcome} b=ok"));
            assert_eq!((&line["reason"], &line["status"]), (&"ok".into(), &200.into()), "{line}");
        }
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn what_may_not_arrive_twice_is_sent_once() {
    for (bad, status, _, outcome) in failing() {
        let good = Backend::answering(200, "hello");
        let lb = first_then(&bad, &good, "{}").start().await;

        for method in ["POST", "PATCH", "LOCK", "PROPFIND"] {
            assert_eq!(send(&lb, method, "pay").await.status, status, "{method} and {outcome}");
        }

        assert_eq!((bad.requests(), good.requests()), (4, 0), "{outcome}");
        for line in lb.access_log(4).await {
            assert_eq!(attempts(&line, &[&bad, &good]), format!("a={outcome}!not_idempotent"));
        }
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn the_operator_may_allow_a_post_to_arrive_twice() {
    let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
    let lb = first_then(&bad, &good, "{ non_idempotent: true }").start().await;

    assert_eq!(send(&lb, "POST", "pay").await.body, "hello");

    assert_eq!(good.only_request().body.content, "pay");
}

#[tokio::test]
async fn a_post_that_nobody_took_moves_on_through_a_pool_that_is_down() {
    let (dead, bad) = (Backend::refusing(), Backend::closing_after_request());
    let lb = first_then(&dead, &bad, "{}").start().await;

    assert_eq!(send(&lb, "POST", "pay").await.status, 502);

    assert_eq!(bad.requests(), 1);
    let words = attempts(&lb.access_log(1).await[0], &[&dead, &bad]);
    assert_eq!(words, "a=connect_refused b=backend_closed!not_idempotent");
}

#[tokio::test]
async fn without_retries_every_failure_reaches_the_client() {
    for retry in ["none", "{ attempts: 1 }"] {
        for (bad, status, _, _) in failing() {
            let good = Backend::answering(200, "hello");
            let lb = first_then(&bad, &good, retry).start().await;
            assert_eq!(send(&lb, "GET", "").await.status, status);
            assert_eq!((bad.requests(), good.requests()), (1, 0));
        }
    }
}

#[tokio::test]
async fn only_what_is_named_is_tried_again() {
    for (when, status, expected) in [
        ("[429, 503]", 429, 200),
        ("[reset, 503]", 429, 429),
        ("[reset]", 503, 503),
        ("[500]", 500, 200),
        ("[404]", 404, 200),
    ] {
        let (bad, good) = (Backend::answering(status, "no"), Backend::answering(200, "hello"));
        let lb = first_then(&bad, &good, &format!("{{ when: {when} }}")).start().await;
        assert_eq!(send(&lb, "GET", "").await.status, expected, "{when} and {status}");
    }
}

#[tokio::test]
async fn a_refused_connection_stays_where_it_is_if_connect_is_not_named() {
    let (dead, good) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = first_then(&dead, &good, "{ when: [reset] }").start().await;

    assert_eq!(send(&lb, "GET", "").await.status, 502);

    assert_eq!(good.requests(), 0);
}

#[tokio::test]
async fn each_backend_is_asked_once_and_the_last_answer_arrives_whole() {
    let bad = [Backend::answering(503, "busy"), Backend::answering(503, "busy"), Backend::answering(503, "busy")];
    let lb = Lb::with_backends(&bad).yaml_route("retry: { attempts: 10 }").start().await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    assert_eq!(bad.each_ref().map(Backend::requests), [1, 1, 1]);
    let line = &lb.access_log(1).await[0];
    let words = attempts(line, &bad.each_ref());
    assert!(words.ends_with("=ok!no_other_backend"), "{words}");
    assert_eq!((&line["status"], &line["reason"]), (&503.into(), &"ok".into()));
    all_given_back(&lb).await;
}

#[tokio::test]
async fn there_are_as_many_attempts_as_there_may_be() {
    let bad = [Backend::closing_after_request(), Backend::closing_after_request(), Backend::answering(503, "busy")];
    let lb = Lb::with_backends(&bad).yaml_route("retry: { attempts: 2 }").start().await;

    for _ in 0..6 {
        assert!(lb.get("/").await.status >= 500);
    }

    assert_eq!(bad.iter().map(Backend::requests).sum::<usize>(), 12);
    for line in lb.access_log(6).await {
        assert!(attempts(&line, &bad.each_ref()).ends_with("!attempts_used_up"), "{line}");
    }
}

#[tokio::test]
async fn the_budget_is_spent_to_its_last_retry_and_no_further() {
    for (bad, status, outcome, last) in failing().into_iter().skip(3).chain([(
        Backend::closing_after_request(),
        502,
        "backend_closed",
        "backend_closed",
    )]) {
        let good = Backend::answering(200, "hello");
        let lb = first_then(&bad, &good, "{ budget: { share: 0%, min_per_second: 1 } }").start().await;

        for _ in 0..10 {
            assert_eq!(send(&lb, "GET", "").await.body, "hello", "{outcome}");
        }
        for _ in 0..3 {
            assert_eq!(send(&lb, "GET", "").await.status, status, "{outcome}");
        }

        assert_eq!((bad.requests(), good.requests()), (13, 10), "{outcome}");
        let log = lb.access_log(13).await;
        for line in &log[10..] {
            assert_eq!(attempts(line, &[&bad, &good]), format!("a={last}!retry_budget_exhausted"));
        }
    }
}

#[tokio::test]
async fn who_asks_to_be_left_alone_is_and_its_request_goes_elsewhere_whatever_its_method() {
    let first = Backend::scripted(Script::each([vec![
        Act::ReadBody,
        Act::Write(response(429, &[("Retry-After", "60")], "slow down")),
    ]]));
    let second = Backend::answering(200, "hello");
    let text = first_then(&first, &second, "{}").text().replace("obey: { retry_after: false }", "obey: {}");
    let lb = Lb::yaml(text).start().await;

    for _ in 0..2 {
        let answer = send(&lb, "POST", "body").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    }

    assert_eq!(first.requests(), 1, "it is left alone for a minute");
    assert_eq!(attempts(&lb.access_log(2).await[0], &[&first, &second]), "a=status_429 b=ok");
}

#[tokio::test]
async fn the_budget_grows_with_the_requests_and_routes_share_it() {
    let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
    let retry = "{ budget: { share: 25%, min_per_second: 0 } }";
    let second_route = format!("  - {{ match: {{ path: /b }}, upstream: app, retry: {retry} }}\nlog:");
    let lb = Lb::yaml(first_then(&bad, &good, retry).text().replacen("log:", &second_route, 1)).start().await;

    let mut served = 0;
    for number in 0..20 {
        let path = if number % 2 == 0 { "/" } else { "/b" };
        served += usize::from(lb.get(path).await.status == 200);
    }

    assert_eq!(served, 5);
}

#[tokio::test]
async fn a_reload_fills_no_budget() {
    let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
    let app = || first_then(&bad, &good, "{ budget: { share: 0%, min_per_second: 1 } }");
    let lb = app().start().await;
    for _ in 0..10 {
        assert_eq!(send(&lb, "GET", "").await.status, 200);
    }

    lb.reload(app().yaml_section("  - { match: { path: /new }, upstream: app }")).await.unwrap();

    assert_eq!(send(&lb, "GET", "").await.status, 503);
}

#[tokio::test]
async fn refused_connections_cost_nothing_of_the_budget() {
    let (dead, good) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = first_then(&dead, &good, "{ budget: { share: 0%, min_per_second: 0 } }").start().await;

    for _ in 0..5 {
        assert_eq!(send(&lb, "GET", "").await.body, "hello");
    }
}

#[tokio::test]
async fn where_there_is_no_other_the_same_backend_is_asked_again_after_a_pause() {
    let fails = vec![Act::ReadBody, Act::Reset];
    let serves = vec![Act::ReadBody, Act::Write(response(200, &[], "at last"))];
    let backend = Backend::scripted(Script::each([fails.clone(), fails, serves]));
    let lb = Lb::with_backends([&backend]).start().await;

    assert_eq!(lb.get("/").await.body, "at last");

    let words = attempts(&lb.access_log(1).await[0], &[&backend]);
    assert_eq!(words, "a=backend_closed a=backend_closed a=ok");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn an_answer_is_not_asked_for_twice_of_the_same_backend() {
    let backend = Backend::answering(503, "busy");
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, answer.text().as_str(), backend.requests()), (503, "busy", 1));
    assert_eq!(attempts(&lb.access_log(1).await[0], &[&backend]), "a=ok!no_other_backend");
}

#[tokio::test]
async fn an_attempt_has_a_limit_of_its_own() {
    let (bad, good) = (Backend::hanging(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&bad, &good]).yaml_route("retry: { per_attempt: 200ms }").start().await;

    for _ in 0..2 {
        assert_eq!(lb.get("/").await.body, "hello");
    }

    let log = lb.access_log(2).await;
    let line = log.iter().find(|line| attempts(line, &[&bad, &good]) == "a=attempt_timeout b=ok").unwrap();
    assert!((200.0..2000.0).contains(&line["total_ms"].as_f64().unwrap()), "{line}");
}

#[tokio::test]
async fn the_limit_of_an_attempt_is_told_as_such() {
    let bad = Backend::hanging();
    let lb = Lb::with_backends([&bad]).yaml_route("retry: { attempts: 1, per_attempt: 200ms }").start().await;

    let answer = lb.get("/").await;

    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.field("proxy-status"),
        Some(r#"portcullis; error=http_response_timeout; details="attempt_timeout""#)
    );
    assert_eq!(lb.access_log(1).await[0]["reason"], "attempt_timeout");
}

#[tokio::test]
async fn the_routes_time_spans_all_attempts() {
    let bad = [Backend::hanging(), Backend::hanging(), Backend::hanging(), Backend::hanging()];
    let route = "retry: { attempts: 10, per_attempt: 700ms }";
    let lb = Lb::with_backends(&bad).yaml_route(route).yaml_route("timeout: 1s").start().await;

    assert_eq!(lb.get("/").await.status, 504);

    let line = &lb.access_log(1).await[0];
    assert_eq!(line["attempts"].as_array().unwrap().len(), 2, "{line}");
    assert_eq!(line["reason"], "route_timeout");
    assert!((1000.0..2000.0).contains(&line["total_ms"].as_f64().unwrap()), "{line}");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_body_is_sent_again_as_far_as_it_was_kept() {
    for (retry, length, status) in
        [("{}", 64 << 10, 200), ("{}", (64 << 10) + 1, 503), ("{ buffer: 10B }", 10, 200), ("{ buffer: 10B }", 11, 503)]
    {
        let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
        let lb = first_then(&bad, &good, retry).start().await;
        let body = "x".repeat(length);

        assert_eq!(send(&lb, "PUT", &body).await.status, status, "{length}");

        let words = attempts(&lb.access_log(1).await[0], &[&bad, &good]);
        if status == 200 {
            assert_eq!(good.only_request().body.content, body);
            assert_eq!(words, "a=status_503 b=ok");
        } else {
            assert_eq!((words.as_str(), good.requests()), ("a=ok!body_too_large", 0));
        }
    }
}

#[tokio::test]
async fn a_body_over_http2_is_sent_again_as_far_as_it_was_kept() {
    for (length, status) in [(64 << 10, 200), ((64 << 10) + 1, 503)] {
        let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
        let lb = first_then(&bad, &good, "{}").start().await;
        let (client, body) = (lb.h2().await, "x".repeat(length));

        assert_eq!(client.request(client.build("PUT", "/"), &[&body]).await.unwrap().status, status, "{length}");

        assert_eq!(good.requests(), usize::from(status == 200));
        assert!(good.received().iter().all(|put| put.body.content == body));
    }
}

#[tokio::test]
async fn a_body_that_is_still_arriving_goes_on_to_the_next_backend() {
    let (bad, good) = (Backend::answering_early(503, "busy"), Backend::answering(200, "hello"));
    let lb = first_then(&bad, &good, "{}").start().await;
    let mut client = lb.raw().await;

    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd").await;
    good.until_requests(1).await;
    client.send("efgh").await;

    assert_eq!(client.read_response().await.body, "hello");
    assert_eq!(good.only_request().body.content, "abcdefgh");
    let line = &lb.access_log(1).await[0];
    assert_eq!(line["bytes_in"], 8, "{line}");
}

/// The fields of an answer that has much to say.
const BUSY: &str = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nX-Why: busy\r\nETag: \"x\"\r\nCache-Control: max-age=9\r\n\
    Content-Type: a/b\r\nConnection: x-hop\r\nX-Hop: 1\r\n";

/// Gives this answer first, and none any more.
fn once(answer: String) -> Backend {
    Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(answer.into())], vec![Act::ReadBody, Act::Reset]]))
}

#[tokio::test]
async fn the_answer_that_was_dropped_is_better_than_none() {
    let long = "busy ".repeat(12_000);
    for body in ["busy", &long] {
        let first = once(format!("{BUSY}Content-Length: {}\r\n\r\n{body}", body.len()));
        let second = Backend::closing_after_request();
        let lb = first_then(&first, &second, "{}").start().await;

        let answer = send(&lb, "GET", "").await;

        assert_eq!((answer.status, answer.text().as_str()), (503, body));
        assert_eq!((answer.field("retry-after"), answer.field("x-why")), (Some("7"), Some("busy")));
        assert_eq!((answer.field("etag"), answer.field("content-type")), (Some("\"x\""), Some("a/b")));
        assert_eq!((answer.field("cache-control"), answer.field("x-hop")), (Some("max-age=9"), None));
        let proxy_status = r#"portcullis; error=connection_terminated; details="backend_closed"; received-status=503"#;
        assert_eq!(answer.field("proxy-status"), Some(proxy_status));
        let line = &lb.access_log(1).await[0];
        assert_eq!((&line["status"], &line["reason"]), (&503.into(), &"backend_closed".into()));
        let words = attempts(line, &[&first, &second]);
        assert_eq!(words, "a=status_503 b=backend_closed a=backend_closed!attempts_used_up");
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn an_answer_that_was_dropped_without_its_body_is_better_than_none_too() {
    let rest_is_late = format!("{BUSY}Content-Length: 9\r\n\r\nbusy");
    let no_room = format!("{BUSY}Content-Length: 66000\r\n\r\n{}", "x".repeat(66_000));
    let no_length = format!("{BUSY}Transfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n");
    for answer in [rest_is_late, no_room, no_length] {
        let (first, second) = (once(answer), Backend::closing_after_request());
        let lb = first_then(&first, &second, "{}").start().await;

        let answer = send(&lb, "GET", "").await;

        assert_eq!(answer.status, 503);
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!((answer.field("retry-after"), answer.field("x-why")), (Some("7"), Some("busy")));
        assert_eq!((answer.field("etag"), answer.field("content-type")), (None, Some("text/plain; charset=utf-8")));
        assert_eq!(answer.text(), "503 Service Unavailable: the service gave no complete answer\n");
        let words = attempts(&lb.access_log(1).await[0], &[&first, &second]);
        assert_eq!(words, "a=status_503 b=backend_closed a=backend_closed!attempts_used_up");
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_while_it_is_held_back_changes_nothing() {
    let half = format!("{BUSY}Content-Length: 9\r\n\r\nbusy");
    let bad = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(half.into()), Act::Close]]));
    let good = Backend::answering(200, "hello");
    let lb = first_then(&bad, &good, "{}").start().await;
    let mut client = lb.raw().await;

    for _ in 0..2 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ndata").await;
        assert_eq!(client.read_response().await.body, "hello");
    }

    assert!(good.received().iter().all(|request| request.body.content == "data"));
    for line in lb.access_log(2).await {
        assert_eq!(attempts(&line, &[&bad, &good]), "a=status_503 b=ok");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_an_answer_is_held_back_is_served_no_further() {
    let half = format!("{BUSY}Content-Length: 9\r\n\r\nbusy");
    let bad = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(half.into()), Act::Hang]]));
    let good = Backend::answering(200, "hello");
    let lb = first_then(&bad, &good, "{}").start().await;

    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    bad.until_requests(1).await;
    drop(client);

    // It may have left before or after the rest was waited for.
    let line = &lb.access_log(1).await[0];
    assert!(["client_gone", "ok"].contains(&line["reason"].as_str().unwrap()), "{line}");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_retry_that_finds_nobody_comes_back_for_the_answer() {
    let (busy, dead) = (Backend::answering(503, "busy"), Backend::refusing());
    let lb = first_then(&busy, &dead, "{}").start().await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    let words = attempts(&lb.access_log(1).await[0], &[&busy, &dead]);
    assert_eq!(words, "a=status_503 b=connect_refused a=ok!no_other_backend");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn an_answer_is_dropped_with_its_connection_and_without_waiting_for_its_body() {
    let endless = "HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\nnever whole";
    let bad = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(endless.into()), Act::Hang]]));
    let good = Backend::answering(200, "hello");
    let lb = first_then(&bad, &good, "{}").start().await;

    for _ in 0..3 {
        assert_eq!(lb.get("/").await.body, "hello");
    }

    assert_eq!((bad.requests(), bad.connections()), (3, 3));
    assert_eq!((good.requests(), good.connections()), (3, 1));
}

#[tokio::test]
async fn an_interim_response_is_no_beginning() {
    let go_on = Act::Write("HTTP/1.1 100 Continue\r\n\r\n".into());
    let says = |answer| Backend::scripted(Script::each([vec![go_on.clone(), Act::ReadBody, Act::Write(answer)]]));
    let (bad, good) = (says(response(503, &[], "busy")), says(response(200, &[], "hello")));
    let lb = first_then(&bad, &good, "{}").start().await;
    let mut client = lb.raw().await;

    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.read_response_to_head().await.status, 100);
    client.send("data").await;
    let mut answer = client.read_response_to_head().await;
    while answer.status == 100 {
        answer = client.read_response_to_head().await;
    }

    assert_eq!(answer.status, 200);
    assert_eq!(good.only_request().body.content, "data");
}

#[tokio::test]
async fn a_response_that_has_begun_is_not_tried_again() {
    let (bad, good) = (Backend::resetting_mid_body(), Backend::answering(200, "hello"));
    let lb = first_then(&bad, &good, "{}").start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    bad.until_requests(1).await;
    bad.release();

    client.try_read_response(Framing::UntilClose).await.unwrap_err();

    assert_eq!(good.requests(), 0);
    assert_eq!(attempts(&lb.access_log(1).await[0], &[&bad, &good]), "a=backend_closed");
}

#[tokio::test]
async fn an_upgrade_that_one_backend_declines_is_tried_at_another() {
    let (bad, good) = (Backend::answering(503, "busy"), Backend::upgrading_echo());
    let lb = first_then(&bad, &good, "{}").start().await;
    let mut client = lb.raw().await;

    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(upgrade).await;

    assert_eq!(client.read_response_to_head().await.status, 101);
    client.send("ping").await;
    assert_eq!(client.read_exactly(4).await, "ping");
}

#[tokio::test]
async fn requests_over_http2_are_tried_again_too() {
    for (bad, ..) in failing() {
        let good = Backend::answering(200, "hello");
        let lb = first_then(&bad, &good, "{}").start().await;
        let client = lb.h2().await;

        assert_eq!(client.get("/").await.body, "hello");
        let put = client.request(client.build("PUT", "/"), &["all ", "of it"]).await.unwrap();
        assert_eq!(put.body, "hello");
        assert_ne!(client.post("/", "pay").await.status, 200);

        assert_eq!(good.received()[1].body.content, "all of it");
        assert_eq!((bad.requests(), good.requests()), (3, 2));
    }
}

#[tokio::test]
async fn backends_that_speak_http2_are_left_after_their_status_too() {
    let both = [H2Backend::plain(), H2Backend::plain()];
    let lb = Lb::with_urls(both.iter().map(H2Backend::url)).yaml_upstream("protocol: http2").start().await;
    let client = lb.h2().await;

    assert_eq!(client.get("/unavailable").await.status, 503);
    assert_eq!(both.each_ref().map(|backend| backend.heads().len()), [1, 1]);
    assert_eq!(client.post("/unavailable", "pay").await.status, 503);
    assert_eq!(both.iter().map(|backend| backend.heads().len()).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_late_stream_is_tried_again_elsewhere() {
    for (retry, timeouts, outcome) in [
        ("{ attempts: 2 }", "{ first_byte: 200ms, between_bytes: 200ms }", "first_byte_timeout"),
        ("{ attempts: 2, per_attempt: 200ms }", "{}", "attempt_timeout"),
    ] {
        let both = [H2Backend::plain(), H2Backend::plain()];
        let app = Lb::with_urls(both.iter().map(H2Backend::url)).yaml_upstream("protocol: http2");
        let app = app.yaml_upstream(&format!("timeouts: {timeouts}")).yaml_route(&format!("retry: {retry}"));
        let lb = app.start().await;

        assert_eq!(lb.get("/hang").await.status, 504);

        assert_eq!(both.each_ref().map(|backend| backend.heads().len()), [1, 1], "{outcome}");
        let line = &lb.access_log(1).await[0];
        assert!(line["attempts"].as_array().unwrap().iter().all(|attempt| attempt["outcome"] == outcome), "{line}");
    }
}

#[tokio::test]
async fn a_refused_stream_goes_elsewhere_whatever_the_method_where_that_is_named() {
    let both = [H2Backend::plain(), H2Backend::plain()];
    let count = || both.each_ref().map(|backend| backend.heads().len());
    let app = || Lb::with_urls(both.iter().map(H2Backend::url)).yaml_upstream("protocol: http2");

    let unnamed = app().start().await;
    assert_eq!(unnamed.h2().await.post("/refused", "pay").await.status, 502);
    assert_eq!(count().iter().sum::<usize>(), 1);

    let named = app().yaml_route("retry: { attempts: 2, when: [refused_stream] }").start().await;
    let before = count();
    assert_eq!(named.h2().await.post("/refused", "pay").await.status, 502);
    assert_eq!(count(), before.map(|count| count + 1));
    // Another reset leaves it open what was done.
    assert_eq!(named.h2().await.post("/reset", "pay").await.status, 502);
    assert_eq!(count().iter().sum::<usize>(), 4);
}

#[tokio::test]
async fn nobody_is_in_flight_after_a_flood_of_retries() {
    let bad = failing().map(|(backend, ..)| backend);
    let slow = Backend::slow(Duration::from_millis(20), "hello");
    let all = bad.iter().chain([&slow]);
    let lb = Lb::with_backends(all).yaml_upstream("timeouts: { first_byte: 100ms }").start().await;
    let lb = &lb;

    let clients = (0..16).map(|_| async move {
        for _ in 0..3 {
            let _ = lb.get("/").await;
        }
    });
    support::all_of(clients).await;

    all_given_back(lb).await;
}

#[tokio::test]
async fn whatever_fails_no_post_arrives_twice_and_no_backend_is_asked_twice_while_another_is_left() {
    let bad = failing().map(|(backend, ..)| backend);
    let others = [Backend::stale_after(2, "hello"), Backend::refusing(), Backend::answering(200, "hello")];
    let all: Vec<_> = bad.iter().chain(&others).collect();
    let app = Lb::with_backends(all.iter().copied()).yaml_upstream("timeouts: { first_byte: 100ms }");
    let lb = &app.yaml_upstream("balance: random").start().await;

    let clients = (0..8).map(|client| async move {
        for number in 0..20 {
            let method = if number % 2 == 0 { "POST" } else { "GET" };
            lb.send(&format!("{method} /{method}/{client}/{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        }
    });
    support::all_of(clients).await;
    all_given_back(lb).await;

    let lines = lb.access_log(160).await;
    for line in &lines {
        let target = format!("{} {} HTTP/1.1", line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
        let came = all
            .iter()
            .map(|backend| backend.received().iter().filter(|request| request.head.first_line == target).count());
        let came: Vec<_> = came.collect();
        let in_all = came.iter().sum::<usize>();
        if line["method"] == "POST" {
            assert!(in_all <= 1, "{line}: {came:?}");
        } else {
            // One more where a connection of the pool was stale.
            assert!(in_all <= 4 && came.iter().filter(|count| **count > 1).count() <= 1, "{line}: {came:?}");
            assert!(came[..6].iter().all(|count| *count <= 1), "{line}: {came:?}");
        }
    }
    let served = |method: &str| lines.iter().filter(|line| line["method"] == method && line["status"] == 200).count();
    assert!(served("GET") > served("POST"), "{} and {} were served", served("GET"), served("POST"));
}
