//! What may this request consult? Everything that a reload may change, taken once.
//!
//! A request takes one snapshot and keeps it to its end, so it never sees half of a reload.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;

use super::admit::{Admission, Admissions, Lasting};
use super::client::Believed;
use crate::config::{self, Action, AuthBy, CertificatePart, Config, Expose, HashKey};
use crate::filter::Chain;
use crate::observe::metrics::RouteCounts;
use crate::observe::tracing::Tracer;
use crate::retry::Delay;
use crate::route::Table;
use crate::upstream::Upstream;
use crate::upstream::sticky::Sticky;

/// The upstreams by name.
pub type Upstreams = HashMap<Arc<str>, Arc<Upstream>>;

/// The sessions of upstreams by name.
type Sessions = HashMap<Arc<str>, Arc<Sticky>>;

/// Everything that a request may consult.
pub struct Snapshot {
    /// Which request leads to which plan.
    pub routes: Table<Arc<Plan>>,
    /// The plans, in the order of the configuration.
    pub plans: Vec<Arc<Plan>>,
    /// What becomes of requests that no route matches.
    pub unrouted: Arc<RouteCounts>,
    /// The upstreams by name.
    pub upstreams: Upstreams,
    /// Who traces requests, if anybody does.
    pub tracer: Option<Arc<Tracer>>,
    /// What each listener does besides routing, in the order of the configuration.
    pub listeners: Vec<ListenerPlan>,
    /// Peers whose forwarding fields are believed, and which of these.
    pub(crate) believed: Believed,
    /// What may be kept of all requests' bodies together, in bytes.
    pub retry_buffers: u64,
    /// In which fields any listener tells of certificates: nobody else may.
    pub certificate_fields: Vec<HeaderName>,
    /// The query parameters that may hold keys, of all routes.
    pub key_parameters: Vec<Arc<str>>,
    /// How the routes that cache write queries into their keys, each way once.
    pub stored_queries: Vec<config::QueryParts>,
    /// Whoever shows this is told why a request ended as it did.
    pub operators: Option<config::Secret>,
}

/// What a route leads to, worked out once.
pub struct Plan {
    /// The route's name.
    pub name: Arc<str>,
    /// What becomes of its requests.
    pub counts: Arc<RouteCounts>,
    /// Where it leads; `None` when its filters answer every request.
    pub upstream: Option<Arc<Upstream>>,
    /// What is asked of a request before anything is done for it; `None` is nothing.
    pub admission: Option<Arc<Admission>>,
    /// The filters, in order.
    pub filters: Chain,
    /// Until the head of the response is there.
    pub timeout: Duration,
    /// Who is served first of those that wait: who has more.
    pub priority: i32,
    /// When a request is tried again.
    pub retry: config::Retry,
    /// When another backend is asked beside the first.
    pub hedge: Option<Delay>,
    /// What the client is told about the inside.
    pub expose: Expose,
    /// What consistent hashing looks at.
    pub hash_key: Option<HashKey>,
    /// What is answered from the store.
    pub cache: Option<Arc<config::Caching>>,
    /// What leaves in another coding than it came in.
    pub compress: Option<Arc<config::Compress>>,
    /// The largest request body, in bytes.
    pub body_limit: u64,
    /// How clients come back to the backend that they have been with.
    pub sticky: Option<Arc<Sticky>>,
}

/// What a listener does besides routing.
pub struct ListenerPlan {
    /// The port of the `https` address that requests are redirected to.
    pub redirect_to_https: Option<u16>,
    /// The directory of ACME challenges.
    pub acme_challenges: Option<PathBuf>,
    /// The most fields that a request may have.
    pub headers_max: usize,
    /// What backends are told of the certificates of its clients.
    pub certificate: Vec<(HeaderName, CertificatePart)>,
    /// Its time limits.
    pub timeouts: config::ListenerTimeouts,
    /// Bytes a second that a client has to send and to take.
    pub min_rate: Option<NonZeroU64>,
}

