//! How is everything just now? The facts of `/status.json`, gathered from where they are kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value as Json;

use super::Inner;
use super::admin::Readiness;
use super::watching::Recent;
use crate::backend::{self, Reading};
use crate::config::{self, Address, Balance, Config, RateKey};
use crate::observe::status::{
    self, Backend, Cache, CacheDisk, Certificate, Configuration, LastError, Limit, Quota, Status, Time, Totals, ms,
    tenths,
};
use crate::proxy::Snapshot;
use crate::upstream::{Leaver, Upstream};

/// Seconds of a day.
const DAY: i64 = 86_400;

impl Inner {
    /// Everything, as JSON.
    pub(super) fn status_json(&self) -> Json {
        serde_json::to_value(self.status()).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let config = self.with_config(Config::clone);
        let snapshot = self.snapshot.load();
        let upstreams = config.upstreams.iter().filter_map(|it| Some((it, snapshot.upstreams.get(&it.name)?)));
        let upstreams: Vec<_> = upstreams.map(|(of_file, upstream)| self.upstream_facts(of_file, upstream)).collect();
        let sum = |rate: fn(&status::Upstream) -> f64| tenths(upstreams.iter().map(rate).sum());
        Status {
            version: env!("CARGO_PKG_VERSION"),
            now: Time(SystemTime::now()),
            started: Time(self.watching.started),
            readiness: match self.readiness() {
                Readiness::Ready => status::Readiness { ready: true, why: None },
                Readiness::NotReady(why) => status::Readiness { ready: false, why: Some(why) },
            },
            configuration: self.configuration_facts(),
            totals: Totals {
                connections: self.connections.open(),
                max_connections: config.server.max_connections,
                in_flight: self.in_flight.count(),
                requests_per_second: sum(|it| it.requests_per_second),
                errors_per_second: sum(|it| it.errors_per_second),
            },
            certificates: self.certificate_facts(&config),
            cache: self.cache_facts(&config),
            limits: config.routes.iter().flat_map(|route| limits_of(route, &snapshot)).collect(),
            refused: self.refused.totals(self.fronts.iter().map(|front| front.counters())),
            changes: self.watching.changes(),
            upstreams,
        }
    }

    fn configuration_facts(&self) -> Configuration {
        let loaded = self.loaded();
        Configuration {
            hash: loaded.hash.clone(),
            since: Time(loaded.since),
            differences: self.beside_file().len(),
            problem: loaded.problem.clone(),
        }
    }

    fn upstream_facts(&self, of_file: &config::Upstream, upstream: &Upstream) -> status::Upstream {
        let name = upstream.name();
        let (members, leavers) = (upstream.members(), upstream.leavers());
        let named = members.iter().map(|member| member.backend.name.clone());
        let named = named.chain(leavers.iter().map(|leaver| leaver.backend().name.clone()));
        let mut recent = self.watching.recent(name, named).into_iter();
        let mut backends = Vec::with_capacity(members.len() + leavers.len());
        let beside_file = self.beside_file().clone();
        let of_file: HashSet<_> = of_file.backends.iter().map(|it| &it.name).collect();
        for (member, config) in members.iter().zip(&upstream.config.backends) {
            let (changed, is_added) = beside_file.of_backend(name, &config.name);
            let source = match is_added {
                true => "api",
                false if of_file.contains(&config.name) => "file",
                false => "discovery",
            };
            let facts = backend_facts(&member.backend, config, recent.next().unwrap_or_default());
            let quota = member.left().map(|(left, quota)| Quota { quota: quota.to_string(), left, of: quota.most });
            let in_flight = upstream.in_flight(&member.backend);
            backends.push(Backend { source, changed, quota, in_flight, max_in_flight: member.most(), ..facts });
        }
        let now = Instant::now();
        for leaver in &leavers {
            let facts = leaver_facts(leaver, recent.next().unwrap_or_default(), now);
            backends.push(Backend { in_flight: upstream.in_flight(leaver.backend()), ..facts });
        }
        let quantile = |share| backend::quantile(members.iter().map(|member| &*member.backend), share, 1).map(ms);
        status::Upstream {
            name: name.clone(),
            balance: balance(&upstream.config.balance).into(),
            waiting: upstream.waiting(),
            in_flight: backends.iter().map(|it| it.in_flight).sum(),
            requests_per_second: tenths(backends.iter().map(|it| it.requests_per_second).sum()),
            errors_per_second: tenths(backends.iter().map(|it| it.errors_per_second).sum()),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            backends,
        }
    }

