//! Every time limit on the way to a backend and back: it holds, it blames whom it should, and it leaves those alone
//! who keep within it.

use crate::support;

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use serde_json::Value;
use support::backend::{chunked_response, response};
use support::bytes_on_the_wire::Framing;
use support::front_door::Builder;
use support::tls::{self, Offer};
use support::{Act, Backend, H2Backend, Lb, Script};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";

fn timeouts(backend: &Backend, limits: &str) -> Builder {
    // One attempt each: what comes after a late one is another story.
    Lb::with_backends([backend]).yaml_upstream(&format!("timeouts: {{ {limits} }}")).yaml_route("retry: none")
}

/// One line of the log, with this reason and total between these milliseconds.
async fn only_line(lb: &Lb, reason: &str, total: std::ops::Range<u32>) -> Value {
    let line = lb.access_log(1).await.remove(0);
    assert_eq!(line["reason"], reason, "{line}");
    let took = line["total_ms"].as_f64().unwrap();
    assert!((f64::from(total.start)..f64::from(total.end)).contains(&took), "{line}");
    line
}

/// Writes each part this long after the one before.
fn trickle(parts: &[&'static str], pause: Duration) -> Vec<Act> {
    let parts = parts.iter().flat_map(|part| [Act::Delay(pause), Act::Write((*part).into())]);
    [Act::ReadBody].into_iter().chain(parts).collect()
}

/// A client that is slow: it waits, not the test.
async fn pause(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

/// A client whose streams the test moves by hand.
async fn over_h2(lb: &Lb) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(lb.address(1)).await.unwrap();
    let tls = TlsConnector::from(tls::client(&Offer { alpn: &["h2"], ..Offer::default() }));
    let stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    (requests, tokio::spawn(connection))
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn a_backend_that_says_nothing_gets_first_byte_and_no_more() {
    let backend = Backend::hanging();
    let lb = timeouts(&backend, "first_byte: 300ms, between_bytes: 10s").start().await;

    let answer = lb.get("/").await;

    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.field("proxy-status"),
        Some(r#"portcullis; error=http_response_timeout; details="first_byte_timeout""#)
    );
    let line = only_line(&lb, "first_byte_timeout", 300..2000).await;
    assert_eq!(line["attempts"][0]["outcome"], "first_byte_timeout");
    assert_eq!(line["first_byte_ms"], Value::Null);
    lb.until_idle().await;
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 1);
}

#[tokio::test]
async fn half_a_head_does_not_stop_the_clock_of_first_byte() {
    let parts = ["HTTP/1.1 200 OK\r\n", "A: 1\r\n", "A: 2\r\n", "A: 3\r\n", "A: 4\r\n", "A: 5\r\n"];
    let backend = Backend::scripted(Script::each([trickle(&parts, ms(100))]));
    let lb = timeouts(&backend, "first_byte: 300ms").start().await;

    assert_eq!(lb.get("/").await.status, 504);

    only_line(&lb, "first_byte_timeout", 300..2000).await;
}

#[tokio::test]
async fn a_slow_upload_is_not_the_backends_delay() {
    let backend = Backend::answering(200, "took it");
    let lb = timeouts(&backend, "first_byte: 200ms").start().await;
    let mut client = lb.raw().await;

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await;
    for part in ["ab", "cd", "ef", "gh"] {
        pause(ms(120)).await;
        client.send(part).await;
    }

    assert_eq!(client.read_response().await.body, "took it");
    assert_eq!(backend.only_request().body.content, "abcdefgh");
    only_line(&lb, "ok", 480..1500).await;
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0);
}

#[tokio::test]
async fn a_slow_upload_over_http2_is_not_the_backends_delay() {
    let backend = Backend::answering(200, "took it");
    let lb = timeouts(&backend, "first_byte: 200ms").start().await;
    let (requests, driver) = over_h2(&lb).await;
    let request = http::Request::post("https://localhost/").body(()).unwrap();

    let (response, mut body) = requests.ready().await.unwrap().send_request(request, false).unwrap();
    for part in ["ab", "cd", "ef", "gh"] {
        pause(ms(120)).await;
        body.send_data(part.into(), part == "gh").unwrap();
    }

    assert_eq!(response.await.unwrap().status(), 200);
    assert_eq!(backend.only_request().body.content, "abcdefgh");
    driver.abort();
}

