//! Tiers: who serves when a part of a tier is gone, as clients see it.

use crate::support;

use std::collections::HashMap;
use std::time::Instant;

use portcullis::backend::State;
use support::{Backend, DEADLINE, Lb, wait_until};

const FAST: &str = "health_check: { interval: 20ms, fast_interval: 10ms, timeout: 500ms, fall: 2, rise: 2 }";

/// One upstream with these backends, each in its tier, whose states are as they are.
async fn tiered(backends: &[(&Backend, u32)], states: &[State], more: &str) -> Lb {
    let line = |(backend, tier): &(&Backend, u32)| format!("      - {{ url: \"{}\", tier: {tier} }}\n", backend.url());
    let lines = backends.iter().map(line).collect::<String>();
    let upstream = format!("upstreams:\n  app:\n    backends:\n{lines}    {FAST}\n    {more}\n");
    let lb = Lb::yaml(format!("{upstream}routes: [{{ upstream: app }}]\n")).start().await;
    until(&lb, states).await;
    lb
}

async fn until(lb: &Lb, states: &[State]) {
    let upstream = lb.upstream("app");
    let now = || upstream.members().iter().map(|member| member.backend.state()).collect::<Vec<_>>();
    wait_until(&format!("the backends should be {states:?}"), || now() == states).await;
}

/// A choice follows the states a moment later: asks until this backend is left alone.
async fn until_rested(lb: &Lb, backend: &Backend) {
    let end = Instant::now() + DEADLINE;
    loop {
        let before = backend.requests();
        shares(lb, 10).await;
        if backend.requests() == before {
            return;
        }
        assert!(Instant::now() < end, "it should be left alone");
    }
}

/// Asks until this backend has its turn.
async fn until_asked(lb: &Lb, backend: &Backend) {
    let (end, before) = (Instant::now() + DEADLINE, backend.requests());
    while backend.requests() == before {
        shares(lb, 10).await;
        assert!(Instant::now() < end, "it should be asked");
    }
}

/// Who answers so many requests, one after another on one connection.
async fn shares(lb: &Lb, requests: usize) -> HashMap<String, usize> {
    let mut client = lb.raw().await;
    let mut shares = HashMap::new();
    for _ in 0..requests {
        let response = client.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(response.status, 200, "{response:?}");
        *shares.entry(response.text()).or_default() += 1;
    }
    shares
}

use State::{Healthy, Unreachable};

#[tokio::test]
async fn the_next_tier_takes_what_half_a_tier_cannot_carry_until_the_other_half_is_back() {
    let [a, b, spare] = ["a", "b", "spare"].map(Backend::named);
    let lb = tiered(&[(&a, 0), (&b, 0), (&spare, 1)], &[Healthy; 3], "").await;
    until_rested(&lb, &spare).await;
    assert_eq!(shares(&lb, 20).await, HashMap::from([("a".into(), 10), ("b".into(), 10)]));

    b.stop().await;
    until(&lb, &[Healthy, Unreachable, Healthy]).await;
    until_asked(&lb, &spare).await;
    let overflowing = shares(&lb, 400).await;

    // Half of them times 140% leaves 30%, give or take five standard deviations.
    assert!((74..=166).contains(&overflowing["spare"]), "{overflowing:?}");
    assert_eq!(overflowing["spare"] + overflowing["a"], 400);

    b.restart().await;
    until(&lb, &[Healthy; 3]).await;
    until_rested(&lb, &spare).await;
    assert_eq!(shares(&lb, 20).await.get("spare"), None);
}

#[tokio::test]
async fn a_higher_factor_keeps_the_first_tier_alone_for_longer() {
    let (a, dead, spare) = (Backend::named("a"), Backend::refusing(), Backend::named("spare"));
    let states = [Healthy, Unreachable, Healthy];
    let lb = tiered(&[(&a, 0), (&dead, 0), (&spare, 1)], &states, "overflow: 200%").await;

    assert_eq!(shares(&lb, 50).await, HashMap::from([("a".into(), 50)]));
}

#[tokio::test]
async fn tiers_without_anybody_are_passed_over_in_their_order() {
    let (dead, gone, last) = (Backend::refusing(), Backend::refusing(), Backend::named("last"));
    let states = [Unreachable, Unreachable, Healthy];
    let lb = tiered(&[(&dead, 0), (&gone, 3), (&last, 9)], &states, "").await;

    assert_eq!(shares(&lb, 10).await, HashMap::from([("last".into(), 10)]));
    assert!(lb.access_log(10).await.iter().all(|line| line["attempts"].as_array().unwrap().len() == 1));
}

#[tokio::test]
async fn who_fails_before_probes_notice_is_replaced_from_the_next_tier() {
    let [dying, far, spare] = ["dying", "far", "spare"].map(Backend::named);
    let slow_probes = "    health_check: { interval: 1h }\n";
    let lines = format!(
        "      - \"{}\"\n      - {{ url: \"{}\", tier: 2 }}\n      - {{ url: \"{}\", backup: true }}\n",
        dying.url(),
        far.url(),
        spare.url()
    );
    let whole = format!("upstreams:\n  app:\n    backends:\n{lines}{slow_probes}routes: [{{ upstream: app }}]\n");
    let lb = Lb::yaml(whole).start().await;
    until(&lb, &[Healthy; 3]).await;

    dying.stop().await;

    assert_eq!(lb.get("/").await.body, "spare");
}
