//! Slow start: what a backend gets that has just come.

use crate::support;

use std::time::Instant;

use portcullis::backend::State;
use support::{Backend, DEADLINE, Lb, wait_until};

const FAST: &str = "health_check: { interval: 20ms, fast_interval: 10ms, timeout: 500ms, fall: 2, rise: 2 }";

fn app(backends: &[&Backend], more: &str) -> support::front_door::Builder {
    Lb::with_backends(backends.iter().copied()).yaml_upstream(more)
}

/// How many of these requests, one after another on one connection, each backend gets.
async fn shares(lb: &Lb, requests: usize, backends: &[&Backend]) -> Vec<usize> {
    let before: Vec<_> = backends.iter().map(|backend| backend.requests()).collect();
    let mut client = lb.raw().await;
    for _ in 0..requests {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 200);
    }
    backends.iter().zip(before).map(|(backend, before)| backend.requests() - before).collect()
}

async fn until_shares(lb: &Lb, requests: usize, backends: &[&Backend], expected: &[usize]) {
    let end = Instant::now() + DEADLINE;
    loop {
        let shares = shares(lb, requests, backends).await;
        if shares == expected {
            return;
        }
        assert!(Instant::now() < end, "{shares:?}, not {expected:?}");
    }
}

#[tokio::test]
async fn who_joins_by_a_reload_gets_a_tenth_of_its_share() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let lb = app(&[&a], "slow_start: 1h").start().await;
    assert_eq!(shares(&lb, 5, &[&a]).await, [5]);

    lb.reload(app(&[&a, &b], "slow_start: 1h")).await.unwrap();
    until_shares(&lb, 110, &[&a, &b], &[100, 10]).await;

    // Another reload does not make it warm.
    lb.reload(app(&[&a, &b], "slow_start: 2h")).await.unwrap();
    until_shares(&lb, 110, &[&a, &b], &[100, 10]).await;
    assert_eq!(shares(&lb, 110, &[&a, &b]).await, [100, 10]);
}

#[tokio::test]
async fn who_was_there_at_the_start_gets_its_whole_share() {
    let [a, b] = ["a", "b"].map(Backend::named);
    for check in ["health_check: none", FAST] {
        let lb = app(&[&a, &b], check).yaml_upstream("slow_start: 1h").start().await;
        let upstream = lb.upstream("app");
        wait_until("HEALTHY", || upstream.members().iter().all(|it| it.backend.state() == State::Healthy)).await;
        until_shares(&lb, 20, &[&a, &b], &[10, 10]).await;
    }
}

#[tokio::test]
async fn who_is_back_begins_small_and_grows_to_its_whole_share() {
    let [a, b] = ["a", "b"].map(Backend::named);
    // Within an hour nobody sees it grow; two seconds are over before anybody gives up.
    for (window, expected) in [("1h", [20, 2]), ("2s", [11, 11])] {
        let lb = app(&[&a, &b], FAST).yaml_upstream(&format!("slow_start: {window}")).start().await;
        let until = async |state| {
            let upstream = lb.upstream("app");
            wait_until(&format!("{state}"), || upstream.members()[1].backend.state() == state).await;
        };
        until(State::Healthy).await;

        b.stop().await;
        until(State::Unreachable).await;
        b.restart().await;
        until(State::Healthy).await;

        until_shares(&lb, 22, &[&a, &b], &expected).await;
    }
}
