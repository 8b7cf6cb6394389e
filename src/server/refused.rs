//! What becomes of requests that no hook ever sees? Their line in the access log.
//!
//! Pingora answers a head that it cannot read by itself, and a head that never ends not at all. The guard below it
//! answers instead, and tells us here.

use std::sync::Arc;
use std::time::SystemTime;

use crate::answer::Refusal;
use crate::observe::access_log::{AccessLog, Entry};
use crate::proxy::connection::Connection;

use super::guard::OnRefusal;

/// Writes each such refusal to the access log.
pub(super) fn log_to(access_log: AccessLog) -> OnRefusal {
    Arc::new(move |connection: &Connection, refusal: Refusal, bytes| {
        access_log.record(Entry {
            time: SystemTime::now(),
            client: connection.peer.map(|peer| peer.ip().to_canonical()),
            status: Some(refusal.status().as_u16()),
            bytes_in: bytes as u64,
            protocol: "HTTP/1.1",
            tls: connection.tls.as_ref().map(|tls| tls.version),
            reason: refusal.label(),
            ..Entry::default()
        });
    })
}
