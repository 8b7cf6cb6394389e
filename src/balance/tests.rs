//! What holds for every policy, and the mistakes of other balancers as tests.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::draw::another;
use super::*;
use crate::backend::Lease;
use crate::config::HashKey;

fn all_policies() -> [Balance; 6] {
    let consistent_hash = Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 };
    let by_loads = [Balance::LeastConnections, Balance::TwoChoices, Balance::PeakEwma];
    let [least_connections, two_choices, peak_ewma] = by_loads;
    [Balance::RoundRobin, least_connections, Balance::Random, two_choices, peak_ewma, consistent_hash]
}

/// An upstream whose requests end when the test says so.
struct Pool {
    members: Members,
    loads: Loads,
    policy: Box<dyn Policy>,
    random: u64,
}

impl Pool {
    fn new(balance: &Balance, weights: &[u32]) -> Self {
        let members = Members::new((0..).map(Seat).zip(weights.iter().copied())).unwrap();
        let policy = build(balance, &members, |Seat(seat)| format!("backend-{seat}"), 0);
        Self { loads: Loads::with_seats(weights.len()).with_estimates(), members, policy, random: 7 }
    }

    fn choose(&mut self, tried: &[Seat]) -> Option<Seat> {
        self.random = another(self.random);
        let ask = Ask { hash: another(!self.random), random: self.random, now: Moment::default() };
        Ready::new(&self.members, &self.loads, tried).map(|ready| self.policy.choose(ready, &ask))
    }

    fn choose_for(&self, hash: u64) -> Seat {
        let ready = Ready::new(&self.members, &self.loads, &[]).unwrap();
        self.policy.choose(ready, &Ask { hash, random: 0, now: Moment::default() })
    }

    /// How often each seat is chosen by requests that end at once.
    fn shares(&mut self, requests: usize, tried: &[Seat]) -> Vec<usize> {
        let mut shares = vec![0; self.members.seats().len()];
        for _ in 0..requests {
            let Seat(seat) = self.choose(tried).unwrap();
            shares[seat as usize] += 1;
        }
        shares
    }

    fn hold(&self, seat: u32, requests: usize) -> Vec<Lease> {
        (0..requests).map(|_| self.loads.lease(Seat(seat))).collect()
    }
}

#[track_caller]
fn assert_near(shares: &[usize], weights: &[u32], tolerance: f64) {
    let (requests, sum): (usize, u32) = (shares.iter().sum(), weights.iter().sum());
    for (&share, &weight) in shares.iter().zip(weights) {
        let due = requests as f64 * f64::from(weight) / f64::from(sum);
        assert!((share as f64 - due).abs() <= tolerance * requests as f64, "{shares:?} for {weights:?}");
    }
}

#[test]
fn every_policy_honours_weights_on_an_idle_pool() {
    for balance in all_policies() {
        let shares = Pool::new(&balance, &[5, 1, 1]).shares(7_000, &[]);
        assert_near(&shares, &[5, 1, 1], 0.02);
    }
}

#[test]
fn every_policy_honours_weights_among_those_not_tried() {
    for balance in all_policies() {
        let shares = Pool::new(&balance, &[4, 2, 1, 1]).shares(4_000, &[Seat(0)]);
        assert_near(&shares, &[0, 2, 1, 1], 0.03);
    }
}

#[test]
fn a_slow_backend_gets_less_where_loads_count() {
    for balance in [Balance::LeastConnections, Balance::TwoChoices, Balance::PeakEwma] {
        let mut pool = Pool::new(&balance, &[1, 1, 1]);
        let _stuck = pool.hold(1, 20);
        let shares = pool.shares(300, &[]);
        assert_eq!(shares[1], 0, "{shares:?}");
    }
}

#[test]
fn members_of_weight_0_are_none() {
    assert!(Members::new([(Seat(0), 0)]).is_none());
    let members = Members::new([(Seat(0), 0), (Seat(3), 2)]).unwrap();
    assert_eq!((members.seats(), members.weights()), (&[Seat(3)][..], &[2][..]));
}

#[test]
fn nobody_is_ready_when_all_were_tried() {
    let mut pool = Pool::new(&Balance::RoundRobin, &[1, 1]);
    assert_eq!(pool.choose(&[Seat(1), Seat(0)]), None);
    assert_eq!(pool.choose(&[Seat(1)]), Some(Seat(0)));
}