impl Snapshot {
    /// Builds the snapshot of a checked configuration; `upstreams` holds each one that it names.
    pub fn new(config: &Config, upstreams: Upstreams, admissions: Admissions, lasting: &Lasting) -> Self {
        let sticky = sticky(config, &upstreams);
        let plan = |(route, admission): (&config::Route, _)| {
            let counts = lasting.ledger.route(&route.name);
            Arc::new(Plan { admission, counts, ..Plan::new(route, &upstreams, &sticky) })
        };
        let plans: Vec<_> = config.routes.iter().zip(admissions.0).map(plan).collect();
        let routes = config.routes.iter().map(|route| route.matches.clone()).zip(plans.iter().cloned());
        let listeners = config.listeners.iter().map(|listener| ListenerPlan {
            certificate: told_of(listener).to_vec(),
            redirect_to_https: listener.redirect_to_https,
            acme_challenges: listener.acme_challenges.clone(),
            headers_max: listener.limits.headers,
            timeouts: listener.timeouts.clone(),
            min_rate: listener.limits.min_rate,
        });
        Self {
            routes: Table::new(routes.collect()),
            plans,
            unrouted: lasting.ledger.route(&"".into()),
            listeners: listeners.collect(),
            believed: Believed { proxies: config.server.trusted_proxies.clone(), field: config.server.forwarded_by },
            retry_buffers: config.server.retry_buffers,
            certificate_fields: config.listeners.iter().flat_map(told_of).map(|(name, _)| name.clone()).collect(),
            key_parameters: config.routes.iter().filter_map(key_parameter).collect(),
            stored_queries: stored_queries(config),
            operators: config.admin_token.clone(),
            tracer: lasting.tracers.with(config.tracing.as_ref()),
            upstreams,
        }
    }
}

fn key_parameter(route: &config::Route) -> Option<Arc<str>> {
    match &route.auth.as_ref()?.by {
        AuthBy::Keys { query, .. } => query.clone(),
        AuthBy::Basic(_) | AuthBy::Jwt(_) => None,
    }
}

/// What a listener tells of its clients' certificates.
fn told_of(listener: &config::Listener) -> &[(HeaderName, CertificatePart)] {
    let auth = listener.tls.as_ref().and_then(|tls| tls.client_auth.as_ref());
    auth.map_or(&[], |auth| &auth.headers)
}

fn stored_queries(config: &Config) -> Vec<config::QueryParts> {
    let mut queries = Vec::new();
    for caching in config.routes.iter().filter_map(|route| route.cache.as_ref()) {
        if !queries.contains(&caching.key.query) {
            queries.push(caching.key.query.clone());
        }
    }
    queries
}

/// Nothing is sticky without a secret; whoever starts us sees to it that there is one.
fn sticky(config: &Config, upstreams: &Upstreams) -> Sessions {
    let Some(secret) = &config.server.secret else { return Sessions::new() };
    let sticky =
        |(name, upstream): (&Arc<str>, &Arc<Upstream>)| Some((name.clone(), Arc::new(Sticky::of(upstream, secret)?)));
    upstreams.iter().filter_map(sticky).collect()
}

impl Plan {
    fn new(route: &config::Route, upstreams: &Upstreams, sticky: &Sessions) -> Self {
        let upstream = match &route.action {
            Action::Upstream(name) => upstreams.get(name).cloned(),
            Action::Redirect { .. } | Action::Respond { .. } => None,
        };
        let hash_key = upstream.as_ref().and_then(|upstream| match &upstream.config.balance {
            config::Balance::ConsistentHash { key, .. } => Some(key.clone()),
            config::Balance::RoundRobin
            | config::Balance::LeastConnections
            | config::Balance::Random
            | config::Balance::TwoChoices
            | config::Balance::PeakEwma
            | config::Balance::Custom(_) => None,
        });
        let sticky = upstream.as_ref().and_then(|upstream| sticky.get(upstream.name()).cloned());
        Self {
            name: route.name.clone(),
            counts: Arc::default(),
            upstream,
            sticky,
            admission: None,
            filters: Chain::new(route),
            timeout: route.timeout,
            priority: route.priority,
            retry: route.retry.clone(),
            hedge: route.retry.hedge.map(|after| Delay::new(after, Instant::now())),
            expose: route.expose,
            cache: route.cache.clone(),
            compress: route.compress.clone(),
            body_limit: route.body_limit,
            hash_key,
        }
    }
}
