//! What does one choice cost, and one rebuild? Each policy with 3, 100 and 10,000 members, idle and busy.
//!
//! Run with `cargo bench --bench pick`. No framework: a loop and a clock are enough for "under 1 us with 100 members,
//! under 10 us with 10,000".

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may stop at once")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis::backend::{Lease, Loads, Moment, Seat};
use portcullis::balance::{Ask, Members, Policy, Ready, build};
use portcullis::config::{Balance, HashKey};

const LONG_ENOUGH: Duration = Duration::from_millis(200);

fn main() {
    let consistent_hash = Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 };
    println!(
        "{:18} {:>8} {:>12} {:>12} {:>12} {:>12}",
        "policy", "members", "idle ns", "busy ns", "tried ns", "build us"
    );
    for (name, balance) in [
        ("round_robin", Balance::RoundRobin),
        ("least_connections", Balance::LeastConnections),
        ("random", Balance::Random),
        ("two_choices", Balance::TwoChoices),
        ("peak_ewma", Balance::PeakEwma),
        ("consistent_hash", consistent_hash),
    ] {
        for count in [3, 100, 10_000] {
            for (kind, weight) in [("", (|_| 1) as fn(u32) -> u32), (" weights", |seat| 1 + seat * 7 % 100)] {
                measure(&format!("{name}{kind}"), &balance, count, weight);
            }
        }
    }
}

fn measure(name: &str, balance: &Balance, count: u32, weight: fn(u32) -> u32) {
    let members = Members::new((0..count).map(|seat| (Seat(seat), weight(seat)))).unwrap();
    let start = Instant::now();
    let policy = build(balance, &members, |seat| format!("10.0.{}.{}:8000", seat.0 / 250, seat.0 % 250), 0);
    let built = start.elapsed();

    let loads = Loads::with_seats(count as usize).with_estimates();
    let idle = per_pick(&*policy, &members, &loads, &[]);
    let _leases = busy(&loads, count);
    let busy = per_pick(&*policy, &members, &loads, &[]);
    let tried = per_pick(&*policy, &members, &loads, &[Seat(0), Seat(count / 2)]);
    println!("{name:18} {count:>8} {idle:>12.1} {busy:>12.1} {tried:>12.1} {:>12.1}", built.as_secs_f64() * 1e6);
}

/// Between one and seven requests in flight on each.
fn busy(loads: &Loads, count: u32) -> Vec<Lease> {
    let leases = (0..count).flat_map(|seat| (0..1 + seat.wrapping_mul(2_654_435_761) % 7).map(move |_| seat));
    leases.map(|seat| loads.lease(Seat(seat))).collect()
}

fn per_pick(policy: &dyn Policy, members: &Members, loads: &Loads, tried: &[Seat]) -> f64 {
    let (start, mut picks) = (Instant::now(), 0_u64);
    while start.elapsed() < LONG_ENOUGH {
        for _ in 0..100 {
            picks += 1;
            let random = picks.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let ask = Ask { hash: random.rotate_left(29), random, now: Moment::default() };
            let ready = Ready::new(members, loads, tried).unwrap();
            black_box(policy.choose(black_box(ready), &ask));
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / picks as f64
}
