//! How much has a backend had? The logs of those that have quotas, and the rations that are taken from them.
//!
//! A [`Tally`] outlives reloads, and also the backend, for as long as what was sent still counts: one that is taken out
//! and put back finds its quota as it left it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Upstream;
use crate::config::{self, Quota, Target};
use crate::health::{Paid, Toll};
use crate::limit::{Age, Log};

/// What was sent to one backend.
#[derive(Debug)]
pub(super) struct Tally {
    born: Instant,
    log: Mutex<Log>,
}

impl Tally {
    fn new(quotas: &[Quota]) -> Arc<Self> {
        Arc::new(Self { born: Instant::now(), log: Mutex::new(Log::new(quotas.to_vec())) })
    }

    /// Takes one request out of the quota, if there is one left.
    pub(super) fn take(self: &Arc<Self>) -> Option<Ration> {
        let taken = self.log().claim(self.age(Instant::now()));
        taken.then(|| Ration { tally: self.clone(), stage: Stage::Claimed })
    }

    pub(super) fn is_used_up(&self) -> bool {
        !self.log().is_free(self.age(Instant::now()))
    }

    /// How long until there may be one left, at the soonest.
    pub(super) fn opens_in(&self) -> Duration {
        self.log().opens_in(self.age(Instant::now()))
    }

    /// The quota with the smallest share left, and how many requests that is.
    pub(super) fn left(&self) -> Option<(u32, Quota)> {
        self.log().left(self.age(Instant::now()))
    }

    fn is_idle(&self) -> bool {
        self.log().is_idle(self.age(Instant::now()))
    }

    fn age(&self, now: Instant) -> Age {
        now.saturating_duration_since(self.born)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request of a quota. Dropped before it was sent, it is given back; else it counts from then on for a window.
#[derive(Debug)]
pub(super) struct Ration {
    tally: Arc<Tally>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Claimed,
    Sent,
    Ended,
}

impl Ration {
    /// There is a connection, so from now on the request may reach the backend.
    pub(super) fn sent(&mut self) {
        if self.stage == Stage::Claimed {
            self.stage = Stage::Sent;
            self.tally.log().sent();
        }
    }

    /// The backend has the request: it has answered.
    pub(super) fn ended(&mut self, now: Instant) {
        self.sent();
        if std::mem::replace(&mut self.stage, Stage::Ended) == Stage::Sent {
            self.tally.log().end(self.tally.age(now));
        }
    }

    /// Another one, for the same request, which is sent again.
    pub(super) fn another(&mut self, now: Instant) -> Option<Self> {
        self.ended(now);
        self.tally.take()
    }
}

impl Drop for Ration {
    fn drop(&mut self) {
        match self.stage {
            Stage::Claimed => self.tally.log().give_back(),
            Stage::Sent => self.ended(Instant::now()),
            Stage::Ended => {}
        }
    }
}

/// Probes that are requests are taken out of the quota too.
impl Toll for Arc<Tally> {
    fn pay(&self) -> Option<Box<dyn Paid>> {
        Some(Box::new(OfProbe(Some(self.take()?))))
    }
}

/// Counts unless it is known not to have reached the backend: a probe that is given up may have.
struct OfProbe(Option<Ration>);

impl Paid for OfProbe {
    fn not_reached(mut self: Box<Self>) {
        self.0 = None;
    }
}

impl Drop for OfProbe {
    fn drop(&mut self) {
        if let Some(mut ration) = self.0.take() {
            ration.ended(Instant::now());
        }
    }
}

/// What was sent to backends that have quotas, by where they are: of one upstream, or of those that are gone.
#[derive(Clone, Default)]
pub struct Tallies(HashMap<Place, Arc<Tally>>);

/// Where a backend is, and whether it is spoken to over TLS.
type Place = (Target, bool);

impl Tallies {
    /// Remembers what an upstream that is gone has sent, for as long as it counts.
    pub fn remember(&mut self, gone: &Upstream) {
        self.0.extend(gone.tallies.0.clone());
        self.0.retain(|_, tally| !tally.is_idle());
    }

    /// Those of the backends that have quotas, with what is known from before, of the same upstream or else of `gone`
    /// ones; and those of the same one that still count.
    pub(super) fn of(config: &config::Upstream, old: Option<&Self>, gone: &Self) -> Self {
        let mut tallies = old.map(|old| old.0.clone()).unwrap_or_default();
        tallies.retain(|_, tally| !tally.is_idle());
        for backend in with_quota(config) {
            let known = old.and_then(|old| old.0.get(&place(backend)));
            let known = known.or_else(|| gone.0.get(&place(backend))).cloned();
            tallies.insert(place(backend), known.unwrap_or_else(|| Tally::new(&backend.limits.quota)));
        }
        Self(tallies)
    }

    /// The quotas are these from now on.
    pub(super) fn settle(&self, config: &config::Upstream) {
        for backend in with_quota(config) {
            if let Some(tally) = self.0.get(&place(backend)) {
                tally.log().set(&backend.limits.quota);
            }
        }
    }

    /// That of a backend which has a quota.
    pub(super) fn find(&self, backend: &config::Backend) -> Option<Arc<Tally>> {
        self.0.get(&place(backend)).filter(|_| !backend.limits.quota.is_empty()).cloned()
    }
}

fn with_quota(config: &config::Upstream) -> impl Iterator<Item = &config::Backend> {
    config.backends.iter().filter(|backend| !backend.limits.quota.is_empty())
}

fn place(backend: &config::Backend) -> Place {
    (backend.target.clone(), backend.tls)
}
