//! One server: where it is, how it is, and what it has in hand.
//!
//! The living numbers are atomics behind an `Arc`, so they outlive a reload. What a reload may change (weight, tier)
//! is not here. This room does not decide anything: states are set by `health`, addresses by discovery.

mod counts;
mod estimate;
mod histogram;
mod notes;
mod numbers;
mod peer_tls;
mod seat;
mod standing;
mod task;
mod tunnels;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use tokio::time::Instant;

use crate::config::{self, Target};

use self::histogram::Histogram;
use self::notes::Notes;
use self::numbers::Numbers;
use self::standing::Shown;

pub use self::counts::Counts;
pub use self::estimate::{Estimates, Moment};
pub use self::histogram::Since;
pub use self::notes::Note;
pub use self::numbers::{LastError, Reading};
pub use self::peer_tls::{PeerTls, PeerTlsError};
pub use self::seat::{Block, Lease, Loads, SEATS_PER_BLOCK, Seat};
pub use self::standing::{Standing, State};
pub use self::task::Task;
pub use self::tunnels::{Cut, Tunnel, Tunnels};

/// One server of an upstream, with its living numbers.
#[derive(Debug)]
pub struct Backend {
    /// The upstream that it is in.
    pub upstream: Arc<str>,
    /// Its name in logs.
    pub name: Arc<str>,
    /// Where the configuration says it is.
    pub target: Target,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Its place among the in-flight counts of its upstream.
    pub seat: Seat,
    /// The tunnels that go through it.
    pub tunnels: Tunnels,
    /// What became of what was sent to it.
    pub counts: Counts,
    standing: Shown,
    addresses: ArcSwap<Vec<SocketAddr>>,
    looked_up: Mutex<Option<Instant>>,
    numbers: Numbers,
    notes: Notes,
}

impl Backend {
    /// A backend that nothing is known about yet.
    pub fn new(upstream: &Arc<str>, config: &config::Backend, seat: Seat) -> Self {
        let addresses = match &config.target {
            Target::Address(address) => vec![*address],
            Target::Name { .. } | Target::Unix(_) => Vec::new(),
        };
        Self {
            upstream: upstream.clone(),
            name: config.name.clone(),
            target: config.target.clone(),
            tls: config.tls,
            seat,
            tunnels: Tunnels::default(),
            counts: Counts::default(),
            standing: Shown::default(),
            addresses: ArcSwap::from_pointee(addresses),
            looked_up: Mutex::default(),
            numbers: Numbers::default(),
            notes: Notes::default(),
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.standing.state()
    }

    /// Whether it is EJECTED and single requests try it.
    pub fn is_on_trial(&self) -> bool {
        self.standing.is_on_trial()
    }

    /// How long its state still lasts, if it ends by itself.
    pub fn state_left(&self) -> Option<Duration> {
        self.standing.left(SystemTime::now())
    }

    /// Sets its state; only `health` does.
    pub fn set_standing(&self, standing: Standing) {
        self.standing.set(standing);
        if standing.state == State::Healthy {
            self.numbers.seen_healthy(SystemTime::now());
        }
    }

    /// Remembers a change of its state for whoever shows it.
    pub fn note(&self, from: State, to: State, why: &str) {
        self.notes.add(Note { at: SystemTime::now(), from, to, why: why.to_owned() });
    }

    /// The changes of its state since this was asked last; the oldest are lost where nobody asks.
    pub fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }

    /// The latencies that these shares of the answers since `since` did not exceed, which moves on to now.
    pub fn latencies_since<const N: usize>(&self, since: &mut Since, shares: [f64; N]) -> [Option<Duration>; N] {
        self.numbers.latencies().quantiles_since(since, shares)
    }

    /// Its IP addresses, in the order of the resolver: empty for a unix socket, and until a name is resolved.
    pub fn addresses(&self) -> Guard<Arc<Vec<SocketAddr>>> {
        self.addresses.load()
    }

    /// Replaces its addresses; says whether that was a change.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) -> bool {
        let changed = **self.addresses.load() != addresses;
        if changed {
            self.addresses.store(Arc::new(addresses));
        }
        changed
    }

    /// When its name was looked up last, whatever came of it.
    pub fn looked_up(&self) -> Option<Instant> {
        *self.looked_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that its name was looked up.
    pub fn set_looked_up(&self, at: Instant) {
        *self.looked_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// The path of its socket, if it is a unix socket.
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.target {
            Target::Unix(path) => Some(path),
            Target::Address(_) | Target::Name { .. } => None,
        }
    }

    /// Counts an attempt that it answered, `latency` after the request was on its way.
    pub fn record_answer(&self, latency: Duration) {
        self.numbers.answer(latency, SystemTime::now());
    }

    /// Counts an attempt that it answered with an error of its own, a status of 500 or more.
    pub fn record_error_answer(&self, latency: Duration, status: u16) {
        self.numbers.error_answer(latency, &format!("status {status}"), SystemTime::now());
    }

    /// Counts an attempt that was given up, through no fault of its own, when nothing had come after `time`.
    pub fn record_wait(&self, time: Duration) {
        self.numbers.waited(time, SystemTime::now());
    }

    /// Counts an attempt that failed through its fault. `what` is a few words for the operator.
    pub fn record_failure(&self, what: &str) {
        self.numbers.attempt_failed(what, SystemTime::now());
    }

    /// Notes a probe that passed.
    pub fn record_probe_success(&self) {
        self.counts.probes_passed.one();
        self.numbers.probe_passed(SystemTime::now());
    }

    /// Notes a probe that failed. `what` is a few words for the operator.
    pub fn record_probe_failure(&self, what: &str) {
        self.counts.probes_failed.one();
        self.numbers.probe_failed(what, SystemTime::now());
    }

    /// Attempts, and those that failed, since it is known.
    pub fn totals(&self) -> (u64, u64) {
        self.numbers.totals()
    }

    /// What its numbers are now.
    pub fn reading(&self) -> Reading {
        self.numbers.read(SystemTime::now())
    }
}

/// The latency that this share of the recent answers of all these backends did not exceed; `None` if there were fewer
/// answers than `least`.
pub fn quantile<'a>(backends: impl Iterator<Item = &'a Backend>, share: f64, least: u64) -> Option<Duration> {
    Histogram::quantile_of_all(backends.map(|backend| backend.numbers.latencies()), (share, least), SystemTime::now())
}

#[cfg(test)]
mod tests;
