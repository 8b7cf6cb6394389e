//! Who serves, and how is each? An upstream in virtual time.
//!
//! What decides is the program's own: the state machine with its probes, the breaker's window, tiers, slow start, and the
//! choice with its policies. Written again here, after `upstream/live.rs`, is only what is tied to tasks and locks there:
//! who takes notice of what, whether one more can be spared, and the one request that tries a backend on trial.

use std::time::{Duration, Instant};

use portcullis::backend::{Lease, Loads, Seat, State};
use portcullis::balance::{Ask, Members, build};
use portcullis::config::{self, HealthCheck, Schedule};
use portcullis::health::{Age, Ladder, Machine, Window};
use portcullis::limit::Log;
use portcullis::upstream::choice::{Care, Choice, Serving};
use portcullis::upstream::eligible::Candidate;
use portcullis::upstream::slow_start::SlowStart;
use portcullis::upstream::tiers::{Rule, Tier, tiers};

pub(crate) struct Pool {
    pub(crate) config: config::Upstream,
    pub(crate) loads: Loads,
    schedule: Schedule,
    began: Instant,
    members: Vec<Member>,
    slow_start: Option<SlowStart>,
    choice: Option<Choice>,
    rebuilt: u64,
    /// A state has changed since that was worked out.
    changed: bool,
    /// When something ends by itself, or shares grow.
    pub(crate) wake: Option<Age>,
}

struct Member {
    machine: Machine,
    window: Window,
    tier: u32,
    /// What was sent to it, if it has a quota.
    log: Option<Log>,
    shown: (State, bool),
}

/// A backend chosen for one attempt.
pub(crate) struct Pick {
    pub(crate) seat: Seat,
    pub(crate) lease: Lease,
    trial: bool,
}

impl Pool {
    pub(crate) fn new(config: config::Upstream, began: Instant) -> Self {
        let HealthCheck::Tcp(schedule) = config.health_check.clone() else { panic!("probes are connections here") };
        let member = |backend: &config::Backend| {
            let mut machine = Machine::new();
            machine.set_ladder(Ladder::new(schedule.fall, schedule.rise));
            let quota = &backend.limits.quota;
            let log = (!quota.is_empty()).then(|| Log::new(quota.clone()));
            Member { machine, window: Window::default(), tier: backend.tier, log, shown: (State::Pending, false) }
        };
        let window = config.slow_start;
        Self {
            loads: Loads::with_seats(config.backends.len()).with_estimates(),
            members: config.backends.iter().map(member).collect(),
            slow_start: (!window.is_zero()).then(|| SlowStart::new(window, None, &[])),
            choice: None,
            rebuilt: 0,
            changed: false,
            wake: None,
            schedule,
            began,
            config,
        }
    }

    /// Chooses a backend that is not among `tried` and has a request of its quota left, as `Upstream::pick` does.
    pub(crate) fn pick(&mut self, ask: &Ask, tried: &[Seat], now: Age) -> Option<Pick> {
        let mut passed = tried.to_vec();
        loop {
            let (seat, trial) = match self.chosen(ask, &passed) {
                Some(chosen) => chosen,
                None => (self.last_resort(&passed)?, false),
            };
            let pick = Pick { seat, lease: self.loads.lease(seat), trial };
            let log = self.members[seat.0 as usize].log.as_mut();
            if log.is_none_or(|log| log.claim(now).then(|| log.sent()).is_some()) {
                return Some(pick);
            }
            if trial {
                self.change(seat, |machine| machine.release_trial(now));
            }
            passed.push(seat);
        }
    }

    fn chosen(&mut self, ask: &Ask, tried: &[Seat]) -> Option<(Seat, bool)> {
        let choice = self.choice.as_ref()?;
        let first = choice.choose(&self.loads, ask, tried)?;
        let on_trial = &choice.care().on_trial;
        if !on_trial.contains(&first) {
            return Some((first, false));
        }
        let (mut seat, mut passed) = (first, tried.to_vec());
        loop {
            let machine = &mut self.members[seat.0 as usize].machine;
            if !on_trial.contains(&seat) || !machine.is_on_trial() {
                return Some((seat, false));
            }
            if machine.claim_trial() {
                return Some((seat, true));
            }
            passed.push(seat);
            let next = choice.choose(&self.loads, ask, &passed).or_else(|| choice.instead(&self.loads, ask, &passed));
            let Some(next) = next else { return Some((first, false)) };
            seat = next;
        }
    }

