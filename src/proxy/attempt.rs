//! Which backend next, and what became of the last one? The attempts of one exchange.
//!
//! Here meet the upstream that picks, the watch that times and the room `retry` that decides. A lease is taken with
//! the pick and given back when the attempt ends, whichever way it ends.

use std::sync::Arc;
use std::time::Instant;

use http::header::UPGRADE;
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource};
use xxhash_rust::xxh3::xxh3_64;

use super::again::{self, Next};
use super::cause;
use super::connection;
use super::exchange::{Again, Attempt, Exchange, Phase};
use super::lesson;
use super::queue::NoPick;
use super::snapshot::Plan;
use super::watch::Late;
use crate::answer::{self, Refusal};
use crate::config::{HashKey, UpstreamTimeouts};
use crate::observe::tracing::SpanId;
use crate::retry::{self, Failure, Verdict};
use crate::upstream::dial::Line;
use crate::upstream::{Connect, Pick, Relayed, Way};

/// The addresses of one name that a request tries: enough for both families of a host, and the other backends shall
/// have their turn.
const ADDRESSES_MAX: usize = 3;

impl Exchange {
    /// The next backend in Pingora's form.
    pub(super) async fn next_peer(&mut self, session: &mut Session) -> Result<Box<HttpPeer>, NoPick> {
        let way = self.next_way(session).await?;
        self.peer(&way).ok_or(NoPick::Refused(Refusal::NoBackend))
    }

    /// The peer at the end of the way of the attempt under way.
    pub(super) fn peer(&self, way: &Way) -> Option<Box<HttpPeer>> {
        self.attempt.as_ref()?.pick.peer(way)
    }

    /// Picks the next backend and takes its lease. One whose name is not resolved is passed over.
    pub(super) async fn next_way(&mut self, session: &mut Session) -> Result<Way, NoPick> {
        let plan = self.plan.clone().ok_or(NoPick::Refused(Refusal::NoRoute))?;
        let mut now = Instant::now();
        let is_first = self.attempts.is_empty() && self.tried.is_empty();
        if let (true, Some(upstream)) = (is_first && plan.retry.attempts > 1, &plan.upstream) {
            upstream.retries.deposit(now);
        }
        loop {
            if self.time_left(now).is_zero() {
                return Err(NoPick::Refused(Refusal::RouteTimeout));
            }
            let Again { pick, fresh } = self.next_pick(&plan, session, &mut now).await?;
            let left = self.time_left(now);
            let within = plan.retry.per_attempt.map_or(left, |limit| limit.min(left));
            let head = session.req_header();
            let relayed = self.connection.as_ref().map_or_else(nobodys, |connection| connection.relayed());
            let fresh = fresh || (self.only_once(&plan, head) && pick.distrusts_pool());
            let Some(way) = pick.way(Connect { fresh, within, upgrades: self.upgrades(head), relayed }) else {
                self.tried.push(pick.backend().seat);
                continue;
            };
            self.attempt = Some(Attempt {
                pick,
                fresh,
                began: now,
                sent: now,
                phase: Phase::Waiting,
                timed_by_us: way.timed_by_us,
                throttled: false,
                status: None,
                version: Version::HTTP_11,
                span: SpanId::new(),
                no_retry: None,
            });
            // What the last attempt failed with is in its own record; the exchange may yet end well.
            self.refusal = None;
            return Ok(way);
        }
    }

    /// Whether the request must not reach a backend twice.
    fn only_once(&self, plan: &Plan, head: &RequestHeader) -> bool {
        !head.method.is_idempotent() && !plan.retry.non_idempotent
    }

    /// Whether the client asks for another protocol, which only HTTP/1.1 can do (RFC 9110, section 7.8).
    fn upgrades(&self, head: &RequestHeader) -> bool {
        head.version == Version::HTTP_11 && head.headers.contains_key(UPGRADE)
    }

    /// A connection is there: from now on the backend has `first_byte` to answer, once the request has been sent.
    pub(super) fn connected(&mut self, reused: bool, line: Option<Line>) {
        // A pooled connection is there at once, and asking the clock has its price.
        let began = self.attempt.as_ref().map(|attempt| attempt.began);
        let now = began.filter(|_| reused).unwrap_or_else(Instant::now);
        if let Some(began) = began.filter(|_| !reused) {
            self.connect = Some(now.saturating_duration_since(began));
        }
        // Pingora shows us the body from its beginning, each time.
        self.body_seen = 0;
        self.watch.hold(line);
        if let Some(attempt) = &mut self.attempt {
            attempt.pick.sent();
            attempt.pick.backend().counts.connection(reused);
        }
        self.request_moved(now);
    }

