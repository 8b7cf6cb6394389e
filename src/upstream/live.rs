//! What do live requests tell of a backend? Passes outcomes to the owner of its state, and decides what needs a look at
//! all backends: whether one of them can be spared, and who gets the one request that tries a backend on trial.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::choice::{Care, Choice};
use super::{Member, OnChange, Pick, Upstream};
use crate::backend::{Seat, State};
use crate::balance::Ask;
use crate::health::Trial;
use crate::health::obey::{self, Advice};

/// Of so many requests that would go to a backend whose quota is nearly used up, one does.
const PASSED_OVER: u64 = 4;

impl Pick {
    /// The head of its response is there.
    ///
    /// A status of 500 or more counts against the backend, but for 501 and 505: those say that this request cannot be
    /// served, so any client could have a backend ejected by asking for what it does not do. A 429, and a 503 that says
    /// for how long, count neither way: there the backend is well, and has said what it wants.
    ///
    /// Says whether the backend is to be left alone from now on.
    pub fn answered(&mut self, status: StatusCode, fields: &HeaderMap, now: Instant) -> bool {
        self.was_received(now);
        let waits = self.obey(status, fields, now);
        // Its outcome is known, however long the rest of it takes.
        self.trial = None;
        match status {
            StatusCode::TOO_MANY_REQUESTS => {}
            StatusCode::SERVICE_UNAVAILABLE if waits => {}
            StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => self.succeeded(now),
            status if status.is_server_error() => self.failed(now),
            _ => self.succeeded(now),
        }
        waits
    }

    /// Leaves the backend alone if it asks for that; says whether it does.
    fn obey(&self, status: StatusCode, fields: &HeaderMap, now: Instant) -> bool {
        let advice = obey::read(status, fields, &self.upstream.config.obey, SystemTime::now);
        if advice == Advice::default() {
            return false;
        }
        let value = fields.get(advice.field).map_or(&b""[..], |value| value.as_bytes());
        let before = self.backend().state();
        let waits = self.member().keeper.advised(now, &advice, value);
        if waits && before != self.backend().state() {
            self.upstream.choose_again();
        }
        waits
    }

    /// It failed, or broke off, through the fault of the backend or of the network on the way to it.
    pub fn failed(&mut self, now: Instant) {
        let (row, settings) = (self.row.take(), &self.upstream.config.live_health);
        // An answer that counted as a failure may break off too.
        if settings.is_off() || std::mem::replace(&mut self.has_failed, true) {
            return;
        }
        if let Some(why) = self.member().keeper.failed(now, row, settings) {
            self.upstream.eject_if_spared(self.member, why, now);
        }
    }

    fn succeeded(&mut self, now: Instant) {
        let settings = &self.upstream.config.live_health;
        if !settings.is_off() {
            self.row = Some(self.member().keeper.succeeded(now, settings));
        }
    }
}

impl Upstream {
    /// Ejects a member, unless its upstream needs it.
    fn eject_if_spared(&self, member: usize, why: &str, now: Instant) {
        let Some(keeper) = self.members.get(member).map(|member| &member.keeper) else { return };
        // One at a time, or two that are the last would each count on the other.
        let _turn = self.ejecting.lock();
        match self.may_eject(member) {
            true => {
                keeper.eject(now, why, &self.config.live_health);
                self.choose_again();
            }
            false => keeper.spare(now, why),
        }
    }

    /// Whether one more may be ejected: never the last that is ready, always one, and no more than `max_ejected`.
    fn may_eject(&self, member: usize) -> bool {
        let weighty = || self.members.iter().enumerate().filter(|(_, member)| member.weight > 0);
        let others = || weighty().filter(|(place, _)| *place != member).map(|(_, member)| &member.backend);
        let ejected = others().filter(|other| other.state() == State::Ejected && !other.is_on_trial()).count();
        let most = ((weighty().count() as f64 * self.config.live_health.max_ejected) as usize).max(1);
        ejected < most && others().any(|other| other.state() == State::Healthy)
    }

