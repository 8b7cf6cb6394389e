//! Which seat does a backend get, and what is counted there? For an upstream that is built anew beside an old one.

use std::time::Instant;

use super::Upstream;
use crate::backend::{Loads, Moment, Seat};
use crate::config;

/// The counts, and the estimates where the policy looks at them; who is new has none that another has left behind.
pub(super) fn loads(config: &config::Upstream, old: Option<&Upstream>, seats: usize, newcomers: &[Seat]) -> Loads {
    let loads = old.map_or_else(|| Loads::with_seats(seats), |old| old.loads.grown(seats));
    let config::Balance::PeakEwma = config.balance else { return loads };
    let loads = loads.with_estimates();
    let now = Moment::of(Instant::now());
    newcomers.iter().filter_map(|&seat| Some((loads.estimates()?, seat))).for_each(|(all, seat)| all.forget(seat, now));
    loads
}

/// Hands out the seats that no backend holds, lowest first. A backend that is gone holds its seat until its last
/// request has ended, or its successor would begin with a load that is not its own.
pub(super) struct FreeSeats<'a> {
    taken: Vec<u32>,
    loads: Option<&'a Loads>,
    next: u32,
}

impl<'a> FreeSeats<'a> {
    pub(super) fn beside(taken: impl Iterator<Item = Seat>, loads: Option<&'a Loads>) -> Self {
        let mut taken: Vec<_> = taken.map(|seat| seat.0).collect();
        taken.sort_unstable();
        Self { taken, loads, next: 0 }
    }

    pub(super) fn take(&mut self) -> Seat {
        loop {
            let seat = Seat(self.next);
            self.next += 1;
            let in_use = self.loads.is_some_and(|loads| loads.in_flight(seat) > 0);
            if !in_use && self.taken.binary_search(&seat.0).is_err() {
                return seat;
            }
        }
    }
}
