//! Which backends of one tier may be chosen at all? By their states, before a policy looks at loads.
//!
//! The best group that has anyone serves, and only it:
//!
//! 1. HEALTHY; 2. PENDING; 3. EJECTED.
//!
//! That those of the last group fail was concluded from a few requests, and to refuse would be certain failure.
//! One that is on trial counts as HEALTHY here; that only one request at a time tries it is seen to by `pick`. One that
//! is THROTTLED or DRAINING is never chosen: it is alive, but it or the operator said no.
//!
//! *Panic*: when strictly fewer of them are alive than the threshold (1 of 2 is not fewer than 50%), the few would
//! drown in the work of the many, or the probes are wrong rather than the backends. Then all are used whatever their
//! state, because a request that fails on an UNREACHABLE one moves on to the next. A PENDING one counts as alive: it
//! has failed nothing yet, and a start must not look like a breakdown. With a threshold of 0 there is no panic, and
//! nobody may be left.
//!
//! Backends of weight 0 take nothing and count for nothing. Which tiers serve is the question of [`tiers`](mod@super::tiers).

use crate::backend::State;

/// What decides whether a backend may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How it is.
    pub state: State,
    /// Its weight.
    pub weight: u32,
}

/// The places of those who may be chosen, in their order; empty if nobody may.
///
/// ```
/// use portcullis::backend::State::{Healthy, Unreachable};
/// use portcullis::upstream::eligible::{Candidate, eligible};
/// let backend = |state| Candidate { state, weight: 1 };
/// assert_eq!(eligible(&[backend(Unreachable), backend(Healthy)], 0.5), [1]);
/// assert_eq!(eligible(&[backend(Unreachable), backend(Unreachable)], 0.5), [0, 1]);
/// ```
pub fn eligible(backends: &[Candidate], panic_threshold: f64) -> Vec<usize> {
    let places = |choose: &dyn Fn(&Candidate) -> bool| -> Vec<usize> {
        let weighty = (0..).zip(backends).filter(|(_, backend)| backend.weight > 0);
        weighty.filter(|(_, backend)| choose(backend)).map(|(place, _)| place).collect()
    };
    if in_panic(backends, panic_threshold) {
        return places(&|backend| may_be_asked(backend.state));
    }
    let states = [State::Healthy, State::Pending, State::Ejected];
    let mut groups = states.into_iter().map(|state| places(&|backend| backend.state == state));
    groups.find(|places| !places.is_empty()).unwrap_or_default()
}

/// Whether a backend in this state may get a request when nobody better can.
fn may_be_asked(state: State) -> bool {
    match state {
        State::Healthy | State::Pending | State::Ejected | State::Unreachable => true,
        State::Throttled | State::Draining => false,
    }
}

/// Whether fewer are alive than the threshold asks for.
pub fn in_panic(backends: &[Candidate], panic_threshold: f64) -> bool {
    let backends = backends.iter().filter(|backend| backend.weight > 0);
    let alive = backends.clone().filter(|backend| !matches!(backend.state, State::Unreachable | State::Ejected));
    (alive.count() as f64) < panic_threshold * backends.count() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the first letters of their states, and `0` for a HEALTHY one of weight 0.
    fn backends(states: &str) -> Vec<Candidate> {
        let backend = |letter: char| {
            let state = match letter {
                'H' | '0' => State::Healthy,
                'P' => State::Pending,
                'T' => State::Throttled,
                'E' => State::Ejected,
                'D' => State::Draining,
                _ => State::Unreachable,
            };
            Candidate { state, weight: u32::from(letter != '0') }
        };
        states.chars().map(backend).collect()
    }

    #[track_caller]
    fn check(states: &str, panic_threshold: f64, expected: &[usize]) {
        assert_eq!(eligible(&backends(states), panic_threshold), expected, "{states} at {panic_threshold}");
    }

    #[test]
    fn healthy_backends_serve_alone() {
        check("HH", 0.5, &[0, 1]);
        check("HU", 0.5, &[0]);
        check("HPH", 0.5, &[0, 2]);
    }

    #[test]
    fn pending_backends_serve_only_while_no_healthy_one_is_ready() {
        check("PP", 0.5, &[0, 1]);
        check("UP", 0.5, &[1]);
        check("HPP", 1.0, &[0]);
    }

    #[test]
    fn one_of_two_at_half_is_no_panic() {
        check("HU", 0.5, &[0]);
        check("HU", 0.51, &[0, 1]);
    }

    #[test]
    fn fewer_than_the_threshold_brings_in_everyone() {
        check("HUU", 0.5, &[0, 1, 2]);
        check("UUU", 0.5, &[0, 1, 2]);
    }

    #[test]
    fn ejected_backends_serve_last_and_in_a_panic() {
        check("EH", 0.5, &[1]);
        check("EP", 0.5, &[1]);
        check("ET", 0.5, &[0]);
        check("E", 0.0, &[0]);
        check("EEH", 0.5, &[0, 1, 2]);
        check("EU", 0.0, &[0]);
    }

    #[test]
    fn throttled_and_draining_backends_are_never_chosen() {
        check("TD", 0.5, &[]);
        check("TTH", 0.5, &[2]);
        check("THU", 1.0, &[1, 2]);
        check("TUU", 0.5, &[1, 2]);
        check("T", 1.0, &[]);
        check("DH", 0.5, &[1]);
    }

    #[test]
    fn without_a_threshold_nobody_may_be_left() {
        check("UUU", 0.0, &[]);
        check("", 0.5, &[]);
    }

    #[test]
    fn weight_0_takes_nothing_and_counts_for_nothing() {
        check("0H", 0.5, &[1]);
        check("0", 0.5, &[]);
        check("0U", 0.5, &[1]);
    }

    proptest! {
        #[test]
        fn nobody_of_weight_0_and_nobody_while_there_is_someone_better(
            states in "[HPUTED0]{0,10}", panic_threshold in 0.0..=1.0,
        ) {
            let backends = backends(&states);
            let chosen = eligible(&backends, panic_threshold);
            prop_assert!(chosen.is_sorted_by(|a, b| a < b));
            prop_assert!(chosen.iter().all(|&place| backends[place].weight > 0));
            if let Some(place) = backends.iter().position(|one| one.state == State::Healthy && one.weight > 0) {
                prop_assert!(chosen.contains(&place), "{place} is HEALTHY");
            }
            let panics = chosen.iter().any(|&place| backends[place].state == State::Unreachable);
            prop_assert!(!panics || panic_threshold > 0.0);
            prop_assert!(chosen.iter().all(|&place| may_be_asked(backends[place].state)));
            let left = |one: &Candidate| one.weight > 0 && matches!(one.state,
                State::Healthy | State::Pending | State::Ejected);
            prop_assert!(!chosen.is_empty() || !backends.iter().any(left));
        }
    }
}
