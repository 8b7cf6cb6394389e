//! Active health: who is probed, when a state changes, and who serves meanwhile.

use crate::support;

use std::time::Duration;

use portcullis::backend::State;
use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Client, Lb, Response, Script, wait_until};

const FAST: &str = "interval: 20ms, fast_interval: 10ms, timeout: 500ms, fall: 2, rise: 2";

fn probed(backends: &[&Backend], check: &str) -> Builder {
    Lb::with_backends(backends.iter().copied()).yaml_upstream(&format!("health_check: {{ {check} }}"))
}

/// One upstream with these lines of backends.
fn listed(backends: &[String], rest: &str) -> Builder {
    let lines = backends.iter().map(|line| format!("      - {line}\n")).collect::<String>();
    Lb::yaml(format!("upstreams:\n  app:\n    backends:\n{lines}    {rest}\nroutes:\n  - upstream: app\n"))
}

fn state(lb: &Lb, number: usize) -> State {
    lb.upstream("app").members()[number].backend.state()
}

async fn until(lb: &Lb, number: usize, wanted: State) {
    wait_until(&format!("backend {number} should be {wanted}"), || state(lb, number) == wanted).await;
}

fn last_error(lb: &Lb, number: usize) -> String {
    lb.upstream("app").members()[number].backend.reading().last_error.unwrap().what.clone()
}

async fn admin(lb: &Lb, path: &str) -> Response {
    Client::tcp(lb.admin_address()).await.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await
}

/// Who serves in these many requests, each once, in order.
async fn who_serves(lb: &Lb, requests: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..requests {
        names.push(lb.get("/").await.text());
    }
    names.sort();
    names.dedup();
    names
}

/// Answers probes (`GET /healthz`) and requests alike with each status in turn, the last one for ever.
fn statuses(list: &[u16]) -> Backend {
    let answer = |status: &u16| vec![Act::ReadBody, Act::Write(response(*status, &[], ""))];
    Backend::scripted(Script::each(list.iter().map(answer)))
}

#[tokio::test]
async fn the_first_probe_decides() {
    let (live, dead) = (Backend::named("live"), Backend::refusing());
    let lb = probed(&[&live, &dead], "interval: 1h, timeout: 500ms").start().await;

    until(&lb, 0, State::Healthy).await;
    until(&lb, 1, State::Unreachable).await;

    assert_eq!(who_serves(&lb, 6).await, ["live"]);
    assert!(last_error(&lb, 1).contains("refused"), "{}", last_error(&lb, 1));
}

#[tokio::test]
async fn a_probe_asks_for_the_path_with_the_configured_host() {
    let backend = Backend::named("live");
    let lb = probed(&[&backend], "path: /healthz?deep=1, host: probe.example, interval: 1h").start().await;

    until(&lb, 0, State::Healthy).await;

    let request = backend.only_request();
    assert_eq!(request.head.first_line, "GET /healthz?deep=1 HTTP/1.1");
    assert_eq!(request.field("host"), Some("probe.example"));
    assert!(request.field("user-agent").unwrap().starts_with("portcullis/"));
}

#[tokio::test]
async fn a_status_outside_of_expect_fails() {
    let backends = [Backend::answering(404, ""), Backend::answering(204, ""), Backend::answering(302, "")];
    let all = [&backends[0], &backends[1], &backends[2]];
    let lb = probed(&all, "path: /, expect: 200-299, interval: 1h").start().await;

    until(&lb, 0, State::Unreachable).await;
    until(&lb, 1, State::Healthy).await;
    until(&lb, 2, State::Unreachable).await;

    assert!(last_error(&lb, 0).contains("404"), "{}", last_error(&lb, 0));
}

#[tokio::test]
async fn a_backend_that_hangs_or_swallows_fails_by_timeout() {
    let (hanging, hole) = (Backend::hanging(), Backend::black_hole());
    let lb = probed(&[&hanging, &hole], "path: /, interval: 1h, timeout: 200ms").start().await;

    for number in 0..2 {
        until(&lb, number, State::Unreachable).await;
        // Whichever of its two clocks rings first.
        let error = last_error(&lb, number);
        assert!(error.contains("timeout") || error.contains("in time"), "{error}");
    }
}

#[tokio::test]
async fn it_takes_fall_failures_in_a_row() {
    // A success, two failures and a success leave it HEALTHY; three failures do not.
    let backend = statuses(&[200, 500, 500, 200, 500, 500, 500]);
    let check = "path: /, interval: 20ms, fast_interval: 10ms, fall: 3, rise: 100";
    let lb = probed(&[&backend], check).start().await;

    until(&lb, 0, State::Healthy).await;
    until(&lb, 0, State::Unreachable).await;

    assert!(backend.requests() >= 7, "after {} probes", backend.requests());
}

