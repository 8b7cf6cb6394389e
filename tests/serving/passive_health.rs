//! Passive health: live requests that fail eject their backend, single requests try it, and one of them brings it back.

use crate::support;

use std::sync::Arc;

use portcullis::backend::State;
use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Lb, Script, wait_until};

/// Quick to eject, and for so long that no test sees the end of it.
const LONG: &str = "passive_health: { consecutive_failures: 3, ejection: 1h, max_ejection: 1h }";
/// Quick to eject, and soon over.
const SHORT: &str = "passive_health: { consecutive_failures: 3, ejection: 1s }";

fn app(backends: &[&Backend], upstream: &str) -> Builder {
    Lb::with_backends(backends.iter().copied()).yaml_upstream(upstream)
}

/// Answers with each status in turn, the last one for ever.
fn statuses(list: &[u16]) -> Backend {
    let answer = |status: &u16| vec![Act::ReadBody, Act::Write(response(*status, &[], "scripted"))];
    Backend::scripted(Script::each(list.iter().map(answer)))
}

fn state(lb: &Lb, number: usize) -> State {
    lb.upstream("app").members()[number].backend.state()
}

fn is_on_trial(lb: &Lb, number: usize) -> bool {
    lb.upstream("app").members()[number].backend.is_on_trial()
}

async fn until(lb: &Lb, number: usize, wanted: State) {
    wait_until(&format!("backend {number} should be {wanted}"), || state(lb, number) == wanted).await;
}

/// Sends requests until a backend is in this state and those that choose know it.
async fn ask_until(lb: &Lb, number: usize, wanted: State) {
    for _ in 0..200 {
        if state(lb, number) == wanted {
            return;
        }
        lb.get("/").await;
    }
    panic!("backend {number} is {} and not {wanted}", state(lb, number));
}

/// Sends requests until this one has had none in a whole round.
async fn until_not_asked(lb: &Lb, backend: &Backend) {
    for _ in 0..100 {
        let before = backend.requests();
        for _ in 0..4 {
            lb.get("/").await;
        }
        if backend.requests() == before {
            return;
        }
    }
    panic!("it is still asked");
}

async fn all_given_back(lb: &Lb) {
    lb.until_idle().await;
    let upstream = lb.upstream("app");
    assert!(upstream.members().iter().all(|member| upstream.in_flight(&member.backend) == 0));
}

#[tokio::test]
async fn a_backend_that_fails_in_a_row_is_ejected_and_no_longer_asked() {
    let (sick, well) = (Backend::answering(500, "sick"), Backend::named("well"));
    let lb = app(&[&sick, &well], LONG).start().await;

    ask_until(&lb, 0, State::Ejected).await;
    until_not_asked(&lb, &sick).await;

    assert_eq!(sick.requests(), 3);
    for _ in 0..6 {
        assert_eq!(lb.get("/").await.text(), "well");
    }
    let left = lb.upstream("app").members()[0].backend.state_left().unwrap();
    assert!(left.as_secs() > 3500, "{left:?}");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn it_comes_back_by_itself_once_a_request_has_succeeded() {
    let (sick, well) = (statuses(&[500, 502, 503, 200]), Backend::named("well"));
    let lb = app(&[&sick, &well], SHORT).start().await;
    ask_until(&lb, 0, State::Ejected).await;

    wait_until("its ejection should end", || is_on_trial(&lb, 0)).await;
    ask_until(&lb, 0, State::Healthy).await;

    let before = sick.requests();
    for _ in 0..6 {
        assert_eq!(lb.get("/").await.status, 200);
    }
    assert_eq!(sick.requests(), before + 3);
    all_given_back(&lb).await;
}

/// Fails three requests, and holds the fourth, which tries it.
fn ejected_then_held() -> Backend {
    let fails = vec![Act::ReadBody, Act::Write(response(500, &[], ""))];
    let holds = vec![Act::ReadBody, Act::Hold, Act::Write(response(200, &[], "tried"))];
    Backend::scripted(Script::each([fails.clone(), fails.clone(), fails, holds]))
}

/// Asks until the first backend has been ejected, and is on trial.
async fn until_on_trial(lb: &Lb) {
    ask_until(lb, 0, State::Ejected).await;
    wait_until("its ejection should end", || is_on_trial(lb, 0)).await;
}

#[tokio::test]
async fn one_request_at_a_time_tries_it() {
    let (sick, well) = (ejected_then_held(), Backend::named("well"));
    let lb = app(&[&sick, &well], SHORT).start().await;
    until_on_trial(&lb).await;

    // One of two requests in a row is its turn; it is held there.
    let (mut first, mut second) = (lb.raw().await, lb.raw().await);
    for client in [&mut first, &mut second] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    }
    sick.until_requests(4).await;
    for _ in 0..8 {
        assert_eq!(lb.get("/").await.text(), "well");
    }
    assert_eq!((sick.requests(), state(&lb, 0), is_on_trial(&lb, 0)), (4, State::Ejected, true));

    sick.release_all();
    until(&lb, 0, State::Healthy).await;
    let mut answers = [first.read_response().await.text(), second.read_response().await.text()];
    answers.sort();
    assert_eq!(answers, ["tried", "well"]);
    all_given_back(&lb).await;
}

