//! How is the front door? What `/readyz` and the dashboard are told.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::Inner;
use super::admin::{Asked, Readiness};
use crate::compress::{Outcome, Sum, Work};
use crate::observe::dashboard::{CacheLine, CodingLine, Report, Row, Table};
use crate::upstream::{Leaver, Member, Tallies, Upstream};

/// What is left of upstreams that are not in the configuration any more.
#[derive(Default)]
pub(super) struct Gone {
    /// While they have requests in flight.
    upstreams: Vec<Arc<Upstream>>,
    /// What they have sent, while it counts.
    tallies: Tallies,
}

impl Inner {
    /// Who answers on the admin address.
    pub(super) fn asked(self: &Arc<Self>) -> Asked {
        let (ready, scraped) = (self.clone(), self.clone());
        Asked {
            ready: Arc::new(move || ready.readiness()),
            operator: self.clone(),
            cache: self.cache,
            metrics: Arc::new(move || scraped.scrape()),
        }
    }

    /// Ready once every upstream has been probed, each of its backends, while anybody could serve, until we are asked to leave.
    pub(super) fn readiness(&self) -> Readiness {
        if self.draining.load(Relaxed) {
            return Readiness::NotReady("draining".to_owned());
        }
        if let Some(upstream) = self.followers().awaited() {
            return Readiness::NotReady(format!("upstream {upstream} has not discovered its backends yet"));
        }
        let snapshot = self.snapshot.load();
        if let Some(upstream) = snapshot.upstreams.values().find(|upstream| !upstream.is_probed()) {
            return Readiness::NotReady(format!("upstream {} has not been probed yet", upstream.name()));
        }
        // One that serves is reason enough to be asked; who has no upstream at all answers by himself.
        let serves = snapshot.upstreams.is_empty() || snapshot.upstreams.values().any(|upstream| upstream.may_serve());
        match serves {
            true => Readiness::Ready,
            false => Readiness::NotReady("no backend of any upstream takes requests".to_owned()),
        }
    }

    /// What the dashboard shows; its tables are in the order of the configuration.
    pub(super) fn report(&self) -> Report {
        let snapshot = self.snapshot.load();
        let names = self.with_config(|config| config.upstreams.iter().map(|it| it.name.clone()).collect::<Vec<_>>());
        let upstreams = names.iter().filter_map(|name| snapshot.upstreams.get(name));
        let refused = self.refused.totals(self.fronts.iter().map(|front| front.counters()));
        let mut tables: Vec<_> = upstreams.map(|upstream| table(upstream)).collect();
        tables.extend(
            self.gone().upstreams.iter().map(|upstream| leavers(upstream)).filter(|table| !table.rows.is_empty()),
        );
        Report { tables, refused, cache: self.cache_line(), codings: self.coding_lines() }
    }

    /// The cache, if a route has one: who has none need not read of it.
    fn cache_line(&self) -> Option<CacheLine> {
        let caches = self.with_config(|config| config.routes.iter().any(|route| route.cache.is_some()));
        let (store, (hits, misses)) = (self.cache.store(), self.cache.counts.get());
        let (bytes, size) = (store.bytes(), store.size());
        caches.then(|| CacheLine { hits, misses, objects: store.len(), bytes, size })
    }

    fn coding_lines(&self) -> Vec<CodingLine> {
        let line = |Sum { answers, outcome: Outcome { work, before, after, took } }| {
            let (coding, decoded) = match work {
                Work::Encode(coding) => (coding, false),
                Work::Decode(coding) => (coding, true),
            };
            CodingLine { coding: coding.name(), decoded, answers, before, after, took }
        };
        self.workshop.counts.sums().into_iter().map(line).collect()
    }

    /// Keeps upstreams that are gone until their last request has ended, and what they have sent.
    pub(super) fn remember_gone(&self, upstreams: Vec<Arc<Upstream>>) {
        let mut gone = self.gone();
        upstreams.iter().for_each(|upstream| gone.tallies.remember(upstream));
        gone.upstreams.extend(upstreams);
    }

    /// Upstreams that are gone and still have requests in flight.
    pub(super) fn gone_upstreams(&self) -> Vec<Arc<Upstream>> {
        self.gone().upstreams.clone()
    }

    /// What upstreams that are gone have sent.
    pub(super) fn gone_tallies(&self) -> Tallies {
        self.gone().tallies.clone()
    }

    fn gone(&self) -> MutexGuard<'_, Gone> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.upstreams.retain(|upstream| upstream.has_leavers());
        gone
    }
}

fn table(upstream: &Upstream) -> Table {
    let members = upstream.members().iter().zip(&upstream.config.backends);
    let row = |(member, config): (&Member, _)| Row {
        most: member.most(),
        left: member.left(),
        ..Row::new(&member.backend, config, upstream.in_flight(&member.backend))
    };
    let mut rows: Vec<_> = members.map(row).collect();
    rows.extend(leavers(upstream).rows);
    Table { upstream: upstream.name().clone(), waiting: upstream.waiting(), rows }
}

/// Those who are gone and still at work, with the time that their tunnels have.
fn leavers(upstream: &Upstream) -> Table {
    let now = Instant::now();
    let row = |leaver: Leaver| Row {
        state_left: leaver.left(now),
        ..Row::new(leaver.backend(), &leaver.config, upstream.in_flight(leaver.backend()))
    };
    Table { upstream: upstream.name().clone(), waiting: None, rows: upstream.leavers().into_iter().map(row).collect() }
}
