//! Limits and the queue: nobody gets more than it may have, and who waits is served in order or told for how long.

use crate::support;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Client, Lb, Script, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};

const ROUTE: &str = "routes:\n  - upstream: app\n";
const PATIENT: &str = "queue: { timeout: 30s }";

/// Backends with their keys, the keys of the upstream, and the routes.
fn app(backends: &[(&Backend, &str)], upstream: &[&str], routes: &str) -> Builder {
    let mut text = "upstreams:\n  app:\n    health_check: none\n    backends:\n".to_owned();
    for (backend, keys) in backends {
        let _ = writeln!(text, "      - {{ url: \"{}\", {keys} }}", backend.url());
    }
    for line in upstream {
        let _ = writeln!(text, "    {line}");
    }
    Lb::yaml(text + routes)
}

/// Sends a request, and leaves its answer for later.
async fn ask(lb: &Lb, path: &str) -> Client {
    let mut client = lb.raw().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    client
}

fn waiting(lb: &Lb) -> usize {
    lb.upstream("app").waiting().unwrap()
}

/// Sends a request that has to wait.
async fn ask_and_wait(lb: &Lb, path: &str) -> Client {
    let before = waiting(lb);
    let client = ask(lb, path).await;
    wait_until(&format!("{path} should wait"), || waiting(lb) == before + 1).await;
    client
}

fn paths(backend: &Backend) -> Vec<String> {
    let path = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    backend.received().iter().map(|request| path(&request.head.first_line)).collect()
}

#[tokio::test]
async fn no_policy_gives_a_backend_more_than_it_may_have() {
    for policy in
        ["round_robin", "least_connections", "random", "two_choices", "peak_ewma", "{ consistent_hash: { key: path } }"]
    {
        let (a, b) = (Backend::held("a"), Backend::held("b"));
        let backends = [(&a, "max_connections: 2, weight: 5"), (&b, "max_connections: 3")];
        let lb = app(&backends, &[PATIENT, &format!("balance: {policy}")], ROUTE).start().await;

        let mut clients = Vec::new();
        for _ in 0..9 {
            clients.push(ask(&lb, "/").await);
        }
        wait_until("four should wait", || waiting(&lb) == 4).await;
        assert_eq!((a.requests(), b.requests()), (2, 3), "{policy}");

        a.release_all();
        b.release_all();
        for client in &mut clients {
            assert_eq!(client.read_response().await.status, 200, "{policy}");
        }
        lb.until_idle().await;
        assert_eq!(waiting(&lb), 0);
    }
}

#[tokio::test]
async fn who_has_waited_longest_is_next_and_priority_comes_first() {
    let backend = Backend::held("served");
    let routes = "routes:\n  - { match: { path: /soon/* }, upstream: app, priority: 5 }\n  - upstream: app\n";
    let lb = app(&[(&backend, "max_connections: 1")], &[PATIENT], routes).start().await;
    let mut clients = vec![ask(&lb, "/first").await];
    backend.until_requests(1).await;
    for path in ["/a", "/b", "/soon/c", "/d", "/soon/e"] {
        clients.push(ask_and_wait(&lb, path).await);
    }

    for served in 2..=6 {
        backend.release();
        backend.until_requests(served).await;
        assert_eq!(backend.requests(), served);
    }
    backend.release();

    assert_eq!(paths(&backend), ["/first", "/soon/c", "/soon/e", "/a", "/b", "/d"]);
    for client in &mut clients {
        assert_eq!(client.read_response().await.status, 200);
    }
}

#[tokio::test]
async fn a_place_that_is_given_back_is_handed_on_at_once() {
    let backend = Backend::held("served");
    let lb = app(&[(&backend, "max_connections: 1")], &[PATIENT], ROUTE).start().await;
    let mut clients = vec![ask(&lb, "/").await];
    for _ in 0..40 {
        clients.push(ask(&lb, "/").await);
    }
    wait_until("forty should wait", || waiting(&lb) == 40).await;

    let began = Instant::now();
    backend.release_all();
    for client in &mut clients {
        assert_eq!(client.read_response().await.status, 200);
    }
    // Whoever only looked now and then would need a tenth of a second for each.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_long_wait_ends() {
    let backend = Backend::held("served");
    let upstream = ["queue: { size: 1, timeout: 1500ms }"];
    let lb = app(&[(&backend, "max_connections: 1")], &upstream, ROUTE).start().await;
    let mut first = ask(&lb, "/").await;
    backend.until_requests(1).await;
    let mut second = ask_and_wait(&lb, "/").await;

    let refused = lb.get("/").await;
    let late = second.read_response().await;
    backend.release();

    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("2")));
    assert_eq!((late.status, late.field("retry-after")), (503, Some("2")));
    assert_eq!(first.read_response().await.status, 200);
    let log = lb.access_log(3).await;
    assert_eq!([&log[0]["reason"], &log[1]["reason"], &log[2]["reason"]], ["queue_full", "queue_timeout", "ok"]);
    assert!(log[1]["total_ms"].as_f64().unwrap() >= 1500.0, "{}", log[1]);
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn without_a_queue_nobody_waits() {
    let backend = Backend::held("served");
    let lb = app(&[(&backend, "max_connections: 1")], &["queue: none"], ROUTE).start().await;
    let _first = ask(&lb, "/").await;
    backend.until_requests(1).await;
    assert_eq!(lb.get("/").await.status, 503);
    assert_eq!(lb.access_log(1).await[0]["reason"], "queue_full");
}

