//! What happened to the connections of a listener? Counts, for the dashboard and for the metrics alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::count::Words;

/// What happened to the connections of a listener.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Closed at once, because too many were open.
    pub over_total: AtomicU64,
    /// Closed at once, because their address had too many open.
    pub over_address: AtomicU64,
    /// Connections that are open.
    pub open: Arc<AtomicU64>,
    /// TLS handshakes that succeeded, by version.
    pub handshakes: Words,
    /// TLS handshakes that failed, or took too long, by reason.
    pub failed_handshakes: Words,
    /// Closed because nobody who is trusted said whose they are.
    pub not_introduced: AtomicU64,
}

/// A connection that counts as open until this is dropped.
pub(super) struct Open(Arc<AtomicU64>);

impl Open {
    pub(super) fn count(counters: &Counters) -> Self {
        counters.open.fetch_add(1, Relaxed);
        Self(counters.open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
