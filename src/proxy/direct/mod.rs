//! What is the shortest way? An exchange in which neither the cache nor an upgrade has a part goes from socket to socket in
//! one piece.
//!
//! Pingora joins two halves by channels, and either may be anything. Here both are connections, and the backend one of
//! HTTP/1; so the same steps in the same order need no channels, no second future and no batches.

mod answer;
pub(super) mod head;
mod link;
mod outbox;
pub(super) mod pool;
mod relay;
mod sending;

use http::header::EXPECT;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::{ProxyHttp, Session};

use self::link::Link;
pub(super) use self::relay::frame_answer;
use self::relay::is_of_a_client;
use self::sending::Sending;
use super::Gateway;
use super::exchange::Exchange;
use super::queue::NoPick;
use crate::answer::Refusal;
use crate::config::Protocol;
use crate::filter::announced_length;
use crate::upstream::Way;

/// One exchange on this way.
struct Trip<'a> {
    gateway: &'a Gateway,
    session: &'a mut Session,
    exchange: &'a mut Box<Exchange>,
    link: Link,
    sending: Sending,
}

impl Gateway {
    /// Answers a request that can take this way, with as many attempts as it is given; says whether it can.
    pub(super) async fn answer_directly(&self, session: &mut Session, exchange: &mut Box<Exchange>) -> Result<bool> {
        if !exchange.goes_directly(session) {
            return Ok(false);
        }
        loop {
            exchange.back_off().await;
            let Err(error) = self.attempt(session, exchange).await else { return Ok(true) };
            if !error.retry() {
                return Err(error);
            }
        }
    }

    /// Makes one attempt. An error says whether there shall be another.
    async fn attempt(&self, session: &mut Session, exchange: &mut Box<Exchange>) -> Result<()> {
        let way = exchange.next_way(session).await.map_err(|why| exchange.without_a_peer(why))?;
        let link = match way.key.and_then(|key| self.at_rest.take(key)) {
            Some(stream) => Link::reused(stream),
            // Boxed: all others would carry the room for a handshake.
            None => Box::pin(self.connect(session, exchange, &way)).await?,
        };
        exchange.connected(link.reused, link.line());
        let sending = Sending::of(session);
        let mut trip = Trip { gateway: self, session, exchange, link, sending };
        if let Err(error) = trip.go().await {
            return Err(self.after_failure(trip.session, error, trip.exchange, trip.link.reused));
        }
        if let Some(key) = way.key.filter(|_| trip.sending.broke_off.is_none()) {
            trip.link.release(&self.at_rest, key);
        }
        Ok(())
    }

    async fn connect(&self, session: &mut Session, exchange: &mut Box<Exchange>, way: &Way) -> Result<Link> {
        let peer = exchange.peer(way).ok_or_else(|| exchange.without_a_peer(NoPick::Refused(Refusal::NoBackend)))?;
        let connected = Link::new(&self.connector, &peer).await;
        connected.map_err(|error| self.fail_to_connect(session, &peer, exchange, error.into_up()))
    }
}

impl Trip<'_> {
    async fn go(&mut self) -> Result<()> {
        let mut head = head::of_request(self.session.req_header())?;
        self.exchange.complete_request(self.session, &mut head)?;
        if self.sending.is_open {
            head::frame_request(&mut head)?;
        } else {
            self.exchange.pass_body(&mut None, true)?;
        }
        self.link.ask(&head).map_err(|error| error.into_up())?;
        match self.sending.is_open {
            true => self.send_again()?,
            // A filter may have announced one: what it owes must not be taken from who comes next.
            false => self.sending.end(&mut self.link.outbox),
        }
        self.relay().await?;
        self.send_the_rest().await
    }
}

impl Exchange {
    fn goes_directly(&self, session: &mut Session) -> bool {
        let upstream = self.plan.as_ref().and_then(|plan| plan.upstream.as_ref());
        if self.in_background || upstream.is_none_or(|upstream| upstream.config.protocol != Protocol::Http1) {
            return false;
        }
        if !is_of_a_client(session) || session.is_upgrade_req() || !head::names_no_fields(session.req_header()) {
            return false;
        }
        // A stream may have no end, and whoever expects a word first is in no hurry.
        let is_measured =
            |head: &RequestHeader| announced_length(&head.headers).is_some() && !head.headers.contains_key(EXPECT);
        session.is_body_done() || is_measured(session.req_header())
    }
}