#[tokio::test]
async fn another_tier_serves_while_one_request_tries_the_only_backend_of_the_first() {
    let (sick, well) = (ejected_then_held(), Backend::named("well"));
    let text = app(&[&sick, &well], SHORT).text();
    let plain = format!("\"{}\"", well.url());
    assert!(text.contains(&plain), "{text}");
    let lb = Lb::yaml(text.replace(&plain, &format!("{{ url: \"{}\", backup: true }}", well.url()))).start().await;
    until_on_trial(&lb).await;

    let mut first = lb.raw().await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    sick.until_requests(4).await;
    for _ in 0..8 {
        assert_eq!(lb.get("/").await.text(), "well");
    }

    assert_eq!((sick.requests(), is_on_trial(&lb, 0)), (4, true));
    sick.release_all();
    assert_eq!(first.read_response().await.text(), "tried");
}

#[tokio::test]
async fn a_client_that_leaves_a_trial_makes_room_for_the_next() {
    let fails = vec![Act::ReadBody, Act::Write(response(500, &[], ""))];
    let sick = Backend::scripted(Script::each([
        fails.clone(),
        fails.clone(),
        fails,
        vec![Act::Hang],
        vec![Act::ReadBody, Act::Write(response(200, &[], "tried"))],
    ]));
    let well = Backend::named("well");
    let lb = app(&[&sick, &well], SHORT).start().await;
    until_on_trial(&lb).await;
    let mut clients = vec![lb.raw().await, lb.raw().await];
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    }
    sick.until_requests(4).await;

    drop(clients);
    lb.until_idle().await;

    ask_until(&lb, 0, State::Healthy).await;
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_trial_that_fails_ejects_it_again_for_longer() {
    let (sick, well) = (Backend::answering(500, "sick"), Backend::named("well"));
    let settings = "passive_health: { consecutive_failures: 3, ejection: 1s, max_ejection: 1h }";
    let lb = app(&[&sick, &well], settings).start().await;
    until_on_trial(&lb).await;
    assert_eq!(sick.requests(), 3);

    lb.get("/").await;
    lb.get("/").await;

    assert_eq!((sick.requests(), state(&lb, 0), is_on_trial(&lb, 0)), (4, State::Ejected, false));
    let left = lb.upstream("app").members()[0].backend.state_left().unwrap();
    assert!(left.as_millis() > 1000, "{left:?}");
}

