//! The quicker of two that chance picks: the lower `estimate * (in flight + 1) / weight`.
//!
//! The estimates are those of [`Estimates`](crate::backend::Estimates): they jump up at once, decay while nobody asks,
//! and a failure never improves one. Two choices instead of the one lowest, because all would run to that one before
//! its estimate could rise; the pairs are distinct and drawn by weight, as in `two_choices`. Among idle members weight
//! plays no part in the comparison, since it has had its part in the draw; and where the draw has found two that are
//! alike, the first serves, which keeps the shares of such an upstream at the weights.

use super::draw::{Draw, another};
use super::{Ask, Members, Policy, Ready};
use crate::backend::Seat;

/// Two choices over latency.
#[derive(Debug)]
pub(super) struct PeakEwma {
    draw: Draw,
}

impl PeakEwma {
    pub(super) fn new(members: &Members) -> Self {
        Self { draw: Draw::new(members) }
    }
}

impl Policy for PeakEwma {
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat {
        let first = self.draw.one(&ready, ask.random);
        let second = self.draw.other(&ready, first, another(another(ask.random)));
        let chosen = second.filter(|&second| is_quicker(&ready, second, first, ask)).unwrap_or(first);
        ready.untried_from(chosen)
    }
}

/// Whether one member is expected to answer sooner than another one.
fn is_quicker(ready: &Ready<'_>, one: usize, other: usize, ask: &Ask) -> bool {
    let (Some(ours), Some(theirs)) = (ready.cost(one), ready.cost(other)) else { return false };
    let seconds = |position| f64::from(ready.estimate(position, ask.now));
    let (our_time, their_time) = (seconds(one), seconds(other));
    if ours.ties_with(theirs) {
        return our_time < their_time;
    }
    our_time * ours.per_weight() < their_time * theirs.per_weight()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::draw::another;
    use super::*;
    use crate::backend::{Loads, Moment};

    /// Members that answer one request after another, in virtual time.
    struct Scene {
        members: Members,
        loads: Loads,
        policy: PeakEwma,
        now: Duration,
        random: u64,
    }

    impl Scene {
        fn new(weights: &[u32]) -> Self {
            let members = Members::new((0..).map(Seat).zip(weights.iter().copied())).unwrap();
            let loads = Loads::with_seats(weights.len()).with_estimates();
            Self { policy: PeakEwma::new(&members), members, loads, now: Duration::ZERO, random: 7 }
        }

        fn choose(&mut self) -> Seat {
            self.random = another(self.random);
            let ask = Ask { hash: 0, random: self.random, now: Moment::after(self.now) };
            self.policy.choose(Ready::new(&self.members, &self.loads, &[]).unwrap(), &ask)
        }

        /// Requests 10 ms apart, each of which ends before the next; `None` is a failure. Counts who served.
        fn run(&mut self, requests: usize, answer: impl Fn(u32) -> Option<u64>) -> Vec<usize> {
            let mut shares = vec![0; self.members.seats().len()];
            for _ in 0..requests {
                let seat = self.choose();
                shares[seat.0 as usize] += 1;
                self.now += Duration::from_millis(10);
                let (estimates, now) = (self.loads.estimates().unwrap(), Moment::after(self.now));
                match answer(seat.0) {
                    Some(ms) => estimates.answered(seat, Duration::from_millis(ms), now),
                    None => estimates.failed(seat, None, now),
                }
            }
            shares
        }
    }

    #[test]
    fn the_quicker_gets_nearly_everything() {
        let shares = Scene::new(&[1, 1, 1]).run(3_000, |seat| Some(if seat == 1 { 200 } else { 5 }));
        assert!(shares[1] < 30 && shares[0] > 1_000 && shares[2] > 1_000, "{shares:?}");
    }

    #[test]
    fn who_fails_at_once_does_not_attract_requests() {
        let shares = Scene::new(&[1, 1, 1]).run(6_000, |seat| if seat == 0 { None } else { Some(50) });
        assert!(shares[0] <= 6, "{shares:?}");
    }

    /// Traefik's least time: who had been slow once never recovered.
    #[test]
    fn who_was_slow_once_recovers() {
        let mut scene = Scene::new(&[1, 1]);
        scene.run(200, |seat| Some(if seat == 0 { 3_000 } else { 20 }));
        scene.run(10_000, |_| Some(20));
        let shares = scene.run(2_000, |_| Some(20));
        assert!(shares[0] > 500, "{shares:?}");
    }

    /// Traefik's least time again: everything ran to who had no estimate yet.
    #[test]
    fn a_newcomer_is_neither_flooded_nor_left_out() {
        let mut scene = Scene::new(&[1, 1, 1]);
        scene.run(1_000, |_| Some(100));
        scene.loads.estimates().unwrap().forget(Seat(2), Moment::after(scene.now));
        let shares = scene.run(300, |_| Some(100));
        assert!((30..=250).contains(&shares[2]), "{shares:?}");
    }

    #[test]
    fn what_is_in_flight_counts() {
        let mut scene = Scene::new(&[1, 1]);
        let _held: Vec<_> = (0..8).map(|_| scene.loads.lease(Seat(0))).collect();
        // 5 ms with nine in hand against 30 ms with one.
        let answer = |seat| Some(if seat == 0 { 5 } else { 30 });
        (0..2).for_each(|seat| scene.loads.estimates().unwrap().forget(Seat(seat), Moment::default()));
        let shares = scene.run(100, answer);
        assert_eq!(shares[0], 0, "{shares:?}");
    }

    #[test]
    fn in_flight_is_shared_by_weight_where_all_are_alike() {
        let mut scene = Scene::new(&[5, 1, 1]);
        let choose = |_| {
            let seat = scene.choose();
            scene.loads.lease(seat)
        };
        let _leases: Vec<_> = (0..140).map(choose).collect();
        let loads = [0, 1, 2].map(|seat| scene.loads.in_flight(Seat(seat)));
        assert!((85..=115).contains(&loads[0]) && loads[1] >= 10 && loads[2] >= 10, "{loads:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn nobody_starves_whatever_has_been(
            weights in prop::collection::vec(1..=8_u32, 2..6),
            past in prop::collection::vec(prop::option::of(1..20_000_u64), 6),
        ) {
            let mut scene = Scene::new(&weights);
            scene.run(100, |seat| past[seat as usize]);
            // 10 s * ln(20 s / 10 ms) is 76 s: by then the slowest estimate has come down to the others'.
            let shares = scene.run(9_000, |_| Some(10));
            prop_assert!(shares.iter().all(|&share| share > 0), "{:?} for {:?}", shares, weights);
        }
    }
}
