//! What happened? The access log entry of an exchange, and what is counted of it, once, when it ends.

use std::time::SystemTime;

use http::HeaderName;
use http::header::{REFERER, USER_AGENT};
use pingora::Error;
use pingora::proxy::Session;

use super::Gateway;
use super::exchange::{Ended, Exchange};
use super::snapshot::Plan;
use crate::answer;
use crate::auth::keys::without_keys;
use crate::limit::rate::Standing;
use crate::observe::access_log::{Account, Attempt, Entry, Quoted};
use crate::observe::metrics::{RouteCounts, protocol};

impl Gateway {
    /// Counts an exchange that is over, and writes its line; one in the background has none.
    pub(super) fn end(&self, session: &Session, exchange: &mut Exchange, error: Option<&Error>) {
        let ended = ending(exchange, error);
        exchange.end_attempt(ended.label());
        count(session, exchange, ended);
        exchange.end_trace(session, ended);
        let log = &self.belongings.access_log;
        if log.is_on() && !exchange.in_background {
            let quoted = log.quotes_the_head().then(|| Box::new(quoted(session, exchange)));
            log.record(Entry { quoted, ..entry(session, exchange, ended) });
        }
    }
}

/// How an exchange ended, for the log and for whoever counts.
pub(super) fn ending(exchange: &Exchange, error: Option<&Error>) -> answer::Ended {
    match (error, exchange.refusal) {
        (None, None) => exchange.cause_of_cut().map_or(answer::Ended::Complete, answer::Ended::Refused),
        (Some(error), None) if exchange.is_replaced() || exchange.only_the_upload_broke_off(error) => {
            answer::Ended::Complete
        }
        (_, Some(refusal)) => answer::Ended::Refused(refusal),
        (Some(error), None) => exchange.cause(error).map_or(answer::Ended::ClientGone, answer::Ended::Refused),
    }
}

/// Counts an exchange that is over. Nobody waits for what is fetched in the background, so it is no request; what it asks
/// of backends is.
pub(super) fn count(session: &Session, exchange: &Exchange, ended: answer::Ended) {
    exchange.attempts.iter().for_each(|attempt| attempt.backend.counts.outcomes.say(&attempt.outcome));
    if exchange.in_background {
        return;
    }
    let plan = exchange.plan.as_deref();
    let counts = plan.map_or(&exchange.snapshot.unrouted, |plan| &plan.counts);
    counts.answered(session.response_written().map(|head| head.status), session.req_header().version);
    counts.total.took(exchange.began.elapsed());
    if let Some(time) = exchange.first_byte {
        counts.first_byte.took(time);
    }
    counts.bytes_in.add(exchange.body_seen);
    counts.bytes_out.add(session.body_bytes_sent() as u64);
    if ended != answer::Ended::Complete {
        counts.failures.say(ended.label());
    }
    count_retries(exchange, counts);
    exchange.standings.iter().for_each(Standing::count);
    if let Some(plan) = plan.filter(|_| exchange.is_guarded()) {
        count_admission(exchange, plan, ended);
    }
}

fn count_retries(exchange: &Exchange, counts: &RouteCounts) {
    let (retries, hedges) = exchange.retries.counts();
    counts.retries.add(retries.into());
    counts.hedges.add(hedges.into());
    exchange.attempts.iter().filter_map(|attempt| attempt.no_retry).for_each(|reason| counts.no_retries.say(reason));
}

/// Whoever has no identity may still have been let in, by a store that lets everybody in while it cannot be read.
fn count_admission(exchange: &Exchange, plan: &Plan, ended: answer::Ended) {
    let refused = match ended {
        answer::Ended::Refused(refusal) if refusal.is_of_credentials() => Some(refusal.label()),
        answer::Ended::Refused(_) | answer::Ended::Complete | answer::Ended::ClientGone => None,
    };
    if refused.is_some() || exchange.identity.is_some() {
        plan.counts.auth.say(refused.unwrap_or("admitted"));
    }
}

/// The entry of an exchange that is over.
fn entry(session: &Session, exchange: &mut Exchange, ended: answer::Ended) -> Entry {
    let total = exchange.began.elapsed();
    // Before its attempts are taken out of it.
    let trace = exchange.whole_why(session);
    let plan = exchange.plan.as_ref();
    let tls = exchange.connection.as_ref().and_then(|connection| connection.tls.as_ref());
    Entry {
        // The clock may have been set back meanwhile.
        time: SystemTime::now().checked_sub(total).unwrap_or(SystemTime::UNIX_EPOCH),
        id: exchange.request.id.to_str().unwrap_or_default().to_owned(),
        trace_id: exchange.trace.map(|trace| trace.id),
        client: exchange.sender.client,
        dry_run: exchange.would_be_refused_by(),
        identity: exchange.identity.as_ref().and_then(|identity| identity.name.clone()),
        method: exchange.request.method.as_str().to_owned(),
        host: exchange.request.host().to_owned(),
        path: Entry::path_of(&std::mem::take(&mut exchange.request.path)),
        route: plan.map(|plan| plan.name.clone()),
        upstream: plan.and_then(|plan| plan.upstream.as_ref()).map(|upstream| upstream.name().clone()),
        backend: exchange.attempts.last().map(|attempt| attempt.backend.name.clone()),
        attempts: exchange.attempts.drain(..).map(attempt).collect(),
        status: session.response_written().map(|head| head.status.as_u16()),
        bytes_in: exchange.body_seen,
        bytes_out: session.body_bytes_sent() as u64,
        total,
        first_byte: exchange.first_byte,
        connect: exchange.connect,
        protocol: protocol(session.req_header().version),
        tls: tls.map(|tls| tls.version),
        cache: exchange.cache_word(session),
        encoding: exchange.encoding(session),
        reason: ended.label(),
        trace,
        account: account(exchange),
        ..Entry::default()
    }
}

/// Whose account it is on. A request that a limit has refused was charged by none.
fn account(exchange: &Exchange) -> Account {
    let (identity, standings) = (exchange.identity.as_deref(), &exchange.standings);
    let is_charged = !standings.iter().any(|standing| standing.refuses());
    Account {
        plan: identity.and_then(|identity| identity.plan.clone()),
        key: identity.and_then(|identity| identity.key.clone()),
        cost: standings.iter().filter(|_| is_charged).map(|standing| standing.cost).max(),
    }
}

/// What the log quotes of the head: as it came, but for what may be an API key.
fn quoted(session: &Session, exchange: &Exchange) -> Quoted {
    let head = session.req_header();
    let parameters = &exchange.snapshot.key_parameters;
    // Where there may be a key, what is no text is quoted as text too: it must be looked through.
    let shown = |bytes: &[u8]| match parameters.is_empty() {
        true => Quoted::of(bytes),
        false => Quoted::of(without_keys(&String::from_utf8_lossy(bytes), parameters).as_bytes()),
    };
    let field = |name: HeaderName| head.headers.get(name).map(|value| value.as_bytes());
    Quoted {
        target: shown(head.raw_path()),
        referer: field(REFERER).map(shown),
        user_agent: field(USER_AGENT).map(Quoted::of),
    }
}

fn attempt(ended: Ended) -> Attempt {
    Attempt { backend: ended.backend.name.clone(), outcome: ended.outcome, took: ended.took, no_retry: ended.no_retry }
}
