//! What do all requests share? The snapshot, the logs, the store, and whoever connects.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::proxy::Session;
use pingora::server::configuration::ServerConf;
use tokio::sync::watch::Receiver;

use super::cached::Refreshes;
use super::direct::pool::Pool;
use super::exchange::Exchange;
use super::snapshot::Snapshot;
use crate::cache::Cache;
use crate::compress::Workshop;
use crate::observe::access_log::AccessLog;
use crate::retry::Account;

/// What a gateway works with.
#[derive(Clone)]
pub struct Belongings {
    /// What requests consult; swapped by a reload.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where each request leaves a line.
    pub access_log: AccessLog,
    /// Turns true when no connection shall be used again.
    pub closing: Receiver<bool>,
    /// What is answered without a backend.
    pub cache: &'static Cache,
    /// What has left in another coding.
    pub workshop: &'static Workshop,
}

/// The proxy's logic, shared by all listeners.
pub struct Gateway {
    pub(super) belongings: Belongings,
    /// What is kept of requests' bodies, so that they can be sent again.
    pub(super) kept: Arc<Account>,
    /// Makes the connections that are not Pingora's own.
    pub(super) connector: Arc<Connector>,
    /// Those of them that are at rest.
    pub(super) at_rest: Arc<Pool>,
    /// Who fetches anew what is served stale.
    pub(super) refreshes: Refreshes,
}

impl Gateway {
    /// A gateway whose own connections are made as those of Pingora are with `conf`.
    pub fn new(belongings: Belongings, conf: &ServerConf) -> Self {
        let connector = Arc::new(Connector::new(Some(ConnectorOptions::from_server_conf(conf))));
        let at_rest = Pool::new(conf.upstream_keepalive_pool_size);
        Self { belongings, kept: Arc::default(), connector, at_rest, refreshes: Refreshes::default() }
    }

    /// The exchange of a request that has just begun to arrive.
    pub(super) fn begin(&self) -> Exchange {
        Exchange::begin(self.belongings.snapshot.load_full(), self.belongings.workshop)
    }

    /// Says `Connection: close` where a client would otherwise send its next request to nobody (RFC 9112, section 9.6).
    pub(super) fn close_if_leaving(&self, session: &mut Session, exchange: &Exchange) {
        if *self.belongings.closing.borrow() {
            exchange.end_connection(session);
        }
    }
}
