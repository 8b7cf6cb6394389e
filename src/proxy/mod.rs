//! What happens to a request, in order? The corridor: the one place that knows the phases.
//!
//! The phases stand in the order in which Pingora calls them. Each is a few calls into rooms; none parses, computes or
//! formats. Nothing else in the program implements `ProxyHttp`.

mod attempt;
mod client;
pub mod connection;
mod exchange;
mod forward;
mod inspect;
mod record;
mod reply;
mod snapshot;
mod watch;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::sync::watch::Receiver;

use crate::answer::Ended;
use crate::filter::{Answer, Client};
use crate::observe::access_log::AccessLog;
use crate::path;
use crate::route::{RequestView, host};

pub use self::exchange::Exchange;
pub use self::snapshot::{ListenerPlan, Plan, Snapshot, Upstreams};
pub use self::watch::watched;

/// The proxy's logic, shared by all listeners.
pub struct Gateway {
    /// What requests consult; swapped by a reload.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where each request leaves a line.
    pub access_log: AccessLog,
    /// Turns true when no connection shall be used again.
    pub closing: Receiver<bool>,
}

impl Gateway {
    /// Says `Connection: close` where a client would otherwise send its next request to nobody (RFC 9112, section 9.6).
    fn close_if_leaving(&self, session: &mut Session) {
        if *self.closing.borrow() {
            session.set_keepalive(None);
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::begin(self.snapshot.load_full())
    }

    /// No modules: Pingora's own compression is not used.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        exchange.set_limits(session);
        exchange.meet(session.req_header());
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        self.close_if_leaving(session);
        let answer = match exchange.find_plan(session.req_header()) {
            Ok(()) => exchange.pass_filters(session).await,
            Err(refusal) => ControlFlow::Break(Answer::Refuse(refusal)),
        };
        match answer {
            ControlFlow::Continue(()) => Ok(false),
            ControlFlow::Break(answer) => reply::answer(session, exchange, answer).await.map(|()| true),
        }
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        exchange.next_peer(session.req_header()).map_err(|refusal| {
            exchange.refusal = Some(refusal);
            Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), refusal.label())
        })
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(exchange.not_connected(peer, &error));
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.connected(reused, digest);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let connection = exchange.connection.as_deref();
        forward::request(head, session.req_header(), (&exchange.request, exchange.sender), connection)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.take_body(body.as_ref().map_or(0, Bytes::len), end_of_stream)
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        head: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.answered(head);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        exchange.response_moved(session.as_downstream().was_upgraded());
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        error.set_retry(exchange.failed(session, &error, reused));
        error
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        self.close_if_leaving(session);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            session.set_read_timeout(None);
        }
        forward::response(head, head.version)?;
        exchange.expose(head)?;
        if let Some(plan) = &exchange.plan {
            plan.filters.on_response(head);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        let ended = record::ending(exchange, Some(error));
        let error_code = match ended {
            Ended::Refused(refusal) if session.response_written().is_none() => {
                // The connection ends below, so the answer must say it.
                session.set_keepalive(None);
                let _ = reply::refuse(session, exchange, refusal).await;
                refusal.status().as_u16()
            }
            Ended::Refused(_) | Ended::ClientGone | Ended::Complete => 0,
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Each request has its line in the access log, so Pingora's own would be a second one.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, _error: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        let ended = record::ending(exchange, error);
        exchange.end_attempt(ended.label());
        if self.access_log.is_on() {
            self.access_log.record(record::entry(session, exchange, ended));
        }
    }
}

impl Exchange {
    /// Gives the session the time limits of its listener. Those of the head are kept below Pingora.
    fn set_limits(&self, session: &mut Session) {
        let listener = self.connection.as_ref().and_then(|connection| self.snapshot.listeners.get(connection.listener));
        if let Some(listener) = listener {
            session.set_read_timeout(Some(listener.timeouts.body));
            session.set_write_timeout(Some(listener.timeouts.write));
        }
        if session.req_header().version < http::Version::HTTP_11 {
            // RFC 9110, section 15.2: a client of HTTP/1.0 knows no interim responses.
            session.as_downstream_mut().set_ignore_info_resp(true);
        }
    }