#[tokio::test]
async fn it_takes_rise_successes_in_a_row() {
    let backend = statuses(&[500, 200, 200, 500, 200, 200, 200]);
    let check = "path: /, interval: 20ms, fast_interval: 10ms, fall: 100, rise: 3";
    let lb = probed(&[&backend], check).start().await;

    until(&lb, 0, State::Unreachable).await;
    until(&lb, 0, State::Healthy).await;

    assert!(backend.requests() >= 7, "after {} probes", backend.requests());
}

#[tokio::test]
async fn an_https_backend_is_probed_over_tls() {
    let secure = Backend::over_tls(Script::answering(200, "secret"));
    let plain = Backend::hanging();
    let urls = [secure.url(), format!("https://{}", plain.address())];
    for check in ["interval: 1h, timeout: 1s", "path: /, interval: 1h, timeout: 1s"] {
        let lb = Lb::with_urls(urls.clone())
            .yaml_upstream(&format!("health_check: {{ {check} }}"))
            .yaml_upstream("tls: { verify: false, server_name: localhost }")
            .start()
            .await;

        until(&lb, 0, State::Healthy).await;
        until(&lb, 1, State::Unreachable).await;
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_fails_the_probe() {
    let secure = Backend::over_tls(Script::answering(200, "secret"));
    let lb = Lb::with_backends([&secure])
        .yaml_upstream("health_check: { interval: 1h, timeout: 1s }")
        .yaml_upstream("tls: { server_name: localhost }")
        .start()
        .await;

    until(&lb, 0, State::Unreachable).await;
}

#[tokio::test]
async fn pending_backends_serve_until_one_is_healthy() {
    // Probes of the first hang; its requests do not.
    let slow = Backend::scripted(Script::default().on_accept([Act::Hold]));
    let quick = Backend::named("quick");
    let check = "health_check: { path: /, interval: 1h, timeout: 10m }";
    let lb = Lb::with_backends([&slow]).yaml_upstream(check).start().await;
    assert_eq!(state(&lb, 0), State::Pending);
    let mut waiting = lb.raw().await;
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_until("the PENDING backend should be asked", || lb.in_flight() == 1).await;

    let lb = Lb::with_backends([&slow, &quick]).yaml_upstream(check).start().await;
    until(&lb, 1, State::Healthy).await;

    assert_eq!(who_serves(&lb, 8).await, ["quick"]);
    assert_eq!(state(&lb, 0), State::Pending);
}

#[tokio::test]
async fn a_backup_takes_over_and_gives_back() {
    let (primary, backup) = (Backend::answering(200, "back"), Backend::named("backup"));
    let urls = [format!("\"{}\"", primary.url()), format!("{{ url: \"{}\", backup: true }}", backup.url())];
    let lb = listed(&urls, &format!("health_check: {{ {FAST} }}")).start().await;
    until(&lb, 0, State::Healthy).await;
    until(&lb, 1, State::Healthy).await;
    assert_eq!(who_serves(&lb, 6).await, ["back"]);

    primary.stop().await;
    until(&lb, 0, State::Unreachable).await;
    assert_eq!(who_serves(&lb, 6).await, ["backup"]);

    primary.restart().await;
    until(&lb, 0, State::Healthy).await;
    assert_eq!(who_serves(&lb, 6).await, ["back"]);
}

#[tokio::test]
async fn one_of_two_is_no_panic_and_one_of_three_is() {
    // They fail their probes and serve all the same: in a panic they are asked.
    let sick = || Backend::answering(500, "sick");
    let (live, first, second) = (Backend::named("live"), sick(), sick());
    let check = "path: /, expect: 200-299, interval: 1h";
    let lb = probed(&[&live, &first], check).start().await;
    until(&lb, 0, State::Healthy).await;
    until(&lb, 1, State::Unreachable).await;
    assert_eq!(who_serves(&lb, 10).await, ["live"]);

    let lb = probed(&[&live, &first, &second], check).start().await;
    until(&lb, 0, State::Healthy).await;
    until(&lb, 1, State::Unreachable).await;
    until(&lb, 2, State::Unreachable).await;
    assert_eq!(who_serves(&lb, 10).await, ["live", "sick"]);

    let lb = probed(&[&live, &first, &second], check).yaml_upstream("panic_threshold: 0%").start().await;
    until(&lb, 0, State::Healthy).await;
    until(&lb, 2, State::Unreachable).await;
    assert_eq!(who_serves(&lb, 10).await, ["live"]);
}

#[tokio::test]
async fn without_a_threshold_nobody_is_left_when_all_are_unreachable() {
    let sick = Backend::answering(500, "sick");
    let lb = probed(&[&sick], "path: /, expect: 200-299, interval: 1h").yaml_upstream("panic_threshold: 0%");
    let lb = lb.start().await;
    until(&lb, 0, State::Unreachable).await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, lb.access_log(1).await[0]["reason"].as_str()), (503, Some("no_backend")));
    assert_eq!(sick.requests(), 1);
}

