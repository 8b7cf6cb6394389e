//! Long bodies: what goes beyond Pingora's 64 KiB is sent again too, byte for byte, within its bounds; what is larger
//! still streams through once.

use crate::support;

use std::time::Duration;

use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Client, H2Backend, Lb, Script, wait_until};

/// Requests go to the first backend, and to the second only once the first has failed.
fn first_then(first: &str, second: &str, retry: &str) -> Builder {
    Lb::yaml(format!(
        "upstreams:\n  app:\n    backends:\n      - \"{first}\"\n      - {{ url: \"{second}\", backup: true }}\n    \
         health_check: none\n    passive_health: none\n    obey: {{ retry_after: false }}\n    \
         timeouts: {{ first_byte: 400ms }}\n\
         routes:\n  - upstream: app\n    retry: {retry}\n"
    ))
}

/// Text in which no two pieces are alike.
fn text(length: usize) -> String {
    let numbers = (0..).flat_map(|number: usize| format!("{number}, ").into_bytes());
    String::from_utf8(numbers.take(length).collect()).unwrap()
}

fn with_length(method: &str, body: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn chunked(method: &str, body: &str) -> String {
    let chunks = body.as_bytes().chunks(7000).map(|chunk| std::str::from_utf8(chunk).unwrap());
    let chunks: String = chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

/// Takes in a whole request, then fails in one of the ways that ask for a retry.
fn failing() -> [(Backend, &'static str); 4] {
    [
        (Backend::closing_after_request(), "backend_closed"),
        (Backend::resetting_before_head(), "backend_closed"),
        (Backend::answering(503, "busy"), "status_503"),
        (Backend::scripted(Script::each([vec![Act::ReadBody, Act::Hang]])), "first_byte_timeout"),
    ]
}

#[tokio::test]
async fn a_long_body_arrives_at_the_next_backend_byte_for_byte() {
    let body = text(200_000);
    for (bad, outcome) in failing() {
        let good = Backend::answering(200, "hello");
        let lb = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").start().await;

        let mut client = lb.raw().await;
        for request in [with_length("PUT", &body), chunked("PUT", &body)] {
            let answer = client.exchange(request).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{outcome}");
        }

        assert_eq!((bad.requests(), good.requests()), (2, 2), "{outcome}: on one connection of the client");
        for request in bad.received().iter().chain(&good.received()) {
            assert!(request.body.content == body, "{outcome}: {} bytes came", request.body.content.len());
        }
        for line in lb.access_log(2).await {
            assert_eq!(
                (&line["attempts"][0]["outcome"], &line["attempts"][1]["outcome"]),
                (&outcome.into(), &"ok".into())
            );
            assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&200_000.into(), &5.into()), "{line}");
        }
    }
}

#[tokio::test]
async fn a_long_body_over_http2_arrives_at_the_next_backend_too() {
    let body = text(200_000);
    let parts: Vec<_> = body.as_bytes().chunks(9999).map(|part| std::str::from_utf8(part).unwrap()).collect();
    for (bad, outcome) in failing() {
        let good = Backend::answering(200, "hello");
        let lb = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").start().await;
        let client = lb.h2().await;

        let answer = client.request(client.build("PUT", "/"), &parts).await.unwrap();

        assert_eq!(answer.body, "hello", "{outcome}");
        assert!(good.only_request().body.content == body, "{outcome}");
        assert_eq!(client.get("/").await.body, "hello");
    }
}

#[tokio::test]
async fn backends_that_speak_http2_get_a_long_body_again_too() {
    let body = text(200_000);
    let (bad, good) = (H2Backend::plain(), H2Backend::plain());
    let app = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").text();
    let app = app.replace("health_check: none", "health_check: none\n    protocol: http2");
    let lb = Lb::yaml(app).start().await;
    let path = format!("/not/{}", bad.address().port());

    let length = body.len();
    let http1 = format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    assert!(lb.send(&http1).await.body == body);
    let client = lb.h2().await;
    let parts: Vec<_> = body.as_bytes().chunks(9999).map(|part| std::str::from_utf8(part).unwrap()).collect();
    assert!(client.request(client.build("PUT", &path), &parts).await.unwrap().body == body);

    assert_eq!([bad, good].map(|backend| backend.heads().len()), [2, 2]);
}

#[tokio::test]
async fn what_may_not_arrive_twice_does_not_however_long() {
    let body = text(200_000);
    for (bad, outcome) in failing() {
        let good = Backend::answering(200, "hello");
        let lb = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").start().await;

        assert_ne!(lb.send(&with_length("POST", &body)).await.status, 200);
        assert_ne!(lb.send(&chunked("POST", &body)).await.status, 200);

        assert_eq!((bad.requests(), good.requests()), (2, 0), "{outcome}");
        for line in lb.access_log(2).await {
            assert_eq!(line["attempts"][0]["no_retry"], "not_idempotent", "{line}");
        }
    }
}

#[tokio::test]
async fn a_throttled_post_takes_its_long_body_elsewhere() {
    let body = text(200_000);
    let busy = Backend::writing("HTTP/1.1 429 Too Many\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n");
    let good = Backend::answering(200, "hello");
    let app = first_then(&busy.url(), &good.url(), "{ buffer: 1MiB }").text();
    let lb = Lb::yaml(app.replace("retry_after: false", "retry_after: true")).start().await;

    assert_eq!(lb.send(&with_length("POST", &body)).await.body, "hello");

    assert!(good.only_request().body.content == body);
}

#[tokio::test]
async fn what_is_larger_than_the_buffer_or_finds_no_room_is_sent_once_and_whole() {
    let body = text(300_000);
    for (server, buffer) in [("64MiB", "256KiB"), ("100KiB", "100KiB"), ("70KiB", "65KiB")] {
        let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
        let app = first_then(&bad.url(), &good.url(), &format!("{{ buffer: {buffer} }}"));
        let lb = app.yaml_section(&format!("server: {{ retry_buffers: {server} }}")).start().await;

        for request in [with_length("PUT", &body), chunked("PUT", &body)] {
            assert_eq!(lb.send(&request).await.status, 503, "{buffer} of {server}");
        }

        assert_eq!((bad.requests(), good.requests()), (2, 0), "{buffer} of {server}");
        assert!(bad.received().iter().all(|request| request.body.content == body));
        for line in lb.access_log(2).await {
            assert_eq!(
                (&line["attempts"][0]["no_retry"], &line["bytes_in"]),
                (&"body_too_large".into(), &300_000.into())
            );
        }
    }
}

#[tokio::test]
async fn all_bodies_together_take_no_more_than_there_is_and_give_it_back() {
    let body = text(150_000);
    let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
    let app = first_then(&bad.url(), &good.url(), "{ buffer: 256KiB, budget: { min_per_second: 1000 } }");
    let lb = app.yaml_section("server: { retry_buffers: 1MiB }").start().await;
    let requests = [with_length("PUT", &body), chunked("PUT", &body)];
    let (lb, requests) = (&lb, &requests);

    support::all_of((0..64).map(|client| async move {
        let status = lb.send(&requests[client % 2]).await.status;
        assert!([200, 503].contains(&status), "{status}");
    }))
    .await;
    lb.until_idle().await;

    assert!(bad.received().iter().chain(&good.received()).all(|request| request.body.content == body));
    // Room for six at least, again and again.
    for _ in 0..20 {
        assert_eq!(lb.send(&requests[0]).await.status, 200);
    }
}

#[tokio::test]
async fn a_limit_on_bodies_holds_for_those_that_are_kept() {
    let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
    let app = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").text();
    let lb = Lb::yaml(app.replace("    retry:", "    body_limit: 100KiB\n    retry:")).start().await;

    for request in [with_length("PUT", &text(200_000)), chunked("PUT", &text(200_000))] {
        assert_eq!(lb.send(&request).await.status, 413);
    }

    assert_eq!(good.requests(), 0);
    for line in lb.access_log(2).await {
        assert_eq!(line["reason"], "body_too_large", "{line}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_a_long_body_counts_against_nobody() {
    let (first, good) = (Backend::hanging(), Backend::answering(200, "hello"));
    let lb = first_then(&first.url(), &good.url(), "{ buffer: 1MiB }").start().await;

    let request = with_length("PUT", &text(200_000));
    let mut client = lb.raw().await;
    client.send(&request[..150_000]).await;
    first.until_requests(1).await;
    drop(client);

    let line = &lb.access_log(1).await[0];
    assert_eq!((&line["reason"], line["attempts"].as_array().unwrap().len()), (&"client_gone".into(), 1), "{line}");
    assert_eq!(good.requests(), 0);
    lb.until_idle().await;
}

#[tokio::test]
async fn a_backend_that_fails_within_the_upload_is_left_and_the_rest_is_read_from_the_client() {
    let (bad, good) = (Backend::scripted(Script::each([vec![Act::Reset]])), Backend::answering(200, "hello"));
    let lb = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").start().await;

    let (body, request) = (text(200_000), with_length("PUT", &text(200_000)));
    let mut client = lb.raw().await;
    client.send(&request[..100_000]).await;
    bad.until_requests(1).await;
    good.until_requests(1).await;
    client.send(&request[100_000..]).await;

    assert_eq!(client.read_response().await.body, "hello");
    assert!(good.only_request().body.content == body);
    assert_eq!(lb.access_log(1).await[0]["bytes_in"], 200_000);
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_once_and_its_body_arrives_again() {
    let go_on = || Act::Write("HTTP/1.1 100 Continue\r\n\r\n".into());
    let answer = |status| vec![go_on(), Act::ReadBody, Act::Write(response(status, &[], "hello"))];
    let (bad, good) = (Backend::scripted(Script::each([answer(503)])), Backend::scripted(Script::each([answer(200)])));
    let lb = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").start().await;
    let body = text(200_000);

    let mut client = lb.raw().await;
    client
        .send(format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()))
        .await;
    assert_eq!(client.read_response_to_head().await.status, 100);
    client.send(&body).await;
    let mut answer = client.read_response().await;
    if answer.status == 100 {
        answer = client.read_response().await;
    }

    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert!(good.only_request().body.content == body);
}

#[tokio::test]
async fn a_client_of_http_1_0_is_told_where_its_answer_ends() {
    let good = Backend::writing(support::backend::chunked_response(&["hel", "lo"], &[]));
    let bad = Backend::answering(503, "busy");
    let lb = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").start().await;
    let body = text(200_000);

    let mut client: Client = lb.raw().await;
    client.send(format!("PUT / HTTP/1.0\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;

    let answer = client.read_to_end().await;
    assert!(answer.ends_with(b"\r\n\r\nhello"), "{answer:?}");
    assert!(good.only_request().body.content == body);
}

#[tokio::test]
async fn an_answer_before_the_end_of_a_long_body_arrives() {
    let early = Backend::answering_early(200, "enough");
    let bad = Backend::resetting_before_head();
    for (first, second) in [(&early, &bad), (&bad, &early)] {
        let lb = first_then(&first.url(), &second.url(), "{ buffer: 1MiB }").start().await;
        let answer = lb.send(&with_length("PUT", &text(900_000))).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "enough"));
    }
}

#[tokio::test]
async fn a_slow_long_upload_is_the_clients_own_business_until_it_stops() {
    let (bad, good) = (Backend::answering(503, "busy"), Backend::answering(200, "hello"));
    let listeners = "listeners:\n  - { address: 127.0.0.1:0, timeouts: { body: 300ms } }";
    let app = first_then(&bad.url(), &good.url(), "{ buffer: 1MiB }").yaml_section(listeners);
    let lb = app.start().await;

    let mut client = lb.raw().await;
    client.send(&with_length("PUT", &text(200_000))[..100_000]).await;

    assert_eq!(client.read_response().await.status, 408);
    let line = &lb.access_log(1).await[0];
    assert_eq!((&line["reason"], &line["backend"]), (&"body_timeout".into(), &bad.address().to_string().into()));
    assert_eq!(good.requests(), 0);
}

#[tokio::test]
async fn an_answer_that_is_given_up_within_the_upload_costs_nothing_of_the_body() {
    let (body, request) = (text(200_000), with_length("PUT", &text(200_000)));
    for buffer in ["64KiB", "1MiB"] {
        for _ in 0..4 {
            // The rest of the answer comes in time for it to be held back.
            let head = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n";
            let rest = [Act::Delay(Duration::from_millis(60)), Act::Write("busy".into()), Act::Hang];
            let acts = [Act::Write(head.into())].into_iter().chain(rest).collect();
            let (bad, good) = (Backend::scripted(Script::each([acts])), Backend::answering(200, "hello"));
            let lb = first_then(&bad.url(), &good.url(), &format!("{{ buffer: {buffer} }}")).start().await;

            let mut client = lb.raw().await;
            client.send(&request[..10_000]).await;
            bad.until_requests(1).await;
            client.try_send(&request[10_000..]).await.ok();

            // The rest of the body may have been faster than the head of the answer, and too much to be kept.
            match client.read_response().await.status {
                200 => assert!(good.only_request().body.content == body, "{buffer}"),
                status => assert_eq!((status, good.requests()), (503, 0), "{buffer}"),
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_http2_that_leaves_the_queue_with_a_long_body_is_seen_to_leave() {
    let backend = Backend::held("served");
    let app = format!(
        "upstreams:\n  app:\n    backends: [{{ url: \"{}\", max_connections: 1 }}]\n    health_check: none\n    \
         queue: {{ timeout: 30s }}\nroutes:\n  - upstream: app\n    retry: {{ buffer: 1MiB }}\n",
        backend.url()
    );
    let lb = Lb::yaml(app).start().await;
    let mut first = lb.raw().await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.until_requests(1).await;
    let client = lb.h2().await;
    let waiting = || lb.upstream("app").waiting().unwrap();
    let (_answer, mut body) = client.open(client.build("PUT", "/")).await;
    body.send_data("begun".into(), false).unwrap();
    wait_until("it should wait", || waiting() == 1).await;

    body.send_reset(h2::Reason::CANCEL);

    wait_until("it should have left", || waiting() == 0).await;
    backend.release();
    assert_eq!(first.read_response().await.status, 200);
    let log = lb.access_log(2).await;
    let gone = log.iter().filter(|line| line["reason"] == "client_gone" && line["attempts"] == serde_json::json!([]));
    assert_eq!(gone.count(), 1, "{log:#?}");
}