#[test]
fn loads_are_read_across_blocks_and_gaps() {
    let seats = [130, 131, 60, 61, 62, 63, 64, 65, 7].map(Seat);
    let members = Members::new(seats.map(|seat| (seat, 1))).unwrap();
    let loads = Loads::with_seats(200);
    for free in seats {
        let _leases: Vec<_> = seats.into_iter().filter(|&seat| seat != free).map(|seat| loads.lease(seat)).collect();
        let policy = build(&Balance::LeastConnections, &members, |_| "", 0);
        let ready = Ready::new(&members, &loads, &[]).unwrap();
        assert_eq!(policy.choose(ready, &Ask { hash: 0, random: 0, now: Moment::default() }), free);
    }
}

/// nginx without a shared zone: each worker had a place of its own in the sequence.
#[test]
fn threads_go_through_one_sequence_together() {
    let pool = &Pool::new(&Balance::RoundRobin, &[5, 1, 1]);
    let chosen: Vec<Seat> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..700).map(|_| pool.choose_for(0)).collect())).collect();
        threads.into_iter().flat_map(|thread| -> Vec<Seat> { thread.join().unwrap() }).collect()
    });
    let shares = [0, 1, 2].map(|seat| chosen.iter().filter(|&&chosen| chosen == Seat(seat)).count());
    assert_eq!(shares, [2_000, 400, 400]);
}

/// Caddy's least requests: the first idle one got everything while the load was low.
#[test]
fn low_load_does_not_all_go_to_the_first() {
    for balance in [Balance::LeastConnections, Balance::TwoChoices, Balance::PeakEwma] {
        let shares = Pool::new(&balance, &[1; 4]).shares(4_000, &[]);
        assert_near(&shares, &[1; 4], 0.03);
    }
}

/// Caddy's weighted round robin: when one was missing, turns were counted on the shortened list.
#[test]
fn a_missing_member_does_not_shift_weights_to_others() {
    let shares = Pool::new(&Balance::RoundRobin, &[1, 5, 1]).shares(600, &[Seat(0)]);
    assert_eq!(shares, [0, 500, 100]);
}

/// Caddy's random choice: with two members it was plain random.
#[test]
fn two_choices_of_two_always_take_the_less_loaded() {
    for balance in [Balance::TwoChoices, Balance::PeakEwma] {
        let mut pool = Pool::new(&balance, &[1, 1]);
        let _held = pool.hold(0, 1);
        assert_eq!(pool.shares(200, &[]), [0, 200], "{balance:?}");
    }
}

/// Traefik's two choices: when both draws fell on one, its neighbour was taken, and weights were ignored.
#[test]
fn two_choices_draw_all_pairs_alike() {
    for balance in [Balance::TwoChoices, Balance::PeakEwma] {
        let mut pool = Pool::new(&balance, &[1; 4]);
        // Whoever is worst of all is never taken, so the shares of the others tell how often each pair was drawn.
        let _held = [pool.hold(0, 4), pool.hold(1, 3), pool.hold(2, 2), pool.hold(3, 1)];
        let shares = pool.shares(12_000, &[]);
        assert_near(&shares, &[0, 1, 2, 3], 0.02);
    }
}

/// Envoy's schedule: front doors that started together all began with the same host.
#[test]
fn the_start_moves_the_first_turn() {
    let members = Members::new((0..3).map(|seat| (Seat(seat), 1))).unwrap();
    let loads = Loads::with_seats(3);
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        let first = |start| {
            let ready = Ready::new(&members, &loads, &[]).unwrap();
            build(&balance, &members, |_| "", start).choose(ready, &Ask { hash: 0, random: 0, now: Moment::default() })
        };
        assert_eq!([0, 1, 2, 3, u64::MAX].map(first), [0, 1, 2, 0, 0].map(Seat), "2^64 - 1 is divisible by 3");
    }
}

