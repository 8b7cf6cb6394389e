//! What would happen to this request? The same steps as in the corridor, with a client that is not there and no backend.
//!
//! A snapshot is built from the configuration as a front door builds it, and a request is read from memory; then it passes
//! the code of each phase until a backend would be asked. No socket is opened: names are not resolved, and keys that
//! issuers of tokens publish are not fetched. All backends are taken as PENDING, as they are after a start.

mod found;
mod steps;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use pingora::http::RequestHeader;
use pingora::proxy::Session;
use tokio::io::AsyncWriteExt;

use super::admit::{Admissions, Lasting};
use super::connection::{Connection, TlsFacts, next_id, scope, streams_from_the_store};
use super::exchange::Exchange;
use super::snapshot::{Plan, Snapshot, Upstreams};
use super::timer::Timer;
use super::watch::Watch;
use crate::answer::Refusal;
use crate::auth::Identity;
use crate::cache::Cache;
use crate::compress::Workshop;
use crate::config::{Address, AuthBy, Config, JwtKeys, Listener, Secret};
use crate::filter::Answer;
use crate::path;
use crate::route::RequestView;
use crate::upstream::survey::Surveyed;
use crate::upstream::{Upstream, Want};

pub use self::found::{CacheSays, Came, Explanation, Outcome, Step, UpstreamSays, Verdict};

/// Bytes of a head that a pipe in memory holds.
const PIPE: usize = 1 << 20;

/// A request to explain.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its method.
    pub method: String,
    /// Whether it comes over TLS.
    pub tls: bool,
    /// The port that its URL names, or that goes without saying.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// What it names as its host.
    pub host: String,
    /// Its other fields.
    pub fields: Vec<(String, String)>,
    /// Who connects.
    pub from: IpAddr,
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum NotExplained {
    /// The configuration cannot be used: a file that it names, for one.
    #[error("{0}")]
    Configuration(String),
    /// No listener would have been asked.
    #[error("no listener takes {0}")]
    NoListener(&'static str),
    /// Nobody could send this.
    #[error("this is no request that could be sent: {0}")]
    NoRequest(String),
}

/// Says what would happen to a request. Needs a tokio runtime.
pub async fn explain(config: &Config, question: &Question) -> Result<Explanation, NotExplained> {
    let mut notes = Vec::new();
    let config = offline(config, &mut notes);
    let (index, listener) = listener_for(&config, question, &mut notes)?;
    let snapshot = Arc::new(snapshot(&config)?);
    let connection = Arc::new(connection(index, listener, question));
    let mut session = session(question).await?;
    let world = World {
        cache: Cache::new(&config.cache, streams_from_the_store),
        workshop: Workshop::new(1),
        listener: found::listener(index, listener),
        config: &config,
    };
    let watch = Watch::new(tokio::time::Instant::now());
    let asked = async { world.follow(snapshot, &mut session, notes).await };
    Ok(scope(connection, watch, asked).await)
}

/// What a request meets besides the snapshot.
struct World<'a> {
    config: &'a Config,
    cache: &'static Cache,
    workshop: &'static Workshop,
    listener: String,
}

