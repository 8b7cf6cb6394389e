//! Obedience: a backend that asks to be left alone is, for as long as it says and we allow; lies change little.

use crate::support;

use std::time::Duration;

use portcullis::backend::State;
use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Lb, Script, wait_until};

fn app(backends: &[&Backend], upstream: &str) -> Builder {
    Lb::with_backends(backends.iter().copied()).yaml_upstream(upstream)
}

/// Answers with this status and these fields.
fn asking(status: u16, fields: &[(&str, &str)]) -> Backend {
    Backend::writing(response(status, fields, "busy"))
}

/// Answers so once, and well from then on.
fn asking_once(status: u16, fields: &[(&str, &str)]) -> Backend {
    let acts = |bytes| vec![Act::ReadBody, Act::Write(bytes)];
    Backend::scripted(Script::each([acts(response(status, fields, "busy")), acts(response(200, &[], "back"))]))
}

fn state(lb: &Lb, number: usize) -> State {
    lb.upstream("app").members()[number].backend.state()
}

fn left(lb: &Lb, number: usize) -> Duration {
    lb.upstream("app").members()[number].backend.state_left().unwrap_or_default()
}

/// Two requests: in turn, so each of two backends has one.
async fn one_each(lb: &Lb) {
    lb.get("/").await;
    lb.get("/").await;
}

fn roughly(left: Duration, seconds: u64) -> bool {
    left <= Duration::from_secs(seconds) && left + Duration::from_secs(5) > Duration::from_secs(seconds)
}

#[tokio::test]
async fn retry_after_parks_exactly_the_backend_that_sent_it() {
    for status in [429, 503] {
        let (busy, well) = (asking(status, &[("Retry-After", "60")]), Backend::named("well"));
        let lb = app(&[&busy, &well], "balance: round_robin").start().await;

        one_each(&lb).await;
        for _ in 0..8 {
            assert_eq!(lb.get("/").await.text(), "well");
        }

        assert_eq!((busy.requests(), state(&lb, 0), state(&lb, 1)), (1, State::Throttled, State::Healthy));
        assert!(roughly(left(&lb, 0), 60), "{:?}", left(&lb, 0));
    }
}

#[tokio::test]
async fn a_parked_backend_comes_back_by_itself() {
    let (busy, well) = (asking_once(503, &[("Retry-After", "1")]), Backend::named("well"));
    let lb = app(&[&busy, &well], "balance: round_robin").start().await;
    one_each(&lb).await;
    assert_eq!(state(&lb, 0), State::Throttled);

    wait_until("its wait should be over", || state(&lb, 0) == State::Healthy).await;

    let mut texts = [lb.get("/").await.text(), lb.get("/").await.text()];
    texts.sort();
    assert_eq!(texts, ["back", "well"]);
}

#[tokio::test]
async fn when_all_are_parked_the_client_hears_when_the_first_is_back() {
    let (busy, busier) = (asking(429, &[("Retry-After", "90")]), asking(503, &[("Retry-After", "300")]));
    let lb = app(&[&busy, &busier], "balance: round_robin").start().await;
    one_each(&lb).await;

    let answer = lb.get("/").await;

    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!(answer.status == 503 && (85..=90).contains(&seconds), "{} {seconds}", answer.status);
    assert_eq!((busy.requests(), busier.requests()), (1, 1));
    assert_eq!(lb.access_log(3).await[2]["reason"], "throttled");
    lb.until_idle().await;
}

#[tokio::test]
async fn a_parked_backend_is_not_asked_even_in_a_panic_and_an_ejected_one_is() {
    let (busy, dead) = (asking(429, &[("Retry-After", "60")]), Backend::answering(500, "sick"));
    let settings = "passive_health: { consecutive_failures: 1, ejection: 1h, max_ejection: 1h }";
    let lb = app(&[&busy, &dead], settings).yaml_upstream("panic_threshold: 100%");
    let lb = lb.yaml_route("retry: none").start().await;

    for _ in 0..10 {
        lb.get("/").await;
    }

    assert_eq!((state(&lb, 0), busy.requests(), dead.requests()), (State::Throttled, 1, 9));
}

#[tokio::test]
async fn used_up_quotas_are_seen_in_every_dialect() {
    let dialects: [&[(&str, &str)]; 4] = [
        &[("RateLimit-Limit", "10"), ("RateLimit-Remaining", "0"), ("RateLimit-Reset", "60")],
        &[("RateLimit", "limit=10, remaining=0, reset=60"), ("RateLimit-Policy", "10;w=60")],
        &[("RateLimit", "\"burst\";r=3;t=5, \"hour\";r=0;t=60"), ("RateLimit-Policy", "\"hour\";q=100;w=3600")],
        &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "60")],
    ];
    for fields in dialects {
        let (used_up, well) = (asking(200, fields), Backend::named("well"));
        let lb = app(&[&used_up, &well], "balance: round_robin").start().await;
        one_each(&lb).await;
        assert_eq!(state(&lb, 0), State::Throttled, "{fields:?}");
        assert!(roughly(left(&lb, 0), 60), "{fields:?}: {:?}", left(&lb, 0));
    }
}

