//! How is everything just now? The facts of `/status.json`, which the status page shows.
//!
//! Here is their form, and what follows from them alone: histories, and what differs between two moments. Who knows the
//! facts is `server`. Times are RFC 3339 in UTC, durations are in the unit that their name ends with.

pub mod difference;
mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

pub use self::history::{History, LastSecond, SECONDS, Series};

/// Everything at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Of the program.
    pub version: &'static str,
    /// When this was.
    pub now: Time,
    /// When the program began to serve.
    pub started: Time,
    /// Whether traffic should be sent here, and why not.
    pub readiness: Readiness,
    /// What is in effect.
    pub configuration: Configuration,
    /// All upstreams and listeners together.
    pub totals: Totals,
    /// In the order of the file.
    pub upstreams: Vec<Upstream>,
    /// Of all listeners, those that expire first at the top.
    pub certificates: Vec<Certificate>,
    /// The cache, where a route has one.
    pub cache: Option<Cache>,
    /// The rate limits of the routes.
    pub limits: Vec<Limit>,
    /// How often something was refused before it became a request, since the start, by its reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// What has changed lately, the latest first.
    pub changes: Vec<Change>,
}

/// Whether traffic should be sent here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Readiness {
    /// What `/readyz` says.
    pub ready: bool,
    /// Why not, in plain words.
    pub why: Option<String>,
}

/// What is in effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Configuration {
    /// Of what the file says, without its secrets: the same for front doors that are configured alike.
    #[serde(serialize_with = "text")]
    pub hash: Arc<str>,
    /// Since when.
    pub since: Time,
    /// How much was changed beside the file.
    pub differences: usize,
    /// Why the last reload changed nothing, if it did not.
    pub problem: Option<String>,
}

/// All upstreams and listeners together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Open connections of clients.
    pub connections: usize,
    /// The most that there may be.
    pub max_connections: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Attempts at backends.
    pub requests_per_second: f64,
    /// Attempts that failed.
    pub errors_per_second: f64,
}

/// An upstream.
#[derive(Clone, Debug, Serialize)]
pub struct Upstream {
    /// Its name.
    #[serde(serialize_with = "text")]
    pub name: Arc<str>,
    /// How a backend is chosen.
    pub balance: Box<str>,
    /// Requests that wait for a backend; `None` where none ever has to.
    pub waiting: Option<usize>,
    /// Requests in flight.
    pub in_flight: u32,
    /// Attempts.
    pub requests_per_second: f64,
    /// Attempts that failed.
    pub errors_per_second: f64,
    /// The median latency of the last minute.
    pub p50_ms: Option<f64>,
    /// Its 95th percentile.
    pub p95_ms: Option<f64>,
    /// Its backends, and those that are gone and still at work.
    pub backends: Vec<Backend>,
}

/// A backend.
#[derive(Clone, Debug, Serialize)]
pub struct Backend {
    /// Its name.
    #[serde(serialize_with = "text")]
    pub name: Arc<str>,
    /// Its state.
    pub state: &'static str,
    /// When that ends by itself.
    pub state_until: Option<Time>,
    /// Whether it is EJECTED and single requests try it.
    pub on_trial: bool,
    /// Who names it: `file`, `discovery`, `api`; or nobody any more: `gone`.
    pub source: &'static str,
    /// What was changed of it beside the file.
    pub changed: Vec<&'static str>,
    /// Its weight.
    pub weight: u32,
    /// Its tier.
    pub tier: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// The most that there may be, if there is a limit.
    pub max_in_flight: Option<u32>,
    /// Its quota of which the smallest share is left.
    pub quota: Option<Quota>,
    /// Attempts since it is known.
    pub requests: u64,
    /// Attempts that failed, since it is known.
    pub errors: u64,
    /// Attempts, lately.
    pub requests_per_second: f64,
    /// Attempts that failed, lately.
    pub errors_per_second: f64,
    /// The median latency of the last minute.
    pub p50_ms: Option<f64>,
    /// Its 95th percentile.
    pub p95_ms: Option<f64>,
    /// The last whole second.
    pub last_second: LastSecond,
    /// The last minute, second by second, the latest last.
    pub history: Series,
    /// When it was last well.
    pub last_healthy: Option<Time>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
}

/// What is left of a quota.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quota {
    /// As in the file: `240/m`.
    pub quota: String,
    /// Requests that are left.
    pub left: u32,
    /// Of so many.
    pub of: u32,
}

/// What went wrong last with a backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastError {
    /// A few words.
    pub what: String,
    /// When.
    pub at: Time,
}

/// A certificate that clients are shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// The address of its listener.
    pub listener: String,
    /// What it is for.
    pub names: Vec<String>,
    /// When it expires.
    pub expires: Time,
    /// Whole days until then, below 0 afterwards.
    pub days_left: i64,
}

/// The cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cache {
    /// What was answered from it, since the start.
    pub hits: u64,
    /// What it was asked for and a backend answered.
    pub misses: u64,
    /// The share of hits, lately; `None` without requests.
    pub hit_ratio: Option<f64>,
    /// What is stored in memory.
    pub objects: usize,
    /// The bytes that this takes.
    pub bytes: u64,
    /// The most that it may take.
    pub size: u64,
    /// The second tier, where there is one.
    pub disk: Option<CacheDisk>,
}

/// The cache's tier on disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheDisk {
    /// The bytes that are taken.
    pub bytes: u64,
    /// The most that may be.
    pub size: u64,
    /// What memory did not have and the disk had, since the start.
    pub hits: u64,
    /// What neither had.
    pub misses: u64,
    /// Answers that were written there.
    pub stored: u64,
    /// Answers that were not, because it was behind.
    pub dropped: u64,
}

/// A rate limit of a route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// The route.
    #[serde(serialize_with = "text")]
    pub route: Arc<str>,
    /// What the limit is called.
    #[serde(serialize_with = "text")]
    pub name: Arc<str>,
    /// As in the file: `100/s`.
    pub rate: String,
    /// So many at once.
    pub burst: u32,
    /// Who is told apart.
    pub key: String,
    /// Whether nobody is refused.
    pub dry_run: bool,
    /// Requests that it let pass, since the route is as it is.
    pub allowed: u64,
    /// Those that it refused, or would have refused.
    pub refused: u64,
}

/// Something that has changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Counts up, so that a reader knows what is new.
    pub id: u64,
    /// When.
    pub at: Time,
    /// `state`, `operator` or `reload`.
    pub kind: &'static str,
    /// The upstream, if it is about one.
    #[serde(serialize_with = "text_or_none")]
    pub upstream: Option<Arc<str>>,
    /// The backend, if it is about one.
    #[serde(serialize_with = "text_or_none")]
    pub backend: Option<Arc<str>>,
    /// The state before.
    pub from: Option<&'static str>,
    /// The state since then.
    pub to: Option<&'static str>,
    /// What happened, or why, in a few words.
    pub what: String,
}

/// A moment, written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub SystemTime);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(time) => serializer.collect_str(&time),
            // Beyond the year 9999.
            Err(_) => serializer.serialize_none(),
        }
    }
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn text_or_none<S: serde::Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

/// Milliseconds with two digits.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}

/// With one digit.
pub fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