#[tokio::test]
async fn a_client_that_stops_in_its_body_is_told_so_and_the_backend_is_not_blamed() {
    let backend = Backend::answering(200, "never");
    let listener = "listeners:\n  - { address: 127.0.0.1:0, timeouts: { body: 200ms } }\n";
    let lb = timeouts(&backend, "first_byte: 100ms").yaml_section(listener).start().await;
    let mut client = lb.raw().await;

    let answer = client.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabc").await;

    assert_eq!(answer.status, 408);
    only_line(&lb, "body_timeout", 200..2000).await;
    lb.until_idle().await;
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0);
}

#[tokio::test]
async fn a_backend_that_takes_nothing_of_the_body_runs_into_the_write_timeout() {
    let backend = Backend::scripted(Script::each([vec![Act::Hold]]));
    let listener = "listeners:\n  - { address: 127.0.0.1:0, timeouts: { body: 300ms } }\n";
    let lb = timeouts(&backend, "write: 600ms").yaml_section(listener).yaml_route("body_limit: 64MiB").start().await;
    let mut client = lb.raw().await;

    let length = 32 << 20;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    let _ = client.try_send(vec![b'x'; length]).await;

    let line = lb.access_log(1).await.remove(0);
    assert_eq!((&line["reason"], &line["status"]), (&"stalled_request".into(), &504.into()), "{line}");
    assert_eq!(line["attempts"][0]["outcome"], "stalled_request", "{line}");
}

#[tokio::test]
async fn a_response_that_stalls_is_cut_after_between_bytes() {
    let script = vec![Act::ReadBody, Act::Write(HEAD.into()), Act::Write("abc".into()), Act::Hang];
    let backend = Backend::scripted(Script::each([script]));
    let lb = timeouts(&backend, "first_byte: 5s, between_bytes: 300ms").start().await;
    let mut client = lb.raw().await;

    client.send(GET).await;
    let error = client.try_read_response(Framing::UntilClose).await.unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let line = only_line(&lb, "stalled_response", 300..2000).await;
    assert_eq!((&line["status"], &line["bytes_out"]), (&200.into(), &3.into()), "{line}");
    assert_eq!(line["attempts"][0]["outcome"], "stalled_response", "{line}");
}

#[tokio::test]
async fn a_trickle_longer_than_first_byte_passes_while_each_gap_is_short() {
    let backend = Backend::scripted(Script::each([trickle(&[HEAD, "a", "b", "c", "d", "e", "f"], ms(120))]));
    let lb = timeouts(&backend, "first_byte: 500ms, between_bytes: 500ms").start().await;

    assert_eq!(lb.get("/").await.body, "abcdef");

    only_line(&lb, "ok", 800..2000).await;
}

#[tokio::test]
async fn a_gap_longer_than_first_byte_passes_within_between_bytes() {
    let acts = [vec![Act::ReadBody, Act::Write(HEAD.into())], trickle(&["abc", "def"], ms(400))].concat();
    let backend = Backend::scripted(Script::each([acts]));
    let lb = timeouts(&backend, "first_byte: 200ms, between_bytes: 2s").yaml_route("timeout: 300ms").start().await;

    assert_eq!(lb.get("/").await.body, "abcdef");

    only_line(&lb, "ok", 800..2000).await;
}

#[tokio::test]
async fn a_slow_reader_is_not_the_backends_stall() {
    let body = "x".repeat(32 << 20);
    let backend = Backend::answering(200, &body);
    let lb = timeouts(&backend, "between_bytes: 200ms").start().await;
    let mut client = lb.raw().await;

    client.send(GET).await;
    backend.until_requests(1).await;
    pause(ms(900)).await;

    assert_eq!(client.read_response().await.body.len(), body.len());
    assert_eq!(lb.access_log(1).await[0]["reason"], "ok");
}

#[tokio::test]
async fn a_slow_reader_over_http2_is_not_the_backends_stall() {
    let body = "x".repeat(32 << 20);
    let backend = Backend::answering(200, &body);
    let lb = timeouts(&backend, "between_bytes: 200ms").start().await;
    let (requests, driver) = over_h2(&lb).await;
    let request = http::Request::get("https://localhost/").body(()).unwrap();

    let (response, _) = requests.ready().await.unwrap().send_request(request, true).unwrap();
    let mut receiving = response.await.unwrap().into_body();
    pause(ms(900)).await;
    let mut length = 0;
    while let Some(part) = receiving.data().await {
        let part = part.unwrap();
        length += part.len();
        receiving.flow_control().release_capacity(part.len()).unwrap();
    }

    assert_eq!(length, body.len());
    driver.abort();
}

