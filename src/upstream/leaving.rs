//! Who is gone from the configuration and still at work? Backends that a reload has removed, until their last request.
//!
//! They take no new requests, as no snapshot names them any more; those in flight go on as if nothing had happened. A
//! tunnel could stay for days, so tunnels are cut when their time is over. Until then also those are watched that have
//! nothing in flight: a request that began with the old snapshot may still choose one. Whoever comes back while it has
//! something in flight is the one it was, with its numbers and its tunnels.

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
    /// Whether it was told that it has left; a late request may still come.
    is_idle: bool,
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

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Those of an old upstream who have no place among the new members.
pub(super) fn left_behind(old: Option<&Upstream>, members: &[Member]) -> Vec<Leaver> {
    let Some(old) = old else { return Vec::new() };
    // Nobody new has the seat of one who was there before.
    let seats: HashSet<Seat> = members.iter().map(|member| member.backend.seat).collect();
    let goes = |leaver: &Leaver| !seats.contains(&leaver.backend().seat);
    let leaving = old.lock_leaving().clone();
    old.members_leaving().into_iter().chain(leaving).filter(goes).collect()
}

impl Member {
    /// It is part of an upstream that is in place now.
    pub(super) fn stay(&self) {
        self.keeper.drain(match (self.is_drained, self.weight) {
            (true, _) => Some("an operator drains it"),
            (false, 0) => Some("its weight is 0"),
            (false, _) => None,
        });
        self.backend.tunnels.reopen();
    }
}

impl Upstream {
    /// Those who are gone and have requests in flight.
    pub fn leavers(&self) -> Vec<Leaver> {
        let busy = |leaver: &&Leaver| self.in_flight(leaver.backend()) > 0;
        self.lock_leaving().iter().filter(busy).cloned().collect()
    }

    /// The seats that nobody new may have: of the members, and of all who are watched.
    pub(super) fn taken_seats(&self) -> Vec<Seat> {
        let members = self.members.iter().map(|member| member.backend.seat);
        members.chain(self.lock_leaving().iter().map(|leaver| leaver.backend().seat)).collect()
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
            is_idle: false,
        };
        self.members.iter().zip(&self.config.backends).map(leaver).collect()
    }

    /// Cuts the tunnels of those whose time is over, also those that are yet to come, and then lets go of whoever has
    /// nothing in flight. Says whether anybody has left, and whether anybody is still watched.
    fn look_at_leavers(&self, now: Instant) -> (bool, bool) {
        let mut leaving = self.lock_leaving();
        let mut somebody_left = false;
        leaving.retain_mut(|leaver| {
            let backend = leaver.backend().clone();
            let is_idle = self.in_flight(&backend) == 0;
            if is_idle && !std::mem::replace(&mut leaver.is_idle, is_idle) {
                somebody_left = true;
                log::info!("upstream {}: backend {} has left, with nothing in flight", self.name(), backend.name);
            }
            leaver.is_idle = is_idle;
            let is_over = leaver.is_over(now);
            if is_over && let cut @ 1.. = backend.tunnels.cut_all() {
                log::info!("upstream {}: backend {} is gone: tunnels cut: {cut}", self.name(), backend.name);
            }
            !(is_idle && is_over)
        });
        (somebody_left, !leaving.is_empty())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::config::{Surroundings, parse};

    const GRACE: Duration = Duration::from_secs(30);

    fn upstream(backends: &str, old: Option<&Upstream>) -> Arc<Upstream> {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nroutes: [{{ upstream: app }}]\n\
             upstreams: {{ app: {{ health_check: none, backends: {backends} }} }}\n"
        );
        let config = parse(&text, "f", &Surroundings::of_process("".into())).unwrap().config;
        Upstream::new(&config.upstreams[0], old).unwrap()
    }

    fn seats(upstream: &Upstream) -> Vec<u32> {
        upstream.members().iter().map(|member| member.backend.seat.0).collect()
    }

    #[tokio::test]
    async fn a_tunnel_that_comes_after_all_seemed_to_have_left_is_cut_too() {
        let old = upstream("[10.0.0.1:80]", None);
        let gone = old.members()[0].backend.clone();
        let new = upstream("[10.0.0.2:80]", Some(&old));
        new.see_off(GRACE, &(Arc::new(|| {}) as OnChange));
        let now = Instant::now();
        assert_eq!(new.look_at_leavers(now), (true, true), "idle, and watched until its time is over");
        assert_eq!(new.look_at_leavers(now), (false, true), "told once");
        assert_eq!(new.leavers().len(), 0);

        let cuts = Arc::new(AtomicUsize::new(0));
        let late = || {
            let cuts = cuts.clone();
            gone.tunnels.enter(Arc::new(move || {
                cuts.fetch_add(1, Relaxed);
            }))
        };
        let _late = late();
        // Another swap in between forgets nobody, and gives its seat to nobody.
        let next = upstream("[10.0.0.2:80, 10.0.0.3:80, 10.0.0.1:80]", Some(&new));
        assert_eq!(seats(&next), [1, 2, 3]);
        assert_eq!(next.look_at_leavers(now + GRACE * 2), (false, false));
        assert_eq!(cuts.load(Relaxed), 1);
        let _later = late();
        assert_eq!(cuts.load(Relaxed), 2);
    }
}
