//! How are the backends? One table an upstream, in the log.
//!
//! This file has the data, and the loop that prints when a state changes or a time has passed. How a table looks is
//! in `render`, which is pure. Nothing here is on a request's way.

mod rates;
mod render;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval, interval_at, sleep};

use crate::backend::{Backend, State};
use crate::config;

use self::rates::Rates;

pub use self::render::render;

/// Changes within this time are printed together: when a whole rack goes, one table tells it.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How often totals are sampled for the rates, however rarely tables are printed.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// An upstream's backends at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The upstream.
    pub upstream: Arc<str>,
    /// Its backends, in the order of the configuration.
    pub rows: Vec<Row>,
}

/// A backend at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub backend: Arc<str>,
    /// Its state.
    pub state: State,
    /// Its weight.
    pub weight: u32,
    /// Whether it serves only while no other can.
    pub backup: bool,
    /// Requests in flight.
    pub in_flight: u32,
    /// Attempts since it is known.
    pub requests: u64,
    /// Attempts in a second, lately; `None` until there are two samples.
    pub rate: Option<f64>,
    /// Failed attempts since it is known.
    pub errors: u64,
    /// The median latency of the last minute.
    pub p50: Option<Duration>,
    /// The 99th percentile of the last minute.
    pub p99: Option<Duration>,
    /// Failures since the last success.
    pub failures_in_row: u32,
    /// How long ago it was last well.
    pub last_healthy: Option<Duration>,
    /// What went wrong last, and how long ago.
    pub last_error: Option<(String, Duration)>,
}

impl Row {
    /// What a backend's numbers say now.
    pub fn new(backend: &Backend, config: &config::Backend, in_flight: u32) -> Self {
        let reading = backend.reading();
        let now = SystemTime::now();
        let ago = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        Self {
            backend: backend.name.clone(),
            state: backend.state(),
            weight: config.weight,
            backup: config.backup,
            in_flight,
            requests: reading.requests,
            rate: None,
            errors: reading.errors,
            p50: reading.p50,
            p99: reading.p99,
            failures_in_row: reading.failures_in_row,
            last_healthy: reading.last_healthy.map(ago),
            last_error: reading.last_error.map(|error| (error.what.clone(), ago(error.at))),
        }
    }
}

/// Writes the tables to the log when `changes` says that a state changed, and at the configured interval, until the
/// sender of `changes` is dropped.
pub async fn run(when: config::Dashboard, tables: impl Fn() -> Vec<Table>, changes: watch::Receiver<u64>) {
    match when {
        config::Dashboard::None => {}
        config::Dashboard::OnChange => watch_tables(None, tables, changes, print).await,
        config::Dashboard::Every(interval) => watch_tables(Some(interval), tables, changes, print).await,
    }
}

async fn watch_tables(
    every: Option<Duration>,
    tables: impl Fn() -> Vec<Table>,
    mut changes: watch::Receiver<u64>,
    print: impl Fn(&[Table]),
) {
    // Probes may have answered before anyone listened here; without this the first table would never come.
    if *changes.borrow() > 0 {
        changes.mark_changed();
    }
    let mut rates = Rates::default();
    rates.fill(&mut tables(), Instant::now());
    let mut sampling = interval(every.map_or(SAMPLE_EVERY, |every| every.min(SAMPLE_EVERY)));
    let mut printing = every.map(|every| interval_at(Instant::now() + every, every));
    loop {
        let (changed, due) = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => (true, false),
                Err(_) => return,
            },
            () = next(printing.as_mut()) => (false, true),
            _ = sampling.tick() => (false, false),
        };
        if changed {
            sleep(DEBOUNCE).await;
            changes.mark_unchanged();
            if let Some(printing) = &mut printing {
                printing.reset();
            }
        }
        let mut sample = tables();
        rates.fill(&mut sample, Instant::now());
        if changed || due {
            print(&sample);
        }
    }
}

/// The next tick; without an interval there is none.
async fn next(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

fn print(tables: &[Table]) {
    let terminal = std::io::stderr().is_terminal();
    let size = terminal_size::terminal_size_of(std::io::stderr());
    let width = size.filter(|_| terminal).map(|(width, _)| usize::from(width.0));
    log::info!(target: "portcullis::dashboard", "backends\n{}", render(tables, width, terminal).trim_end());
}

#[cfg(test)]
mod tests;