    /// In which version of HTTP an answer was received. Its head may say a later one since: to put an answer in chunks, that
    /// is what it has to say.
    pub(super) fn received_in(&self, head: &ResponseHeader) -> Version {
        let answered = self.attempt.as_ref().filter(|attempt| attempt.status == Some(head.status));
        answered.map_or(head.version, |attempt| attempt.version)
    }

    /// Part of the request has been read, or all of it.
    pub(super) fn request_moved(&mut self, now: Instant) {
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.phase != Phase::Waiting {
            return self.response_moved(now);
        }
        attempt.sent = now;
        let UpstreamTimeouts { first_byte, write, .. } = attempt.pick.upstream().config.timeouts;
        match self.request_ended {
            None => {
                let patience = self.patience_with_client(now);
                self.watch.expect_body(now, patience, write);
            }
            Some(ended) => {
                let began = attempt.began.max(ended);
                let (limit, late) = self.patience(began, first_byte).at(now);
                self.watch.expect(now, limit, late);
            }
        }
    }

    /// The head of a response is there. An interim one does not stop the clock (RFC 9110, section 15.2), but 101 does.
    pub(super) fn answered(&mut self, head: &ResponseHeader) {
        let tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let interim = head.status.is_informational() && !tunnel;
        let Some(attempt) = self.attempt.as_mut().filter(|_| !interim) else { return };
        (attempt.status, attempt.version) = (Some(head.status), head.version);
        attempt.phase = if tunnel { Phase::Tunnel } else { Phase::Answered };
        // It may have been late, on a connection that could not be cut.
        self.watch.take_late();
        let now = Instant::now();
        self.first_byte = Some(now.saturating_duration_since(self.began));
        let (backend, latency) = (attempt.pick.backend(), now.saturating_duration_since(attempt.sent));
        attempt.pick.learn(lesson::of_answer(head, latency), now);
        match head.status.is_server_error() {
            true => backend.record_error_answer(latency, head.status.as_u16()),
            false => backend.record_answer(latency),
        }
        if tunnel {
            let watch = self.watch.clone();
            self.tunnel = Some(backend.tunnels.enter(Arc::new(move || watch.cut_tunnel())));
        }
        let waits = attempt.pick.answered(head.status, &head.headers, now);
        attempt.throttled = waits && head.status == StatusCode::TOO_MANY_REQUESTS;
        self.response_moved(now);
    }

    /// Part of the response has been read, or a byte went through a tunnel.
    pub(super) fn response_moved(&self, now: Instant) {
        let Some(attempt) = self.attempt.as_ref().filter(|_| !self.response_read) else { return };
        let timeouts = &attempt.pick.upstream().config.timeouts;
        match attempt.phase {
            Phase::Waiting | Phase::Dropped => {}
            // HTTP/2 is read whether or not the client takes it, so only Pingora knows for whom a stream waits.
            Phase::Answered | Phase::Tunnel if !attempt.timed_by_us => self.watch.pause(),
            Phase::Answered => self.watch.expect(now, timeouts.between_bytes, Late::BetweenBytes),
            Phase::Tunnel => self.watch.expect(now, timeouts.tunnel, Late::BetweenBytes),
        }
    }

