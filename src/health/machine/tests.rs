//! Every state that can be reached, and the way out of each.

use std::collections::HashSet;

use super::*;

/// Numbers so small that everything that can happen does, within a few steps.
fn settings() -> LiveHealth {
    LiveHealth {
        consecutive_failures: Some(2),
        breaker: None,
        ejection: seconds(1),
        max_ejection: seconds(2),
        max_ejected: 0.5,
    }
}

fn seconds(seconds: u64) -> Age {
    Age::from_secs(seconds)
}

fn healthy() -> Machine {
    let mut machine = Machine::new();
    machine.probed(true, Age::ZERO);
    machine
}

/// A machine that was ejected at this moment, by failures in a row.
fn ejected(now: Age, settings: &LiveHealth) -> Machine {
    let mut machine = healthy();
    fail(&mut machine, now, settings);
    fail(&mut machine, now, settings);
    assert_eq!(machine.state(), State::Ejected);
    machine
}

/// A failure, and the ejection that it asks for.
fn fail(machine: &mut Machine, now: Age, settings: &LiveHealth) {
    if machine.failed(0, false, settings).eject.is_some() {
        machine.eject(now, settings);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    ProbePasses,
    ProbeFails,
    Succeeds,
    Fails,
    FailsAndIsSpared,
    Trips,
    Throttles,
    RunsLow,
    TimePasses,
    TrialIsClaimed,
    TrialIsReleased,
    IsDrained,
    IsNotDrained,
}

const EVENTS: [Event; 13] = [
    Event::ProbePasses,
    Event::ProbeFails,
    Event::Succeeds,
    Event::Fails,
    Event::FailsAndIsSpared,
    Event::Trips,
    Event::Throttles,
    Event::RunsLow,
    Event::TimePasses,
    Event::TrialIsClaimed,
    Event::TrialIsReleased,
    Event::IsDrained,
    Event::IsNotDrained,
];

fn happen(machine: &mut Machine, event: Event, now: &mut Age) {
    let settings = settings();
    match event {
        Event::ProbePasses => machine.probed(true, *now),
        Event::ProbeFails => machine.probed(false, *now),
        Event::Succeeds => {
            machine.succeeded(*now);
        }
        Event::Fails => fail(machine, *now, &settings),
        Event::FailsAndIsSpared => {
            if machine.failed(0, false, &settings).eject.is_some() {
                machine.spare();
            }
        }
        Event::Trips => {
            if machine.failed(0, true, &settings).eject.is_some() {
                machine.eject(*now, &settings);
            }
        }
        Event::Throttles => machine.throttle(*now + seconds(2)),
        Event::RunsLow => machine.run_low(*now + seconds(1)),
        Event::TimePasses => {
            *now += seconds(1);
            machine.tick(*now);
        }
        Event::TrialIsClaimed => {
            machine.claim_trial();
        }
        Event::TrialIsReleased => machine.release_trial(*now),
        Event::IsDrained => machine.drain(true),
        Event::IsNotDrained => machine.drain(false),
    }
}

/// The same machine as if it were always the same moment, so that there are only so many of them.
fn at_ten(machine: &Machine, now: Age) -> Machine {
    let shift = |moment: Age| (seconds(10) + moment).saturating_sub(now);
    let mut machine = machine.clone();
    machine.throttled = machine.throttled.map(shift);
    machine.low = machine.low.map(shift);
    machine.ejection = match machine.ejection {
        Ejection::None => Ejection::None,
        Ejection::Until { until, patience } => Ejection::Until { until: shift(until), patience },
        // A trial that somebody has taken ends with that, so its moment says nothing.
        Ejection::Trial { taken: true, patience, .. } => Ejection::Trial { taken: true, until: seconds(0), patience },
        Ejection::Trial { until, patience, taken } => Ejection::Trial { until: shift(until), patience, taken },
    };
    // Whoever has been well for as long as this has nothing left to make good.
    machine.well_since = shift(machine.well_since).max(seconds(5));
    machine
}

/// Every machine that any sequence of events leads to, at the moment ten.
fn reachable() -> HashSet<Machine> {
    let start = Machine { ladder: Ladder::new(2, 2), ..Machine::new() };
    let mut found = HashSet::from([at_ten(&start, seconds(0))]);
    let mut new: Vec<_> = found.iter().cloned().collect();
    while let Some(machine) = new.pop() {
        for event in EVENTS {
            let (mut next, mut now) = (machine.clone(), seconds(10));
            happen(&mut next, event, &mut now);
            let next = at_ten(&next, now);
            if found.insert(next.clone()) {
                new.push(next);
            }
        }
        assert!(found.len() < 1_000_000, "the numbers of the test no longer keep this small");
    }
    found
}

#[test]
fn every_state_is_reached_and_none_is_a_trap() {
    let all = reachable();
    for state in State::ALL {
        assert!(all.iter().any(|machine| machine.state() == state), "{state} is never reached");
    }
    for machine in &all {
        let (mut it, mut now) = (machine.clone(), seconds(10));
        // What ends by somebody's deed: a drain by the operator's, a request on trial by its end.
        it.drain(false);
        it.release_trial(now);
        let mut steps = 0;
        while it.state() != State::Healthy {
            happen(&mut it, Event::TimePasses, &mut now);
            it.probed(true, Age::ZERO);
            it.succeeded(now);
            steps += 1;
            assert!(steps <= 4, "stuck in {}: {machine:?}", it.state());
        }
    }
}

#[test]
fn time_and_probes_are_enough_without_a_single_request() {
    for machine in reachable() {
        let (mut it, mut now) = (machine.clone(), seconds(10));
        it.drain(false);
        it.release_trial(now);
        for _ in 0..6 {
            happen(&mut it, Event::TimePasses, &mut now);
            it.probed(true, Age::ZERO);
        }
        assert_eq!(it.state(), State::Healthy, "{machine:?}");
    }
}

#[test]
fn whatever_ends_by_itself_has_a_moment_for_it_that_lies_ahead() {
    for machine in reachable() {
        let (state, deadline) = (machine.state(), machine.deadline());
        assert!(deadline.is_none_or(|deadline| deadline > seconds(10)), "{machine:?}");
        assert!(machine.until().is_none_or(|until| deadline.is_some_and(|deadline| deadline <= until)), "{machine:?}");
        let timed = state == State::Throttled || state == State::Ejected && !machine.is_on_trial();
        assert_eq!(machine.until().is_some(), timed, "{machine:?}");
        let mut later = machine.clone();
        if let Some(deadline) = deadline {
            later.tick(deadline);
            assert_ne!(later, machine, "its deadline changes nothing");
        }
    }
}

#[test]
fn only_one_request_at_a_time_tries_it() {
    for machine in reachable() {
        let mut it = machine.clone();
        let first = it.claim_trial();
        assert!(!it.claim_trial(), "{machine:?}");
        assert!(!first || machine.deadline() != it.deadline() || it.deadline().is_some(), "{machine:?}");
        it.release_trial(seconds(10));
        assert_eq!(it.claim_trial(), matches!(it.ejection, Ejection::Trial { .. }), "{machine:?}");
    }
}

#[test]
fn a_throttle_hides_nothing_for_good() {
    for machine in reachable() {
        let mut it = machine.clone();
        it.throttle(seconds(11));
        assert!(matches!(it.state(), State::Throttled | State::Draining));
        let hidden = Machine { throttled: None, ..it.clone() };
        it.tick(seconds(20));
        let mut hidden = hidden;
        hidden.tick(seconds(20));
        assert_eq!(it.state(), hidden.state(), "{machine:?}");
    }
}

#[test]
fn it_takes_the_failures_in_a_row() {
    let settings = LiveHealth { consecutive_failures: Some(3), ..settings() };
    let mut machine = healthy();
    for failure in [true, true, false, true, true] {
        match failure {
            true => assert_eq!(machine.failed(0, false, &settings).eject, None),
            false => assert_eq!(machine.succeeded(seconds(1)), None),
        }
    }
    assert_eq!(machine.failed(0, false, &settings).eject, Some("requests fail in a row"));
}

#[test]
fn a_success_that_broke_off_in_the_end_was_none() {
    let settings = LiveHealth { consecutive_failures: Some(3), ..settings() };
    let mut machine = healthy();
    for row in 0..2 {
        assert_eq!(machine.row(), row);
        machine.succeeded(seconds(1));
        assert_eq!(machine.failed(row, false, &settings).eject, None);
    }
    machine.succeeded(seconds(1));
    assert!(machine.failed(2, false, &settings).eject.is_some());
}

#[test]
fn ejections_grow_up_to_the_longest() {
    let settings = LiveHealth { ejection: seconds(30), max_ejection: seconds(70), ..settings() };
    let mut now = seconds(100);
    let mut machine = ejected(now, &settings);
    for length in [30, 60, 70, 70] {
        assert_eq!(machine.until(), Some(now + seconds(length)));
        now += seconds(length);
        machine.tick(now);
        assert!(machine.is_on_trial());
        fail(&mut machine, now, &settings);
    }
}

#[test]
fn healthy_time_makes_good_one_ejection_at_a_time() {
    let settings = LiveHealth { ejection: seconds(30), max_ejection: seconds(600), ..settings() };
    for (well, length) in [(0, 90), (29, 90), (30, 60), (60, 30), (1000, 30)] {
        let mut now = seconds(100);
        let mut machine = ejected(now, &settings);
        now += seconds(30);
        machine.tick(now);
        fail(&mut machine, now, &settings);
        now += seconds(60);
        machine.tick(now);
        machine.succeeded(now);
        now += seconds(well);
        fail(&mut machine, now, &settings);
        fail(&mut machine, now, &settings);
        assert_eq!(machine.until(), Some(now + seconds(length)), "after {well} s");
    }
}

#[test]
fn failures_of_requests_that_were_on_their_way_do_not_lengthen_an_ejection() {
    let settings = settings();
    let mut machine = ejected(seconds(10), &settings);
    let before = machine.clone();
    fail(&mut machine, seconds(10), &settings);
    machine.eject(seconds(10), &settings);
    assert_eq!(machine.until(), before.until());
}

#[test]
fn a_passing_probe_ends_neither_an_ejection_nor_a_trial() {
    let settings = settings();
    let mut machine = ejected(seconds(10), &settings);
    machine.probed(true, Age::ZERO);
    assert_eq!(machine.state(), State::Ejected);
    machine.tick(seconds(11));
    machine.probed(true, Age::ZERO);
    assert!(machine.is_on_trial());
    machine.succeeded(seconds(11));
    assert_eq!(machine.state(), State::Healthy);
}

#[test]
fn one_that_was_unreachable_and_is_back_goes_on_trial_at_once() {
    let settings = settings();
    let mut machine = ejected(seconds(10), &settings);
    (0..10).for_each(|_| machine.probed(false, seconds(10)));
    assert_eq!(machine.state(), State::Unreachable);
    (0..10).for_each(|_| machine.probed(true, seconds(10)));
    assert!(machine.is_on_trial());
}

#[test]
fn a_shorter_wait_does_not_end_a_longer_one() {
    let mut machine = healthy();
    machine.throttle(seconds(50));
    machine.throttle(seconds(20));
    assert_eq!((machine.state(), machine.until()), (State::Throttled, Some(seconds(50))));
    machine.tick(seconds(50));
    assert_eq!(machine.state(), State::Healthy);
}