    fn last_resort(&self, tried: &[Seat]) -> Option<Seat> {
        let rank = |member: &Member| match member.machine.state() {
            State::Healthy => Some(0),
            State::Pending => Some(1),
            State::Ejected => Some(2),
            State::Unreachable | State::Throttled | State::Draining => None,
        };
        let untried = self.members.iter().zip((0..).map(Seat)).filter(|(_, seat)| !tried.contains(seat));
        let ranked = untried.filter_map(|(member, seat)| Some(((rank(member)?, member.tier), seat)));
        ranked.min_by_key(|(rank, _)| *rank).filter(|_| !tried.is_empty()).map(|(_, seat)| seat)
    }

    /// The attempt is over, whatever became of it.
    pub(crate) fn give_back(&mut self, pick: Pick, now: Age) {
        drop(pick.lease);
        if let Some(log) = &mut self.members[pick.seat.0 as usize].log {
            log.end(now);
        }
        if pick.trial {
            self.change(pick.seat, |machine| machine.release_trial(now));
        }
    }

    pub(crate) fn succeeded(&mut self, seat: Seat, now: Age) {
        let (member, settings) = (&mut self.members[seat.0 as usize], &self.config.live_health);
        if let Some(breaker) = &settings.breaker {
            member.window.add(1, 0, now, breaker.window);
        }
        if !settings.is_off() && member.machine.awaits_success() {
            self.change(seat, |machine| _ = machine.succeeded(now));
        }
    }

    /// A live request failed through its fault; says whether the next probe is due sooner.
    pub(crate) fn failed(&mut self, seat: Seat, now: Age) -> bool {
        let settings = self.config.live_health.clone();
        if settings.is_off() {
            return false;
        }
        let member = &mut self.members[seat.0 as usize];
        let tripped = settings.breaker.as_ref().is_some_and(|breaker| {
            member.window.add(1, 1, now, breaker.window);
            let (requests, failures) = member.window.counts(now, breaker.window);
            requests >= u64::from(breaker.of_at_least) && failures as f64 >= breaker.trip_at * requests as f64
        });
        let consequence = member.machine.failed(0, tripped, &settings);
        if consequence.eject.is_some() {
            self.members[seat.0 as usize].window.clear();
            match self.may_eject(seat) {
                true => self.change(seat, |machine| machine.eject(now, &settings)),
                false => self.change(seat, Machine::spare),
            }
        }
        consequence.doubt
    }

    /// Never the last that is ready, always one, and no more than `max_ejected`.
    fn may_eject(&self, seat: Seat) -> bool {
        let others = || self.members.iter().zip((0..).map(Seat)).filter(|(_, other)| *other != seat);
        let is = |state| move |(member, _): &(&Member, Seat)| member.machine.state() == state;
        let ejected = others().filter(is(State::Ejected)).filter(|(member, _)| !member.machine.is_on_trial()).count();
        let most = ((self.members.len() as f64 * self.config.live_health.max_ejected) as usize).max(1);
        ejected < most && others().any(|other| is(State::Healthy)(&other))
    }

    /// It asked to be left alone for so long.
    pub(crate) fn throttled(&mut self, seat: Seat, wait: Duration, now: Age) {
        let wait = wait.min(self.config.obey.max);
        self.change(seat, |machine| machine.throttle(now + wait));
    }

    /// The outcome of a probe.
    pub(crate) fn probed(&mut self, seat: Seat, success: bool, now: Age) {
        self.change(seat, |machine| machine.probed(success, now));
    }

    /// How long until its next probe.
    pub(crate) fn pause(&self, seat: Seat, random: u64) -> Duration {
        self.members[seat.0 as usize].machine.ladder().pause(&self.schedule, random)
    }