impl World<'_> {
    /// Sends the request through the phases.
    async fn follow(&self, snapshot: Arc<Snapshot>, session: &mut Session, notes: Vec<String>) -> Explanation {
        let mut exchange = Exchange::begin(snapshot, self.workshop);
        exchange.meet(session.req_header());
        exchange.tell_certificate(session);
        let client = exchange.sender.client;
        let came = session.req_header().clone();
        let outcome = match exchange.find_plan(session.req_header()) {
            Ok(()) => exchange.pass_filters(session).await,
            Err(refusal) => ControlFlow::Break(Answer::Refuse(refusal)),
        };
        let mut found = Explanation {
            request: format!("{} {} on {}", came.method, told_target(&came), exchange.request.host()),
            listener: self.listener.clone(),
            client: client.map(|address| address.to_string()),
            trusted: exchange.sender.trusted,
            routes: self.routes(&exchange, &came, &outcome),
            steps: Vec::new(),
            cache: None,
            upstream: None,
            head: Vec::new(),
            outcome: Outcome::Forwarded,
            notes,
        };
        found.steps = self.steps(&exchange, &outcome);
        match outcome {
            ControlFlow::Break(answer) => found.outcome = Outcome::of(&answer),
            ControlFlow::Continue(()) => self.beyond(&mut exchange, session, &mut found),
        }
        found
    }

    /// What is behind the filters: the store, a backend, and what that would read.
    fn beyond(&self, exchange: &mut Exchange, session: &mut Session, found: &mut Explanation) {
        found.cache = exchange.explain_cache(session, self.cache);
        let Some(plan) = exchange.plan.clone() else { return };
        if let Some(upstream) = &plan.upstream {
            let says = candidates(exchange, session.req_header(), &plan, upstream);
            if says.candidates.is_empty() {
                found.outcome = Outcome::of(&Answer::Refuse(upstream.refuse_for_nobody()));
                found.notes.extend(
                    upstream
                        .config
                        .discover
                        .is_some()
                        .then(|| "its backends are discovered, so that none of them is known here".to_owned()),
                );
            }
            found.upstream = Some(says);
        }
        let mut head = session.req_header().clone();
        match exchange.complete(session, &mut head) {
            Ok(()) => found.head = found::head_lines(&head, session.req_header()),
            Err(_) => {
                let refusal = exchange.refusal.unwrap_or(Refusal::Internal);
                found.outcome = Outcome::of(&Answer::Refuse(refusal));
            }
        }
    }

    /// Where it goes, and where else it might have gone; nothing if nobody has asked for a route.
    fn routes(&self, exchange: &Exchange, head: &RequestHeader, outcome: &ControlFlow<Answer>) -> Came {
        let no_route = matches!(outcome, ControlFlow::Break(Answer::Refuse(Refusal::NoRoute)));
        if exchange.plan.is_none() && !no_route {
            return Came::default();
        }
        let normal = path::normalise(head.uri.path()).unwrap_or_default();
        let view = RequestView {
            listener: exchange.connection.as_ref().and_then(|connection| connection.listener_name.as_deref()),
            host: exchange.request.host(),
            path: &normal,
            method: &head.method,
            headers: &head.headers,
            query: head.uri.query(),
        };
        Came::of(self.config, exchange.plan.as_deref(), &view)
    }

    fn steps(&self, exchange: &Exchange, outcome: &ControlFlow<Answer>) -> Vec<Step> {
        let plan = exchange.plan.as_deref();
        let route = plan.and_then(|plan| self.config.routes.iter().find(|route| route.name == plan.name));
        steps::of(exchange, exchange.listener(), route, outcome)
    }
}

/// In the order in which this request would ask them, once all before have failed it.
fn candidates(exchange: &mut Exchange, head: &RequestHeader, plan: &Plan, upstream: &Arc<Upstream>) -> UpstreamSays {
    let now = Instant::now();
    let (mut tried, mut order) = (Vec::new(), Vec::new());
    let session_of = exchange.session_of(plan, head).map(|session| session.seat);
    let ask = exchange.ask(plan, head, now);
    while let Ok(pick) = upstream.pick_for(&Want {
        ask,
        tried: &tried,
        session: session_of,
        priority: plan.priority,
        within: plan.timeout,
    }) {
        tried.push(pick.backend().seat);
        order.push(pick.backend().name.to_string());
    }
    let place = |backend: &Surveyed| order.iter().position(|name| *name == backend.backend);
    let (mut candidates, excluded): (Vec<_>, Vec<_>) =
        upstream.survey(&[]).into_iter().partition(|backend| place(backend).is_some());
    candidates.sort_by_key(place);
    UpstreamSays {
        name: upstream.name().to_string(),
        policy: found::policy(&upstream.config.balance),
        attempts: plan.retry.attempts,
        candidates,
        excluded,
    }
}

