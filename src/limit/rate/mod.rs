//! How many requests may each client make? The limits of a route, and what they say to one request.
//!
//! A route has several; each tells apart whom it counts by a [`RateKey`], and all are checked before any is charged. What
//! was counted is in one [`Table`] for all routes, which outlives reloads: a limit is found again in it by its name, rate,
//! burst and key. Keys are stored as keyed hashes, so that no client can make two that are the same, and however long the
//! value of a header field is, it takes no more room.

mod gcra;
mod subject;
mod table;
pub mod tell;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};

use crate::config::{RateKey, RateLimit};
use crate::count::Count;

pub use self::table::AT_ONCE;

use self::gcra::{Left, Rate};
use self::subject::Subject;
use self::table::{Ask, Key, Mode, Numbers};

/// The parts of the world whose keys share a number where there is no room: those of one wide network do, so that it does
/// not matter to others what comes out of it.
const PARTS: u64 = 256;

/// The route and the name of a limit.
type Place = (String, Arc<str>);

/// What all limits have counted.
pub struct Table {
    numbers: Numbers,
    /// Known to nobody, or keys could be made up that hash alike.
    seed: RandomState,
    born: Instant,
    /// What limits said, by route and name.
    verdicts: Mutex<HashMap<Place, Weak<Verdicts>>>,
}

/// What a limit said of requests.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// It let them pass.
    pub allowed: Count,
    /// They were refused for it.
    pub refused: Count,
    /// They would have been, were it no dry run.
    pub would_refuse: Count,
}

impl Table {
    /// Room for so many keys, which are hashed with this.
    pub fn new(entries: usize, seed: RandomState, born: Instant) -> Self {
        Self { numbers: Numbers::new(entries), seed, born, verdicts: Mutex::default() }
    }

    /// Gives it another size; nobody's count is lost.
    pub fn resize(&self, entries: usize) {
        self.numbers.resize(entries);
    }

    /// How many keys it counts now, and each by itself at most.
    pub fn entries(&self) -> (usize, usize) {
        (self.numbers.len(), self.numbers.most())
    }

    /// What the limit of this name on this route has said so far, if somebody still knows.
    fn verdicts(&self, route: &str, name: &Arc<str>) -> Arc<Verdicts> {
        let mut known = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (route.to_owned(), name.clone());
        if let Some(verdicts) = known.get(&key).and_then(Weak::upgrade) {
            return verdicts;
        }
        let new = Arc::new(Verdicts::default());
        known.retain(|_, verdicts| verdicts.strong_count() > 0);
        known.insert(key, Arc::downgrade(&new));
        new
    }

    /// A number that nobody can foretell.
    fn hash(&self, what: impl Hash) -> u64 {
        self.seed.hash_one(what)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table(..)")
    }
}

/// Who sent a request, as far as it is known.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// The client's address; none on a unix socket.
    pub address: Option<IpAddr>,
    /// The method of the request.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// The name of whom `auth` let in.
    pub name: Option<&'a str>,
    /// His claims, by name.
    pub claim: &'a dyn Fn(&str) -> Option<String>,
}

/// Which limits are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that count whoever it is: before `auth` has said it, or where it refuses.
    Anonymous,
}

/// One limit, worked out.
#[derive(Debug)]
pub struct Limit {
    /// What it is called; clients read it.
    pub name: Arc<str>,
    /// Nobody is refused for it.
    pub dry_run: bool,
    /// So many requests...
    pub quota: u64,
    /// ...within so many seconds, as it is told.
    pub window: u64,
    rate: Rate,
    key: RateKey,
    cost: u32,
    costs: Vec<(Method, u32)>,
    id: u64,
    /// What it said, under this name on this route, before and after reloads.
    pub verdicts: Arc<Verdicts>,
}

/// The limits of a route.
pub struct Limits {
    limits: Vec<Arc<Limit>>,
    table: Arc<Table>,
}

/// What one limit says of one request.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which limit.
    pub limit: Arc<Limit>,
    /// So many requests are left at once.
    pub remaining: u32,
    /// Until there is more: enough for this request if it was refused, one if nothing is left, else all.
    pub more_after: Duration,
    /// It does not let the request pass.
    pub exceeded: bool,
    /// What the request costs.
    pub cost: u32,
}

impl Standing {
    /// Whether it is why the request is refused.
    pub fn refuses(&self) -> bool {
        self.exceeded && !self.limit.dry_run
    }

    /// Counts what was said; to be called once a request.
    pub fn count(&self) {
        let Verdicts { allowed, refused, would_refuse } = &*self.limit.verdicts;
        match (self.exceeded, self.limit.dry_run) {
            (false, _) => allowed.one(),
            (true, false) => refused.one(),
            (true, true) => would_refuse.one(),
        }
    }
}

