//! Tests of a backend and its numbers.

use super::*;

fn backend(target: Target) -> Backend {
    let config = config::Backend {
        name: "b".into(),
        target,
        tls: false,
        weight: 1,
        tier: 0,
        limits: config::Limits::default(),
        send_proxy: None,
        drained: false,
    };
    Backend::new(&"app".into(), &config, Seat(0))
}

fn somewhere() -> Backend {
    backend(Target::Address("127.0.0.1:80".parse().unwrap()))
}

#[test]
fn every_state_is_read_back_as_it_was_set() {
    let backend = somewhere();
    assert_eq!(backend.state(), State::Pending);
    for state in State::ALL {
        backend.set_standing(state.into());
        assert_eq!((backend.state(), backend.is_on_trial(), backend.state_left()), (state, false, None));
    }
    backend.set_standing(Standing { on_trial: true, ..State::Ejected.into() });
    assert_eq!((backend.state(), backend.is_on_trial()), (State::Ejected, true));
}

#[test]
fn a_state_that_ends_says_how_long_it_lasts() {
    let backend = somewhere();
    let until = Some(SystemTime::now() + Duration::from_secs(60));
    backend.set_standing(Standing { until, ..State::Throttled.into() });
    let left = backend.state_left().unwrap();
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
    backend.set_standing(Standing {
        until: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
        ..State::Ejected.into()
    });
    assert_eq!(backend.state_left(), Some(Duration::ZERO));
}

#[test]
fn an_address_is_known_at_once_and_a_name_is_not() {
    assert_eq!(somewhere().addresses().len(), 1);
    let named = backend(Target::Name { host: "app".into(), port: 80 });
    assert!(named.addresses().is_empty());
    let found = vec!["10.0.0.1:80".parse().unwrap()];
    assert!(named.set_addresses(found.clone()));
    assert!(!named.set_addresses(found));
}

#[test]
fn a_success_ends_the_failures_in_a_row_and_nothing_else() {
    let backend = somewhere();
    backend.record_failure("refused");
    backend.record_probe_failure("timeout");
    assert_eq!(backend.reading().failures_in_row, 2);
    backend.record_answer(Duration::from_millis(5));
    let reading = backend.reading();
    assert_eq!((reading.failures_in_row, reading.requests, reading.errors), (0, 2, 1));
    assert_eq!(reading.last_error.unwrap().what, "timeout");
    assert!(reading.last_healthy.is_some() && reading.p50 >= Some(Duration::from_millis(5)));
}

#[test]
fn an_endless_error_text_is_cut() {
    let backend = somewhere();
    backend.record_failure(&"\u{20ac}".repeat(1000));
    let words = backend.reading().last_error.unwrap().what.clone();
    assert!(words.chars().count() == 200 && words.chars().all(|c| c == '\u{20ac}'));
}

#[test]
fn an_answer_of_500_or_more_is_an_error_and_no_sign_of_health() {
    let backend = somewhere();
    backend.record_error_answer(Duration::from_millis(3), 503);
    let reading = backend.reading();
    assert_eq!((reading.requests, reading.errors, reading.failures_in_row), (1, 1, 1));
    assert_eq!(reading.last_error.map(|error| error.what.clone()), Some("status 503".to_owned()));
    assert!(reading.last_healthy.is_none());
    assert!(reading.p50.is_some());

    backend.record_answer(Duration::from_millis(3));
    assert_eq!(backend.reading().failures_in_row, 0);
}

#[test]
fn of_many_threads_that_want_the_last_places_none_gets_more_than_there_are() {
    let loads = Loads::with_seats(2);
    let most_seen = std::thread::scope(|scope| {
        let try_often = || {
            let mut most = 0;
            for _ in 0..20_000 {
                let lease = loads.try_lease(Seat(1), 3);
                most = loads.in_flight(Seat(1)).max(most);
                drop(lease);
            }
            most
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(try_often)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max()
    });
    assert!(most_seen.unwrap() <= 3, "{most_seen:?}");
    assert_eq!((loads.in_flight(Seat(1)), loads.try_lease(Seat(1), 0).is_some()), (0, false));
}
