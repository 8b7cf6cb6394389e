//! Tests of the decision.

use proptest::prelude::*;

use super::*;
use crate::config::RetryBudget;

const FIRST: Circumstances = Circumstances {
    attempts: 1,
    retries: 0,
    idempotent: true,
    replayable: true,
    had_free_try: false,
    response_begun: false,
    time_left: Duration::from_secs(60),
};

const POST: Circumstances = Circumstances { idempotent: false, ..FIRST };

/// What the language has by default.
fn usual() -> Retry {
    let when =
        RetryWhen { connect: true, reset: true, timeout: true, refused_stream: false, statuses: vec![502, 503, 504] };
    let budget = RetryBudget { percent: 20, min_per_second: 10 };
    Retry { attempts: 3, when, non_idempotent: false, per_attempt: None, buffer: 64 << 10, budget, hedge: None }
}

fn with_refused_stream() -> Retry {
    Retry { when: RetryWhen { refused_stream: true, ..usual().when }, ..usual() }
}

const FAILURES: [Failure; 9] = [
    Failure::Connect,
    Failure::StaleConnection,
    Failure::NotTaken,
    Failure::RefusedStream,
    Failure::Reset,
    Failure::Timeout,
    Failure::Status(503),
    Failure::Throttled,
    Failure::Other,
];

#[test]
fn a_refused_connection_moves_on_whatever_the_method() {
    for wanted in [usual(), Retry::none()] {
        assert_eq!(decide(&wanted, Failure::Connect, &FIRST), Verdict::MoveOn);
        assert_eq!(decide(&wanted, Failure::Connect, &POST), Verdict::MoveOn);
        let late = Circumstances { retries: 9, attempts: 12, replayable: false, ..FIRST };
        assert_eq!(decide(&wanted, Failure::Connect, &late), Verdict::MoveOn);
    }
    let stays = Retry { when: RetryWhen { connect: false, ..usual().when }, ..usual() };
    assert_eq!(decide(&stays, Failure::Connect, &FIRST), Verdict::GiveUp(Reason::NotAsked));
}

#[test]
fn a_stale_connection_gets_one_free_try_if_the_request_may_arrive_twice() {
    let none = Retry::none();
    for failure in [Failure::StaleConnection, Failure::NotTaken, Failure::RefusedStream] {
        assert_eq!(decide(&none, failure, &FIRST), Verdict::SameAgain);
        for once_is_enough in
            [POST, Circumstances { had_free_try: true, ..FIRST }, Circumstances { replayable: false, ..FIRST }]
        {
            assert_eq!(decide(&none, failure, &once_is_enough), Verdict::GiveUp(Reason::NotAsked));
        }
    }
}

#[test]
fn after_the_free_try_a_dead_connection_is_a_reset_like_any_other() {
    let again = Circumstances { had_free_try: true, ..FIRST };
    assert_eq!(decide(&usual(), Failure::StaleConnection, &again), Verdict::Retry);
    assert_eq!(decide(&usual(), Failure::StaleConnection, &POST), Verdict::GiveUp(Reason::NotIdempotent));
}

#[test]
fn what_is_named_is_tried_again_and_nothing_else() {
    for failure in [Failure::Reset, Failure::Timeout, Failure::Status(502), Failure::Status(503), Failure::Status(504)]
    {
        assert_eq!(decide(&usual(), failure, &FIRST), Verdict::Retry, "{failure:?}");
        assert_eq!(decide(&Retry::none(), failure, &FIRST), Verdict::GiveUp(Reason::NotAsked), "{failure:?}");
    }
    for failure in [Failure::Status(500), Failure::Status(429), Failure::Other] {
        assert_eq!(decide(&usual(), failure, &FIRST), Verdict::GiveUp(Reason::NotAsked), "{failure:?}");
    }
}

