//! What do all requests share? The snapshot, the logs, the store, and whoever connects.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::proxy::Session;
use pingora::server::configuration::ServerConf;
use tokio::sync::watch::Receiver;

use super::cached::Refreshes;
use super::exchange::Exchange;
use super::snapshot::Snapshot;
use crate::cache::Cache;
use crate::observe::access_log::AccessLog;
use crate::retry::Account;

/// The proxy's logic, shared by all listeners.
pub struct Gateway {
    /// What requests consult; swapped by a reload.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where each request leaves a line.
    pub access_log: AccessLog,
    /// Turns true when no connection shall be used again.
    pub closing: Receiver<bool>,
    /// What is kept of requests' bodies, so that they can be sent again.
    pub(super) kept: Arc<Account>,
    /// Makes the connections of requests that are hedged.
    pub(super) connector: Arc<Connector>,
    /// What is answered without a backend.
    pub(super) cache: &'static Cache,
    /// Who fetches anew what is served stale.
    pub(super) refreshes: Refreshes,
}

impl Gateway {
    /// A gateway whose own connections are made as those of Pingora are with `conf`.
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        access_log: AccessLog,
        closing: Receiver<bool>,
        conf: &ServerConf,
        cache: &'static Cache,
    ) -> Self {
        let connector = Arc::new(Connector::new(Some(ConnectorOptions::from_server_conf(conf))));
        Self { snapshot, access_log, closing, kept: Arc::default(), connector, cache, refreshes: Refreshes::default() }
    }

    /// Says `Connection: close` where a client would otherwise send its next request to nobody (RFC 9112, section 9.6).
    pub(super) fn close_if_leaving(&self, session: &mut Session, exchange: &Exchange) {
        if *self.closing.borrow() {
            exchange.end_connection(session);
        }
    }
}
