//! Who serves this attempt? A backend with a lease, at once or after a wait.
//!
//! [`Upstream::pick_for`] is the way to a backend. Where backends have limits, one that has as much as it may have is
//! passed over, and who finds nobody else waits in the queue ([`Upstream::wait`]); where there are none, nothing of that costs anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::upstreams::peer::HttpPeer;

use super::peer::{Connect, Way};
use super::queue::Hold;
use super::quota::Ration;
use super::{Member, Upstream, tiers};
use crate::answer::Refusal;
use crate::backend::{Backend, Lease, Seat};
use crate::balance::Ask;
use crate::health::Trial;

/// A backend chosen for one attempt.
pub struct Pick {
    pub(super) upstream: Arc<Upstream>,
    pub(super) member: usize,
    held: Held,
    /// Given back with the pick too.
    pub(super) trial: Option<Trial>,
    /// How many requests had failed in a row before this one seemed to succeed.
    pub(super) row: Option<u32>,
    /// It has counted as a failure.
    pub(super) has_failed: bool,
}

/// What is given back with a pick, in this order.
pub(super) struct Held {
    /// One in-flight request.
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(super) lease: Lease,
    /// One of its quota, if it has one.
    pub(super) ration: Option<Ration>,
    /// Where there are limits: tells those who wait that there is a place again.
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(super) hold: Option<Hold>,
}

/// Who asks for a backend.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// What the policy may know.
    pub ask: Ask,
    /// Whom it has tried already.
    pub tried: &'a [Seat],
    /// With whom it has been before, as its cookie says.
    pub session: Option<Seat>,
    /// Who has more is served first.
    pub priority: i32,
    /// How long it can wait, whatever the queue allows.
    pub within: Duration,
}

/// Why there is no pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Nobody may serve.
    Nobody,
    /// Those who may serve have as much as they may have, or others wait for them already.
    Full,
}

impl Upstream {
    /// Picks a backend that is not among those tried, with the one of its session first. Whoever finds all of them
    /// [`Missed::Full`] may wait: see [`Self::wait`].
    pub fn pick_for(self: &Arc<Self>, want: &Want<'_>) -> Result<Pick, Missed> {
        let of_session = want.session.and_then(|seat| self.pick_again(seat, want.tried));
        of_session.map_or_else(|| self.pick(&want.ask, want.tried), Ok)
    }

    /// Chooses a backend that is not among `tried`, without a wait, and behind all who wait.
    ///
    /// Once all that may be chosen have been tried, any other that is HEALTHY, PENDING or EJECTED gets its turn: one of
    /// another tier, while the probes have not yet noticed that the others are gone.
    pub fn pick(self: &Arc<Self>, ask: &Ask, tried: &[Seat]) -> Result<Pick, Missed> {
        if self.is_limited {
            return if self.queue.is_empty() { self.claim(ask, tried) } else { Err(Missed::Full) };
        }
        let choice = self.choice.load();
        let chosen = choice.as_ref().and_then(|choice| self.choose(choice, ask, tried));
        let chosen = chosen.or_else(|| Some((self.last_resort(tried)?, None)));
        chosen.and_then(|(seat, trial)| self.taken(seat, trial)).ok_or(Missed::Nobody)
    }

    /// Why a request cannot be served when nobody may serve.
    pub fn refuse_for_nobody(&self) -> Refusal {
        self.back_in().map_or(Refusal::NoBackend, |wait| Refusal::Throttled { retry_after: whole_seconds(wait) })
    }

    /// The pick of the member on a seat, with a lease.
    pub(super) fn taken(self: &Arc<Self>, seat: Seat, trial: Option<Trial>) -> Option<Pick> {
        let (member, lease) = (self.place(seat)?, self.loads.lease(seat));
        Some(self.pick_of(member, Held { lease, ration: None, hold: None }, trial))
    }

    pub(super) fn pick_of(self: &Arc<Self>, member: usize, held: Held, trial: Option<Trial>) -> Pick {
        Pick { upstream: self.clone(), member, held, trial, row: None, has_failed: false }
    }

    pub(super) fn last_resort(&self, tried: &[Seat]) -> Option<Seat> {
        // Nothing has been tried: the states alone have said that nobody may serve.
        if tried.is_empty() {
            return None;
        }
        let untried = self.untried(tried);
        let ranked = untried.filter_map(|member| Some(((tiers::rank(member.backend.state())?, member.tier), member)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, member)| member.backend.seat)
    }

    /// The members that take requests and are not among `tried`.
    pub(super) fn untried<'a>(&'a self, tried: &'a [Seat]) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(|member| member.weight > 0 && !tried.contains(&member.backend.seat))
    }
}

/// For a `Retry-After`: rounded up, and never 0.
pub(super) fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

impl Pick {
    /// The backend.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.member().backend
    }

    /// How many addresses it has.
    pub fn addresses(&self) -> usize {
        self.backend().addresses().len().max(1)
    }

    /// Whether it is known where to connect to.
    pub fn has_an_address(&self) -> bool {
        self.backend().unix_path().is_some() || !self.backend().addresses().is_empty()
    }

    /// The upstream that it was picked from.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Where to connect, and how; `None` while its name is not resolved.
    pub fn way(&self, how: Connect) -> Option<Way> {
        let member = self.member();
        member.template.way(&member.backend, &member.addresses, how)
    }

    /// The same in Pingora's form, which takes its time to be made.
    pub fn peer(&self, way: &Way) -> Option<Box<HttpPeer>> {
        self.member().template.peer(way)
    }

    /// There is a connection: from now on the request may reach the backend. Until then it counts in no quota.
    pub fn sent(&mut self) {
        if let Some(ration) = &mut self.held.ration {
            ration.sent();
        }
    }

    /// The backend has the request, since it answers.
    pub(super) fn was_received(&mut self, now: Instant) {
        if let Some(ration) = &mut self.held.ration {
            ration.ended(now);
        }
    }

    /// The same request is to be sent to it again, which may be one more to the backend. Says whether its quota allows.
    pub fn may_send_again(&mut self, now: Instant) -> bool {
        let Some(ration) = &mut self.held.ration else { return true };
        let another = ration.another(now);
        another.map(|another| *ration = another).is_some()
    }

    /// Notes that a connection to this address could not be made.
    pub fn mark_address(&self, peer: &HttpPeer) {
        let member = self.member();
        member.addresses.mark_down(&member.backend.addresses(), peer);
    }

    pub(super) fn member(&self) -> &Member {
        &self.upstream.members[self.member]
    }
}
