//! What is said of a request that was explained? Plain facts, for a person and for a program.

use http::HeaderValue;
use pingora::http::RequestHeader;
use serde::Serialize;

use crate::config::{Balance, Config, HashKey, Listener, Route};
use crate::filter::Answer;
use crate::proxy::snapshot::Plan;
use crate::route::RequestView;
use crate::route::explain::{missing, wishes};
use crate::upstream::survey::Surveyed;

/// Routes that came close, of which so many are shown.
const CLOSE: usize = 5;

/// Parts of names whose values nobody shall read over a shoulder, unless they came with the request.
const TELLING: [&str; 8] = ["auth", "cookie", "credential", "key", "passw", "secret", "session", "token"];

/// What would happen to a request, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub request: String,
    /// Which listener has it.
    pub listener: String,
    /// Who is believed to have sent it.
    pub client: Option<String>,
    /// Whether what the peer says of others is believed.
    pub trusted: bool,
    /// Where it goes.
    pub routes: Came,
    /// What it passes, in order.
    pub steps: Vec<Step>,
    /// What the cache says, where the route has one.
    pub cache: Option<CacheSays>,
    /// Who could serve it.
    pub upstream: Option<UpstreamSays>,
    /// The head that the backend would get, a line each.
    pub head: Vec<String>,
    /// How it ends.
    pub outcome: Outcome,
    /// What could not be known here.
    pub notes: Vec<String>,
}

/// Where a request goes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Came {
    /// The route, if there is one.
    pub route: Option<String>,
    /// What that asks for, all of which the request has.
    pub why: Vec<String>,
    /// Those that came close.
    pub others: Vec<Other>,
    /// How many more there are.
    pub more: usize,
}

/// A route that it does not go to.
#[derive(Clone, Debug, Serialize)]
pub struct Other {
    /// Its name.
    pub route: String,
    /// What it asks for and the request has not; nothing if another is more specific.
    pub missing: Vec<String>,
}

/// Something that a request passes, or not.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What it is called in the configuration.
    pub step: &'static str,
    /// What it does.
    pub what: String,
    /// What it does with this request.
    pub verdict: Verdict,
}

/// What a step does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It lets the request pass, or will change something.
    Passes,
    /// It answers.
    Answers,
    /// It refuses.
    Refuses,
    /// The request does not get so far.
    NotReached,
}

/// What the cache says.
#[derive(Clone, Debug, Serialize)]
pub struct CacheSays {
    /// The address under which an answer is found, and purged.
    pub url: Option<String>,
    /// The other parts of the key.
    pub parts: Vec<String>,
    /// Why it is not looked for, if it is not.
    pub bypass: Option<&'static str>,
    /// Why a good answer that may be stored is not, if it is not.
    pub not_stored: Option<&'static str>,
    /// How long an answer that says nothing of it would be fresh.
    pub fresh_for_s: Option<u64>,
}

/// Who could serve it.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamSays {
    /// Its name.
    pub name: String,
    /// How it chooses.
    pub policy: String,
    /// The most attempts.
    pub attempts: u32,
    /// In the order in which this request would ask them, once all before have failed it.
    pub candidates: Vec<Surveyed>,
    /// Those that it would not ask.
    pub excluded: Vec<Surveyed>,
}

/// How a request ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Outcome {
    /// A backend has the last word.
    Forwarded,
    /// It is answered as the route says.
    Answered {
        /// With this status.
        status: u16,
        /// And these fields.
        fields: Vec<String>,
    },
    /// It is refused.
    Refused {
        /// With this status.
        status: u16,
        /// For this reason, as the access log has it.
        reason: &'static str,
        /// In words.
        words: &'static str,
    },
}

impl Outcome {
    pub(super) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Refuse(refusal) => {
                Self::Refused { status: refusal.status().as_u16(), reason: refusal.label(), words: refusal.words() }
            }
            Answer::Reply { status, headers, .. } => Self::Answered {
                status: status.as_u16(),
                fields: headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect(),
            },
        }
    }
}

impl Came {
    pub(super) fn of(config: &Config, plan: Option<&Plan>, request: &RequestView<'_>) -> Self {
        let name = plan.map(|plan| &plan.name);
        let chosen = |route: &&Route| Some(&route.name) == name;
        let mut others: Vec<_> = config
            .routes
            .iter()
            .filter(|route| !chosen(route))
            .map(|route| Other { route: route.name.to_string(), missing: missing(&route.matches, request) })
            .collect();
        // Stable: of those that are as close the first in the file.
        others.sort_by_key(|other| other.missing.len());
        let more = others.len().saturating_sub(CLOSE);
        others.truncate(CLOSE);
        let why = config.routes.iter().find(chosen).map(|route| wishes(&route.matches)).unwrap_or_default();
        Self { route: name.map(|name| name.to_string()), why, others, more }
    }
}

pub(super) fn listener(index: usize, listener: &Listener) -> String {
    let name = listener.name.as_ref().map_or_else(|| format!("listeners[{index}]"), |name| name.to_string());
    format!("{name} on {}{}", listener.address, if listener.tls.is_some() { " with TLS" } else { "" })
}

pub(super) fn policy(balance: &Balance) -> String {
    match balance {
        Balance::RoundRobin => "round_robin".to_owned(),
        Balance::LeastConnections => "least_connections".to_owned(),
        Balance::Random => "random".to_owned(),
        Balance::TwoChoices => "two_choices".to_owned(),
        Balance::PeakEwma => "peak_ewma".to_owned(),
        Balance::Custom(custom) => custom.name.to_string(),
        Balance::ConsistentHash { key, .. } => format!(
            "consistent_hash of {}",
            match key {
                HashKey::ClientAddress => "client_address".to_owned(),
                HashKey::Path => "path".to_owned(),
                HashKey::Header(name) => format!("header:{name}"),
                HashKey::Cookie(name) => format!("cookie:{name}"),
            }
        ),
    }
}

/// The head that the backend gets. What the route adds of secrets is not shown.
pub(super) fn head_lines(head: &RequestHeader, came: &RequestHeader) -> Vec<String> {
    let target = String::from_utf8_lossy(head.raw_path()).into_owned();
    let mut lines = vec![format!("{} {target} HTTP/1.1", head.method)];
    for (name, value) in &head.headers {
        let is_telling = TELLING.iter().any(|part| name.as_str().contains(part));
        let is_theirs = came.headers.get_all(name).iter().any(|sent| sent == value);
        let shown = if is_telling && !is_theirs { "(not shown)".to_owned() } else { text(value) };
        lines.push(format!("{name}: {shown}"));
    }
    lines
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}
