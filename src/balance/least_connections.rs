//! To the least loaded: the lowest `(in flight + 1) / weight`.
//!
//! Ties rotate by weight, in the turns of [`Turns`], so an idle upstream is shared as round robin would share it. If
//! the lowest is idle, all idle members tie with it: see [`Cost::ties_with`].
//!
//! One pass finds the lowest. With ten thousand members that is some microseconds (see `keys`); a heap would have to be
//! kept in order by every start and end of a request, under a lock.

use super::cost::Cost;
use super::turns::Turns;
use super::{Ask, Members, Policy, Ready};
use crate::backend::Seat;

/// Weighted least connections.
#[derive(Debug)]
pub(super) struct LeastConnections {
    turns: Turns,
    heaviest: u32,
}

impl LeastConnections {
    pub(super) fn new(members: &Members, start: u64) -> Self {
        let heaviest = members.weights().iter().copied().max().unwrap_or(1);
        Self { turns: Turns::new(members.weights(), start), heaviest }
    }
}

impl Policy for LeastConnections {
    fn choose(&self, ready: Ready<'_>, ask: &Ask) -> Seat {
        let next = self.turns.next();
        // Nobody costs less than an idle member of the highest weight: a quiet upstream needs no pass.
        let cannot_be_beaten = |cost: Cost| cost.is_idle() && cost.weight() == self.heaviest;
        if let Some(seat) = ready.untried(next).filter(|_| ready.cost(next).is_some_and(cannot_be_beaten)) {
            return seat;
        }
        let lowest = lowest(&ready);
        if lowest.first == lowest.last && !lowest.cost.is_idle() {
            return ready.untried_from(lowest.first);
        }
        let ties = |position| ready.cost(position).is_some_and(|cost| cost.ties_with(lowest.cost));
        let tied = |position| ready.untried(position).filter(|_| ties(position));
        let turn = tied(next).map_or_else(|| self.turns.take(tied), Ok);
        // No turn suits where those who tie are few among hundreds. Whoever serves is no longer the lowest then, so it
        // matters little which of them it is, only that it is not always the same.
        turn.unwrap_or_else(|_| ready.untried_from(if ask.random & 1 == 0 { lowest.first } else { lowest.last }))
    }
}

/// The lowest cost of all untried members, and two who have it, if there are two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lowest {
    pub(super) first: usize,
    last: usize,
    cost: Cost,
}