    /// How long until a probe of somebody in doubt.
    pub(crate) fn fast_pause(&self) -> Duration {
        self.schedule.fast_interval
    }

    /// Ends the states whose time is over.
    pub(crate) fn pass_time(&mut self, now: Age) {
        for member in &mut self.members {
            member.machine.tick(now);
            member.shown = (member.machine.state(), member.machine.is_on_trial());
        }
        self.changed = true;
    }

    /// Chooses again if a state has changed: once for many changes that come at once.
    pub(crate) fn settle(&mut self, now: Age) {
        if std::mem::take(&mut self.changed) {
            self.choose_again(now);
        }
    }

    fn change(&mut self, seat: Seat, happen: impl FnOnce(&mut Machine)) {
        let member = &mut self.members[seat.0 as usize];
        let before = member.machine.deadline();
        happen(&mut member.machine);
        let shown = (member.machine.state(), member.machine.is_on_trial());
        if shown != member.shown {
            member.shown = shown;
            self.changed = true;
        } else if before != member.machine.deadline() {
            self.wake = self.next_end();
        }
    }

    fn next_end(&self) -> Option<Age> {
        self.members.iter().filter_map(|member| member.machine.deadline()).min()
    }

    /// Works out anew who may be chosen, as `Upstream::choose_again` does.
    fn choose_again(&mut self, now: Age) {
        let clock = self.began + now;
        if let Some(slow_start) = &mut self.slow_start {
            for (member, seat) in self.members.iter().zip((0..).map(Seat)) {
                slow_start.note(seat, member.machine.state(), clock);
            }
        }
        let look = self.slow_start.as_ref().and_then(SlowStart::next_look).map(|within| now + within);
        self.wake = self.next_end().into_iter().chain(look).min();
        let on_trial: Vec<_> = self.seats(|member| member.machine.is_on_trial());
        let with_members = |tier: Tier| self.with_members(tier, clock);
        let serving: Vec<_> = self.tiers(State::Healthy).into_iter().filter_map(with_members).collect();
        let instead = if on_trial.is_empty() { Vec::new() } else { self.tiers(State::Ejected) };
        let instead: Vec<_> = instead.into_iter().filter_map(with_members).collect();
        let care = Care { on_trial, low: Vec::new() };
        if care.on_trial.is_empty() && self.choice.as_ref().is_some_and(|old| old.is(&serving, &care)) {
            return;
        }
        self.rebuilt += 1;
        let built = |(tier, members): (Tier, Members)| {
            let policy = build(&self.config.balance, &members, |Seat(seat)| format!("backend-{seat}"), self.rebuilt);
            Serving { number: tier.number, share: tier.share, members, policy }
        };
        self.choice = Choice::new(serving.into_iter().map(built), instead.into_iter().map(built), care);
    }

    fn seats(&self, chosen: impl Fn(&Member) -> bool) -> Vec<Seat> {
        self.members.iter().zip((0..).map(Seat)).filter(|(member, _)| chosen(member)).map(|(_, seat)| seat).collect()
    }

    fn tiers(&self, on_trial: State) -> Vec<Tier> {
        let candidate = |member: &Member| {
            let state = if member.machine.is_on_trial() { on_trial } else { member.machine.state() };
            (member.tier, Candidate { state, weight: 1 })
        };
        let candidates: Vec<_> = self.members.iter().map(candidate).collect();
        tiers(&candidates, Rule { overflow: self.config.overflow, panic_threshold: self.config.panic_threshold })
    }

    fn with_members(&self, tier: Tier, clock: Instant) -> Option<(Tier, Members)> {
        let mut members: Vec<_> = tier.places.iter().map(|&place| (Seat(place as u32), 1)).collect();
        if let Some(slow_start) = self.slow_start.as_ref().filter(|_| !tier.in_panic) {
            let weights = slow_start.weights(&members, clock);
            members.iter_mut().zip(weights).for_each(|((_, weight), grown)| *weight = grown);
        }
        Some((tier, Members::new(members)?))
    }
}
