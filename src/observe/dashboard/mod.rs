//! How are the backends, and what was refused on the way to them? One table an upstream, in the log.
//!
//! This file has the data, and the loop that prints when a state changes or a time has passed. How a table looks is
//! in `render`, which is pure. Nothing here is on a request's way.

mod lines;
mod rates;
mod render;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::backend::{Backend, State};
use crate::config;

use self::rates::Rates;

pub use self::lines::{CacheLine, CodingLine};
pub use self::render::render;

/// Changes within this time are printed together: when a whole rack goes, one table tells it.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How often totals are sampled for the rates, however rarely tables are printed.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// The logger moves the lines of a message that are not the first to the right by this much.
const INDENT: usize = 4;

/// How often something has happened since the start, by its label.
pub type Totals = BTreeMap<&'static str, u64>;

/// Everything that is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// One an upstream.
    pub tables: Vec<Table>,
    /// What was refused before it became a request. In a print, since the print before.
    pub refused: Totals,
    /// The cache, where a route has one.
    pub cache: Option<CacheLine>,
    /// What was made smaller, or decoded, by its coding; empty where no route does so. In a print, since the print before.
    pub codings: Vec<CodingLine>,
}

/// An upstream's backends at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The upstream.
    pub upstream: Arc<str>,
    /// Requests that wait for a backend; `None` where none ever has to.
    pub waiting: Option<usize>,
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
    /// How long that still lasts, if it ends by itself.
    pub state_left: Option<Duration>,
    /// Whether it is EJECTED and single requests try it.
    pub on_trial: bool,
    /// Its weight.
    pub weight: u32,
    /// Its tier.
    pub tier: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// The most that there may be, if there is a limit.
    pub most: Option<u32>,
    /// What is left of the quota of which the smallest share is left.
    pub left: Option<(u32, config::Quota)>,
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
            state_left: backend.state_left(),
            on_trial: backend.is_on_trial(),
            weight: config.weight,
            tier: config.tier,
            in_flight,
            most: None,
            left: None,
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

/// Writes the reports to the log when `changes` says that a state changed, and at the configured interval, until the
/// sender of `changes` is dropped.
pub async fn run(when: config::Dashboard, report: impl Fn() -> Report, changes: watch::Receiver<u64>) {
    match when {
        config::Dashboard::None => {}
        config::Dashboard::OnChange => watch_reports(None, report, changes, print).await,
        config::Dashboard::Every(interval) => watch_reports(Some(interval), report, changes, print).await,
    }
}

async fn watch_reports(
    every: Option<Duration>,
    report: impl Fn() -> Report,
    mut changes: watch::Receiver<u64>,
    print: impl Fn(&Report),
) {
    let mut rates = Rates::default();
    let (mut told, mut told_of_cache, mut told_of_codings) = (Totals::new(), (0, 0), Vec::new());
    rates.fill(&mut report().tables, Instant::now());
    let mut sampling = interval(SAMPLE_EVERY);
    let mut print_at = every.map(|every| Instant::now() + every);
    // The first table tells how everything stands at the start; the first probes may have answered before we listen.
    changes.mark_changed();
    loop {
        let changed = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            () = at(print_at) => false,
            _ = sampling.tick() => false,
        };
        if changed {
            sleep(DEBOUNCE).await;
            changes.mark_unchanged();
        }
        let mut sample = report();
        rates.fill(&mut sample.tables, Instant::now());
        let due = print_at.is_some_and(|at| Instant::now() >= at);
        if changed || due {
            let totals = std::mem::take(&mut sample.refused);
            sample.refused = since(&told, &totals);
            told = totals;
            if let Some(cache) = &mut sample.cache {
                told_of_cache = cache.count_from(told_of_cache);
            }
            told_of_codings = CodingLine::count_from(&mut sample.codings, &told_of_codings);
            print(&sample);
            print_at = every.map(|every| Instant::now() + every);
        }
    }
}

/// What has been added to the totals, without what has not.
fn since(before: &Totals, now: &Totals) -> Totals {
    let added = |(label, count): (&&'static str, &u64)| (*label, count - before.get(label).unwrap_or(&0));
    now.iter().map(added).filter(|&(_, count)| count > 0).collect()
}

/// At this moment, or never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn print(report: &Report) {
    let terminal = std::io::stderr().is_terminal();
    let size = terminal_size::terminal_size_of(std::io::stderr());
    let width = size.filter(|_| terminal).map(|(width, _)| usize::from(width.0).saturating_sub(INDENT));
    let text = render(report, width, terminal);
    if text.is_empty() {
        // A front door without upstreams has nothing to show.
        return;
    }
    // Straight to the logger, past `log.level`: whether there is a dashboard is said by `log.dashboard` alone.
    let mut record = log::Record::builder();
    let record = record.level(log::Level::Info).target("portcullis::dashboard");
    log::logger().log(&record.args(format_args!("backends\n{}", text.trim_end())).build());
}

#[cfg(test)]
mod tests;
