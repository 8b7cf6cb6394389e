//! Who is there, and what do they want? From the arrival of a request to its plan, and the limits on its body.
//!
//! Each call is one step of the corridor's first phases. Nothing here waits for a backend.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::authority::Authority;
use super::client::Sender;
use super::exchange::{Exchange, Phase};
use super::forward::Words;
use super::snapshot::ListenerPlan;
use super::{client, forward, inspect, reply};
use crate::answer::Refusal;
use crate::auth::keys::without_keys;
use crate::filter::{Answer, Client};
use crate::path;
use crate::route::RequestView;

impl Exchange {
    /// Gives the session the time limits of its listener. Those of the head are kept below Pingora, and on HTTP/1 that of
    /// a write too, where it costs nothing.
    pub(super) fn set_limits(&mut self, session: &mut Session) {
        self.expect_upload();
        if let Some(listener) = self.listener() {
            session.set_read_timeout(Some(listener.timeouts.body));
            if session.req_header().version == http::Version::HTTP_2 {
                session.set_write_timeout(Some(listener.timeouts.write));
            }
        }
        if session.req_header().version < http::Version::HTTP_11 {
            // RFC 9110, section 15.2: a client of HTTP/1.0 knows no interim responses.
            session.as_downstream_mut().set_ignore_info_resp(true);
        }
    }

    /// Notes who sent what.
    pub(super) fn meet(&mut self, head: &RequestHeader) {
        let connection = self.connection.as_ref();
        let peer = connection.and_then(|connection| connection.peer);
        self.sender = match connection.is_some_and(|connection| connection.is_nobodys) {
            true => Sender::alone(peer),
            false => client::sender(peer, &head.headers, &self.snapshot.believed),
        };
        self.request.id = forward::request_id(head, self.sender.trusted);
        self.request.method = head.method.clone();
        self.request.path = head.uri.path().to_owned();
        self.request.fields = head.headers.len();
        self.begin_trace(head);
    }

    /// Finds what the request leads to, unless its head may not pass.
    pub(super) fn find_plan(&mut self, head: &RequestHeader) -> Result<(), Refusal> {
        // On HTTP/1 the guard below Pingora has counted them already.
        if self.listener().is_some_and(|listener| self.request.fields > listener.headers_max) {
            return Err(Refusal::HeaderTooLarge);
        }
        let written = inspect::inspect(head)?;
        let authority = match &self.connection {
            Some(connection) => connection.authority(written),
            None => Authority::new(written, &Words::default()).map(Arc::new),
        };
        self.request.authority = Some(authority.map_err(|_| Refusal::BadHost)?);
        let path = path::normalise(head.uri.path()).map_err(|_| Refusal::BadTarget)?;
        if self.listener().is_some_and(|listener| listener.redirect_to_https.is_some()) {
            return Ok(());
        }
        let view = RequestView {
            listener: self.connection.as_ref().and_then(|connection| connection.listener_name.as_deref()),
            host: self.request.host(),
            path: &path,
            method: &head.method,
            headers: &head.headers,
            query: head.uri.query(),
        };
        self.plan = self.snapshot.routes.find(&view).cloned();
        Ok(())
    }

    /// Asks the listener, whatever keeps people out, and the filters of the plan whether they answer.
    pub(super) async fn pass_filters(&mut self, session: &mut Session) -> ControlFlow<Answer> {
        if let Some(answer) = self.listeners_answer(session.req_header()).await {
            return ControlFlow::Break(answer);
        }
        forward::forget_case(session.req_header_mut());
        self.admit(session).await?;
        let Some(plan) = &self.plan else { return ControlFlow::Break(Answer::Refuse(Refusal::NoRoute)) };
        if session.as_downstream_mut().is_body_done() {
            self.request_ended = Some(self.began);
        }
        let tls = self.connection.as_ref().is_some_and(|connection| connection.tls.is_some());
        plan.filters.on_request(session.req_header_mut(), &Client { address: self.sender.client, tls })
    }

    /// What the listener answers before any route: ACME challenges, then the redirect to `https`.
    async fn listeners_answer(&self, head: &RequestHeader) -> Option<Answer> {
        let listener = self.listener()?;
        if let Some(folder) = &listener.acme_challenges
            && let Some(answer) = reply::acme_challenge(folder, &self.request.path).await
        {
            return Some(answer);
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        // Over the wire that it came on, anybody may have read a key in it; it shall not be taken for a good one.
        let target = || without_keys(target, &self.snapshot.key_parameters);
        listener.redirect_to_https.map(|port| reply::to_https(&self.request, &target(), port))
    }

    /// Lets the filters of the plan change the head that goes to the backend.
    pub(super) fn edit(&mut self, head: &mut RequestHeader) -> Result<()> {
        match self.plan.as_ref().map(|plan| plan.filters.on_forward(head)) {
            Some(ControlFlow::Break(refusal)) => Err(self.refused(refusal)),
            Some(ControlFlow::Continue(())) | None => Ok(()),
        }
    }

    pub(super) fn refused(&mut self, refusal: Refusal) -> Box<Error> {
        self.refusal = Some(refusal);
        Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), refusal.label()).into_down()
    }

    /// Counts the request's body, and refuses what is over its limit.
    pub(super) fn take_body(&mut self, bytes: usize, end: bool) -> Result<()> {
        self.body_seen += bytes as u64;
        if self.attempt.as_ref().is_some_and(|attempt| attempt.phase == Phase::Tunnel) {
            self.response_moved(Instant::now());
            return Ok(());
        }
        if bytes > 0 || self.request_ended.is_none() {
            let now = Instant::now();
            self.request_ended = self.request_ended.or(end.then_some(now));
            self.keep_pace(bytes, now)?;
            self.request_moved(now);
        }
        match self.plan.as_ref().map(|plan| plan.filters.on_body(self.body_seen)) {
            Some(ControlFlow::Break(refusal)) => Err(self.refused(refusal)),
            Some(ControlFlow::Continue(())) | None => Ok(()),
        }
    }

    /// What the listener of this exchange does besides routing.
    pub(super) fn listener(&self) -> Option<&ListenerPlan> {
        self.snapshot.listeners.get(self.connection.as_ref()?.listener)
    }
}

/// An empty piece at the end of a body, as many HTTP/2 clients send it, is no piece: Pingora writes it to HTTP/1.1 as the
/// last chunk, and then the last chunk once more, which the backend would take for the beginning of another request.
pub(super) fn end_once(body: &mut Option<Bytes>, end: bool) {
    if end {
        body.take_if(|piece| piece.is_empty());
    }
}