    fn certificate_facts(&self, config: &Config) -> Vec<Certificate> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut all = Vec::new();
        for (front, listener) in self.fronts.iter().zip(&config.listeners) {
            let shown = front.tls().map(|tls| tls.expiries()).unwrap_or_default();
            all.extend(shown.iter().map(|it| Certificate {
                listener: listener_name(listener),
                names: it.names.clone(),
                expires: Time(SystemTime::UNIX_EPOCH + Duration::from_secs(it.at.max(0).unsigned_abs())),
                days_left: (it.at - now).div_euclid(DAY),
            }));
        }
        all.sort_by_key(|it| it.expires);
        all
    }

    fn cache_facts(&self, config: &Config) -> Option<Cache> {
        let (store, (hits, misses)) = (self.cache.store(), self.cache.counts.get());
        let asked = hits + misses;
        let hit_ratio = (asked > 0).then(|| (hits as f64 / asked as f64 * 1e4).round() / 1e4);
        let caches = config.routes.iter().any(|route| route.cache.is_some());
        caches.then(|| Cache {
            hits,
            misses,
            hit_ratio,
            objects: store.len(),
            bytes: store.bytes(),
            size: store.size(),
            disk: self.cache.disk_numbers().zip(config.cache.disk.as_ref()).map(|(now, most)| CacheDisk {
                bytes: now.size,
                size: most.size,
                hits: now.hits,
                misses: now.misses,
                stored: now.stored,
                dropped: now.dropped,
            }),
        })
    }
}

fn listener_name(listener: &config::Listener) -> String {
    match (&listener.name, &listener.address) {
        (Some(name), _) => name.to_string(),
        (None, address @ (Address::Tcp(_) | Address::Unix(_))) => address.to_string(),
    }
}

fn backend_facts(backend: &backend::Backend, config: &config::Backend, recent: Recent) -> Backend {
    let Reading { requests, errors, last_healthy, last_error, p50, p95, .. } = backend.reading();
    let Recent { rates: (requests_per_second, errors_per_second), last, series } = recent;
    let left = backend.state_left().filter(|left| !left.is_zero());
    Backend {
        name: backend.name.clone(),
        state: backend.state().as_str(),
        // In whole seconds, so that it is the same at each look.
        state_until: left.map(|left| Time(whole_seconds(SystemTime::now() + left))),
        on_trial: backend.is_on_trial(),
        source: "gone",
        changed: Vec::new(),
        weight: config.weight,
        tier: config.tier,
        in_flight: 0,
        max_in_flight: None,
        quota: None,
        requests,
        errors,
        requests_per_second,
        errors_per_second,
        p50_ms: p50.map(ms),
        p95_ms: p95.map(ms),
        last_second: last,
        history: series,
        last_healthy: last_healthy.map(Time),
        last_error: last_error.map(|error| LastError { what: error.what.clone(), at: Time(error.at) }),
    }
}

/// One that is gone and still at work, with the time that its tunnels have.
fn leaver_facts(leaver: &Leaver, recent: Recent, now: Instant) -> Backend {
    let facts = backend_facts(leaver.backend(), &leaver.config, recent);
    let until = leaver.left(now).map(|left| Time(whole_seconds(SystemTime::now() + left)));
    Backend { state_until: until, ..facts }
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + Duration::from_millis(500);
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn balance(balance: &Balance) -> &str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastConnections => "least_connections",
        Balance::Random => "random",
        Balance::TwoChoices => "two_choices",
        Balance::PeakEwma => "peak_ewma",
        Balance::ConsistentHash { .. } => "consistent_hash",
        Balance::Custom(custom) => &custom.name,
    }
}

fn limits_of(route: &config::Route, snapshot: &Snapshot) -> Vec<Limit> {
    let plan = snapshot.plans.iter().find(|plan| plan.name == route.name);
    let verdicts: HashMap<_, _> = match plan.and_then(|plan| plan.admission.as_ref()) {
        Some(admission) => admission.verdicts().map(|(name, verdicts)| (name.to_owned(), verdicts)).collect(),
        None => HashMap::new(),
    };
    let limit = |limit: &config::RateLimit| Limit {
        route: route.name.clone(),
        name: limit.name.clone(),
        rate: rate(limit.count, limit.period),
        burst: limit.burst,
        key: match &limit.key {
            RateKey::ClientAddress => "client_address".to_owned(),
            RateKey::ApiKey => "api_key".to_owned(),
            RateKey::Header(name) => format!("header:{name}"),
            RateKey::Claim(name) => format!("claim:{name}"),
            RateKey::Route => "route".to_owned(),
        },
        dry_run: limit.dry_run,
        allowed: verdicts.get(&*limit.name).map_or(0, |it| it.allowed.get()),
        refused: verdicts.get(&*limit.name).map_or(0, |it| it.refused.get() + it.would_refuse.get()),
    };
    route.rate_limits.iter().map(limit).collect()
}

/// As in the file: `100/s`, `1800/10m`.
fn rate(count: u32, period: Duration) -> String {
    config::Quota { most: count, window: period }.to_string()
}

/// The file that was taken over last, and what came of the last reload.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) hash: Arc<str>,
    pub(super) since: SystemTime,
    pub(super) problem: Option<String>,
}

impl Loaded {
    /// This configuration, from now on.
    pub(super) fn of(config: &Config) -> Self {
        // What it means, however it is written. A secret shows itself to no format, so the hash holds none.
        let meant = Config { outline: Arc::default(), ..config.clone() };
        let hash = xxhash_rust::xxh3::xxh3_64(format!("{meant:?}").as_bytes());
        Self { hash: format!("{hash:016x}").into(), since: SystemTime::now(), problem: None }
    }
}
