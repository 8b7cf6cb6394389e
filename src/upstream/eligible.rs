//! Which backends may be chosen at all? By their states, before a policy looks at loads.
//!
//! The best group that has anyone serves, and only it:
//!
//! 1. HEALTHY primaries; 2. HEALTHY backups; 3. PENDING primaries; 4. PENDING backups; 5. EJECTED ones, in this order.
//!
//! That those of the last group fail was concluded from a few requests, and to refuse would be certain failure.
//! One that is on trial counts as HEALTHY here; that only one request at a time tries it is seen to by `pick`. One that
//! is THROTTLED or DRAINING is never chosen: it is alive, but it or the operator said no.
//!
//! *Panic*: when strictly fewer of the primaries than the threshold are alive (1 of 2 is not fewer than 50%), the few
//! would drown in the work of the many, or the probes are wrong rather than the backends. Then HEALTHY backups come to
//! help the HEALTHY primaries; if there are none, all primaries are used whatever their state, because a request that
//! fails on an UNREACHABLE one moves on to the next. A PENDING primary counts as alive: it has failed nothing yet, and
//! a start must not look like a breakdown. With a threshold of 0 there is no panic, and nobody may be left.
//!
//! Backends of weight 0 take nothing and count for nothing. Without primaries, the backups are the primaries.

use crate::backend::State;

/// What decides whether a backend may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How it is.
    pub state: State,
    /// Its weight.
    pub weight: u32,
    /// Whether it is a backup.
    pub backup: bool,
}

/// The places of those who may be chosen, in their order; empty if nobody may.
///
/// ```
/// use portcullis::backend::State::{Healthy, Unreachable};
/// use portcullis::upstream::eligible::{Candidate, eligible};
/// let primary = |state| Candidate { state, weight: 1, backup: false };
/// assert_eq!(eligible(&[primary(Unreachable), primary(Healthy)], 0.5), [1]);
/// assert_eq!(eligible(&[primary(Unreachable), primary(Unreachable)], 0.5), [0, 1]);
/// ```
pub fn eligible(backends: &[Candidate], panic_threshold: f64) -> Vec<usize> {
    let weighty = || (0..).zip(backends).filter(|(_, backend)| backend.weight > 0);
    let has_primaries = has_primaries(backends);
    let is_primary = |backend: &Candidate| backend.backup != has_primaries;
    let places = |choose: &dyn Fn(&Candidate) -> bool| -> Vec<usize> {
        weighty().filter(|(_, backend)| choose(backend)).map(|(place, _)| place).collect()
    };
    let group = |state, primary| places(&|backend| backend.state == state && is_primary(backend) == primary);

    if in_panic(backends, panic_threshold) {
        let help = group(State::Healthy, false);
        let all = places(&|backend| is_primary(backend) && may_be_asked(backend.state));
        return if help.is_empty() { all } else { places(&|backend| backend.state == State::Healthy) };
    }
    let states = [State::Healthy, State::Pending, State::Ejected];
    let mut groups = states.into_iter().flat_map(|state| [group(state, true), group(state, false)]);
    groups.find(|places| !places.is_empty()).unwrap_or_default()
}

/// Whether a backend in this state may get a request when nobody better can.
fn may_be_asked(state: State) -> bool {
    match state {
        State::Healthy | State::Pending | State::Ejected | State::Unreachable => true,
        State::Throttled | State::Draining => false,
    }
}

/// Whether fewer of the primaries are alive than the threshold asks for.
pub fn in_panic(backends: &[Candidate], panic_threshold: f64) -> bool {
    let has_primaries = has_primaries(backends);
    let primaries = backends.iter().filter(|backend| backend.weight > 0 && backend.backup != has_primaries);
    let alive = primaries.clone().filter(|backend| !matches!(backend.state, State::Unreachable | State::Ejected));
    (alive.count() as f64) < panic_threshold * primaries.count() as f64
}

