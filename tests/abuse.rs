//! What does a client get that wants to hold us up? Each is cut off within a bounded time, is named in the log, costs the
//! backend nothing that it need not, and delays nobody else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use support::front_door::Builder;
use support::h2_frames::{GET_HEAD, PREFACE, frame};
use support::{Backend, Client, H2Client, Lb, Portcullis, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What the rate bears is 5 s of silence. Nobody may take longer than this to be cut off.
const CUT: Duration = Duration::from_secs(9);

/// A listener without TLS and one for HTTP/2 alone, both with these settings.
fn listeners(settings: &str) -> String {
    format!(
        "listeners:\n  - {{ address: 127.0.0.1:0, {settings} }}\n  - {{ address: 127.0.0.1:0, http2: only, {settings} }}\n"
    )
}

fn door(backend: &Backend, settings: &str) -> Builder {
    Lb::with_backends([backend]).yaml_route("retry: none").yaml_section(&listeners(settings))
}

/// A client that is slow: it waits, not the test.
async fn pause(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

async fn line_with(lb: &Lb, reason: &str) -> Value {
    let file = lb.folder().join("access.log");
    let line = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["reason"] == reason)
    };
    support::wait_for(&format!("a line of the access log should say {reason}"), line).await
}

fn path(request: &support::backend::Received) -> &str {
    request.head.first_line.split(' ').nth(1).unwrap()
}

/// Others are served at once.
async fn others_are_served(lb: &Lb) {
    let since = Instant::now();
    assert_eq!(lb.get("/other").await.status, 200);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

async fn over_h2(lb: &Lb) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(lb.address(1)).await.unwrap();
    let (requests, connection) = in_time("the preface", h2::client::handshake(stream)).await.unwrap();
    (requests, tokio::spawn(connection))
}

/// Sends these frames until the peer has closed the connection, and gives what it said last.
async fn flood(lb: &Lb, mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static) -> Vec<u8> {
    let stream = TcpStream::connect(lb.address(1)).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sender = tokio::spawn(async move {
        let mut sent = [PREFACE, &frame(4, 0, 0, b"")].concat();
        for number in 0.. {
            if writing.write_all(&sent).await.is_err() {
                break;
            }
            sent = (0..50).flat_map(|step| next(number * 50 + step)).collect();
        }
    });
    let mut said = Vec::new();
    // A reset is the end as well.
    let _ = in_time("the flood should be cut off", reading.read_to_end(&mut said)).await;
    sender.abort();
    said
}

