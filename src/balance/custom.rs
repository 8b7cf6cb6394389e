//! As a program says that has brought a policy of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Ask, Members, Policy, Ready};
use crate::backend::Seat;
use crate::custom::{self, Candidate};

/// Shows a program's policy whom it may choose from, in its own words.
pub(super) struct Custom {
    policy: Arc<dyn custom::Policy>,
    names: Box<[Box<str>]>,
}

impl Custom {
    pub(super) fn new<N: AsRef<str>>(
        policy: &Arc<dyn custom::Policy>,
        members: &Members,
        name: impl Fn(Seat) -> N,
    ) -> Self {
        let names = members.seats().iter().map(|&seat| name(seat).as_ref().into());
        Self { policy: policy.clone(), names: names.collect() }
    }
}

impl Policy for Custom {
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat {
        let Members { seats, weights, .. } = ready.members;
        let all = seats.iter().zip(weights).zip(&self.names);
        let untried = all.filter(|((seat, _), _)| !ready.tried.contains(seat));
        let (seats, candidates): (Vec<_>, Vec<_>) = untried
            .map(|((&seat, &weight), name)| (seat, Candidate { name, weight, in_flight: ready.loads.in_flight(seat) }))
            .unzip();
        // It may be asked for others who wait in a queue: were it to panic there, it would take them along.
        let chosen = catch_unwind(AssertUnwindSafe(|| self.policy.choose(&candidates, ask.random)));
        let seat = chosen.ok().and_then(|chosen| seats.get(chosen).copied());
        seat.unwrap_or_else(|| ready.untried_from(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Loads, Moment};

    /// The last of those it is shown, or whatever place it was told.
    struct Place(Option<usize>);

    impl custom::Policy for Place {
        fn choose(&self, candidates: &[Candidate<'_>], _random: u64) -> usize {
            assert_ne!(self.0, Some(99), "a panic on purpose");
            assert!(candidates.iter().all(|candidate| candidate.name.starts_with("backend-")));
            self.0.unwrap_or(candidates.len() - 1)
        }
    }

    fn chosen(place: Option<usize>, tried: &[Seat]) -> Seat {
        let members = Members::new((0..3).map(|seat| (Seat(seat), seat + 1))).unwrap();
        let policy: Arc<dyn custom::Policy> = Arc::new(Place(place));
        let custom = Custom::new(&policy, &members, |Seat(seat)| format!("backend-{seat}"));
        let loads = Loads::default();
        let ask = Ask { hash: 0, random: 0, now: Moment::default() };
        custom.choose(Ready::new(&members, &loads, tried).unwrap(), &ask)
    }

    #[test]
    fn a_program_sees_those_that_were_not_tried_and_chooses_by_their_place() {
        assert_eq!(chosen(None, &[]), Seat(2));
        assert_eq!(chosen(None, &[Seat(2)]), Seat(1));
        assert_eq!(chosen(Some(0), &[Seat(0)]), Seat(1));
    }

    #[test]
    fn a_place_that_nobody_has_is_the_first() {
        assert_eq!(chosen(Some(7), &[]), Seat(0));
        assert_eq!(chosen(Some(2), &[Seat(0)]), Seat(1));
    }

    #[test]
    fn a_policy_that_panics_is_as_good_as_one_that_names_nobody() {
        assert_eq!(chosen(Some(99), &[Seat(0)]), Seat(1));
    }
}