fn has_primaries(backends: &[Candidate]) -> bool {
    backends.iter().any(|backend| backend.weight > 0 && !backend.backup)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Primaries and backups by the first letters of their states, small for backups, `0` for a HEALTHY primary of
    /// weight 0.
    fn backends(states: &str) -> Vec<Candidate> {
        let backend = |letter: char| {
            let state = match letter.to_ascii_uppercase() {
                'H' | '0' => State::Healthy,
                'P' => State::Pending,
                'T' => State::Throttled,
                'E' => State::Ejected,
                'D' => State::Draining,
                _ => State::Unreachable,
            };
            Candidate { state, weight: u32::from(letter != '0'), backup: letter.is_ascii_lowercase() }
        };
        states.chars().map(backend).collect()
    }

    #[track_caller]
    fn check(states: &str, panic_threshold: f64, expected: &[usize]) {
        assert_eq!(eligible(&backends(states), panic_threshold), expected, "{states} at {panic_threshold}");
    }

    #[test]
    fn healthy_primaries_serve_alone() {
        check("HHh", 0.5, &[0, 1]);
        check("HUh", 0.5, &[0]);
        check("HPp", 0.5, &[0]);
    }

    #[test]
    fn a_backup_serves_when_no_primary_can() {
        check("Uh", 0.5, &[1]);
        check("UUhu", 0.0, &[2]);
        check("Ph", 0.5, &[1]);
    }

    #[test]
    fn pending_backends_serve_only_while_no_healthy_one_is_ready() {
        check("PPp", 0.5, &[0, 1]);
        check("UPp", 0.5, &[1]);
        check("Up", 0.0, &[1]);
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
        check("UUUu", 0.5, &[0, 1, 2]);
    }

    #[test]
    fn healthy_backups_are_preferred_to_panic() {
        check("HUUh", 0.5, &[0, 3]);
        check("UUUh", 0.5, &[3]);
    }

    #[test]
    fn ejected_backends_serve_last_and_in_a_panic() {
        check("EH", 0.5, &[1]);
        check("EP", 0.5, &[1]);
        check("ET", 0.5, &[0]);
        check("Ee", 0.0, &[0]);
        check("EEH", 0.5, &[0, 1, 2]);
        check("EU", 0.0, &[0]);
    }

    #[test]
    fn throttled_and_draining_backends_are_never_chosen() {
        check("TD", 0.5, &[]);
        check("TTH", 0.5, &[2]);
        check("THU", 1.0, &[1, 2]);
        check("TUU", 0.5, &[1, 2]);
        check("Tt", 1.0, &[]);
        check("Dh", 0.5, &[1]);
    }

    #[test]
    fn without_a_threshold_nobody_may_be_left() {
        check("UUU", 0.0, &[]);
        check("UUu", 0.0, &[]);
        check("", 0.5, &[]);
    }

    #[test]
    fn weight_0_takes_nothing_and_counts_for_nothing() {
        check("0H", 0.5, &[1]);
        check("0", 0.5, &[]);
        check("0U", 0.5, &[1]);
        check("0h", 0.5, &[1]);
    }

    #[test]
    fn backups_alone_are_primaries() {
        check("hu", 0.5, &[0]);
        check("uu", 0.5, &[0, 1]);
    }

    proptest! {
        #[test]
        fn nobody_of_weight_0_and_nobody_while_there_is_someone_better(
            states in "[HPUTEDhputed0]{0,10}", panic_threshold in 0.0..=1.0,
        ) {
            let backends = backends(&states);
            let chosen = eligible(&backends, panic_threshold);
            prop_assert!(chosen.is_sorted_by(|a, b| a < b));
            prop_assert!(chosen.iter().all(|&place| backends[place].weight > 0));
            if let Some(place) = backends.iter().position(|one| one.state == State::Healthy && one.weight > 0) {
                let healthy = |place: &usize| backends[*place].state == State::Healthy;
                prop_assert!(chosen.iter().any(healthy), "{place} is HEALTHY");
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