impl Limits {
    /// The limits of a route; `None` where it has none. Those beyond [`AT_ONCE`] are left out, which the configuration
    /// does not allow.
    pub fn new(route: &str, limits: &[RateLimit], table: &Arc<Table>) -> Option<Self> {
        let limit = |config: &RateLimit| Arc::new(Limit::new(route, config, table));
        let limits: Vec<_> = limits.iter().take(AT_ONCE).map(limit).collect();
        (!limits.is_empty()).then(|| Self { limits, table: table.clone() })
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.limits.iter()
    }

    /// Whether some count by what only `auth` knows.
    pub fn need_identity(&self) -> bool {
        self.limits.iter().any(|limit| limit.key.needs_identity())
    }

    /// Charges the request to all that are asked if all let it pass, and to none otherwise.
    pub fn take(&self, who: &Who<'_>, which: Which, now: Instant) -> Vec<Standing> {
        self.ask(who, which, now, Mode::Take)
    }

    /// Says what they would say, and charges nothing.
    pub fn look(&self, who: &Who<'_>, which: Which, now: Instant) -> Vec<Standing> {
        self.ask(who, which, now, Mode::Look)
    }

    fn ask(&self, who: &Who<'_>, which: Which, now: Instant, mode: Mode) -> Vec<Standing> {
        let is_asked = |limit: &&Arc<Limit>| which == Which::All || !limit.key.needs_identity();
        let mut asked = self.limits.iter().filter(is_asked);
        let now = now.saturating_duration_since(self.table.born);
        match (asked.next(), asked.next()) {
            (None, _) => Vec::new(),
            // Most routes have one, which needs no list.
            (Some(limit), None) => {
                let mut ask = limit.ask(who, &self.table);
                self.table.numbers.admit(std::slice::from_mut(&mut ask), now, mode);
                vec![standing(limit, &ask)]
            }
            (Some(_), Some(_)) => {
                let asked = || self.limits.iter().filter(is_asked);
                let mut asks: Vec<_> = asked().map(|limit| limit.ask(who, &self.table)).collect();
                self.table.numbers.admit(&mut asks, now, mode);
                asked().zip(&asks).map(|(limit, ask)| standing(limit, ask)).collect()
            }
        }
    }
}

fn standing(limit: &Arc<Limit>, ask: &Ask<'_>) -> Standing {
    let Left { remaining, one_after, all_after } = ask.left;
    let more_after = ask.wait.unwrap_or(if remaining == 0 { one_after } else { all_after });
    Standing { limit: limit.clone(), remaining, more_after, exceeded: ask.wait.is_some(), cost: ask.cost }
}

impl Limit {
    fn new(route: &str, config: &RateLimit, table: &Table) -> Self {
        let rate = Rate::new(config.count, config.period, config.burst);
        let (quota, window) = rate.quota();
        let verdicts = table.verdicts(route, &config.name);
        let route = (!config.is_shared).then_some(route);
        Self {
            name: config.name.clone(),
            dry_run: config.dry_run,
            quota,
            window,
            rate,
            key: config.key.clone(),
            cost: config.cost,
            costs: config.costs.clone(),
            verdicts,
            id: table.hash((route, &*config.name, config.count, config.period, config.burst, &config.key)),
        }
    }

    fn ask<'a>(&'a self, who: &Who<'_>, table: &'a Table) -> Ask<'a> {
        let subject = Subject::of(&self.key, who);
        let hash = table.hash((self.id, &subject));
        // Spread over the shards by other bits than within one.
        let key = together(hash.rotate_left(32) ^ self.id, hash);
        Ask {
            rate: &self.rate,
            limit: self.id,
            key,
            network: subject.network(),
            seed: &table.seed,
            shares: false,
            cost: self.costs.iter().find(|(method, _)| method == who.method).map_or(self.cost, |(_, cost)| *cost),
            binds: !self.dry_run,
            due: 0,
            left: Left { remaining: 0, one_after: Duration::ZERO, all_after: Duration::ZERO },
            wait: None,
        }
    }
}

/// The key that takes the place of one for which there is no room: that of its part of the world.
fn shared_key(ask: &Ask<'_>) -> Key {
    let part = ask.network.map_or(ask.key as u64, |network| ask.seed.hash_one(network)) % PARTS;
    // Spread over the shards; what it is made of is secret already.
    together(ask.limit ^ (part + 1), ask.limit.wrapping_mul(2 * part + 3))
}

fn together(upper: u64, lower: u64) -> Key {
    (u128::from(upper) << 64) | u128::from(lower)
}

#[cfg(test)]
mod tests;
