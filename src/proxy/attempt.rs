//! Which backend next, and what became of the last one? The attempts of one exchange.
//!
//! Here meet the upstream that picks, the watch that times and the room `retry` that decides. A lease is taken with
//! the pick and given back when the attempt ends, whichever way it ends.

use std::time::{Duration, Instant};

use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use xxhash_rust::xxh3::xxh3_64;

use super::exchange::{Again, Attempt, Exchange};
use super::snapshot::Plan;
use super::watch::Late;
use crate::answer::{Fault, Refusal};
use crate::balance::Ask;
use crate::config::{self, HashKey, Protocol, UpstreamTimeouts};
use crate::retry::{self, Circumstances, Failure, Verdict};
use crate::upstream::Connect;
use crate::upstream::dial::Line;

impl Exchange {
    /// Picks the next backend and takes its lease. One whose name is not resolved is passed over.
    pub(super) fn next_peer(&mut self, head: &RequestHeader) -> Result<Box<HttpPeer>, Refusal> {
        let plan = self.plan.clone().ok_or(Refusal::NoRoute)?;
        loop {
            let left = self.time_left();
            if left.is_zero() {
                return Err(Refusal::RouteTimeout);
            }
            let Again { pick, fresh } = self.next_pick(&plan, head)?;
            let Some(peer) = pick.peer(Connect { fresh, within: left }) else {
                self.tried.push(pick.backend().seat);
                continue;
            };
            let now = Instant::now();
            self.attempt = Some(Attempt { pick, began: now, sent: now, answered: false, tunnel: false });
            // What the last attempt failed with is in its own record; the exchange may yet end well.
            self.refusal = None;
            return Ok(peer);
        }
    }

    fn next_pick(&mut self, plan: &Plan, head: &RequestHeader) -> Result<Again, Refusal> {
        if let Some(again) = self.again.take() {
            return Ok(again);
        }
        let upstream = plan.upstream.as_ref().ok_or(Refusal::NoRoute)?;
        let hash = plan.hash_key.as_ref().map_or(0, |key| self.hash(key, head));
        let pick = upstream.pick(&Ask { hash, random: fastrand::u64(..) }, &self.tried);
        // What the last attempt failed with tells more than that there is nobody left.
        let pick = pick.ok_or(self.refusal.unwrap_or(Refusal::NoBackend))?;
        Ok(Again { pick, fresh: false })
    }