#[tokio::test]
async fn the_route_has_the_last_word_until_the_head_is_there() {
    let backend = Backend::hanging();
    let lb = timeouts(&backend, "first_byte: 10s").yaml_route("timeout: 300ms").start().await;

    let answer = lb.get("/").await;

    assert_eq!(answer.status, 504);
    let line = only_line(&lb, "route_timeout", 300..2000).await;
    assert_eq!(line["attempts"][0]["outcome"], "route_timeout", "{line}");
}

#[tokio::test]
async fn the_routes_time_is_over_all_attempts_also_while_connecting() {
    let holes = [Backend::black_hole(), Backend::black_hole(), Backend::black_hole()];
    let lb = Lb::with_backends(&holes)
        .yaml_upstream("timeouts: { connect: 200ms }")
        .yaml_route("timeout: 300ms")
        .start()
        .await;

    assert_eq!(lb.get("/").await.status, 504);

    let line = only_line(&lb, "route_timeout", 300..2000).await;
    assert_eq!(line["attempts"].as_array().unwrap().len(), 2, "{line}");
    assert_eq!(line["attempts"][0]["outcome"], "connect_timeout", "{line}");
}

#[tokio::test]
async fn a_body_may_take_longer_than_the_routes_time() {
    let backend = Backend::scripted(Script::each([trickle(&[HEAD, "a", "b", "c", "d", "e", "f"], ms(100))]));
    let lb = timeouts(&backend, "first_byte: 5s").yaml_route("timeout: 400ms").start().await;

    assert_eq!(lb.get("/").await.body, "abcdef");
}

#[tokio::test]
async fn an_interim_response_does_not_stop_the_clock() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let backend = Backend::scripted(Script::each([vec![Act::Write(hints.into()), Act::Hang]]));
    let lb = timeouts(&backend, "first_byte: 300ms, between_bytes: 10s").start().await;
    let mut client = lb.raw().await;

    assert_eq!(client.exchange(GET).await.status, 103);
    let answer = client.read_response().await;

    assert_eq!(answer.status, 504);
    only_line(&lb, "first_byte_timeout", 300..2000).await;
}

#[tokio::test]
async fn a_quiet_tunnel_ends_and_a_busy_one_does_not() {
    let backend = Backend::upgrading_echo();
    let limits = "first_byte: 200ms, between_bytes: 200ms, tunnel: 900ms";
    let lb = timeouts(&backend, limits).yaml_route("timeout: 200ms").start().await;
    let mut client = lb.raw().await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(client.exchange(upgrade).await.status, 101);

    for _ in 0..4 {
        pause(ms(300)).await;
        client.send("ping").await;
        assert_eq!(client.read_exactly(4).await, "ping");
    }
    let quiet_since = Instant::now();
    client.expect_closed().await;

    assert!(quiet_since.elapsed() >= ms(800), "{:?}", quiet_since.elapsed());
    only_line(&lb, "stalled_response", 2000..6000).await;
}

#[tokio::test]
async fn a_tunnel_that_only_the_client_uses_stays_open() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let backend = Backend::scripted(Script::each([vec![Act::Write(head.into()), Act::Hang]]));
    let lb = timeouts(&backend, "tunnel: 700ms").start().await;
    let mut client = lb.raw().await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(client.exchange(upgrade).await.status, 101);

    for _ in 0..5 {
        pause(ms(200)).await;
        client.send("ping").await;
    }
    let quiet_since = Instant::now();
    client.expect_closed().await;

    assert!(quiet_since.elapsed() >= ms(600), "{:?}", quiet_since.elapsed());
}