#[tokio::test]
async fn the_last_one_is_never_ejected() {
    let sick = Backend::answering(500, "sick");
    let lb = app(&[&sick], LONG).start().await;
    for _ in 0..10 {
        assert_eq!(lb.get("/").await.status, 500);
    }
    assert_eq!(state(&lb, 0), State::Healthy);

    let both = [Backend::answering(500, "sick"), Backend::answering(500, "sick")];
    let lb = app(&[&both[0], &both[1]], LONG).start().await;
    for _ in 0..20 {
        assert_eq!(lb.get("/").await.status, 500);
    }
    let mut states = [state(&lb, 0), state(&lb, 1)];
    states.sort_by_key(|state| state.as_str());
    assert_eq!(states, [State::Ejected, State::Healthy]);
}

#[tokio::test]
async fn no_more_than_max_ejected_are_ejected() {
    let sick: Vec<_> = (0..5).map(|_| Backend::answering(500, "sick")).collect();
    let settings = LONG.replace(" }", ", max_ejected: 40% }");
    let lb = app(&sick.iter().collect::<Vec<_>>(), &settings).start().await;

    for _ in 0..60 {
        lb.get("/").await;
    }

    assert_eq!((0..5).filter(|&number| state(&lb, number) == State::Ejected).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_fail_at_the_same_moment_do_not_both_count_on_the_other() {
    for _ in 0..10 {
        let sick = [Backend::answering(500, "sick"), Backend::answering(500, "sick")];
        let settings = "passive_health: { consecutive_failures: 1, ejection: 1h, max_ejection: 1h, max_ejected: 100% }";
        let lb = Arc::new(app(&[&sick[0], &sick[1]], settings).start().await);
        let clients = (0..8).map(|_| {
            let lb = lb.clone();
            tokio::spawn(async move {
                for _ in 0..4 {
                    assert_eq!(lb.get("/").await.status, 500);
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        assert_eq!((0..2).filter(|&number| state(&lb, number) == State::Healthy).count(), 1);
    }
}

#[tokio::test]
async fn what_is_no_fault_of_the_backend_does_not_count() {
    for status in [400, 404, 429, 501, 505] {
        let (odd, well) = (Backend::answering(status, "odd"), Backend::named("well"));
        let lb = app(&[&odd, &well], LONG).start().await;
        for _ in 0..12 {
            lb.get("/").await;
        }
        assert_eq!((state(&lb, 0), odd.requests()), (State::Healthy, 6), "status {status}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_count() {
    let slow = Backend::hanging();
    let other = Backend::hanging();
    let lb = app(&[&slow, &other], "passive_health: { consecutive_failures: 1 }").start().await;
    for round in 1..4 {
        let mut clients = vec![lb.raw().await, lb.raw().await];
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
        slow.until_requests(round).await;
        other.until_requests(round).await;
        drop(clients);
        lb.until_idle().await;
    }
    assert_eq!([state(&lb, 0), state(&lb, 1)], [State::Healthy, State::Healthy]);
}

#[tokio::test]
async fn resets_timeouts_and_refused_connections_count() {
    let timeouts = "timeouts: { connect: 200ms, first_byte: 50ms }";
    for sick in [
        Backend::resetting_before_head(),
        Backend::closing_after_request(),
        Backend::hanging(),
        Backend::refusing(),
        Backend::writing("nonsense\r\n\r\n"),
    ] {
        let well = Backend::named("well");
        let lb = app(&[&sick, &well], LONG).yaml_upstream(timeouts).start().await;
        ask_until(&lb, 0, State::Ejected).await;
        until_not_asked(&lb, &sick).await;
        for _ in 0..4 {
            assert_eq!(lb.get("/").await.text(), "well");
        }
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn responses_that_break_off_count_although_their_heads_were_good() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.";
    let sick = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(half.into()), Act::Close]]));
    let well = Backend::named("well");
    let lb = app(&[&sick, &well], LONG).start().await;

    for round in 0..3 {
        assert_eq!(state(&lb, 0), State::Healthy, "round {round}");
        for _ in 0..2 {
            let mut client = lb.raw().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            client.read_to_end().await;
        }
        lb.until_idle().await;
    }

    assert_eq!((state(&lb, 0), sick.requests()), (State::Ejected, 3));
}

#[tokio::test]
async fn nothing_is_ejected_when_that_is_switched_off() {
    let (sick, well) = (Backend::answering(500, "sick"), Backend::named("well"));
    let lb = app(&[&sick, &well], "passive_health: none").start().await;
    for _ in 0..20 {
        lb.get("/").await;
    }
    assert_eq!((state(&lb, 0), sick.requests()), (State::Healthy, 10));
}

#[tokio::test]
async fn a_breaker_trips_on_a_share_of_failures_that_never_come_in_a_row() {
    let list: Vec<u16> = (0..40).map(|number| if number % 2 == 0 { 500 } else { 200 }).collect();
    let settings = "breaker: { trip_at: 50%, of_at_least: 10, window: 1h }";
    let (flaky, well) = (statuses(&list), Backend::named("well"));
    let lb = app(&[&flaky, &well], "passive_health: none").yaml_upstream(settings).start().await;

    ask_until(&lb, 0, State::Ejected).await;

    // Of ten requests five failed, but the tenth was a success, and only a failure asks.
    assert_eq!(flaky.requests(), 11);
}

#[tokio::test]
async fn a_breaker_lets_a_smaller_share_pass() {
    let list: Vec<u16> = (0..40).map(|number| if number % 3 == 0 { 500 } else { 200 }).collect();
    let settings = "breaker: { trip_at: 50%, of_at_least: 5, window: 1h }";
    let (flaky, well) = (statuses(&list), Backend::named("well"));
    let lb = app(&[&flaky, &well], "passive_health: none").yaml_upstream(settings).start().await;

    for _ in 0..60 {
        lb.get("/").await;
    }

    assert_eq!((state(&lb, 0), flaky.requests()), (State::Healthy, 30));
}

#[tokio::test]
async fn a_live_failure_calls_for_the_next_probe() {
    let (dying, well) = (Backend::answering(200, "dying"), Backend::named("well"));
    // Without the live failure the next probe would come within the hour.
    let check = "health_check: { interval: 1h, fast_interval: 10ms, timeout: 500ms, fall: 2, rise: 1 }";
    let lb = app(&[&dying, &well], "passive_health: { consecutive_failures: 1000 }").yaml_upstream(check);
    let lb = lb.start().await;
    until(&lb, 0, State::Healthy).await;
    until(&lb, 1, State::Healthy).await;
    lb.get("/").await;
    lb.get("/").await;

    dying.stop().await;
    for _ in 0..2 {
        assert_eq!(lb.get("/").await.status, 200);
    }

    until(&lb, 0, State::Unreachable).await;
}

#[tokio::test]
async fn an_ejection_outlives_a_reload() {
    let (sick, well) = (statuses(&[500, 500, 500, 200]), Backend::named("well"));
    let settings = "passive_health: { consecutive_failures: 3, ejection: 1s }";
    let lb = app(&[&sick, &well], settings).start().await;
    ask_until(&lb, 0, State::Ejected).await;

    let changed = app(&[&sick, &well], settings).yaml_upstream("balance: least_connections");
    lb.reload(changed).await.unwrap();

    assert_eq!((state(&lb, 0), is_on_trial(&lb, 0)), (State::Ejected, false));
    wait_until("the new upstream should end it", || is_on_trial(&lb, 0)).await;
    ask_until(&lb, 0, State::Healthy).await;
}

#[tokio::test]
async fn weight_0_drains() {
    let (drained, well) = (Backend::named("drained"), Backend::named("well"));
    let urls = |weight: u32| {
        format!(
            "upstreams:\n  app:\n    backends: [{{ url: \"{}\", weight: {weight} }}, \"{}\"]\n    health_check: none\n\
             routes:\n  - upstream: app\n",
            drained.url(),
            well.url()
        )
    };
    let lb = Lb::yaml(urls(0)).start().await;
    assert_eq!(state(&lb, 0), State::Draining);

    lb.reload(Lb::yaml(urls(1))).await.unwrap();

    assert_eq!(state(&lb, 0), State::Healthy);
}