    /// A connection is there: from now on the backend has `first_byte` to answer, once the request has been sent.
    pub(super) fn connected(&mut self, reused: bool, digest: Option<&Digest>) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.sent = Instant::now();
        if !reused {
            self.connect = Some(attempt.began.elapsed());
        }
        self.watch.hold(digest.and_then(Line::of));
        self.request_moved();
    }

    /// Part of the request has been read, or all of it.
    pub(super) fn request_moved(&mut self) {
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.answered {
            return;
        }
        attempt.sent = Instant::now();
        let UpstreamTimeouts { first_byte, write, .. } = attempt.pick.upstream().config.timeouts;
        match self.request_ended {
            None => self.watch.expect_body(self.body_timeout(), write),
            Some(_) => match self.time_left() {
                left if left < first_byte => self.watch.expect(left, Late::Route),
                _ => self.watch.expect(first_byte, Late::FirstByte),
            },
        }
    }

    /// The head of a response is there. An interim one does not stop the clock (RFC 9110, section 15.2), but 101 does.
    pub(super) fn answered(&mut self, head: &ResponseHeader) {
        let interim = head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS;
        let Some(attempt) = self.attempt.as_mut().filter(|_| !interim) else { return };
        attempt.answered = true;
        // It may have been late, on a connection that could not be cut.
        self.watch.take_late();
        attempt.tunnel = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
        self.first_byte = Some(self.began.elapsed());
        attempt.pick.backend().record_answer(attempt.sent.elapsed());
        self.response_moved();
    }

    /// Part of the response has been read, or a byte went through a tunnel.
    pub(super) fn response_moved(&self) {
        let Some(attempt) = &self.attempt else { return };
        let config::Upstream { timeouts, protocol, .. } = &attempt.pick.upstream().config;
        if *protocol != Protocol::Http1 {
            // HTTP/2 is read whether or not the client takes it, so only Pingora knows for whom a stream waits.
            return self.watch.pause();
        }
        let limit = if attempt.tunnel { timeouts.tunnel } else { timeouts.between_bytes };
        self.watch.expect(limit, Late::BetweenBytes);
    }

    /// The last of the response has been read. What is left is up to the client, and no reason to cut the backend off.
    pub(super) fn response_ended(&self) {
        self.watch.rest();
    }

    /// There was no connection.
    pub(super) fn not_connected(&mut self, peer: &HttpPeer, error: &Error) -> bool {
        let refusal = match error.etype() {
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Refusal::ConnectTimeout,
            ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => Refusal::BackendTls,
            _ => Refusal::ConnectRefused,
        };
        self.refusal = Some(refusal);
        let Some(pick) = self.end_attempt(refusal.label()) else { return false };
        pick.mark_address(peer);
        let verdict = retry::decide(Failure::Connect, self.circumstances(true, true));
        let tries_of_this = self.attempts.iter().rev().take_while(|ended| ended.backend == pick.backend().name).count();
        if verdict == Verdict::Elsewhere && tries_of_this < pick.addresses() {
            self.again = Some(Again { pick, fresh: false });
        } else {
            pick.backend().record_failure(refusal.label());
            self.tried.push(pick.backend().seat);
        }
        verdict == Verdict::Elsewhere
    }

    /// Something went wrong after the connection was there. Says whether there shall be another attempt.
    pub(super) fn failed(&mut self, session: &Session, error: &Error, reused: bool) -> bool {
        let refusal = self.cause(error);
        let Some(refusal) = refusal else {
            self.end_attempt("client_gone");
            return false;
        };
        self.refusal = Some(refusal);
        let answered = self.attempt.as_ref().is_some_and(|attempt| attempt.answered);
        let Some(pick) = self.end_attempt(refusal.label()) else { return false };
        let stale = reused && !answered && refusal == Refusal::BackendClosed;
        let idempotent = session.req_header().method.is_idempotent();
        let mut now = self.circumstances(idempotent, !session.as_ref().retry_buffer_truncated());
        now.response_begun = session.response_written().is_some();
        let verdict = retry::decide(if stale { Failure::StaleConnection } else { Failure::Later }, now);
        if verdict == Verdict::SameAgain {
            self.had_free_try = true;
            self.again = Some(Again { pick, fresh: true });
            return true;
        }
        if refusal.fault() == Fault::Backend {
            pick.backend().record_failure(refusal.label());
        }
        false
    }

    /// Why an exchange failed; `None` when the client has gone away.
    pub(super) fn cause(&self, error: &Error) -> Option<Refusal> {
        if let Some(late) = self.watch.take_late() {
            return Some(late.refusal());
        }
        let answered = self.attempt.as_ref().is_some_and(|attempt| attempt.answered);
        match error.esource() {
            ErrorSource::Upstream => Some(upstream_cause(error.etype(), answered)),
            ErrorSource::Downstream => self.downstream_cause(error.etype()),
            ErrorSource::Internal | ErrorSource::Unset => Some(self.refusal.unwrap_or(Refusal::Internal)),
        }
    }

    /// Why we cut a tunnel, if we did: to Pingora it then just ended.
    pub(super) fn cause_of_cut(&self) -> Option<Refusal> {
        let in_tunnel = self.attempt.as_ref().is_some_and(|attempt| attempt.tunnel);
        self.watch.take_late().filter(|_| in_tunnel).map(Late::refusal)
    }

    fn downstream_cause(&self, kind: &ErrorType) -> Option<Refusal> {
        if self.connection.as_ref().is_some_and(|connection| connection.body_is_malformed()) {
            return Some(Refusal::MalformedBody);
        }
        match kind {
            ErrorType::ReadTimedout => Some(Refusal::BodyTimeout),
            ErrorType::HTTPStatus(_) => Some(self.refusal.unwrap_or(Refusal::MalformedRequest)),
            ErrorType::InvalidHTTPHeader => Some(Refusal::MalformedRequest),
            // Pingora's word for a chunk that cannot be read; a connection that breaks has other words.
            ErrorType::Custom("InvalidChunk") => Some(Refusal::MalformedBody),
            _ => None,
        }
    }

    fn circumstances(&self, idempotent: bool, replayable: bool) -> Circumstances {
        Circumstances {
            attempts: self.attempts.len(),
            idempotent,
            replayable,
            had_free_try: self.had_free_try,
            response_begun: false,
        }
    }

    fn body_timeout(&self) -> Duration {
        let listener = self.connection.as_ref().and_then(|it| self.snapshot.listeners.get(it.listener));
        listener.map_or(Duration::from_secs(30), |listener| listener.timeouts.body)
    }

    fn hash(&self, key: &HashKey, head: &RequestHeader) -> u64 {
        match key {
            HashKey::ClientAddress => {
                xxh3_64(self.sender.client.map(|ip| ip.to_string()).unwrap_or_default().as_bytes())
            }
            HashKey::Path => xxh3_64(self.request.path.as_bytes()),
            HashKey::Header(name) => xxh3_64(head.headers.get(name).map_or(b"", |value| value.as_bytes())),
            HashKey::Cookie(name) => xxh3_64(cookie(head, name).unwrap_or("").as_bytes()),
        }
    }
}

fn upstream_cause(kind: &ErrorType, answered: bool) -> Refusal {
    match kind {
        ErrorType::ReadTimedout if answered => Refusal::StalledResponse,
        ErrorType::ReadTimedout => Refusal::FirstByteTimeout,
        ErrorType::WriteTimedout => Refusal::StalledRequest,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => Refusal::BackendClosed,
        _ => Refusal::BackendProtocol,
    }
}

/// The value of a cookie (RFC 6265, section 5.4).
fn cookie<'a>(head: &'a RequestHeader, name: &str) -> Option<&'a str> {
    let fields = head.headers.get_all(http::header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