/// The configuration, without what would have to be asked of others.
fn offline(config: &Config, notes: &mut Vec<String>) -> Config {
    let mut config = config.clone();
    config.server.secret.get_or_insert_with(|| Secret::new(b"nobody has ever signed with this"));
    config.cache.disk = None;
    config.tracing = None;
    for route in &mut config.routes {
        let by_url = route.auth.as_ref().is_some_and(|auth| match &auth.by {
            AuthBy::Jwt(jwt) => matches!(jwt.keys, JwtKeys::Url(_)),
            AuthBy::Basic(_) | AuthBy::Keys { .. } => false,
        });
        if by_url {
            route.auth = None;
            notes.push(format!(
                "{}: the keys of tokens are at a URL, which is not asked: anybody is let in here",
                route.name
            ));
        }
    }
    config
}

fn snapshot(config: &Config) -> Result<Snapshot, NotExplained> {
    let said = |error: &dyn std::fmt::Display| NotExplained::Configuration(error.to_string());
    let mut upstreams = Upstreams::new();
    for upstream in &config.upstreams {
        let built = Upstream::new(upstream, None).map_err(|error| said(&error))?;
        built.suppose();
        upstreams.insert(upstream.name.clone(), built);
    }
    let lasting = Lasting::default();
    let admissions = Admissions::new(config, &lasting).map_err(|error| said(&error))?;
    Ok(Snapshot::new(config, upstreams, admissions, &lasting))
}

/// The listener that the URL speaks of; else the first that speaks as it does.
fn listener_for<'a>(
    config: &'a Config,
    question: &Question,
    notes: &mut Vec<String>,
) -> Result<(usize, &'a Listener), NotExplained> {
    let has_port = |listener: &Listener| match &listener.address {
        Address::Tcp(address) => address.port() == question.port,
        Address::Unix(_) => false,
    };
    let speaks = || config.listeners.iter().enumerate().filter(|(_, listener)| listener.tls.is_some() == question.tls);
    if let Some(found) = speaks().find(|(_, listener)| has_port(listener)) {
        return Ok(found);
    }
    let scheme = if question.tls { "https" } else { "http" };
    let found = speaks().next().ok_or(NotExplained::NoListener(scheme))?;
    notes.push(format!("no listener for {scheme} has port {}, so this is what the first would do", question.port));
    Ok(found)
}

fn connection(index: usize, listener: &Listener, question: &Question) -> Connection {
    let local = match &listener.address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    };
    let tls = listener.tls.as_ref().map(|_| TlsFacts {
        version: "TLSv1.3",
        server_name: Some(question.host.as_str().into()),
        certificate: None,
    });
    Connection {
        listener: index,
        listener_name: listener.name.clone(),
        id: next_id(),
        local: local.map(|address| {
            if address.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, address.port()).into() } else { address }
        }),
        local_port: local.map(|address| address.port()),
        peer: local.map(|_| SocketAddr::new(question.from, 40_000)),
        is_nobodys: false,
        opened: tokio::time::Instant::now(),
        tls,
        in_flight: Arc::default(),
        turn: super::connection::Turn::default(),
        words: OnceLock::new(),
        authority: Mutex::default(),
        streams: super::connection::Streams::default(),
        timer: Mutex::<Timer>::default(),
    }
}

/// The request, read as one of HTTP/1.1.
async fn session(question: &Question) -> Result<Session, NotExplained> {
    let said = |what: &dyn std::fmt::Display| NotExplained::NoRequest(what.to_string());
    let Question { method, target, host, fields, .. } = question;
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in fields {
        if name.contains(['\r', '\n', ':']) || value.contains(['\r', '\n']) {
            return Err(said(&format_args!("the field {name:?}")));
        }
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let (mut client, ours) = tokio::io::duplex(PIPE.max(text.len()));
    client.write_all(text.as_bytes()).await.map_err(|error| said(&error))?;
    let mut session = Session::new_h1(Box::new(ours));
    match session.as_downstream_mut().read_request().await {
        Ok(true) => Ok(session),
        Ok(false) => Err(said(&"it is not complete")),
        Err(error) => Err(said(&error.etype().as_str())),
    }
}

fn told_target(head: &RequestHeader) -> String {
    String::from_utf8_lossy(head.raw_path()).into_owned()
}

/// Whose name is shown, and nothing else of who it is.
fn name_of(identity: &Identity) -> &str {
    identity.name.as_deref().unwrap_or("somebody without a name")
}
