//! What happened? The access log entry of an exchange, written once, when it ends.

use std::time::SystemTime;

use http::Version;
use pingora::Error;
use pingora::proxy::Session;

use super::exchange::{Ended, Exchange};
use crate::answer;
use crate::observe::access_log::{Attempt, Entry};

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

/// The entry of an exchange that is over.
pub(super) fn entry(session: &Session, exchange: &mut Exchange, ended: answer::Ended) -> Entry {
    let total = exchange.began.elapsed();
    let plan = exchange.plan.as_ref();
    let tls = exchange.connection.as_ref().and_then(|connection| connection.tls.as_ref());
    Entry {
        // The clock may have been set back meanwhile.
        time: SystemTime::now().checked_sub(total).unwrap_or(SystemTime::UNIX_EPOCH),
        id: exchange.request.id.to_str().unwrap_or_default().to_owned(),
        client: exchange.sender.client,
        dry_run: exchange.would_be_refused_by(),
        identity: exchange.identity.as_ref().and_then(|identity| identity.name.clone()),
        method: exchange.request.method.as_str().to_owned(),
        host: exchange.request.host().to_owned(),
        path: std::mem::take(&mut exchange.request.path),
        route: plan.map(|plan| plan.name.clone()),
        upstream: plan.and_then(|plan| plan.upstream.as_ref()).map(|upstream| upstream.name().clone()),
        backend: exchange.attempts.last().map(|attempt| attempt.backend.clone()),
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
    Attempt { backend: ended.backend, outcome: ended.outcome, took: ended.took, no_retry: ended.no_retry }
}

fn protocol(version: Version) -> &'static str {
    if version == Version::HTTP_2 {
        "HTTP/2"
    } else if version == Version::HTTP_10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    }
}
