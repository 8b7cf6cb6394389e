//! What becomes of requests that no hook ever sees? Their line in the access log, and a count.
//!
//! Pingora answers a head that it cannot read by itself, and a head that never ends not at all. The guard below it
//! answers instead, and tells us here.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::answer::Refusal;
use crate::observe::access_log::{AccessLog, Entry};
use crate::observe::dashboard::Totals;
use crate::proxy::connection::Connection;

use super::counters::Counters;
use super::guard::OnRefusal;

/// How many such refusals there were of each kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Arc<Mutex<Totals>>);

impl Refused {
    /// Counts each refusal, and writes it to the access log.
    pub(super) fn log_to(&self, access_log: AccessLog) -> OnRefusal {
        let refused = self.clone();
        Arc::new(move |connection: &Connection, refusal: Refusal, bytes| {
            refused.count(refusal);
            access_log.record(Entry {
                time: SystemTime::now(),
                client: connection.peer.map(|peer| peer.ip().to_canonical()),
                // To one who floods us nothing is answered.
                status: (refusal != Refusal::Flood).then(|| refusal.status().as_u16()),
                bytes_in: bytes as u64,
                protocol: if refusal == Refusal::Flood { "HTTP/2" } else { "HTTP/1.1" },
                tls: connection.tls.as_ref().map(|tls| tls.version),
                reason: refusal.label(),
                ..Entry::default()
            });
        })
    }

    /// All that was refused before a hook saw it: these requests, and the connections that never got so far.
    pub(super) fn totals<'a>(&self, listeners: impl Iterator<Item = &'a Counters>) -> Totals {
        let mut totals = self.requests();
        for counters in listeners {
            let of_connections = [
                ("max_connections", counters.over_total.load(Relaxed)),
                ("max_connections_per_address", counters.over_address.load(Relaxed)),
                ("handshake", counters.failed_handshakes.sum()),
                ("proxy_protocol", counters.not_introduced.load(Relaxed)),
            ];
            for (label, count) in of_connections {
                *totals.entry(label).or_default() += count;
            }
        }
        totals
    }

    /// Requests that were refused before a hook saw them.
    pub(super) fn requests(&self) -> Totals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // Held for an addition, and only once a connection: a refusal of this kind ends it.
    fn count(&self, refusal: Refusal) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(refusal.label()).or_default() += 1;
    }
}
