//! How is the front door? What `/readyz` and the dashboard are told.

use std::sync::atomic::Ordering::Relaxed;

use super::Inner;
use super::admin::Readiness;
use crate::observe::dashboard::{Report, Row, Table};
use crate::upstream::Upstream;

impl Inner {
    /// Ready once every backend of every upstream has been probed, until we are asked to leave.
    pub(super) fn readiness(&self) -> Readiness {
        if self.draining.load(Relaxed) {
            return Readiness::NotReady("draining".to_owned());
        }
        let snapshot = self.snapshot.load();
        match snapshot.upstreams.values().find(|upstream| !upstream.is_probed()) {
            Some(upstream) => Readiness::NotReady(format!("upstream {} has not been probed yet", upstream.name())),
            None => Readiness::Ready,
        }
    }

    /// What the dashboard shows; its tables are in the order of the configuration.
    pub(super) fn report(&self) -> Report {
        let snapshot = self.snapshot.load();
        let names = self.with_config(|config| config.upstreams.iter().map(|it| it.name.clone()).collect::<Vec<_>>());
        let upstreams = names.iter().filter_map(|name| snapshot.upstreams.get(name));
        let refused = self.refused.totals(self.fronts.iter().map(|front| front.counters()));
        Report { tables: upstreams.map(|upstream| table(upstream)).collect(), refused }
    }
}

fn table(upstream: &Upstream) -> Table {
    let members = upstream.members().iter().zip(&upstream.config.backends);
    let row = |backend, config| Row::new(backend, config, upstream.in_flight(backend));
    Table {
        upstream: upstream.name().clone(),
        rows: members.map(|(member, config)| row(&member.backend, config)).collect(),
    }
}