#[tokio::test]
async fn the_time_of_the_route_ends_a_wait_too() {
    let backend = Backend::held("served");
    let routes = "routes:\n  - { match: { path: /short }, upstream: app, timeout: 100ms }\n  - upstream: app\n";
    let lb = app(&[(&backend, "max_connections: 1")], &[PATIENT], routes).start().await;
    let _first = ask(&lb, "/").await;
    backend.until_requests(1).await;
    assert_eq!(lb.get("/short").await.status, 504);
    assert_eq!(lb.access_log(1).await[0]["reason"], "route_timeout");
}

#[tokio::test]
async fn clients_that_leave_make_no_hole_in_the_queue() {
    let backend = Backend::held("served");
    let lb = app(&[(&backend, "max_connections: 1")], &[PATIENT], ROUTE).start().await;
    let _first = ask(&lb, "/first").await;
    backend.until_requests(1).await;
    let gone = ask_and_wait(&lb, "/gone").await;
    let h2 = lb.h2().await;
    let (gone_too, _) = h2.open(h2.build("GET", "/gone-too")).await;
    wait_until("both should wait", || waiting(&lb) == 2).await;
    let mut last = ask_and_wait(&lb, "/last").await;

    drop(gone);
    drop((gone_too, h2));
    wait_until("they should have left", || waiting(&lb) == 1).await;
    backend.release();
    backend.release();

    assert_eq!(last.read_response().await.status, 200);
    assert_eq!(paths(&backend), ["/first", "/last"]);
    let log = lb.access_log(4).await;
    let gone = log.iter().filter(|line| line["reason"] == "client_gone" && line["attempts"] == serde_json::json!([]));
    assert_eq!(gone.count(), 2, "{log:#?}");
}

#[tokio::test]
async fn when_a_tier_is_full_the_next_one_serves() {
    let (first, backup) = (Backend::held("first"), Backend::named("backup"));
    let lb = app(&[(&first, "max_connections: 1"), (&backup, "backup: true")], &[PATIENT], ROUTE).start().await;
    let _held = ask(&lb, "/").await;
    first.until_requests(1).await;
    for _ in 0..3 {
        assert_eq!(lb.get("/").await.body, "backup");
    }
}

#[tokio::test]
async fn a_session_goes_elsewhere_for_once_and_keeps_its_cookie() {
    let [a, b] = ["a", "b"].map(Backend::held);
    let keys = "max_connections: 1";
    let lb = app(&[(&a, keys), (&b, keys)], &[PATIENT, "sticky: { cookie: stay }"], ROUTE).start().await;
    let mut first = ask(&lb, "/").await;
    wait_until("somebody should have it", || a.requests() + b.requests() == 1).await;
    let (own, other) = if a.requests() == 1 { (&a, &b) } else { (&b, &a) };
    own.release();
    let cookie = first.read_response().await.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let come_back = format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");

    let (mut held, mut away) = (lb.raw().await, lb.raw().await);
    held.send(&come_back).await;
    own.until_requests(2).await;
    away.send(&come_back).await;
    other.until_requests(1).await;
    let mut third = lb.raw().await;
    third.send(&come_back).await;
    wait_until("it should wait", || waiting(&lb) == 1).await;
    own.release();
    own.until_requests(3).await;
    own.release();
    other.release();

    assert_eq!(away.read_response().await.field("set-cookie"), None);
    assert_eq!(third.read_response().await.field("set-cookie"), None);
    assert_eq!((own.requests(), other.requests()), (3, 1));
}

