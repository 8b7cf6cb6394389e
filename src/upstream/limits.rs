//! Has it as much as it may have? Claims a place on a backend that has limits, and passes over one that has none left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::learner::Learner;
use super::lesson::Lesson;
use super::pick::{Held, Missed, Pick};
use super::queue::Hold;
use super::quota::{Tallies, Tally};
use super::{Member, Upstream, tiers};
use crate::backend::{Seat, State};
use crate::balance::Ask;
use crate::config;
use crate::health::{Toll, Trial};

/// How much a member may have.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// The most requests in flight.
    most: Option<u32>,
    /// What it has had, if it has a quota.
    tally: Option<Arc<Tally>>,
    /// What it has been learnt to bear, if that is asked for.
    learner: Option<Arc<Learner>>,
}

impl Limits {
    pub(super) fn of(entry: &config::Backend, tallies: &Tallies) -> Self {
        Self { most: entry.limits.max_connections, tally: tallies.find(entry), learner: None }
    }

    /// The same with a limit that is learnt, where the upstream has them; what the old one knew of the backend on this
    /// seat is kept.
    pub(super) fn learning(self, config: &config::Upstream, old: Option<&Upstream>, seat: Seat) -> Self {
        let Some(bounds) = config.concurrency else { return self };
        let member = old.and_then(|old| old.members.get(old.place(seat)?));
        let known = member.and_then(|member| member.limits.learner.clone());
        Self { learner: Some(known.unwrap_or_else(|| Learner::new(bounds))), ..self }
    }

    /// What its probes are paid with.
    pub(super) fn toll(&self) -> Option<Box<dyn Toll>> {
        let tally = self.tally.clone()?;
        Some(Box::new(tally))
    }
}

/// Whether any backend has a limit, so that requests may have to wait.
pub(super) fn are_there(config: &config::Upstream) -> bool {
    config.concurrency.is_some() || config.backends.iter().any(|backend| backend.limits != config::Limits::default())
}

impl Member {
    /// The most requests that it may have in flight now.
    pub fn most(&self) -> Option<u32> {
        let learnt = self.limits.learner.as_ref().map(|learner| learner.limit());
        learnt.into_iter().chain(self.limits.most).min()
    }

    /// What is left of its quota: of the one with the smallest share left.
    pub fn left(&self) -> Option<(u32, config::Quota)> {
        self.limits.tally.as_ref()?.left()
    }

    /// How long until it may be asked at the soonest, by its quota and by its own wish.
    pub(super) fn opens_in(&self) -> Duration {
        let quota = self.limits.tally.as_ref().map_or(Duration::ZERO, |tally| tally.opens_in());
        let backend = Some(&self.backend).filter(|backend| backend.state() == State::Throttled);
        quota.max(backend.and_then(|backend| backend.state_left()).unwrap_or_default())
    }
}

impl Pick {
    /// Learns what the backend bears, if that is asked for.
    pub(super) fn learn_limit(&self, lesson: Lesson, now: Instant) {
        let Some(learner) = &self.member().limits.learner else { return };
        let in_flight = self.upstream.in_flight(self.backend());
        let grew = match lesson {
            Lesson::Answered(latency) => learner.answered(latency, in_flight, now),
            Lesson::Failed { .. } => learner.failed(in_flight, now),
            Lesson::Waited(_) => false,
        };
        if grew {
            self.upstream.queue.look();
        }
    }
}

impl Upstream {
    /// The limits are those of the configuration from now on, also for what an old one has in flight.
    pub(super) fn settle_limits(&self) {
        self.tallies.settle(&self.config);
        let learners = self.members.iter().filter_map(|member| member.limits.learner.as_ref());
        if let Some(bounds) = self.config.concurrency {
            learners.for_each(|learner| learner.set(bounds));
        }
    }