#[tokio::test]
async fn readiness_waits_for_the_first_probe_of_every_backend() {
    let (live, slow) = (Backend::named("live"), Backend::held("late"));
    let lb = probed(&[&live, &slow], "path: /, interval: 1h, timeout: 10m").start().await;
    until(&lb, 0, State::Healthy).await;
    slow.until_requests(1).await;

    let not_yet = admin(&lb, "/readyz").await;
    assert_eq!((not_yet.status, admin(&lb, "/healthz").await.status), (503, 200));
    assert!(not_yet.text().contains("app"), "{}", not_yet.text());

    slow.release_all();
    until(&lb, 1, State::Healthy).await;
    assert_eq!(admin(&lb, "/readyz").await.status, 200);
}

#[tokio::test]
async fn a_front_door_without_any_backend_that_takes_requests_says_so() {
    let (dead, live) = (Backend::refusing(), Backend::named("live"));
    let lb = probed(&[&dead, &live], "interval: 50ms, timeout: 500ms, fall: 1, rise: 1").start().await;
    until(&lb, 0, State::Unreachable).await;
    until(&lb, 1, State::Healthy).await;
    assert_eq!(admin(&lb, "/readyz").await.status, 200, "one that serves is enough");

    live.stop().await;
    until(&lb, 1, State::Unreachable).await;
    let answer = admin(&lb, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "not ready: no backend of any upstream takes requests\n");
    assert_eq!(admin(&lb, "/healthz").await.status, 200);
}

#[tokio::test]
async fn who_joins_later_does_not_take_readiness_away() {
    let (live, slow) = (Backend::named("live"), Backend::held("late"));
    let check = "path: /, interval: 1h, timeout: 10m";
    let lb = probed(&[&live], check).start().await;
    wait_until("live should be probed", || state(&lb, 0) == State::Healthy).await;

    lb.reload(probed(&[&live, &slow], check)).await.unwrap();
    slow.until_requests(1).await;

    assert_eq!((state(&lb, 1), admin(&lb, "/readyz").await.status), (State::Pending, 200));
    lb.reload(probed(&[&slow], check)).await.unwrap();
    assert_eq!(admin(&lb, "/readyz").await.status, 200);
}

#[tokio::test]
async fn an_answer_is_an_answer_also_when_it_is_no() {
    let dead = Backend::refusing();
    let lb = probed(&[&dead], "interval: 1h").start().await;

    until(&lb, 0, State::Unreachable).await;

    let answer = admin(&lb, "/readyz").await;
    assert_eq!(answer.text(), "not ready: no backend of any upstream takes requests\n", "it was probed");
}

#[tokio::test]
async fn an_unresolvable_name_keeps_neither_the_start_nor_requests_waiting() {
    let live = Backend::named("live");
    let began = tokio::time::Instant::now();
    let urls = ["\"http://portcullis-test.invalid:80\"".to_owned(), format!("\"{}\"", live.url())];
    let lb = listed(&urls, &format!("health_check: {{ {FAST} }}")).start().await;

    assert_eq!(who_serves(&lb, 6).await, ["live"]);

    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    until(&lb, 0, State::Unreachable).await;
    until(&lb, 1, State::Healthy).await;
    assert_eq!(last_error(&lb, 0), "name not resolved");
    assert_eq!(admin(&lb, "/readyz").await.status, 200);
}

#[tokio::test]
async fn localhost_is_healthy_when_only_ipv4_listens() {
    let live = Backend::named("live");
    let urls = [format!("\"http://localhost:{}\"", live.address().port())];
    for check in [format!("health_check: {{ {FAST} }}"), format!("health_check: {{ path: /, {FAST} }}")] {
        let lb = listed(&urls, &check).start().await;

        until(&lb, 0, State::Healthy).await;

        assert_eq!(who_serves(&lb, 4).await, ["live"]);
    }
}

#[tokio::test]
async fn no_client_notices_that_a_backend_dies_and_comes_back() {
    let backends = [Backend::named("a"), Backend::answering(200, "b"), Backend::named("c")];
    let lb = probed(&[&backends[0], &backends[1], &backends[2]], FAST).start().await;
    for number in 0..3 {
        until(&lb, number, State::Healthy).await;
    }
    assert_eq!(who_serves(&lb, 9).await, ["a", "b", "c"]);

    backends[1].stop().await;
    while state(&lb, 1) == State::Healthy {
        assert_eq!(lb.get("/").await.status, 200);
    }
    assert_eq!(who_serves(&lb, 9).await, ["a", "c"]);

    backends[1].restart().await;
    while state(&lb, 1) != State::Healthy {
        assert_eq!(lb.get("/").await.status, 200);
    }
    assert_eq!(who_serves(&lb, 9).await, ["a", "b", "c"]);
}