#[tokio::test]
async fn a_retry_waits_for_one_that_is_full_and_does_not_ask_the_same_again() {
    let (broken, full) = (Backend::resetting_before_head(), Backend::held("full"));
    let backends = [(&broken, "weight: 1000"), (&full, "max_connections: 1")];
    let lb = app(&backends, &[PATIENT, "passive_health: none"], ROUTE).start().await;
    let mut first = None;
    while full.requests() == 0 {
        first = Some(ask(&lb, "/").await);
        wait_until("it should be held, or wait", || full.requests() + waiting(&lb) > 0).await;
    }
    let asked = broken.requests();
    let before = waiting(&lb);
    let mut second = ask(&lb, "/second").await;
    wait_until("the retry should wait", || waiting(&lb) == before + 1).await;
    assert_eq!(broken.requests(), asked + 1);

    full.release();
    full.release();

    assert_eq!(second.read_response().await.body, "full");
    assert_eq!(broken.requests(), asked + 1);
    drop(first);
}

#[tokio::test]
async fn no_answer_is_given_up_for_a_place_in_the_queue() {
    let (sick, full) = (Backend::answering(503, "sick"), Backend::held("full"));
    let backends = [(&sick, ""), (&full, "max_connections: 1")];
    let lb = app(&backends, &["balance: round_robin", "passive_health: none"], ROUTE).start().await;
    let _both = [ask(&lb, "/").await, ask(&lb, "/").await];
    full.until_requests(1).await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, answer.text()), (503, "sick".to_owned()));
}