fn says_calm(said: &[u8]) -> bool {
    said.windows(17).any(|frame| frame[3] == 7 && frame[13..] == [0, 0, 0, 11])
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off_by_the_least_rate() {
    let backend = Backend::answering(200, "hello");
    let lb = door(&backend, "limits: { min_rate: 1KiB/s }").start().await;
    let mut client = lb.raw().await;
    let since = Instant::now();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    while since.elapsed() < CUT && client.try_send("x").await.is_ok() {
        others_are_served(&lb).await;
        pause(ms(200)).await;
        if lb.in_flight() == 0 {
            break;
        }
    }

    assert_eq!(client.read_response().await.status, 408);
    assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
    line_with(&lb, "slow_body").await;
    let of_the_slow = backend.received().into_iter().filter(|request| path(request) == "/");
    assert!(of_the_slow.map(|request| request.body.content.len()).all(|length| length < 100));
}

#[tokio::test]
async fn a_body_that_trickles_over_http2_is_cut_off_and_its_neighbours_are_not() {
    let backend = Backend::answering(200, "hello");
    let lb = door(&backend, "limits: { min_rate: 1KiB/s }").start().await;
    let (requests, driver) = over_h2(&lb).await;
    let since = Instant::now();
    let request = http::Request::post("http://a/slow").body(()).unwrap();
    let (answer, mut body) = requests.clone().ready().await.unwrap().send_request(request, false).unwrap();
    let trickle = tokio::spawn(async move {
        while body.send_data("x".into(), false).is_ok() {
            pause(ms(200)).await;
        }
    });

    assert_eq!(in_time("an answer", answer).await.unwrap().status(), 408);

    assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
    line_with(&lb, "slow_body").await;
    let request = http::Request::get("http://a/").body(()).unwrap();
    let (answer, _) = requests.ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(in_time("an answer", answer).await.unwrap().status(), 200);
    trickle.abort();
    driver.abort();
}

#[tokio::test]
async fn a_body_that_keeps_the_least_rate_may_take_its_time() {
    let backend = Backend::answering(200, "hello");
    let lb = door(&backend, "limits: { min_rate: 1KiB/s }").start().await;
    let mut client = lb.raw().await;

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 16000\r\n\r\n").await;
    for _ in 0..32 {
        client.send([b'x'; 500]).await;
        pause(ms(220)).await;
    }

    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(backend.only_request().body.content.len(), 16_000);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let body = "x".repeat(32 << 20);
    let backend = Backend::answering(200, &body);
    for settings in ["timeouts: { write: 1s }", "limits: { min_rate: 1KiB/s }"] {
        let lb = door(&backend, settings).start().await;
        let mut client = lb.raw().await;
        let since = Instant::now();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

        let line = line_with(&lb, "slow_reader").await;
        assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
        assert_eq!(line["status"], 200, "{line}");
        lb.wait_until("its connection should be closed", |lb| lb.front().connections() == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_byte_by_byte_is_cut_off_by_the_least_rate() {
    let body = "x".repeat(32 << 20);
    let backend = Backend::answering(200, &body);
    let lb = door(&backend, "limits: { min_rate: 1MiB/s }").start().await;
    let mut client = lb.raw().await;
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

    let reader = tokio::spawn(async move {
        loop {
            client.read_exactly(64).await;
            pause(ms(20)).await;
        }
    });

    line_with(&lb, "slow_reader").await;
    assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
    reader.abort();
}

#[tokio::test]
async fn a_client_that_reads_at_the_least_rate_gets_everything() {
    let body = "x".repeat(12 << 20);
    let backend = Backend::answering(200, &body);
    let lb = door(&backend, "limits: { min_rate: 256KiB/s }").start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.read_head().await;

    let mut left = 12 << 20;
    while left > 0 {
        left -= client.read_exactly(left.min(128 << 10)).await.len();
        pause(ms(80)).await;
    }

    assert_eq!(head.field("content-length"), Some("12582912"));
    assert_eq!(lb.access_log(1).await[0]["reason"], "ok");
}

#[tokio::test]
async fn a_stream_with_a_closed_window_is_cut_off_and_its_neighbours_are_not() {
    let body = "x".repeat(1 << 20);
    let backend = Backend::answering(200, &body);
    for settings in ["timeouts: { write: 1s }", "limits: { min_rate: 64KiB/s }"] {
        let lb = door(&backend, settings).start().await;
        let (requests, driver) = over_h2(&lb).await;
        let since = Instant::now();
        let request = || http::Request::get("http://a/").body(()).unwrap();
        let (answer, _) = requests.clone().ready().await.unwrap().send_request(request(), true).unwrap();
        let stalled = in_time("a head", answer).await.unwrap().into_body();

        line_with(&lb, "slow_reader").await;

        assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
        lb.until_idle().await;
        let head = http::Request::head("http://a/").body(()).unwrap();
        let (answer, _) = requests.ready().await.unwrap().send_request(head, true).unwrap();
        assert_eq!(in_time("an answer", answer).await.unwrap().status(), 200, "{settings}");
        drop(stalled);
        driver.abort();
    }
}

#[tokio::test]
async fn a_whole_request_has_its_time_however_steadily_it_comes() {
    let backend = Backend::answering(200, "hello");
    let lb = door(&backend, "timeouts: { request: 1s }").start().await;
    let mut client = lb.raw().await;
    let since = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    while since.elapsed() < CUT && lb.in_flight() > 0 {
        let _ = client.try_send([b'x'; 100]).await;
        pause(ms(50)).await;
    }
    assert_eq!(client.read_response().await.status, 408);
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    line_with(&lb, "request_timeout").await;

    let (requests, driver) = over_h2(&lb).await;
    let request = http::Request::post("http://a/").body(()).unwrap();
    let (answer, mut body) = requests.ready().await.unwrap().send_request(request, false).unwrap();
    let steady = tokio::spawn(async move {
        while body.send_data(Bytes::from_static(&[b'x'; 100]), false).is_ok() {
            pause(ms(50)).await;
        }
    });
    assert_eq!(in_time("an answer", answer).await.unwrap().status(), 408);
    steady.abort();
    driver.abort();

    // Its head counts, and one that is done in time may be answered later.
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: ").await;
    assert_eq!(client.read_response().await.status, 408);
    line_with(&lb, "header_timeout").await;
    assert_eq!(lb.post("/", "in time").await.status, 200);
}

#[tokio::test]
async fn an_answer_may_take_longer_than_the_request_may() {
    let backend = Backend::slow(ms(1500), "hello");
    let lb = door(&backend, "timeouts: { request: 500ms }").start().await;

    assert_eq!(lb.post("/", "in time").await.body, "hello");
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_goodbye() {
    let backend = Backend::answering(200, "hello");
    let lb = door(&backend, "timeouts: { idle: 400ms }").start().await;
    let mut stream = TcpStream::connect(lb.address(1)).await.unwrap();
    let get = frame(1, 5, 1, GET_HEAD);
    stream.write_all(&[PREFACE, &frame(4, 0, 0, b""), &get].concat()).await.unwrap();
    let since = Instant::now();

    // It answers nothing, and is closed all the same.
    let mut said = Vec::new();
    in_time("it should be closed", stream.read_to_end(&mut said)).await.unwrap();

    assert!((ms(350)..Duration::from_secs(5)).contains(&since.elapsed()), "{:?}", since.elapsed());
    assert!(said.windows(17).any(|frame| frame[3] == 7 && frame[13..] == [0; 4]), "a GOAWAY without an error");
    lb.wait_until("no connection should be left", |lb| lb.front().connections() == 0).await;
}

#[tokio::test]
async fn an_http2_connection_with_only_stalled_streams_does_not_stay() {
    let backend = Backend::answering(200, &"x".repeat(1 << 20));
    let lb = door(&backend, "timeouts: { idle: 400ms, write: 600ms, body: 600ms }").start().await;
    let client = H2Client::plain(lb.address(1)).await;
    let (_answer, _sending) = client.open(client.build("POST", "/")).await;
    let (stalled, _) = client.open(client.build("GET", "/")).await;
    let _never_read = in_time("a head", stalled).await;
    let since = Instant::now();

    lb.wait_until("no connection should be left", |lb| lb.front().connections() == 0).await;

    assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
}

#[tokio::test]
async fn streams_that_are_opened_to_be_given_up_end_the_connection() {
    let backend = Backend::answering(200, "hello");
    let lb = door(&backend, "").start().await;

    // Slow enough that each is taken before it is given up: one that is not is bounded by the crate.
    let stream = TcpStream::connect(lb.address(1)).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sender = tokio::spawn(async move {
        let mut sent = [PREFACE, &frame(4, 0, 0, b"")].concat();
        for number in 0.. {
            let stream = number * 2 + 1;
            sent.extend([frame(1, 5, stream, GET_HEAD), frame(3, 0, stream, &[0, 0, 0, 8])].concat());
            if writing.write_all(&std::mem::take(&mut sent)).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut said = Vec::new();
    let _ = in_time("it should be cut off", reading.read_to_end(&mut said)).await;
    sender.abort();

    others_are_served(&lb).await;
    lb.until_idle().await;
    assert!(backend.requests() < 2000, "{} requests came through", backend.requests());
}

#[tokio::test]
async fn frames_that_only_cost_end_the_connection_and_nobody_else_notices() {
    let backend = Backend::answering(200, "hello");
    type Make = fn(u32) -> Vec<u8>;
    let floods: [(&str, Make); 6] = [
        ("PING", |_| frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", |_| frame(4, 0, 0, b"")),
        ("PRIORITY", |_| frame(2, 0, 3, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", |_| frame(8, 0, 0, &[0, 0, 0, 1])),
        ("unknown", |_| frame(0xbb, 0, 0, b"")),
        ("answers to SETTINGS", |_| frame(6, 1, 0, &[0; 8])),
    ];
    for (name, make) in floods {
        let lb = door(&backend, "").start().await;
        let since = Instant::now();

        flood(&lb, make).await;

        assert!(since.elapsed() < Duration::from_secs(5), "{name}: {:?}", since.elapsed());
        let line = line_with(&lb, "http2_flood").await;
        assert_eq!((&line["status"], &line["client"]), (&Value::Null, &"127.0.0.1".into()), "{name}: {line}");
        others_are_served(&lb).await;
        lb.wait_until("its connection should be closed", |lb| lb.front().connections() == 0).await;
    }
}

#[tokio::test]
async fn one_who_floods_us_and_reads_is_told_to_be_calm() {
    let backend = Backend::answering(200, "hello");
    let lb = door(&backend, "").start().await;
    let mut stream = TcpStream::connect(lb.address(1)).await.unwrap();
    let priorities: Vec<u8> = (0..1001).flat_map(|_| frame(2, 0, 3, &[0, 0, 0, 0, 1])).collect();

    stream.write_all(&[PREFACE, &frame(4, 0, 0, b""), &priorities].concat()).await.unwrap();

    let mut said = Vec::new();
    let _ = in_time("it should be closed", stream.read_to_end(&mut said)).await;
    assert!(says_calm(&said), "{said:?}");
}

#[tokio::test]
async fn what_the_crate_bounds_stays_bounded() {
    let backend = Backend::answering(200, "hello");
    type Make = fn(u32) -> Vec<u8>;
    // A header that grows for ever, empty pieces of a body, and a head whose fields are a few bytes each on the wire.
    let bomb: Make = |number| {
        let name = [&[0x40, 4][..], b"x-aa", &[0x7f, 0xe1, 0x1e], &[b'v'; 4000]].concat();
        let head = [GET_HEAD, &name, &[0xbe; 2000]].concat();
        frame(1, 5, number * 2 + 1, &head)
    };
    let floods: [(&str, Make); 3] = [
        ("CONTINUATION", |number| match number {
            0 => frame(1, 0, 1, GET_HEAD),
            _ => frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b']),
        }),
        ("empty DATA", |number| match number {
            0 => frame(1, 4, 1, &[0x83, 0x84, 0x86, 0x41, 1, b'a']),
            _ => frame(0, 0, 1, b""),
        }),
        ("bombs of HPACK", bomb),
    ];
    for (name, make) in floods {
        let lb = door(&backend, "").start().await;
        if name != "bombs of HPACK" {
            flood(&lb, make).await;
        } else {
            let mut stream = TcpStream::connect(lb.address(1)).await.unwrap();
            stream.write_all(&[PREFACE, &frame(4, 0, 0, b""), &make(0)].concat()).await.unwrap();
            let mut said = vec![0; 4096];
            let mut heard = Vec::new();
            // Refused, by a status or a reset of its stream.
            while !heard.windows(4).any(|frame| frame[3] == 1 || frame[3] == 3) {
                let count = in_time("an answer", stream.read(&mut said)).await.unwrap();
                assert!(count > 0, "{heard:?}");
                heard.extend_from_slice(&said[..count]);
            }
        }
        others_are_served(&lb).await;
        let all_others = backend.received().iter().all(|request| path(request) == "/other" || name == "empty DATA");
        assert!(all_others, "{name}");
    }
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_each() {
    raise_open_files();
    hold_idle(10_000, "", 8 * 1024).await;
}

#[tokio::test]
async fn an_idle_connection_under_tls_costs_little() {
    raise_open_files();
    hold_idle(1_000, "tls: { self_signed: [localhost] }, ", 20 * 1024).await;
}

/// Holds so many connections that have asked something; none may take so much of our memory.
#[allow(clippy::print_stdout, reason = "the figure is for whoever asks what an idle connection costs")]
async fn hold_idle(many: usize, tls: &str, most: u64) {
    let config = format!(
        "server: {{ max_connections: 20000 }}\nlisteners:\n  - {{ address: 127.0.0.1:0, {tls}timeouts: {{ idle: 10m }} }}\n\
         routes:\n  - respond: {{ status: 200, body: ok }}\nlog: {{ access: none, dashboard: none }}\n\
         upstreams: {{ app: {{ backends: [127.0.0.1:1], health_check: none }} }}\nadmin: {{ address: none }}\n"
    );
    let program = Portcullis::run(&config);
    let line = program.line_with("listening on ").await;
    let address: SocketAddr = line.rsplit(' ').next().unwrap().parse().unwrap();
    let connected = async || match tls {
        "" => Client::tcp(address).await,
        _ => Client::tls(address, "localhost").await,
    };
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // What the first ones take is for all: tables, threads, and what the allocator keeps.
    let mut idle = Vec::with_capacity(many);
    for _ in 0..many / 10 {
        let mut client = connected().await;
        assert_eq!(client.exchange(request).await.status, 200);
        idle.push(client);
    }
    let before = program.memory("VmRSS");
    for _ in 0..many {
        let mut client = connected().await;
        assert_eq!(client.exchange(request).await.status, 200);
        idle.push(client);
    }

    let each = program.memory("VmRSS").saturating_sub(before) / many as u64;
    println!("{each} bytes for each of {many} idle connections");
    assert!(each < most, "{each} bytes for each idle connection");
    assert_eq!(connected().await.exchange(request).await.status, 200);
    assert_eq!(idle[0].exchange(request).await.status, 200);
}

/// The soft limit of most systems is 1024.
fn raise_open_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