/// Looks for the lowest cost among the untried members.
pub(super) fn lowest(ready: &Ready<'_>) -> Lowest {
    let mut lowest = Lowest { first: 0, last: 0, cost: Cost::HIGHEST };
    ready.cheapest(|position, cost| {
        // Costs first: with thousands of members hardly anyone comes to the second question.
        if cost <= lowest.cost && ready.untried(position).is_some() {
            let first = if cost < lowest.cost { position } else { lowest.first };
            lowest = Lowest { first, last: position, cost };
        }
    });
    lowest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::{Loads, Moment};

    /// The positions chosen by `requests` that each end before the next begins, while others stay in flight.
    fn check(weights: &[u32], in_flight: &[usize], requests: usize) -> String {
        let members = Members::new((0..).map(Seat).zip(weights.iter().copied())).unwrap();
        let loads = Loads::with_seats(weights.len());
        let leases = (0..).map(Seat).zip(in_flight).flat_map(|(seat, &count)| (0..count).map(move |_| seat));
        let _held: Vec<_> = leases.map(|seat| loads.lease(seat)).collect();
        let policy = LeastConnections::new(&members, 0);
        let ask = Ask { hash: 0, random: 0, now: Moment::default() };
        let choose = |_| policy.choose(Ready::new(&members, &loads, &[]).unwrap(), &ask);
        (0..requests).map(choose).map(|seat| char::from(b'A' + seat.0 as u8)).collect()
    }

    #[test]
    fn an_idle_pool_is_shared_by_weight() {
        assert_eq!(check(&[1, 1, 1], &[0, 0, 0], 6), "ABCABC");
        assert_eq!(check(&[5, 1, 1], &[0, 0, 0], 7), "AABACAA");
    }

    #[test]
    fn the_lowest_cost_wins() {
        assert_eq!(check(&[5, 1, 1], &[1, 0, 0], 2), "AA", "2/5 is less than 1/1");
        assert_eq!(check(&[1, 1, 1], &[3, 1, 2], 2), "BB");
        assert_eq!(check(&[5, 1], &[7, 0], 2), "BB");
    }

    #[test]
    fn a_busier_member_is_never_chosen_beside_the_lowest() {
        assert_eq!(check(&[1, 1, 1, 1], &[2, 1, 1, 0], 3), "DDD");
    }

    #[test]
    fn ties_among_some_rotate_evenly() {
        assert_eq!(check(&[1, 1, 1, 1], &[5, 5, 1, 1], 6), "CDCDCD");
    }

    #[test]
    fn an_equal_cost_at_another_weight_is_a_tie() {
        let chosen = check(&[2, 1], &[1, 0], 6);
        assert_eq!(chosen.matches('A').count(), 4, "{chosen}");
    }

    #[test]
    fn a_few_ties_among_thousands_are_found() {
        let mut in_flight = vec![1; 2_000];
        (in_flight[1_500], in_flight[1_700]) = (0, 0);
        let members = Members::new((0..2_000).map(|seat| (Seat(seat), 1))).unwrap();
        let loads = Loads::with_seats(2_000);
        let busy = in_flight.iter().enumerate().filter(|&(_, &count)| count > 0);
        let _held: Vec<_> = busy.map(|(seat, _)| loads.lease(Seat(seat as u32))).collect();
        let policy = LeastConnections::new(&members, 0);
        let ready = Ready::new(&members, &loads, &[]).unwrap();
        for _ in 0..10 {
            let Seat(seat) = policy.choose(ready, &Ask { hash: 0, random: 0, now: Moment::default() });
            assert!([1_500, 1_700].contains(&seat), "{seat}");
        }
    }

    /// Weights that make ties, near ties, and costs that only an exact comparison tells apart.
    fn weights() -> impl Strategy<Value = Vec<u32>> {
        let range =
            prop_oneof![Just(1..=1), Just(1..=3), Just(1..=1_000), Just(u32::MAX - 3..=u32::MAX), Just(1..=u32::MAX)];
        (range, 1..400_usize).prop_flat_map(|(range, len)| prop::collection::vec(range, len))
    }

    proptest! {
        #[test]
        fn nobody_has_a_lower_cost_than_the_lowest(
            weights in weights(),
            in_flight in prop::collection::vec(0..4_u32, 400),
            level in 0..4_u32,
            tried in prop::collection::vec(0..400_usize, 0..40),
            gaps in prop::collection::vec(prop_oneof![9 => Just(1), 1 => 1..90_u32], 400),
            reversed: bool,
        ) {
            let seats = gaps.iter().scan(0, |seat, gap| {
                *seat += gap;
                Some(Seat(*seat))
            });
            let mut pairs: Vec<_> = seats.zip(weights).collect();
            if reversed {
                pairs.reverse();
            }
            let members = Members::new(pairs).unwrap();
            let loads = Loads::with_seats(members.seats().iter().map(|seat| seat.0 as usize + 1).max().unwrap());
            let busy = |(weight, extra): (&u32, u32)| (weight % 8 * level).saturating_sub(1) + extra;
            let counts = members.weights().iter().zip(in_flight).map(busy);
            let leases = members.seats().iter().zip(counts).flat_map(|(&seat, count)| (0..count).map(move |_| seat));
            let _held: Vec<_> = leases.map(|seat| loads.lease(seat)).collect();
            let tried: Vec<_> = tried.iter().filter_map(|&position| members.seats().get(position).copied()).collect();
            let Some(ready) = Ready::new(&members, &loads, &tried) else { return Ok(()) };

            let cost = |position| ready.untried(position).and_then(|_| ready.cost(position));
            let costs: Vec<_> = (0..members.seats().len()).filter_map(cost).collect();
            let (least, found) = (*costs.iter().min().unwrap(), lowest(&ready));
            prop_assert_eq!(found.cost, least);
            prop_assert_eq!([found.first, found.last].map(cost), [Some(least); 2]);
            let alone = costs.iter().filter(|&&cost| cost == least).count() == 1;
            prop_assert_eq!(found.first == found.last, alone);
        }
    }
}
