//! Tests of the learnt limit, against a server that is only a formula.

use proptest::prelude::*;

use super::*;

/// A server that works on so many at once, each for so long, while the others wait.
struct Server {
    workers: f64,
    service: Duration,
}

impl Server {
    fn latency(&self, in_flight: u32) -> Duration {
        self.service.mul_f64((f64::from(in_flight) / self.workers).max(1.0))
    }
}

fn server(workers: u32, millis: u64) -> Server {
    Server { workers: f64::from(workers), service: Duration::from_millis(millis) }
}

/// Clients that would send `demand` at once for so many seconds, from `now` on; gives the highest limit of the
/// second half, when it is not measuring.
fn run(adaptive: &mut Adaptive, now: &mut Age, (server, demand): (&Server, u32), seconds: u64) -> u32 {
    let (began, end) = (*now, *now + Duration::from_secs(seconds));
    let mut most = 0;
    while *now < end {
        let in_flight = adaptive.limit().min(demand);
        let latency = server.latency(in_flight);
        *now += latency;
        for _ in 0..in_flight {
            adaptive.answered(latency, in_flight, *now);
        }
        if *now - began > Duration::from_secs(seconds) / 2 {
            most = most.max(adaptive.limit());
        }
    }
    most
}

fn check(workers: u32, millis: u64, expected: std::ops::RangeInclusive<u32>) {
    let (mut adaptive, mut now) = (Adaptive::new(4, 512, Age::ZERO), Age::ZERO);
    let limit = run(&mut adaptive, &mut now, (&server(workers, millis), 2_000), 200);
    assert!(expected.contains(&limit), "{workers} workers of {millis} ms: {limit}");
    let latency = server(workers, millis).latency(limit);
    assert!(latency <= Duration::from_millis(3 * millis), "{latency:?}");
}

#[test]
fn it_finds_what_a_server_can_work_on() {
    check(50, 10, 50..=85);
    check(200, 3, 200..=300);
    check(10, 100, 10..=25);
    check(6, 10, 6..=18);
}

#[test]
fn it_follows_a_server_that_loses_its_power_and_gets_it_back() {
    let (mut adaptive, mut now) = (Adaptive::new(4, 512, Age::ZERO), Age::ZERO);
    let (strong, weak) = (server(100, 10), server(20, 10));
    run(&mut adaptive, &mut now, (&strong, 2_000), 10);
    let at_first = run(&mut adaptive, &mut now, (&strong, 2_000), 10);
    let weak = run(&mut adaptive, &mut now, (&weak, 2_000), 10);
    let again = run(&mut adaptive, &mut now, (&strong, 2_000), 10);
    assert!((100..=150).contains(&at_first) && (20..=40).contains(&weak), "{at_first} {weak}");
    assert!((100..=150).contains(&again), "{again}");
}

#[test]
fn a_server_that_is_slower_for_good_is_measured_anew() {
    let (mut adaptive, mut now) = (Adaptive::new(4, 512, Age::ZERO), Age::ZERO);
    run(&mut adaptive, &mut now, (&server(50, 10), 2_000), 20);
    let slower = server(50, 40);
    let squeezed = run(&mut adaptive, &mut now, (&slower, 2_000), 20);
    assert!(squeezed < 20, "{squeezed}");
    let measured = run(&mut adaptive, &mut now, (&slower, 2_000), 120);
    assert!((50..=85).contains(&measured), "{measured}");
}

#[test]
fn it_does_not_grow_while_it_is_not_used() {
    let (mut adaptive, mut now) = (Adaptive::new(4, 512, Age::ZERO), Age::ZERO);
    let limit = run(&mut adaptive, &mut now, (&server(1_000, 10), 6), 60);
    assert!(limit <= 20, "{limit}");
}

#[test]
fn failures_shrink_it_by_their_share() {
    let (mut adaptive, mut now) = (Adaptive::new(4, 512, Age::ZERO), Age::ZERO);
    let (strong, tenth) = (server(100, 10), Duration::from_millis(100));
    let before = run(&mut adaptive, &mut now, (&strong, 2_000), 20);
    for _ in 0..3 {
        now += tenth;
        adaptive.failed(before, now);
    }
    assert!(adaptive.limit() <= before / 3, "{before} {}", adaptive.limit());
    for _ in 0..20 {
        now += tenth;
        adaptive.failed(before, now);
    }
    assert_eq!(adaptive.limit(), 4);
    let again = run(&mut adaptive, &mut now, (&strong, 2_000), 20);
    assert!(again.abs_diff(before) < before / 4, "{before} {again}");
    // A few among many do not matter.
    for _ in 0..20 {
        now += tenth;
        (0..99).for_each(|_| adaptive.answered(strong.service, before, now));
        adaptive.failed(before, now);
    }
    assert!(adaptive.limit() > before / 2, "{}", adaptive.limit());
}

#[test]
fn other_bounds_keep_what_was_learnt() {
    let (mut adaptive, mut now) = (Adaptive::new(4, 512, Age::ZERO), Age::ZERO);
    let limit = run(&mut adaptive, &mut now, (&server(50, 10), 2_000), 20);
    adaptive.set(1, 1_000);
    assert!(adaptive.limit().abs_diff(limit) < 20);
    adaptive.set(1, 10);
    assert_eq!(adaptive.limit(), 10);
    adaptive.set(30, 2);
    assert_eq!(adaptive.limit(), 30);
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds_whatever_happens(
        bounds in (0_u32..100, 0_u32..1_000),
        steps in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u32>(), 0_u64..200), 0..400),
    ) {
        let (min, max) = (bounds.0.max(1), bounds.1.max(bounds.0).max(1));
        let (mut adaptive, mut now) = (Adaptive::new(bounds.0, bounds.1, Age::ZERO), Age::ZERO);
        for (answered, nanos, in_flight, pause) in steps {
            now += Duration::from_millis(pause);
            match answered {
                true => adaptive.answered(Duration::from_nanos(nanos), in_flight, now),
                false => adaptive.failed(in_flight, now),
            }
            prop_assert!((min..=max).contains(&adaptive.limit()) && adaptive.limit.is_finite());
        }
    }
}