    /// Chooses a backend that has a place left, whoever waits. Nobody gets beyond a limit: of two threads that want the
    /// last place, one finds it gone and looks further.
    pub(super) fn claim(self: &Arc<Self>, ask: &Ask, tried: &[Seat]) -> Result<Pick, Missed> {
        let choice = self.choice.load();
        // With those that have enough; made only when one of them was chosen.
        let mut passed: Option<Vec<Seat>> = None;
        loop {
            let out = passed.as_deref().unwrap_or(tried);
            let chosen = choice.as_ref().and_then(|choice| self.choose(choice, ask, out));
            let beyond = || self.other_tier(out).or_else(|| self.reserve(tried, out));
            let other = || if passed.is_some() { beyond() } else { self.last_resort(out) };
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
        let member = self.members.get(place)?;
        let lease = match member.most() {
            Some(most) => self.loads.try_lease(seat, most)?,
            None => self.loads.lease(seat),
        };
        let ration = match &member.limits.tally {
            Some(tally) => Some(tally.take()?),
            None => None,
        };
        let held = Held { lease, ration, hold: Some(Hold::new(&self.queue)) };
        Some(self.pick_of(place, held, trial))
    }

    /// Whether somebody who was not tried would serve, so that whoever has [`Missed`] all because they are full can wait.
    pub fn is_worth_a_wait(&self, tried: &[Seat]) -> bool {
        self.is_limited && self.untried(tried).any(|member| tiers::rank(member.backend.state()).is_some())
    }

    pub(super) fn is_full(&self, member: &Member) -> bool {
        let is_used_up = || member.limits.tally.as_ref().is_some_and(|tally| tally.is_used_up());
        self.has_enough(member) || is_used_up()
    }

    /// Whether it has as much in flight as it may have.
    pub(super) fn has_enough(&self, member: &Member) -> bool {
        member.most().is_some_and(|most| self.loads.in_flight(member.backend.seat) >= most)
    }

    /// How long it takes at the least until one of those who were not tried may be asked: until something is left of its
    /// quota, and the time for which it wants to be left alone is over; nothing if anything else might happen before.
    pub(super) fn opens_in(&self, tried: &[Seat]) -> Duration {
        let serving = self.serving_opens_in(tried);
        let uses_reserve = self.uses_reserve(serving);
        let returns = |member: &Member| match member.backend.state() {
            State::Throttled => true,
            State::Pending | State::Ejected => uses_reserve,
            State::Healthy | State::Unreachable | State::Draining => false,
        };
        serving.into_iter().chain(self.first_to_open(tried, returns)).min().unwrap_or_default()
    }

    /// The same of those who serve; `None` if all of them were tried.
    fn serving_opens_in(&self, tried: &[Seat]) -> Option<Duration> {
        let choice = self.choice.load();
        self.first_to_open(tried, |member| {
            let chosen = choice.as_ref().is_some_and(|choice| choice.contains(member.backend.seat));
            match member.backend.state() {
                State::Healthy => true,
                State::Throttled | State::Draining => false,
                State::Pending | State::Ejected | State::Unreachable => chosen,
            }
        })
    }

    fn first_to_open(&self, tried: &[Seat], counts: impl Fn(&Member) -> bool) -> Option<Duration> {
        self.untried(tried).filter(|member| counts(member)).map(Member::opens_in).min()
    }

    /// Whether those who serve are of no use to whoever waits, so that the others are asked before a request is refused.
    /// While a wait helps it is better than a backend that fails.
    fn uses_reserve(&self, serving_opens_in: Option<Duration>) -> bool {
        let patience = self.config.queue.as_ref().map(|queue| queue.timeout);
        serving_opens_in.zip(patience).is_none_or(|(opens_in, patience)| opens_in > patience)
    }

    /// Whoever is PENDING or EJECTED, when those who serve have enough for too long.
    fn reserve(&self, tried: &[Seat], out: &[Seat]) -> Option<Seat> {
        self.uses_reserve(self.serving_opens_in(tried)).then(|| self.last_resort(out)).flatten()
    }

    /// When those who serve have enough, the next tier takes the rest, whoever is HEALTHY there; the least loaded.
    fn other_tier(&self, out: &[Seat]) -> Option<Seat> {
        let fit = |member: &&Member| tiers::rank(member.backend.state()) == Some(0);
        let load = |member: &Member| {
            let scaled = u64::from(self.loads.in_flight(member.backend.seat) + 1) * 1000;
            scaled / u64::from(member.weight)
        };
        let best = self.untried(out).filter(fit).min_by_key(|member| (member.tier, load(member)));
        best.map(|member| member.backend.seat)
    }
}