#[test]
fn each_obstacle_has_its_reason() {
    let cases = [
        (POST, Reason::NotIdempotent),
        (Circumstances { replayable: false, ..FIRST }, Reason::BodyTooLarge),
        (Circumstances { retries: 2, attempts: 3, ..FIRST }, Reason::AttemptsUsedUp),
        (Circumstances { attempts: ATTEMPTS_MAX, ..FIRST }, Reason::AttemptsUsedUp),
        (Circumstances { time_left: Duration::from_millis(24), ..FIRST }, Reason::NoTime),
        (Circumstances { response_begun: true, ..FIRST }, Reason::ResponseBegun),
    ];
    for (now, reason) in cases {
        assert_eq!(decide(&usual(), Failure::Timeout, &now), Verdict::GiveUp(reason));
    }
}

#[test]
fn the_operator_may_say_that_a_post_may_arrive_twice() {
    let wanted = Retry { non_idempotent: true, ..usual() };
    assert_eq!(decide(&wanted, Failure::Status(503), &POST), Verdict::Retry);
    assert_eq!(decide(&wanted, Failure::StaleConnection, &POST), Verdict::SameAgain);
}

#[test]
fn a_refused_stream_is_tried_again_whatever_the_method_where_it_is_named() {
    assert_eq!(decide(&with_refused_stream(), Failure::RefusedStream, &POST), Verdict::Retry);
    assert_eq!(decide(&with_refused_stream(), Failure::NotTaken, &POST), Verdict::GiveUp(Reason::NotIdempotent));
}

#[test]
fn nothing_is_tried_again_once_the_client_has_seen_a_response() {
    for failure in FAILURES {
        let begun = Circumstances { response_begun: true, ..FIRST };
        assert_eq!(decide(&with_refused_stream(), failure, &begun), Verdict::GiveUp(Reason::ResponseBegun));
    }
}

#[test]
fn the_back_off_doubles_up_to_a_quarter_of_a_second() {
    let bounds = (0..6).map(|before| (0..=300_000).map(|random| back_off(before, random)).max().unwrap().as_millis());
    assert_eq!(bounds.collect::<Vec<_>>(), [25, 50, 100, 200, 250, 250]);
    assert_eq!(back_off(3, 0), Duration::ZERO);
    assert!(back_off(u32::MAX, u64::MAX) <= BACK_OFF_MAX);
}

fn wanted() -> impl Strategy<Value = Retry> {
    (1u32..=10, any::<[bool; 4]>(), prop::collection::vec(400u16..=599, 0..4)).prop_map(
        |(attempts, named, statuses)| {
            let [connect, reset, timeout, refused_stream] = named;
            let when = RetryWhen { connect, reset, timeout, refused_stream, statuses };
            Retry { attempts, when, ..usual() }
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![prop::sample::select(&FAILURES[..]), (400u16..=599).prop_map(Failure::Status)]
}

/// What is known after another attempt; false if there is none.
fn goes_on(verdict: Verdict, now: &mut Circumstances) -> bool {
    match verdict {
        Verdict::GiveUp(_) => return false,
        Verdict::MoveOn => {}
        Verdict::SameAgain => now.had_free_try = true,
        Verdict::Retry => now.retries += 1,
    }
    now.attempts += 1;
    true
}

proptest! {
    /// A request that is not idempotent lives through any series of failures.
    #[test]
    fn what_is_not_idempotent_is_acted_upon_at_most_once(
        wanted in wanted(), failures in prop::collection::vec(failure(), 0..40),
    ) {
        let (mut now, mut acted_upon) = (POST, 0);
        for failure in failures {
            // The failures after which the backend has certainly done nothing.
            let nothing_done = matches!(failure, Failure::Connect | Failure::RefusedStream | Failure::Throttled);
            acted_upon += usize::from(!nothing_done);
            if !goes_on(decide(&wanted, failure, &now), &mut now) {
                break;
            }
            prop_assert_eq!(acted_upon, 0, "it is sent again after {:?}", failure);
        }
    }

    /// However it fails, a request comes to an end.
    #[test]
    fn the_attempts_are_bounded(wanted in wanted(), failures in prop::collection::vec(failure(), 40)) {
        let mut now = FIRST;
        for failure in failures {
            if !goes_on(decide(&wanted, failure, &now), &mut now) {
                break;
            }
        }
        prop_assert!(now.attempts <= ATTEMPTS_MAX);
        prop_assert!(now.retries < wanted.attempts);
    }
}
