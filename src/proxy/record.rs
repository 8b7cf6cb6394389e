//! What happened? The access log entry of an exchange, and what is counted of it, once, when it ends.

use std::time::SystemTime;

use pingora::Error;
use pingora::proxy::Session;

use super::exchange::{Ended, Exchange};
use super::snapshot::Plan;
use crate::answer;
use crate::limit::rate::Standing;
use crate::observe::access_log::{Attempt, Entry};
use crate::observe::metrics::{RouteCounts, protocol};

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
pub(super) fn entry(session: &Session, exchange: &mut Exchange, ended: answer::Ended) -> Entry {
    let total = exchange.began.elapsed();
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
        path: std::mem::take(&mut exchange.request.path),
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
    }
}

fn attempt(ended: Ended) -> Attempt {
    Attempt { backend: ended.backend.name.clone(), outcome: ended.outcome, took: ended.took, no_retry: ended.no_retry }
}
