//! Whose key is it? A table from the hash of a key to a member, by weighted rendezvous.
//!
//! Each member runs for every slot of the table, and the first to arrive owns it. When a member arrives where depends
//! on its name and weight alone: if one leaves, only its slots change hands, and nobody else's. Names are hashed, not
//! positions, so every process with the same members has the same table.
//!
//! Racing for each slot by each member would cost slots times members. Instead a member visits slots one by one in an
//! order drawn from its name, `weight` visits per unit of time, and the race ends when every slot has been visited:
//! about `slots * ln(slots)` visits however many the members.
//!
//! A hash ring was rejected: to be bounded its points must be scaled to the sum of the weights, and then a leaving
//! member moves everyone's points.

use xxhash_rust::xxh3::xxh3_64;

use super::draw::another;

/// A member on its way from slot to slot.
struct Runner {
    random: u64,
    weight: f64,
    visits: u64,
}

/// The best so far in a slot.
#[derive(Clone, Copy)]
struct Arrival {
    time: f64,
    position: u32,
}

/// The owner of each of `2^bits` slots.
pub(super) fn table<N: AsRef<str>>(members: impl IntoIterator<Item = (N, u32)>, bits: u32) -> Box<[u32]> {
    let mut runners: Vec<_> = members.into_iter().map(|(name, weight)| Runner::new(name.as_ref(), weight)).collect();
    let mut slots = vec![Arrival { time: f64::INFINITY, position: 0 }; 1 << bits];
    let round = slots.len() as f64 / runners.iter().map(|runner| runner.weight).sum::<f64>();
    let mut until = 0.0;
    // After this long one slot in `slots.len()` is still without a visit, so it usually takes a few rounds more.
    let mut rounds = (slots.len() as f64).ln().ceil();
    while !runners.is_empty() && slots.iter().any(|slot| slot.time > until) {
        until += round * rounds;
        rounds = 1.0;
        for (position, runner) in (0..).zip(&mut runners) {
            runner.run(until, bits, |slot, time| {
                if let Some(best) = slots.get_mut(slot).filter(|best| time < best.time) {
                    *best = Arrival { time, position };
                }
            });
        }
    }
    slots.iter().map(|slot| slot.position).collect()
}

impl Runner {
    fn new(name: &str, weight: u32) -> Self {
        Self { random: xxh3_64(name.as_bytes()), weight: f64::from(weight), visits: 0 }
    }

    fn run(&mut self, until: f64, bits: u32, mut arrive: impl FnMut(usize, f64)) {
        while (self.visits as f64) < until * self.weight {
            self.random = another(self.random);
            // The top bits are the slot; the low half is when within its unit of time, so that equals do not tie.
            let slot = (self.random >> 32) as u32 >> (32 - bits);
            let moment = self.random as u32;
            let time = (self.visits as f64 + f64::from(moment) / (f64::from(u32::MAX) + 1.0)) / self.weight;
            self.visits += 1;
            arrive(slot as usize, time);
        }
    }
}