#[tokio::test]
async fn twenty_requests_share_one_connection() {
    for body in [response(200, &[], "hello"), chunked_response(&["hel", "lo"], &[])] {
        let backend = Backend::writing(body);
        let lb = timeouts(&backend, "first_byte: 10s").start().await;

        for _ in 0..10 {
            assert_eq!(lb.get("/").await.body, "hello");
            assert_eq!(lb.post("/", "x").await.body, "hello");
        }

        assert_eq!((backend.connections(), backend.requests()), (1, 20));
        let connects = lb.access_log(20).await.into_iter().filter(|line| !line["connect_ms"].is_null()).count();
        assert_eq!(connects, 1);
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_is_never_used_again() {
    let slow = vec![Act::ReadBody, Act::Delay(ms(500)), Act::Write(response(200, &[], "too late"))];
    let backend = Backend::scripted(Script::each([slow, vec![Act::ReadBody, Act::Write(response(200, &[], "next"))]]));
    let lb = timeouts(&backend, "first_byte: 200ms").start().await;

    assert_eq!(lb.get("/").await.status, 504);
    for _ in 0..3 {
        assert_eq!(lb.get("/").await.body, "next");
    }

    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_not_kept_longer_than_idle() {
    let backend = Backend::answering(200, "hello");
    let lb = timeouts(&backend, "idle: 200ms").start().await;

    lb.get("/").await;
    pause(ms(500)).await;
    lb.get("/").await;

    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn the_route_and_first_byte_hold_for_http2_backends_too() {
    let backend = Backend::hanging();
    for (protocol, first_byte, reason) in [
        ("protocol: http2", "10s", "route_timeout"),
        ("protocol: auto", "10s", "route_timeout"),
        ("protocol: http2", "400ms", "first_byte_timeout"),
    ] {
        let limits = format!("connect: 10s, first_byte: {first_byte}");
        let lb = timeouts(&backend, &limits).yaml_upstream(protocol).yaml_route("timeout: 500ms").start().await;

        let answer = lb.get("/").await;

        assert_eq!(answer.status, 504, "{protocol}");
        only_line(&lb, reason, 400..3000).await;
    }
}

#[tokio::test]
async fn a_late_stream_does_not_end_its_neighbours() {
    let backend = H2Backend::plain();
    let limits = "timeouts: { first_byte: 300ms, between_bytes: 900ms }";
    let lb = Lb::with_urls([backend.url()]).yaml_upstream("protocol: http2").yaml_upstream(limits).start().await;
    let client = lb.h2().await;
    client.post("/echo", "one connection for all").await;
    let late = tokio::spawn(async move { (client.get("/hang").await.status.as_u16(), client) });

    let (requests, driver) = over_h2(&lb).await;
    let request = http::Request::post("https://localhost/").body(()).unwrap();
    let (response, mut body) = requests.ready().await.unwrap().send_request(request, false).unwrap();
    let mut echoed = response.await.unwrap().into_body();
    for part in ["a", "b", "c", "d", "e"] {
        pause(ms(150)).await;
        body.send_data(part.into(), part == "e").unwrap();
        assert_eq!(echoed.data().await.unwrap().unwrap(), part);
    }

    assert_eq!(late.await.unwrap().0, 504);
    let log = lb.access_log(3).await;
    let mut reasons = log.iter().map(|line| line["reason"].as_str().unwrap()).collect::<Vec<_>>();
    reasons.sort_unstable();
    assert_eq!(reasons, ["first_byte_timeout", "ok", "ok"]);
    driver.abort();
}

#[tokio::test]
async fn a_tunnel_is_no_request_body_and_may_be_longer() {
    let backend = Backend::upgrading_echo();
    let lb = Lb::with_backends([&backend]).yaml_route("body_limit: 1KiB").start().await;
    let mut client = lb.raw().await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(client.exchange(upgrade).await.status, 101);

    for _ in 0..8 {
        client.send([b'x'; 1000]).await;
        assert_eq!(client.read_exactly(1000).await, [b'x'; 1000][..]);
    }
}

#[tokio::test]
async fn a_body_that_is_read_for_its_key_has_one_deadline_in_all() {
    let backend = Backend::answering(200, "hi");
    let caching = Lb::with_backends([&backend]).yaml_route("cache: { methods: [GET, POST], key: { body: 1KiB } }");
    let listener = "listeners:\n  - { address: 127.0.0.1:0, timeouts: { body: 300ms } }";
    let lb = caching.yaml_section(listener).start().await;
    let mut client = lb.raw().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n").await;
    // None of the pauses is as long as the limit.
    for _ in 0..25 {
        pause(ms(100)).await;
        if client.try_send("x").await.is_err() {
            break;
        }
    }
    assert_eq!(client.read_response().await.status, 408);
    // Long before the last byte.
    only_line(&lb, "body_timeout", 299..2000).await;
    assert_eq!(backend.requests(), 0);
}