/// nginx's consistent hash falls back to round robin after twenty tries.
#[test]
fn a_key_keeps_its_stand_in_while_its_owner_is_full() {
    let pool = Pool::new(&Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 }, &[1; 50]);
    let Seat(owner) = pool.choose_for(42);
    let _held = pool.hold(owner, 30);
    let stand_in = pool.choose_for(42);
    assert_ne!(stand_in, Seat(owner));
    assert!((0..20).all(|_| pool.choose_for(42) == stand_in));
}

#[test]
fn the_keys_of_a_full_member_spread_over_the_others() {
    let pool = Pool::new(&Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 }, &[1; 10]);
    let keys: Vec<u64> = (0..2_000).map(another).filter(|&key| pool.choose_for(key) == Seat(0)).collect();
    let _held = pool.hold(0, 100);
    let mut stand_ins: HashMap<Seat, usize> = HashMap::new();
    keys.iter().for_each(|&key| *stand_ins.entry(pool.choose_for(key)).or_default() += 1);
    assert_eq!(stand_ins.len(), 9);
    assert!(stand_ins.values().all(|&count| count < keys.len() / 3), "{stand_ins:?}");
}

#[test]
fn bounded_load_bounds_the_load_of_a_hot_key() {
    let pool = Pool::new(&Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 }, &[5, 1, 1, 1]);
    let leases: Vec<_> = (0..800).map(|_| pool.loads.lease(pool.choose_for(42))).collect();
    for (seat, weight) in (0..).map(Seat).zip([5.0, 1.0, 1.0, 1.0]) {
        let most = (1.25 * leases.len() as f64 * weight / 8.0_f64).ceil();
        assert!(f64::from(pool.loads.in_flight(seat)) <= most, "{seat:?}");
    }
}

#[test]
fn the_same_names_make_the_same_table_in_any_order() {
    let hash = Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 };
    let names = ["a:80", "b:80", "c:80"];
    let loads = Loads::with_seats(3);
    let owners = |order: [u32; 3]| -> Vec<String> {
        let members = Members::new(order.map(|seat| (Seat(seat), 1 + seat))).unwrap();
        let name = |Seat(seat)| names[seat as usize];
        let policy = build(&hash, &members, name, 0);
        let ready = Ready::new(&members, &loads, &[]).unwrap();
        (0..200)
            .map(|key| {
                name(policy.choose(ready, &Ask { hash: another(key), random: 0, now: Moment::default() })).to_owned()
            })
            .collect()
    };
    assert_eq!(owners([0, 1, 2]), owners([2, 0, 1]));
}

/// Written down, so that a change of the hash cannot slip in: it would move every key of every cache behind us.
#[test]
fn a_table_is_the_same_in_every_process() {
    let table = race::table([("a:80", 1), ("b:80", 2), ("c:80", 1)], 4);
    assert_eq!(*table, [1, 2, 1, 0, 1, 1, 2, 2, 1, 1, 1, 0, 0, 0, 1, 1]);
}

