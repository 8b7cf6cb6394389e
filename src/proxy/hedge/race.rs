//! Who answers first? One backend is asked, and after a while another beside it.
//!
//! A good head wins, and the other attempt is given up: its lease is free at once, its connection closed, and nothing of
//! it counts against its backend. Where the first to answer has nothing good to say, the other one is waited for.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use pingora::http::RequestHeader;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::time::sleep;

use super::call::{Call, Heard};
use crate::answer;
use crate::backend::Seat;
use crate::proxy::direct::head;
use crate::proxy::exchange::{Attempt, Exchange};
use crate::proxy::queue::client_gone;
use crate::proxy::{Gateway, cause, inspect};
use crate::retry::{self, Failure};
use crate::upstream::Lesson;

/// An attempt that is under way, and what will be heard of it.
struct Running {
    attempt: Attempt,
    peer: Box<HttpPeer>,
    call: Pin<Box<dyn Future<Output = Result<Heard>> + Send>>,
}

/// What was said by the one who counts. Its attempt is the one of the exchange.
pub(super) enum Said {
    /// There was no connection.
    Nothing(Box<HttpPeer>, Box<Error>),
    Heard(Heard),
}

impl Gateway {
    /// Asks one backend, and after `delay` another beside it, until one of them has said what counts.
    pub(super) async fn race(
        &self,
        session: &mut Session,
        exchange: &mut Box<Exchange>,
        delay: Duration,
    ) -> Result<Said> {
        let peer = self.upstream_peer(session, exchange).await?;
        let mut running = vec![self.call(session, exchange, peer).await?];
        let (mut timer, mut is_alone) = (pin!(sleep(delay)), true);
        loop {
            tokio::select! {
                (place, heard) = first_of(&mut running) => {
                    let said = exchange.turn_to(running.swap_remove(place), heard);
                    match running.pop() {
                        Some(other) if exchange.would_rather_wait(&said) => {
                            exchange.lost(said);
                            running.push(other);
                        }
                        loser => {
                            loser.into_iter().for_each(|loser| exchange.hedged_out(loser));
                            return Ok(said);
                        }
                    }
                }
                () = &mut timer, if is_alone => {
                    is_alone = false;
                    let first = running.first().map(Running::seat);
                    let beside = first.is_some_and(|seat| exchange.goes_beside(session.req_header(), seat));
                    // A refusal is none: the first attempt is still under way.
                    if beside && let Ok(peer) = exchange.next_peer(session).await {
                        running.push(self.call(session, exchange, peer).await?);
                    }
                    // What has been prepared and was refused is for nobody else.
                    exchange.again = None;
                }
                gone = client_gone(session) => {
                    for one in running {
                        exchange.give_up(one, answer::Ended::ClientGone.label());
                    }
                    return Err(gone);
                }
            }
        }
    }

    /// Has the attempt of the exchange ask.
    async fn call(&self, session: &mut Session, exchange: &mut Box<Exchange>, peer: Box<HttpPeer>) -> Result<Running> {
        let mut head = head::of_request(session.req_header())?;
        self.upstream_request_filter(session, &mut head, exchange).await?;
        let attempt = exchange.attempt.take();
        let mut attempt = attempt.ok_or_else(|| Error::explain(ErrorType::InternalError, "there is no attempt"))?;
        // From here on it counts in a quota: a call that is dropped cannot tell how far it came.
        attempt.pick.sent();
        let patience = exchange.patience(attempt.began, attempt.pick.upstream().config.timeouts.first_byte);
        let backend = attempt.pick.backend().clone();
        let call = Call { connector: self.connector.clone(), peer: peer.clone(), head, patience, backend };
        Ok(Running { attempt, peer, call: Box::pin(call.make()) })
    }
}

impl Running {
    fn seat(&self) -> Seat {
        self.attempt.pick.backend().seat
    }
}

async fn first_of(running: &mut [Running]) -> (usize, Result<Heard>) {
    poll_fn(|context| {
        for (place, one) in running.iter_mut().enumerate() {
            if let Poll::Ready(heard) = one.call.as_mut().poll(context) {
                return Poll::Ready((place, heard));
            }
        }
        Poll::Pending
    })
    .await
}

impl Exchange {
    /// Whether there is to be a second attempt beside that on this seat, which is then prepared.
    fn goes_beside(&mut self, head: &RequestHeader, seat: Seat) -> bool {
        // The other backend knows nothing of a session that the client has with this one.
        self.session.is_none() && self.may_ask_beside(head, seat)
    }

    /// Makes this the attempt of the exchange, which has been heard of.
    fn turn_to(&mut self, one: Running, heard: Result<Heard>) -> Said {
        self.attempt = Some(one.attempt);
        let mut heard = match heard {
            Ok(heard) => heard,
            Err(error) => return Said::Nothing(one.peer, error),
        };
        if let Some(attempt) = &mut self.attempt {
            attempt.sent = heard.sent;
        }
        self.connect = heard.connect.or(self.connect);
        self.watch.hold(heard.line.take());
        if let Some(late) = heard.late {
            self.watch.note(late);
        }
        let unasked = heard.head.as_ref().ok().and_then(|(head, _)| inspect::response(head, false).err());
        if let Some(error) = unasked {
            heard.head = Err(error);
        }
        if let Ok((head, _)) = &heard.head {
            self.answered(head);
        }
        Said::Heard(heard)
    }

    /// Whether the other attempt may well bring something better.
    fn would_rather_wait(&self, said: &Said) -> bool {
        let Said::Heard(Heard { head: Ok((head, _)), .. }) = said else { return true };
        let failure = self.attempt.as_ref().map(|attempt| attempt.answered_with(head.status));
        self.plan.as_ref().zip(failure).is_some_and(|(plan, failure)| retry::asks_for(&plan.retry.when, failure))
    }

    /// The attempt of the exchange has failed while the other one is under way: all of a failure, but for what follows.
    fn lost(&mut self, said: Said) {
        let (refusal, peer, failure) = match said {
            Said::Nothing(peer, error) => (Some(cause::of_no_connection(&error)), Some(peer), Failure::Connect),
            Said::Heard(Heard { head: Ok((head, _)), .. }) => return self.drop_answer(&head),
            Said::Heard(Heard { head: Err(error), link, .. }) => {
                let refusal = self.cause(&error);
                let failure = refusal.map_or(Failure::Other, |it| cause::failure(it, &error, link.reused));
                (refusal, None, failure)
            }
        };
        let Some(refusal) = refusal else { return };
        let Some(mut pick) = self.end_attempt(refusal.label()) else { return };
        if let Some(peer) = peer {
            pick.mark_address(&peer);
        }
        // A backend may close what is idle. Elsewhere it would get a free try, and nothing would count.
        match failure == Failure::StaleConnection {
            true => pick.note_stale(),
            false => self.blame(&mut pick, refusal, Instant::now()),
        }
    }

    /// The other one was first. That is no failure, but a lower bound of its latency.
    fn hedged_out(&mut self, loser: Running) {
        let backend = loser.attempt.pick.backend().clone();
        backend.record_wait(self.give_up(loser, "hedged_out"));
    }

    /// Ends an attempt of which nothing has been heard; says how long that was waited for.
    fn give_up(&mut self, one: Running, outcome: &'static str) -> Duration {
        let ended = one.attempt.ended(outcome);
        let waited = ended.took;
        one.attempt.pick.learn(Lesson::Waited(waited), Instant::now());
        self.attempts.push(ended);
        waited
    }
}