    /// Notes who sent what.
    fn meet(&mut self, head: &RequestHeader) {
        let peer = self.connection.as_ref().and_then(|connection| connection.peer);
        self.sender = client::sender(peer, &head.headers, &self.snapshot.trusted_proxies);
        self.request.id = forward::request_id(head, self.sender.trusted);
        self.request.method = head.method.clone();
        self.request.path = head.uri.path().to_owned();
    }

    /// Finds what the request leads to, unless its head may not pass.
    fn find_plan(&mut self, head: &RequestHeader) -> Result<(), crate::answer::Refusal> {
        use crate::answer::Refusal::{BadHost, BadTarget, NoRoute};
        let authority = inspect::inspect(head)?;
        self.request.authority = authority.to_owned();
        if !authority.is_empty() {
            self.request.host = host::normalise(authority).map_err(|_| BadHost)?.into_owned();
        }
        let path = path::normalise(head.uri.path()).map_err(|_| BadTarget)?;
        let view = RequestView {
            listener: self.connection.as_ref().and_then(|connection| connection.listener_name.as_deref()),
            host: &self.request.host,
            path: &path,
            method: &head.method,
            headers: &head.headers,
            query: head.uri.query(),
        };
        if self
            .listener()
            .is_some_and(|listener| listener.redirect_to_https.is_some() || listener.acme_challenges.is_some())
        {
            return Ok(());
        }
        self.plan = Some(self.snapshot.routes.find(&view).ok_or(NoRoute)?.clone());
        Ok(())
    }

    fn listener(&self) -> Option<&ListenerPlan> {
        self.snapshot.listeners.get(self.connection.as_ref()?.listener)
    }

    /// Asks the listener and the filters of the plan whether they answer.
    async fn pass_filters(&mut self, session: &mut Session) -> ControlFlow<Answer> {
        let listener = self.connection.as_ref().and_then(|connection| self.snapshot.listeners.get(connection.listener));
        if let Some(folder) = listener.and_then(|listener| listener.acme_challenges.as_deref())
            && let Some(answer) = reply::acme_challenge(folder, &self.request.path).await
        {
            return ControlFlow::Break(answer);
        }
        if let Some(port) = listener.and_then(|listener| listener.redirect_to_https) {
            let target = session.req_header().uri.path_and_query().map_or("/", |target| target.as_str());
            return ControlFlow::Break(reply::to_https(&self.request, target, port));
        }
        let client = Client {
            address: self.sender.client,
            tls: self.connection.as_ref().is_some_and(|connection| connection.tls.is_some()),
        };
        if session.as_downstream_mut().is_body_done() {
            self.request_ended = Some(Instant::now());
        }
        match &self.plan {
            Some(plan) => plan.filters.on_request(session.req_header_mut(), &client),
            None => ControlFlow::Continue(()),
        }
    }

    /// Counts the request's body, and refuses what is over its limit.
    fn take_body(&mut self, bytes: usize, end: bool) -> Result<()> {
        self.body_seen += bytes as u64;
        if end && self.request_ended.is_none() {
            self.request_ended = Some(Instant::now());
        }
        self.request_moved();
        match self.plan.as_ref().map(|plan| plan.filters.on_body(self.body_seen)) {
            Some(ControlFlow::Break(refusal)) => {
                self.refusal = Some(refusal);
                Error::e_explain(ErrorType::HTTPStatus(refusal.status().as_u16()), refusal.label())
                    .map_err(|e: Box<Error>| e.into_down())
            }
            Some(ControlFlow::Continue(())) | None => Ok(()),
        }
    }

    /// Tells the client what its route exposes.
    fn expose(&self, head: &mut ResponseHeader) -> Result<()> {
        let (Some(plan), Some(attempt)) = (&self.plan, &self.attempt) else { return Ok(()) };
        if plan.expose.backend {
            head.insert_header(reply::BACKEND, &*attempt.pick.backend().name)?;
        }
        if plan.expose.timing {
            let total = self.began.elapsed();
            let upstream = attempt.began.elapsed();
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            head.append_header(
                reply::TIMING,
                format!("portcullis;dur={:.1}, upstream;dur={:.1}", ms(total.saturating_sub(upstream)), ms(upstream)),
            )?;
        }
        Ok(())
    }
}