#[test]
fn shares_of_the_table_follow_the_weights() {
    let weights = [10, 20, 30, 40, 1];
    let table = race::table(weights.iter().enumerate().map(|(n, &weight)| (format!("b{n}"), weight)), 16);
    let mut shares = vec![0; weights.len()];
    table.iter().for_each(|&position| shares[position as usize] += 1);
    assert_near(&shares, &weights, 0.01);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_tried_seat_is_never_chosen_and_nothing_panics(
        weights in prop::collection::vec(prop_oneof![1..9_u32, Just(u32::MAX), 1..=u32::MAX], 1..12),
        tried in prop::collection::vec(0..14_u32, 0..12),
        held in prop::collection::vec(0..12_u32, 0..20),
    ) {
        let tried: Vec<_> = tried.into_iter().map(Seat).collect();
        let untried = (0..weights.len() as u32).map(Seat).any(|seat| !tried.contains(&seat));
        for balance in all_policies() {
            let mut pool = Pool::new(&balance, &weights);
            let _leases: Vec<_> = held.iter().map(|&seat| pool.loads.lease(Seat(seat))).collect();
            for _ in 0..30 {
                let chosen = pool.choose(&tried);
                prop_assert_eq!(chosen.is_some(), untried, "{:?}", balance);
                prop_assert!(chosen.is_none_or(|seat| pool.members.seats().contains(&seat) && !tried.contains(&seat)));
            }
        }
    }

    #[test]
    fn nobody_starves(weights in prop::collection::vec(1..=8_u32, 1..8)) {
        for balance in all_policies() {
            let shares = Pool::new(&balance, &weights).shares(3_000, &[]);
            prop_assert!(shares.iter().all(|&share| share > 0), "{:?}: {:?}", balance, shares);
        }
    }

    /// After any failures, slow answers and requests that took long to end. As many are in flight as the weights add up to:
    /// by its definition `least_connections` gives all of fewer to the heaviest.
    #[test]
    fn nobody_who_is_ready_starves_whatever_has_been(
        weights in prop::collection::vec(1..=8_u32, 1..6),
        past in prop::collection::vec((0..6_u32, prop::option::of(1..20_000_u64), any::<bool>()), 0..60),
    ) {
        for balance in all_policies() {
            let mut pool = Pool::new(&balance, &weights);
            let at = |millis: u64| Moment::after(Duration::from_millis(millis));
            let seats = pool.members.seats().to_vec();
            let (mut held, in_flight) = (Vec::new(), weights.iter().sum::<u32>() as usize);
            for (step, &(seat, answer, holds)) in (0..).zip(&past) {
                let (seat, now) = (seats[seat as usize % seats.len()], at(step * 10));
                let estimates = pool.loads.estimates().unwrap();
                match answer {
                    Some(millis) => estimates.answered(seat, Duration::from_millis(millis), now),
                    None => estimates.failed(seat, None, now),
                }
                held.extend(holds.then(|| pool.loads.lease(seat)));
                pool.choose(&[]);
            }
            held.clear();
            let (mut shares, mut under_way) = (vec![0; seats.len()], VecDeque::new());
            // 10 s * ln(20 s / 10 ms) is 76 s: by then the slowest estimate has come down to the others'.
            for step in 0..9_000_u64 {
                pool.random = another(pool.random);
                let ask = Ask { hash: another(!pool.random), random: pool.random, now: at(1_000 + step * 10) };
                let seat = pool.policy.choose(Ready::new(&pool.members, &pool.loads, &[]).unwrap(), &ask);
                shares[seat.0 as usize] += 1;
                under_way.push_back((seat, pool.loads.lease(seat)));
                if under_way.len() > in_flight && let Some((ended, _lease)) = under_way.pop_front() {
                    pool.loads.estimates().unwrap().answered(ended, Duration::from_millis(20), ask.now);
                }
            }
            prop_assert!(shares.iter().all(|&share| share > 0), "{:?}: {:?} for {:?}", balance, shares, weights);
        }
    }

    #[test]
    fn least_connections_stay_level(weights in prop::collection::vec(1..=8_u32, 1..8), requests in 1..200_usize) {
        let mut pool = Pool::new(&Balance::LeastConnections, &weights);
        let lease = |_| {
            let seat = pool.choose(&[]).unwrap();
            pool.loads.lease(seat)
        };
        let _leases: Vec<_> = (0..requests).map(lease).collect();
        // Nobody could hand a request to another and both be better off, save for the first one each.
        for (seat, &weight) in (0..).map(Seat).zip(&weights) {
            for (other, &other_weight) in (0..).map(Seat).zip(&weights) {
                let now = u64::from(pool.loads.in_flight(seat));
                let there = u64::from(pool.loads.in_flight(other)) + 1;
                prop_assert!(now <= 1 || now * u64::from(other_weight) <= there * u64::from(weight));
            }
        }
    }

    #[test]
    fn only_the_keys_of_a_leaving_member_move(
        weights in prop::collection::vec(prop_oneof![1..9_u32, 1..=u32::MAX], 2..10), leaving: prop::sample::Index,
    ) {
        let named: Vec<_> = weights.iter().enumerate().map(|(n, &weight)| (format!("backend-{n}"), weight)).collect();
        let leaving = leaving.index(named.len());
        let before = race::table(named.clone(), 10);
        let mut left = named;
        left.remove(leaving);
        let after = race::table(left, 10);
        for (&before, &after) in before.iter().zip(&after) {
            let after = after as usize + usize::from(after as usize >= leaving);
            prop_assert!(before as usize == leaving || before as usize == after);
        }
    }
}
