//! Has it as much as it may have? Claims a place on a backend that has limits, and passes over one that has none left.

use std::sync::Arc;

use super::pick::{Missed, Pick};
use super::queue::Hold;
use super::{Member, Upstream, tiers};
use crate::backend::Seat;
use crate::balance::Ask;
use crate::config;
use crate::health::Trial;

/// How much a member may have.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// The most requests in flight.
    most: Option<u32>,
}

impl Limits {
    pub(super) fn of(entry: &config::Backend) -> Self {
        Self { most: entry.limits.max_connections }
    }
}

/// Whether any backend has a limit, so that requests may have to wait.
pub(super) fn are_there(config: &config::Upstream) -> bool {
    config.backends.iter().any(|backend| backend.limits != config::Limits::default())
}

impl Member {
    /// The most requests that it may have in flight now.
    pub fn most(&self) -> Option<u32> {
        self.limits.most
    }
}

impl Upstream {
    /// Chooses a backend that has a place left, whoever waits. Nobody gets beyond a limit: of two threads that want the
    /// last place, one finds it gone and looks further.
    pub(super) fn claim(self: &Arc<Self>, ask: &Ask, tried: &[Seat]) -> Result<Pick, Missed> {
        let choice = self.choice.load();
        // With those that have enough; made only when one of them was chosen.
        let mut passed: Option<Vec<Seat>> = None;
        loop {
            let out = passed.as_deref().unwrap_or(tried);
            let chosen = choice.as_ref().and_then(|choice| self.choose(choice, ask, out));
            let other = || if passed.is_some() { self.other_tier(out) } else { self.last_resort(out) };
            let Some((seat, trial)) = chosen.or_else(|| Some((other()?, None))) else {
                return Err(if passed.is_some() { Missed::Full } else { Missed::Nobody });
            };
            if let Some(pick) = self.claimed(seat, trial) {
                return Ok(pick);
            }
            let full = || self.members.iter().filter(|member| self.is_full(member)).map(|member| member.backend.seat);
            passed.get_or_insert_with(|| tried.iter().copied().chain(full()).collect()).push(seat);
        }
    }

    /// The pick of the member on a seat, if it has a place left.
    pub(super) fn claimed(self: &Arc<Self>, seat: Seat, trial: Option<Trial>) -> Option<Pick> {
        let place = self.place(seat)?;
        let lease = match self.members.get(place)?.most() {
            Some(most) => self.loads.try_lease(seat, most)?,
            None => self.loads.lease(seat),
        };
        Some(self.pick_of(place, lease, Some(Hold::new(&self.queue)), trial))
    }

    /// Whether somebody who was not tried would serve, so that whoever has [`Missed`] all because they are full can wait.
    pub fn is_worth_a_wait(&self, tried: &[Seat]) -> bool {
        let fit = |member: &Member| tiers::rank(member.backend.state()).is_some() && member.weight > 0;
        self.is_limited && self.members.iter().any(|member| fit(member) && !tried.contains(&member.backend.seat))
    }

    fn is_full(&self, member: &Member) -> bool {
        member.most().is_some_and(|most| self.loads.in_flight(member.backend.seat) >= most)
    }

    /// When those who serve have enough, the next tier takes the rest, whoever is HEALTHY there; the least loaded.
    fn other_tier(&self, out: &[Seat]) -> Option<Seat> {
        let fit = |member: &&Member| {
            let healthy = tiers::rank(member.backend.state()) == Some(0);
            healthy && member.weight > 0 && !out.contains(&member.backend.seat)
        };
        let load = |member: &Member| {
            let scaled = u64::from(self.loads.in_flight(member.backend.seat) + 1) * 1000;
            scaled / u64::from(member.weight)
        };
        let best = self.members.iter().filter(fit).min_by_key(|member| (member.tier, load(member)));
        best.map(|member| member.backend.seat)
    }
}
