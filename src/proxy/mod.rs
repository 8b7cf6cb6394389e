//! What happens to a request, in order? The corridor: the one place that knows the phases.
//!
//! The phases stand in the order in which Pingora calls them. Each is a few calls into rooms; none parses, computes or
//! formats. Nothing else in the program implements `ProxyHttp`.

mod admit;
mod again;
mod arrive;
mod attempt;
mod authority;
mod cached;
mod cause;
mod certificate;
mod client;
mod coding;
pub mod connection;
mod date;
mod direct;
mod exchange;
pub mod explain;
mod forward;
mod gateway;
mod hedge;
mod inspect;
mod lesson;
mod parting;
mod patience;
mod queue;
mod rates;
mod record;
mod replay;
mod reply;
mod say;
mod snapshot;
mod sticky;
mod timer;
mod trace;
mod upload;
mod watch;
mod why;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, RangeType, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_cache::key::HashBinary;
use pingora_cache::{CacheKey, CacheMeta, ForcedFreshness, HitHandler, RespCacheable};

use crate::answer::{Ended, Refusal};
use crate::cache::rules;
use crate::filter::Answer;
use crate::upstream::dial::Line;

pub use self::admit::{Admission, Admissions, Lasting};
pub(crate) use self::attempt::cookie;
pub(crate) use self::client::{Believed, sender};
pub(crate) use self::connection::streams_from_the_store;
pub(crate) use self::date::DATE_LENGTH;
pub use self::exchange::Exchange;
pub use self::gateway::{Belongings, Gateway};
pub use self::snapshot::{ListenerPlan, Plan, Snapshot, Upstreams};
pub(crate) use self::timer::Timer;
pub use self::watch::watched;

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: Pingora moves it from future to future, and each of them is moved too.
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Box<Exchange> {
        Box::new(self.begin())
    }

    /// No modules for all: an answer that is recoded brings its own, see `coding`.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<()> {
        self.adopt(session, exchange)?;
        exchange.set_limits(session);
        exchange.begin_why(session);
        exchange.meet(session.req_header());
        exchange.tell_certificate(session);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<bool> {
        self.close_if_leaving(session, exchange);
        let answer = match exchange.find_plan(session.req_header()) {
            Ok(()) => exchange.pass_filters(session).await,
            Err(refusal) => ControlFlow::Break(Answer::Refuse(refusal)),
        };
        match answer {
            ControlFlow::Continue(()) => {
                if self.serve_hit(session, exchange).await? {
                    return Ok(true);
                }
                self.read_key_body(session, exchange).await?;
                exchange.remember_body(session, &self.kept);
                Ok(false)
            }
            ControlFlow::Break(answer) => reply::answer(session, exchange, answer).await.map(|()| true),
        }
    }

    fn request_cache_filter(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<()> {
        exchange.begin_caching(session, self.belongings.cache);
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, exchange: &mut Self::CTX) -> Result<CacheKey> {
        exchange.cache_key(session.req_header())
    }

    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        _meta: &CacheMeta,
        hit: &mut HitHandler,
        is_fresh: bool,
        exchange: &mut Self::CTX,
    ) -> Result<Option<ForcedFreshness>> {
        Ok(exchange.weigh(session, &**hit, is_fresh))
    }

    fn cache_vary_filter(
        &self,
        meta: &CacheMeta,
        exchange: &mut Self::CTX,
        head: &RequestHeader,
    ) -> Option<HashBinary> {
        exchange.variance(meta.headers(), head).map(u128::to_be_bytes)
    }

    fn cache_not_modified_filter(
        &self,
        session: &Session,
        head: &ResponseHeader,
        _exchange: &mut Self::CTX,
    ) -> Result<bool> {
        let request = session.req_header();
        Ok(rules::not_modified(&request.headers, &request.method, head.status, &head.headers))
    }

    fn range_header_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> RangeType {
        exchange.range(session, head)
    }

    async fn proxy_upstream_filter(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<bool> {
        if exchange.wants_only_what_is_stored() {
            reply::refuse(session, exchange, Refusal::OnlyIfCached).await?;
            return Ok(false);
        }
        // What fills the store must come by the way on which it is stored.
        let stores = session.cache.enabled() || session.cache.bypassing();
        if stores {
            return Ok(true);
        }
        let answered = self.hedge(session, exchange).await? || self.answer_directly(session, exchange).await?;
        Ok(!answered)
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        exchange.back_off().await;
        let peer = exchange.next_peer(session).await;
        peer.map_err(|why| exchange.without_a_peer(why))
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        peer: &HttpPeer,
        exchange: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(exchange.not_connected(session, peer, &error));
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        exchange.connected(reused, digest.and_then(Line::of));
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        exchange.complete_request(session, head)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        exchange.pass_body(body, end_of_stream)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        self.meet_answer(session, head, exchange)
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        head: &ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<RespCacheable> {
        exchange.judge(session, head)
    }

    fn should_serve_stale(&self, session: &mut Session, exchange: &mut Self::CTX, error: Option<&Error>) -> bool {
        match error {
            None => self.refreshes(session, exchange),
            Some(error) => exchange.takes_stale_for(session, error),
        }
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        exchange.watch_the_size(session, body.as_ref().map_or(0, Bytes::len));
        if end_of_stream {
            exchange.response_ended()?;
        } else {
            exchange.response_moved(Instant::now());
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        self.after_failure(session, error, exchange, reused)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        self.complete_answer(session, head, exchange)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        exchange.give_time_to_read(session, body.as_ref().map_or(0, Bytes::len));
        exchange.announce_piece(session);
        Ok(None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Self::CTX) -> FailToProxy {
        exchange.forget_body(session);
        if exchange.is_replaced() && !reply::has_begun(session) {
            let error_code = reply::replace(session, exchange).await.unwrap_or(0);
            return FailToProxy { error_code, can_reuse_downstream: false };
        }
        let ended = record::ending(exchange, Some(error));
        let error_code = match ended {
            Ended::Refused(refusal) if !reply::has_begun(session) => {
                // The connection ends below, so the answer must say it.
                session.set_keepalive(None);
                let _ = reply::fail(session, exchange, refusal).await;
                session.response_written().map_or(0, |head| head.status.as_u16())
            }
            Ended::Refused(_) | Ended::ClientGone | Ended::Complete => 0,
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Each request has its line in the access log, so Pingora's own would be a second one.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Self::CTX, _error: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Self::CTX) {
        exchange.forget_body(session);
        exchange.count_outcome(session);
        exchange.count_recoding(session);
        self.end(session, exchange, error);
    }
}

/// The steps of both ways to a backend and back: Pingora's and the direct one.
impl Gateway {
    fn meet_answer(&self, session: &mut Session, head: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
        inspect::response(head, session.as_downstream().is_upgrade_req())?;
        exchange.answered(head);
        exchange.pass_on(session, head, &self.kept)?;
        exchange.learn_for_the_store(session, head, self.belongings.cache)?;
        exchange.replace_answer(session, head)
    }

    /// Says in the error whether there shall be another attempt.
    fn after_failure(
        &self,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        error.set_retry(exchange.failed(session, &error, reused));
        exchange.end_hold(session);
        error
    }

    fn complete_answer(&self, session: &mut Session, head: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
        self.close_if_leaving(session, exchange);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            session.set_read_timeout(None);
        }
        forward::response(head, exchange.received_in(head));
        // RFC 9110, section 2.5: what we send says our own version.
        if head.version < Version::HTTP_11 {
            head.set_version(Version::HTTP_11);
        }
        if head.status.is_informational() {
            return Ok(());
        }
        exchange.part(session.req_header(), head)?;
        reply::expose(session, head, exchange)?;
        exchange.tell_why(session, head)?;
        exchange.remember_session(head)?;
        if let Some(plan) = &exchange.plan {
            plan.filters.on_response(head, session.req_header());
        }
        exchange.recode(session, head)?;
        exchange.end_with_the_connection(session, head);
        exchange.note_date(session, head);
        Ok(())
    }
}

impl Exchange {
    fn complete_request(&mut self, session: &Session, head: &mut RequestHeader) -> Result<()> {
        self.note_asking();
        cached::ask_without_conditions(session, head);
        self.complete(session, head)
    }
}