    /// Lets the policy choose. Only one request at a time goes to a backend on trial, and one in [`PASSED_OVER`] of its
    /// share to one whose quota is nearly used up, unless nobody else is left.
    pub(super) fn choose(&self, choice: &Choice, ask: &Ask, tried: &[Seat]) -> Option<(Seat, Option<Trial>)> {
        let seat = choice.choose(&self.loads, ask, tried)?;
        let Care { on_trial, low } = choice.care();
        if !on_trial.contains(&seat) && !low.contains(&seat) {
            return Some((seat, None));
        }
        Some(self.choose_with_care(choice, ask, tried, seat))
    }

    #[cold]
    fn choose_with_care(&self, choice: &Choice, ask: &Ask, tried: &[Seat], first: Seat) -> (Seat, Option<Trial>) {
        let (mut seat, mut passed, mut rather, care) = (first, tried.to_vec(), first, choice.care());
        let passes_low = !ask.random.rotate_right(32).is_multiple_of(PASSED_OVER);
        loop {
            let member = self.place(seat).and_then(|place| self.members.get(place));
            let on_trial = care.on_trial.contains(&seat) && member.is_some_and(|it| it.backend.is_on_trial());
            let low = passes_low && care.low.contains(&seat) && member.is_some_and(|it| it.keeper.is_low());
            if !on_trial && !low {
                return (seat, None);
            }
            if let Some(trial) = member.filter(|_| on_trial).and_then(|member| member.keeper.claim_trial()) {
                return (seat, Some(trial));
            }
            // One that has little left is a better last choice than one that may fail.
            rather = if on_trial { rather } else { seat };
            passed.push(seat);
            let next = choice.choose(&self.loads, ask, &passed).or_else(|| choice.instead(&self.loads, ask, &passed));
            let Some(next) = next else { return (rather, None) };
            seat = next;
        }
    }

    /// Who is given requests only with care now.
    pub(super) fn care(&self) -> Care {
        let seats = |chosen: &dyn Fn(&&Member) -> bool| -> Vec<Seat> {
            self.members.iter().filter(chosen).map(|member| member.backend.seat).collect()
        };
        Care { on_trial: seats(&|member| member.backend.is_on_trial()), low: seats(&|member| member.keeper.is_low()) }
    }

    /// Ends the states whose time is over.
    fn pass_time(&self, now: Instant) {
        for member in &self.members {
            member.keeper.tick(now);
        }
    }

    /// How long until the first of those that asked to be left alone may be asked again, which its quota must allow too;
    /// `None` if there are none.
    pub fn back_in(&self) -> Option<Duration> {
        let weighty = self.members.iter().filter(|member| member.weight > 0);
        weighty.filter(|member| member.backend.state() == State::Throttled).map(Member::opens_in).min()
    }

    /// When the next state ends by itself.
    fn next_end(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.keeper.deadline()).min()
    }
}

/// Chooses again whenever a state has changed or ends by itself: once for many changes that come at once.
///
/// It also does so after `look_again`, while somebody's share grows.
pub(super) async fn keep_choosing(
    upstream: Weak<Upstream>,
    mut look_again: Option<Duration>,
    changes: Arc<Notify>,
    on_change: OnChange,
) {
    let mut told = Vec::new();
    loop {
        let Some(end) = upstream.upgrade().map(|upstream| upstream.next_end()) else { return };
        let look = look_again.map(|within| Instant::now() + within);
        let end = end.into_iter().chain(look).min();
        tokio::select! {
            () = changes.notified() => {}
            () = until(end) => {}
        }
        let Some(upstream) = upstream.upgrade() else { return };
        upstream.pass_time(Instant::now());
        look_again = upstream.choose_again();
        let states = upstream.members.iter().map(|member| (member.backend.state(), member.backend.is_on_trial()));
        let states: Vec<_> = states.collect();
        if told != states {
            told = states;
            on_change();
        }
    }
}

/// At this moment, or never.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