    /// The whole response has been read: the backend owes nothing more.
    ///
    /// A response that ends with its connection looks whole when it was us who cut the connection.
    pub(super) fn response_ended(&mut self) -> Result<(), Box<Error>> {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.phase == Phase::Answered) {
            if self.watch.is_late() {
                return Err(cause::of_a_cut());
            }
            self.response_read = true;
            self.watch.rest();
        }
        Ok(())
    }

    /// There was no connection.
    pub(super) fn not_connected(&mut self, session: &Session, peer: &HttpPeer, error: &Error) -> bool {
        let refusal = cause::of_no_connection(error);
        self.refusal = Some(refusal);
        let fresh = self.attempt.as_ref().is_some_and(|attempt| attempt.fresh);
        let Some(mut pick) = self.end_attempt(refusal.label()) else { return false };
        let now = Instant::now();
        if self.time_left(now).is_zero() {
            // It was the route's time that was short, not the backend that was slow.
            self.refusal = Some(Refusal::RouteTimeout);
            return false;
        }
        pick.mark_address(peer);
        let Some(plan) = self.plan.clone() else { return false };
        let moves = retry::decide(&plan.retry, Failure::Connect, &self.circumstances(session, now)) == Verdict::MoveOn;
        let tries_of_this =
            self.attempts.iter().rev().take_while(|ended| ended.backend.name == pick.backend().name).count();
        if moves && tries_of_this < pick.addresses().min(ADDRESSES_MAX) {
            self.again = Some(Again { pick, fresh });
            return true;
        }
        self.blame(&mut pick, refusal, now);
        moves && self.move_on(session, pick.backend().seat)
    }

    /// Something went wrong after the connection was there. Says whether there shall be another attempt.
    pub(super) fn failed(&mut self, session: &Session, error: &Error, reused: bool) -> bool {
        let client_left = *error.esource() == ErrorSource::Downstream;
        if let Some(status) = self.given_up_for().filter(|_| !client_left) {
            self.end_attempt(again::status_label(status));
            // What has been read since the decision may have been too much to be kept.
            return self.is_replayable(session);
        }
        if let Some(status) = self.gives_way_to_stale() {
            self.end_attempt(again::status_label(status));
            return false;
        }
        if self.is_replaced() || self.only_the_upload_broke_off(error) {
            self.end_attempt(answer::Ended::Complete.label());
            return false;
        }
        let refusal = self.cause(error);
        let Some(refusal) = refusal else {
            self.learn_of_the_wait();
            self.end_attempt(answer::Ended::ClientGone.label());
            return false;
        };
        self.refusal = Some(refusal);
        let answered = self.attempt.as_ref().is_some_and(|attempt| attempt.phase != Phase::Waiting);
        let Some(mut pick) = self.end_attempt(refusal.label()) else { return false };
        let failure = if answered { Failure::Other } else { cause::failure(refusal, error, reused) };
        if failure == Failure::StaleConnection {
            pick.note_stale();
        }
        let next = self.once_more(session, failure, pick.backend().seat);
        if next == Ok(Next::SameAgain) {
            self.had_free_try = true;
            let fresh = failure == Failure::StaleConnection;
            // Else whoever has something left of its quota gets it.
            self.again = pick.may_send_again(Instant::now()).then_some(Again { pick, fresh });
            return true;
        }
        self.blame(&mut pick, refusal, Instant::now());
        next.map_err(|reason| self.note_reason(reason)).is_ok()
    }

    /// Counts a failure against the backend whose attempt has just ended, if it is its own.
    pub(super) fn blame(&self, pick: &mut Pick, refusal: Refusal, now: Instant) {
        if !refusal.fault().is_of_the_backend() {
            return;
        }
        pick.backend().record_failure(refusal.label());
        pick.learn(lesson::FAILED, now);
        // What another backend has left of the route's time may be too little for anybody.
        if refusal != Refusal::RouteTimeout || self.attempts.len() == 1 {
            pick.failed(now);
        }
    }

    /// The hash of a request's key; `None` if it has none.
    pub(super) fn hash(&self, key: &HashKey, head: &RequestHeader) -> Option<u64> {
        match key {
            HashKey::ClientAddress => self.sender.client.map(|ip| xxh3_64(ip.to_string().as_bytes())),
            HashKey::Path => Some(xxh3_64(self.request.path.as_bytes())),
            HashKey::Header(name) => head.headers.get(name).map(|value| xxh3_64(value.as_bytes())),
            HashKey::Cookie(name) => cookie(head, name).map(|value| xxh3_64(value.as_bytes())),
        }
    }
}

/// What no client has asked for.
fn nobodys() -> Relayed {
    Relayed { id: connection::next_id(), ends: None }
}

/// The value of a cookie (RFC 6265, section 5.4).
pub(crate) fn cookie<'a>(head: &'a RequestHeader, name: &str) -> Option<&'a str> {
    let fields = head.headers.get_all(http::header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
