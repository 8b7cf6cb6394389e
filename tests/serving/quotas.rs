//! Quotas: no window of any length ever sees more than it may, and who has to wait is told for how long.

use crate::support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::backend::State;
use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Lb, Script, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const QUIET: &str = "    health_check: none\n";

/// Backends with their keys, further lines of the upstream, and a route.
fn app(backends: &[(String, &str)], upstream: &str) -> Builder {
    let backends = backends.iter().map(|(url, keys)| format!("      - {{ url: \"{url}\", {keys} }}\n"));
    let backends: String = backends.collect();
    Lb::yaml(format!("upstreams:\n  app:\n    backends:\n{backends}{upstream}routes:\n  - upstream: app\n"))
}

fn left(lb: &Lb, number: usize) -> u32 {
    lb.upstream("app").members()[number].left().unwrap().0
}

/// A server that notes when each request came.
async fn noting() -> (String, Arc<Mutex<Vec<Instant>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let times = Arc::<Mutex<Vec<Instant>>>::default();
    let noted = times.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = noted.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        noted.lock().unwrap().push(Instant::now());
                        head.clear();
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    }
                }
            });
        }
    });
    (url, times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_exceed_no_window_by_one_request() {
    const WINDOWS: [(usize, u64); 2] = [(12, 300), (30, 1_200)];
    let (a, times_of_a) = noting().await;
    let (b, times_of_b) = noting().await;
    let keys = "quota: [12/300ms, 30/1200ms]";
    let queue = format!("{QUIET}    queue: {{ timeout: 30s }}\n");
    let lb = Arc::new(app(&[(a, keys), (b, keys)], &queue).start().await);

    let clients = (0..64).map(|_| {
        let lb = lb.clone();
        tokio::spawn(async move {
            let mut client = lb.raw().await;
            for _ in 0..3 {
                let answer = client.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                assert_eq!(answer.status, 200);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }

    let times = [times_of_a, times_of_b].map(|times| times.lock().unwrap().clone());
    assert_eq!(times.iter().map(Vec::len).sum::<usize>(), 192);
    for (most, millis) in WINDOWS {
        for times in &times {
            let mut pairs = times.iter().zip(times.iter().skip(most));
            let closer = pairs.find(|(first, next)| **next - **first < Duration::from_millis(millis));
            assert!(closer.is_none(), "{} requests within {millis} ms", most + 1);
        }
    }
    let all = times.iter().flatten();
    let took = *all.clone().max().unwrap() - *all.min().unwrap();
    assert!(took < Duration::from_secs(8), "it took {took:?}, and 4 s would do");
}

#[tokio::test]
async fn a_backend_that_has_used_up_its_quota_is_passed_over() {
    let (counted, free) = (Backend::named("counted"), Backend::named("free"));
    let lb = app(&[(counted.url(), "quota: [2/h, 3/d]"), (free.url(), "weight: 1")], QUIET).start().await;
    for _ in 0..8 {
        assert_eq!(lb.get("/").await.status, 200);
    }
    assert_eq!((counted.requests(), free.requests(), left(&lb, 0)), (2, 6, 0));
    assert_eq!(lb.upstream("app").members()[0].backend.state(), State::Healthy);
}

#[tokio::test]
async fn when_all_quotas_are_used_up_the_client_hears_when_there_is_one_again() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let lb = app(&[(a.url(), "quota: [1/h]"), (b.url(), "quota: [1/10m]")], QUIET).start().await;
    lb.get("/").await;
    lb.get("/").await;

    let began = Instant::now();
    let answer = lb.get("/").await;

    assert!(began.elapsed() < Duration::from_millis(900), "it waited {:?}", began.elapsed());
    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!(answer.status == 503 && (590..=600).contains(&seconds), "{} {seconds}", answer.status);
    assert_eq!(lb.access_log(3).await[2]["reason"], "quota_used_up");
    assert_eq!((a.requests(), b.requests()), (1, 1));
}

#[tokio::test]
async fn a_request_waits_for_a_window_that_ends_in_time() {
    let backend = Backend::named("a");
    let queue = format!("{QUIET}    queue: {{ timeout: 30s }}\n");
    let lb = app(&[(backend.url(), "quota: [1/s]")], &queue).start().await;
    lb.get("/").await;
    let began = Instant::now();
    assert_eq!(lb.get("/").await.status, 200);
    assert!((900..3_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn reloads_with_other_quotas_and_other_backends_forget_nothing() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let lb = app(&[(a.url(), "quota: [2/h]")], QUIET).start().await;
    lb.get("/").await;

    lb.reload(app(&[(a.url(), "quota: [3/h, 5/d]")], QUIET)).await.unwrap();
    assert_eq!((lb.get("/").await.status, left(&lb, 0)), (200, 1));
    lb.reload(app(&[(b.url(), "weight: 1")], QUIET)).await.unwrap();
    lb.get("/").await;
    lb.reload(app(&[(a.url(), "quota: [3/h], name: again")], QUIET)).await.unwrap();

    assert_eq!([lb.get("/").await.status, lb.get("/").await.status], [200, 503]);
    assert_eq!(a.requests(), 3);
}

#[tokio::test]
async fn upstreams_that_are_renamed_or_gone_for_a_while_forget_nothing() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let named = |name: &str, backend: &Backend, keys: &str| {
        let backend = format!("[{{ url: \"{}\", {keys} }}]", backend.url());
        let upstream = format!("  {name}: {{ health_check: none, backends: {backend} }}\n");
        Lb::yaml(format!("upstreams:\n{upstream}routes: [{{ upstream: {name} }}]\n"))
    };
    let lb = named("app", &a, "quota: [2/h]").start().await;
    assert_eq!(lb.get("/").await.status, 200);
    lb.reload(named("service", &a, "quota: [2/h]")).await.unwrap();
    assert_eq!([lb.get("/").await.status, lb.get("/").await.status], [200, 503]);
    lb.reload(named("other", &b, "weight: 1")).await.unwrap();
    lb.reload(named("app", &a, "quota: [2/h]")).await.unwrap();
    assert_eq!((lb.get("/").await.status, a.requests()), (503, 2));
}

#[tokio::test]
async fn what_found_no_connection_is_given_back_and_what_was_sent_twice_counts_twice() {
    let backend = Backend::refusing();
    let lb = app(&[(backend.url(), "quota: [1/h]")], QUIET).start().await;
    assert_eq!((lb.get("/").await.status, left(&lb, 0)), (502, 1));
    backend.restart().await;
    assert_eq!([lb.get("/").await.status, lb.get("/").await.status], [200, 503]);

    let stale = Backend::stale_after(1, "well");
    let lb = app(&[(stale.url(), "quota: [4/h]")], QUIET).start().await;
    assert_eq!([lb.get("/").await.status, lb.get("/").await.status], [200, 200]);
    assert_eq!((stale.requests(), left(&lb, 0)), (3, 1));
    // Here the stale connection takes the last one, and there is none for the free try.
    let stale = Backend::stale_after(1, "well");
    let lb = app(&[(stale.url(), "quota: [2/h]")], QUIET).start().await;
    assert_eq!([lb.get("/").await.status, lb.get("/").await.status], [200, 502]);
    assert_eq!((stale.requests(), left(&lb, 0)), (2, 0));
}

#[tokio::test]
async fn a_request_counts_as_long_as_it_waits_for_its_answer() {
    let backend = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Hang]]));
    let upstream = format!("{QUIET}    timeouts: {{ first_byte: 1200ms }}\n");
    let lb = app(&[(backend.url(), "quota: [1/10s]")], &upstream).start().await;
    let mut first = lb.raw().await;
    first.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    backend.until_requests(1).await;
    assert_eq!(lb.get("/").await.status, 503);
    assert_eq!(first.read_response().await.status, 504);
    assert_eq!((lb.get("/").await.status, left(&lb, 0)), (503, 0));
}

#[tokio::test]
async fn probes_that_are_requests_count_and_are_left_out_when_nothing_is_left() {
    let backend = Backend::named("a");
    let check = "    health_check: { path: /up, interval: 10ms, fast_interval: 10ms }\n";
    let lb = app(&[(backend.url(), "quota: [5/h]")], check).start().await;
    wait_until("the probes should use it up", || left(&lb, 0) == 0).await;
    assert_eq!(lb.get("/").await.status, 503);
    assert_eq!(backend.requests(), 5);
    assert_eq!(lb.upstream("app").members()[0].backend.state(), State::Healthy);

    let connects = "    health_check: { interval: 10ms, fast_interval: 10ms }\n";
    let lb = app(&[(backend.url(), "quota: [5/h]")], connects).start().await;
    wait_until("it should be probed", || lb.upstream("app").is_probed()).await;
    assert_eq!(left(&lb, 0), 5);
}

#[tokio::test]
async fn nobody_waits_for_a_probe_that_the_quota_leaves_out() {
    let backend = Backend::named("a");
    let named = |name: &str| {
        let backend = format!("[{{ url: \"{}\", quota: [1/h] }}]", backend.url());
        let upstream = format!("  {name}: {{ health_check: {{ path: /up, interval: 1h }}, backends: {backend} }}\n");
        Lb::yaml(format!("upstreams:\n{upstream}routes: [{{ upstream: {name} }}]\n"))
    };
    let lb = named("app").start().await;
    let state = |lb: &Lb, name: &str| lb.upstream(name).members()[0].backend.state();
    lb.wait_until("the probe should pass", |lb| state(lb, "app") == State::Healthy).await;

    lb.reload(named("service")).await.unwrap();

    lb.wait_until("it should be ready", |lb| lb.upstream("service").is_probed()).await;
    assert_eq!((state(&lb, "service"), backend.requests()), (State::Pending, 1));
}

/// Answers once so, and then well.
fn once(status: u16, fields: &[(&str, &str)]) -> Backend {
    let answers = [response(status, fields, ""), response(200, &[], "well")];
    Backend::scripted(Script::each(answers.map(|bytes| vec![Act::ReadBody, Act::Write(bytes)])))
}

#[tokio::test]
async fn a_request_waits_for_one_that_wants_to_be_left_alone_for_a_moment() {
    let (counted, throttled) = (Backend::named("a"), once(429, &[("Retry-After", "1")]));
    let queue = format!("{QUIET}    queue: {{ timeout: 30s }}\n");
    let lb = app(&[(counted.url(), "quota: [1/h]"), (throttled.url(), "weight: 1")], &queue).start().await;
    lb.get("/").await;
    lb.get("/").await;
    let answer = lb.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "well".to_owned()));
}

#[tokio::test]
async fn an_ejected_backend_is_asked_before_a_request_is_refused_for_an_hour() {
    let (counted, sick) = (Backend::named("a"), once(500, &[]));
    let upstream =
        format!("{QUIET}    passive_health: {{ consecutive_failures: 1, ejection: 1h, max_ejection: 1h }}\n");
    let backends = [(counted.url(), "quota: [1/h]"), (sick.url(), "weight: 1")];
    let lb = app(&backends, &upstream).start().await;
    lb.get("/").await;
    lb.get("/").await;
    assert_eq!(lb.upstream("app").members()[1].backend.state(), State::Ejected);
    let answer = lb.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "well".to_owned()));
    assert_eq!(counted.requests(), 1);
}

#[tokio::test]
async fn who_wants_to_be_left_alone_and_has_no_quota_left_is_back_when_both_are_over() {
    let backend = once(429, &[("Retry-After", "1")]);
    let lb = app(&[(backend.url(), "quota: [1/h]")], QUIET).start().await;
    lb.get("/").await;
    let answer = lb.get("/").await;
    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!(answer.status == 503 && seconds > 3_500, "{} {seconds}", answer.status);
}