#[tokio::test]
async fn those_who_wait_live_through_a_reload_and_are_served_by_who_is_there_then() {
    let (old, new) = (Backend::held("old"), Backend::named("new"));
    let one = [(&old, "max_connections: 1")];
    let lb = app(&one, &[PATIENT], ROUTE).start().await;
    let mut first = ask(&lb, "/").await;
    old.until_requests(1).await;
    let mut second = ask_and_wait(&lb, "/").await;

    lb.reload(app(&one, &[PATIENT, "slow_start: 1s"], ROUTE)).await.unwrap();
    assert_eq!(waiting(&lb), 1);
    lb.reload(app(&[one[0], (&new, "max_connections: 1")], &[PATIENT], ROUTE)).await.unwrap();

    assert_eq!(second.read_response().await.body, "new");
    old.release();
    assert_eq!(first.read_response().await.body, "old");
    lb.until_idle().await;
    let upstream = lb.upstream("app");
    assert!(upstream.members().iter().all(|member| upstream.in_flight(&member.backend) == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_who_waits_is_refused_while_an_upstream_takes_the_place_of_another() {
    let backends = ["a", "b", "c", "d"].map(Backend::named);
    // With a policy that takes its time to be built.
    let file = |timeout: u32| {
        let backends: Vec<_> = backends.iter().map(|it| (it, "max_connections: 1, weight: 100")).collect();
        let queue = format!("queue: {{ timeout: {timeout}s }}");
        app(&backends, &[&queue, "balance: { consistent_hash: { key: path } }"], ROUTE)
    };
    let lb = Arc::new(file(30).start().await);
    let swapping = Arc::new(AtomicBool::new(true));
    let clients = (0..16).map(|client| {
        let (lb, swapping) = (lb.clone(), swapping.clone());
        tokio::spawn(async move {
            let mut raw = lb.raw().await;
            while swapping.load(Relaxed) {
                let answer = raw.exchange(format!("GET /{client} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
                assert_eq!(answer.status, 200);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for turn in 0..40 {
        lb.reload(file(31 + turn % 2)).await.unwrap();
    }
    swapping.store(false, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn while_a_wait_helps_nobody_is_sent_to_an_ejected_backend() {
    let sick = Backend::answering(500, "sick");
    let well = Backend::held("well");
    let passive = "passive_health: { consecutive_failures: 1, ejection: 1h, max_ejection: 1h }";
    let lb = app(&[(&well, "max_connections: 1"), (&sick, "")], &[PATIENT, passive], ROUTE).start().await;
    let mut first = ask(&lb, "/").await;
    let mut second = ask(&lb, "/").await;
    wait_until("sick should be ejected", || {
        lb.upstream("app").members()[1].backend.state() == portcullis::backend::State::Ejected
    })
    .await;
    let mut third = ask_and_wait(&lb, "/").await;
    well.release_all();
    let mut statuses = [first.read_response().await.status, second.read_response().await.status];
    statuses.sort_unstable();
    assert_eq!((statuses, third.read_response().await.status, sick.requests()), ([200, 500], 200, 1));
}

#[tokio::test]
async fn a_limit_that_a_reload_brings_counts_what_is_in_flight_already() {
    let backend = Backend::held("served");
    let lb = app(&[(&backend, "")], &[PATIENT], ROUTE).start().await;
    let mut first = ask(&lb, "/").await;
    backend.until_requests(1).await;
    assert_eq!(lb.upstream("app").waiting(), None);

    lb.reload(app(&[(&backend, "max_connections: 1")], &[PATIENT], ROUTE)).await.unwrap();
    let mut second = ask_and_wait(&lb, "/").await;
    assert_eq!(backend.requests(), 1);
    backend.release_all();

    assert_eq!(first.read_response().await.status, 200);
    assert_eq!(second.read_response().await.status, 200);
}

#[tokio::test]
async fn when_nobody_is_ready_nobody_waits() {
    let parked = Backend::writing(response(429, &[("Retry-After", "60")], "busy"));
    let lb = app(&[(&parked, "max_connections: 1")], &[PATIENT], ROUTE).start().await;
    lb.get("/").await;
    let answer = lb.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(lb.access_log(2).await[1]["reason"], "throttled");
}

#[tokio::test]
async fn failures_and_late_answers_give_their_place_back() {
    let backend = Backend::scripted(Script::each([
        vec![Act::Reset],
        vec![Act::Hang],
        vec![Act::ReadBody, Act::Write(response(200, &[], "well"))],
    ]));
    let upstream = ["passive_health: none", "timeouts: { first_byte: 200ms }"];
    let routes = "routes:\n  - { upstream: app, retry: none }\n";
    let lb = app(&[(&backend, "max_connections: 1")], &upstream, routes).start().await;
    let statuses = [lb.get("/").await.status, lb.get("/").await.status, lb.get("/").await.status];
    assert_eq!(statuses, [502, 504, 200]);
}

#[tokio::test]
async fn sixty_four_clients_never_find_more_than_one_place() {
    let slow = || Backend::slow(Duration::from_millis(1), "served");
    let (a, b) = (slow(), slow());
    let keys = "max_connections: 1";
    let lb = app(&[(&a, keys), (&b, keys)], &[PATIENT, "balance: random"], ROUTE).start().await;
    let clients = (0..64).map(|_| async {
        let mut client = lb.raw().await;
        for _ in 0..10 {
            let upstream = lb.upstream("app");
            let most = upstream.members().iter().map(|member| upstream.in_flight(&member.backend)).max();
            assert!(most <= Some(1), "{most:?}");
            let answer = client.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(answer.status, 200);
        }
    });
    futures_join(clients).await;
    assert_eq!(a.requests() + b.requests(), 640);
    assert!(a.connections() + b.connections() <= 8, "{} {}", a.connections(), b.connections());
    lb.until_idle().await;
    assert_eq!(waiting(&lb), 0);
}

/// A server that works on one request at a time, each for 5 ms.
async fn one_at_a_time() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut work = interval(Duration::from_millis(5));
    work.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = Arc::new(Mutex::new(work));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let work = work.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        work.lock().await.tick().await;
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_learnt_limit_keeps_a_backend_from_what_would_only_wait_there() {
    let url = one_at_a_time().await;
    let text = format!("upstreams:\n  app:\n    health_check: none\n    backends: [\"{url}\"]\n    {PATIENT}\n");
    let lb = Lb::yaml(format!("{text}    concurrency: {{ adaptive: {{ min: 2, max: 64 }} }}\n{ROUTE}")).start().await;
    let clients = (0..64).map(|_| async {
        let mut client = lb.raw().await;
        for _ in 0..10 {
            let answer = client.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(answer.status, 200);
        }
    });
    futures_join(clients).await;
    let most = lb.upstream("app").members()[0].most().unwrap();
    assert!((2..=24).contains(&most), "{most}");
}

#[tokio::test]
async fn failures_shrink_a_learnt_limit_which_a_reload_keeps() {
    let failing = Backend::answering(500, "no");
    let upstream = |bounds: &str| format!("concurrency: {{ adaptive: {{ {bounds} }} }}");
    let routes = "routes:\n  - { upstream: app, retry: none }\n";
    let most = |lb: &Lb| lb.upstream("app").members()[0].most().unwrap();
    let builder = |keys, bounds| app(&[(&failing, keys)], &["passive_health: none", &upstream(bounds)], routes);
    let lb = builder("", "min: 3, max: 64").start().await;
    assert_eq!(most(&lb), 5);

    while most(&lb) > 3 {
        assert_eq!(lb.get("/").await.status, 500);
    }
    lb.reload(builder("", "min: 2, max: 100")).await.unwrap();
    assert!(most(&lb) <= 3, "{}", most(&lb));
    lb.reload(builder("max_connections: 1", "min: 2, max: 100")).await.unwrap();
    assert_eq!(most(&lb), 1);
}

/// All of them at once, in one task.
async fn futures_join<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
