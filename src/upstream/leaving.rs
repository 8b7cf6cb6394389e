//! Who is gone from the configuration and still at work? Backends that a reload has removed, until their last request.
//!
//! They take no new requests, as no snapshot names them any more; those in flight go on as if nothing had happened. A
//! tunnel could stay for days, so tunnels are cut when their time is over. Whoever comes back meanwhile is the one it
//! was, with its numbers and its tunnels.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Member, OnChange, Upstream};
use crate::backend::{Backend, Seat, Task};
use crate::config;
use crate::health::Keeper;

/// How often it is looked whether the last request has ended.
const LOOK: Duration = Duration::from_millis(250);

/// A backend that is gone from the configuration.
#[derive(Clone)]
pub struct Leaver {
    /// What the configuration said of it.
    pub config: config::Backend,
    keeper: Arc<Keeper>,
    /// When its tunnels are cut; `None` until the upstream that lacks it is in place.
    until: Option<Instant>,
}

impl Leaver {
    /// The backend.
    pub fn backend(&self) -> &Arc<Backend> {
        self.keeper.backend()
    }

    pub(super) fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// How long its tunnels may still last.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

/// Those of an old upstream who have no place among the new members.
pub(super) fn left_behind(old: Option<&Upstream>, members: &[Member]) -> Vec<Leaver> {
    let Some(old) = old else { return Vec::new() };
    // Nobody new has the seat of one who was there before.
    let seats: HashSet<Seat> = members.iter().map(|member| member.backend.seat).collect();
    let goes = |leaver: &Leaver| !seats.contains(&leaver.backend().seat);
    old.members_leaving().into_iter().chain(old.leavers()).filter(goes).collect()
}

impl Member {
    /// It is part of an upstream that is in place now.
    pub(super) fn stay(&self) {
        self.keeper.drain(self.weight == 0);
        self.backend.tunnels.reopen();
    }
}

impl Upstream {
    /// Those who are gone and still have requests in flight.
    pub fn leavers(&self) -> Vec<Leaver> {
        let busy = |leaver: &&Leaver| self.in_flight(leaver.backend()) > 0;
        self.lock_leaving().iter().filter(busy).cloned().collect()
    }

    /// Whether anybody is still being seen off.
    pub fn has_leavers(&self) -> bool {
        !self.lock_leaving().is_empty()
    }

    /// Sees off whoever was left behind when this upstream took the place of another; tunnels may last for `grace`.
    pub fn see_off(self: &Arc<Self>, grace: Duration, on_change: &OnChange) {
        let mut leaving = self.lock_leaving();
        for leaver in leaving.iter_mut().filter(|leaver| leaver.until.is_none()) {
            leaver.until = Some(Instant::now() + grace);
            leaver.keeper.leave();
        }
        if !leaving.is_empty() {
            let task = Task::spawn(until_all_have_left(Arc::downgrade(self), on_change.clone()));
            self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        }
    }

    /// The same for all of its backends, when nothing takes its place.
    pub fn retire(self: &Arc<Self>, grace: Duration, on_change: &OnChange) {
        self.lock_leaving().extend(self.members_leaving());
        self.see_off(grace, on_change);
    }

    fn members_leaving(&self) -> Vec<Leaver> {
        let leaver = |(member, config): (&Member, &config::Backend)| Leaver {
            config: config.clone(),
            keeper: member.keeper.clone(),
            until: None,
        };
        self.members.iter().zip(&self.config.backends).map(leaver).collect()
    }

    /// Lets go of whoever is done, and cuts the tunnels of those whose time is over. Says whether anybody has gone, and
    /// whether anybody is left.
    fn look_at_leavers(&self, now: Instant) -> (bool, bool) {
        let mut leaving = self.lock_leaving();
        let before = leaving.len();
        leaving.retain(|leaver| {
            let backend = leaver.backend();
            let stays = self.in_flight(backend) > 0;
            if !stays {
                log::info!("upstream {}: backend {} has left, with nothing in flight", self.name(), backend.name);
            } else if leaver.left(now).is_none()
                && let cut @ 1.. = backend.tunnels.cut_all()
            {
                log::info!("upstream {}: backend {} is gone: {cut} tunnels were cut", self.name(), backend.name);
            }
            stays
        });
        (leaving.len() < before, !leaving.is_empty())
    }

    fn lock_leaving(&self) -> MutexGuard<'_, Vec<Leaver>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until_all_have_left(upstream: Weak<Upstream>, on_change: OnChange) {
    loop {
        sleep(LOOK).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let (somebody_went, somebody_is_left) = upstream.look_at_leavers(Instant::now());
        if somebody_went {
            on_change();
        }
        if !somebody_is_left {
            return;
        }
    }
}