#[tokio::test]
async fn a_quota_with_something_left_parks_nobody() {
    let (some, well) = (asking(200, &[("RateLimit", "limit=10, remaining=1, reset=60")]), Backend::named("well"));
    let lb = app(&[&some, &well], "balance: round_robin").start().await;
    one_each(&lb).await;
    one_each(&lb).await;
    assert_eq!((some.requests(), state(&lb, 0)), (2, State::Healthy));
}

#[tokio::test]
async fn a_quota_nearly_used_up_steers_requests_to_the_others() {
    for policy in ["round_robin", "least_connections", "random", "{ consistent_hash: { key: path } }"] {
        let (low, well) = (asking(200, &[("RateLimit", "limit=100, remaining=3, reset=60")]), Backend::named("well"));
        let lb = app(&[&low, &well], &format!("balance: {policy}")).start().await;
        for number in 0..200 {
            lb.get(&format!("/{number}")).await;
        }
        // Half of them would be its share, and an eighth is.
        assert!((5..55).contains(&low.requests()), "{policy}: {}", low.requests());
        assert_eq!(state(&lb, 0), State::Healthy);
    }
}

#[tokio::test]
async fn a_quota_nearly_used_up_is_used_while_there_is_no_other() {
    let low = asking(200, &[("RateLimit", "limit=100, remaining=3, reset=60")]);
    let lb = app(&[&low], "balance: round_robin").start().await;
    for _ in 0..10 {
        assert_eq!(lb.get("/").await.status, 200);
    }
    assert_eq!(low.requests(), 10);
}

#[tokio::test]
async fn lies_are_clamped_or_ignored() {
    for (value, seconds) in [
        ("-5", None),
        ("soon", None),
        ("0", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("99999999999999999999999999", Some(60)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(60)),
    ] {
        let (liar, well) = (asking(429, &[("Retry-After", value)]), Backend::named("well"));
        let lb = app(&[&liar, &well], "obey: { max: 60s }").start().await;
        one_each(&lb).await;
        one_each(&lb).await;
        let expected = if seconds.is_some() { (State::Throttled, 1) } else { (State::Healthy, 2) };
        assert_eq!((state(&lb, 0), liar.requests()), expected, "{value}");
        assert!(seconds.is_none_or(|seconds| roughly(left(&lb, 0), seconds)), "{value}: {:?}", left(&lb, 0));
    }
}

#[tokio::test]
async fn a_503_that_does_not_say_for_how_long_is_a_failure() {
    let settings = "passive_health: { consecutive_failures: 2, ejection: 1h, max_ejection: 1h }";
    for value in ["0", "soon"] {
        let (sick, well) = (asking(503, &[("Retry-After", value)]), Backend::named("well"));
        let lb = app(&[&sick, &well], settings).start().await;
        one_each(&lb).await;
        one_each(&lb).await;
        assert_eq!(state(&lb, 0), State::Ejected, "{value}");
    }
    let (polite, well) = (asking(503, &[("Retry-After", "1")]), Backend::named("well"));
    let lb = app(&[&polite, &well], &settings.replace("failures: 2", "failures: 1")).start().await;
    one_each(&lb).await;
    assert_eq!(state(&lb, 0), State::Throttled);
    // Were it ejected too, that would now come to light.
    wait_until("its wait should be over", || state(&lb, 0) != State::Throttled).await;
    assert_eq!(state(&lb, 0), State::Healthy);
}

#[tokio::test]
async fn nobody_is_obeyed_when_that_is_switched_off() {
    let fields = [("Retry-After", "60"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "60")];
    let (busy, well) = (asking(429, &fields), Backend::named("well"));
    let lb = app(&[&busy, &well], "obey: { retry_after: false, rate_limit_fields: false }").start().await;
    one_each(&lb).await;
    one_each(&lb).await;
    assert_eq!((state(&lb, 0), busy.requests()), (State::Healthy, 2));
}

#[tokio::test]
async fn a_wait_outlives_a_reload() {
    let (busy, well) = (asking_once(429, &[("Retry-After", "1")]), Backend::named("well"));
    let lb = app(&[&busy, &well], "balance: round_robin").start().await;
    one_each(&lb).await;
    assert_eq!(state(&lb, 0), State::Throttled);

    lb.reload(app(&[&busy, &well], "balance: random")).await.unwrap();

    assert_eq!(state(&lb, 0), State::Throttled);
    wait_until("the new upstream should end it", || state(&lb, 0) == State::Healthy).await;
}

#[tokio::test]
async fn the_client_gets_the_fields_as_they_were() {
    let busy = asking(429, &[("Retry-After", "60"), ("RateLimit", "limit=10, remaining=0, reset=60")]);
    let lb = app(&[&busy], "balance: round_robin").start().await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("60")));
    assert_eq!(answer.field("ratelimit"), Some("limit=10, remaining=0, reset=60"));
}
