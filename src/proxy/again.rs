//! Once more, and where? Prepares the attempt that follows a failed one.
//!
//! The room `retry` decides, the upstream picks, and its budget pays. The next backend is picked before an answer is
//! dropped for it, so that no answer is given up for nothing: where nobody else could serve, the client gets what the
//! last backend said, whole.

use std::time::{Duration, Instant};

use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::exchange::{Again, Exchange};
use super::reply;
use super::snapshot::Plan;
use crate::answer::Refusal;
use crate::backend::{Moment, Seat};
use crate::balance::Ask;
use crate::retry::{self, Circumstances, Failure, Kept, Reason, Verdict};
use crate::upstream::{Missed, Pick, Upstream};

/// What is remembered of the retries of one exchange.
#[derive(Default)]
pub(super) struct Retries {
    /// How many there were, with the one that is under way.
    made: u32,
    /// Those of them that were begun beside a late attempt.
    beside: u32,
    /// How often backends had to be used again.
    rounds: u32,
    /// Before the next attempt.
    pause: Option<Duration>,
    /// Backends that there was no connection to: what is tried again passes them over.
    unreached: Vec<Seat>,
    /// The status that the attempt under way is given up for.
    status: Option<StatusCode>,
    /// The last answer that was dropped for a retry.
    dropped: Option<Dropped>,
    /// A page of the route's takes the place of that one.
    is_replaced: bool,
}

impl Retries {
    /// Pays for one more from the upstream's budget, if that allows it, and counts it.
    fn pay(&mut self, plan: &Plan, upstream: &Upstream, now: Instant) -> bool {
        let paid = upstream.retries.withdraw(&plan.retry.budget, now);
        self.made += u32::from(paid);
        paid
    }

    /// Retries, and attempts beside a late one.
    pub(super) fn counts(&self) -> (u32, u32) {
        (self.made - self.beside, self.beside)
    }
}

/// An answer that was dropped.
pub(super) struct Dropped {
    pub(super) head: Box<ResponseHeader>,
    /// If it was read to its end.
    pub(super) body: Option<Kept>,
}

impl Dropped {
    fn of(head: &ResponseHeader) -> Self {
        Self { head: Box::new(head.clone()), body: None }
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same backend, on another connection.
    SameAgain,
    /// What has been prepared.
    Prepared,
}

impl Exchange {
    /// Waits, if the next attempt goes to a backend that has failed before.
    pub(super) async fn back_off(&mut self) {
        if let Some(pause) = self.retries.pause.take() {
            tokio::time::sleep(pause).await;
        }
    }

    /// Gives an answer up, if its status asks for a retry and one is possible.
    pub(super) fn give_up_for_another(&mut self, session: &Session, head: &ResponseHeader) -> Result<()> {
        let is_bad = head.status.is_client_error() || head.status.is_server_error();
        let Some(attempt) = self.attempt.as_ref().filter(|_| is_bad) else { return Ok(()) };
        let seat = attempt.pick.backend().seat;
        let failure = attempt.answered_with(head.status);
        match self.once_more(session, failure, seat) {
            Ok(_) => {
                self.retries.status = Some(head.status);
                self.retries.dropped = Some(Dropped::of(head));
                Err(Error::explain(ErrorType::HTTPStatus(head.status.as_u16()), "another backend is asked").into_up())
            }
            Err(reason) => {
                self.note_reason(reason);
                Ok(())
            }
        }
    }

    /// Drops the answer to the attempt under way, because another attempt is under way too.
    pub(super) fn drop_answer(&mut self, head: &ResponseHeader) {
        self.retries.dropped = Some(Dropped::of(head));
        self.end_attempt(status_label(head.status));
    }

    /// Prepares an attempt beside the one at this seat; says whether there may be one.
    pub(super) fn may_ask_beside(&mut self, head: &RequestHeader, seat: Seat) -> bool {
        let Some(plan) = self.plan.clone() else { return false };
        let may = retry::is_one_left(&plan.retry, self.retries.made);
        let Some(upstream) = plan.upstream.as_ref().filter(|_| may) else { return false };
        let now = Instant::now();
        self.tried.push(seat);
        self.note_choice(upstream);
        // Nobody waits for a place in the queue, or for a name, while an answer may come at any moment.
        let elsewhere = upstream.pick(&self.ask(&plan, head, now), &self.tried).ok().filter(Pick::has_an_address);
        let Some(pick) = elsewhere.filter(|_| self.retries.pay(&plan, upstream, now)) else { return false };
        self.retries.beside += 1;
        self.again = Some(Again { pick, fresh: false });
        true
    }

    /// Gives an answer up for a page of the route's.
    pub(super) fn give_up_for_a_page(&mut self, head: &ResponseHeader) {
        self.retries.dropped = Some(Dropped::of(head));
        self.retries.is_replaced = true;
    }

    /// Whether a page of the route's takes the place of what the backend has said.
    pub(super) fn is_replaced(&self) -> bool {
        self.retries.is_replaced
    }

    /// The status that the attempt under way has been given up for.
    pub(super) fn given_up_for(&mut self) -> Option<StatusCode> {
        self.retries.status.take()
    }

    /// The best answer there was, when there is none that could be passed on: the last one.
    pub(super) fn dropped_answer(&mut self) -> Option<Dropped> {
        self.retries.dropped.take()
    }

    /// The answer that was dropped last had this body.
    pub(super) fn complete_dropped_answer(&mut self, body: Option<Kept>) {
        if let Some(dropped) = &mut self.retries.dropped {
            dropped.body = body;
        }
    }

    /// Decides what follows the failure of an attempt at this seat, and prepares a retry if that is what follows.
    pub(super) fn once_more(&mut self, session: &Session, failure: Failure, seat: Seat) -> Result<Next, Reason> {
        let plan = self.plan.clone().ok_or(Reason::NotAsked)?;
        let now = Instant::now();
        match retry::decide(&plan.retry, failure, &self.circumstances(session, now)) {
            Verdict::SameAgain => return Ok(Next::SameAgain),
            Verdict::GiveUp(reason) => return Err(reason),
            Verdict::Retry | Verdict::MoveOn => {}
        }
        let upstream = plan.upstream.as_ref().ok_or(Reason::NotAsked)?;
        self.tried.push(seat);
        self.note_choice(upstream);
        let elsewhere = upstream.pick(&self.ask(&plan, session.req_header(), now), &self.tried);
        // No answer is given up for a place in the queue.
        let may_wait = self.attempt.is_none() && upstream.is_worth_a_wait(&self.tried);
        let pause = match elsewhere {
            Ok(_) => None,
            Err(Missed::Full) if may_wait => None,
            Err(_) if retry::may_use_the_same(failure) => Some(self.next_pause(now)?),
            Err(_) => return Err(Reason::NobodyElse),
        };
        if !self.retries.pay(&plan, upstream, now) {
            return Err(Reason::BudgetExhausted);
        }
        self.again = elsewhere.ok().map(|pick| Again { pick, fresh: false });
        if let Some(pause) = pause {
            self.begin_round(pause);
        }
        Ok(Next::Prepared)
    }

    /// There was no connection to this seat, so the request moves on; says whether it may. A retry that has found
    /// nobody yet comes back to those who at least took the request. Where all of them refuse, they may be about to
    /// come back, as in a restart: that is worth a retry, after a pause.
    pub(super) fn move_on(&mut self, session: &Session, seat: Seat) -> bool {
        self.tried.push(seat);
        self.retries.unreached.push(seat);
        let Some(plan) = self.plan.clone() else { return false };
        let Some(upstream) = &plan.upstream else { return false };
        let now = Instant::now();
        self.note_choice(upstream);
        let elsewhere = upstream.pick(&self.ask(&plan, session.req_header(), now), &self.tried);
        if elsewhere.is_ok() || upstream.is_worth_a_wait(&self.tried) {
            // Whoever has found nobody with a place left waits for one.
            self.again = elsewhere.ok().map(|pick| Again { pick, fresh: false });
            return true;
        }
        let Ok(pause) = self.next_pause(now) else { return false };
        if self.all_refused() {
            if !retry::is_one_left(&plan.retry, self.retries.made) || !self.retries.pay(&plan, upstream, now) {
                return false;
            }
            self.retries.unreached.clear();
        } else if self.retries.made == 0 {
            return false;
        }
        self.begin_round(pause);
        true
    }

    /// Whether every attempt of this round was refused at once. One that waited for a connection in vain has waited long
    /// enough.
    fn all_refused(&self) -> bool {
        let refused = Refusal::ConnectRefused.label();
        self.retries.unreached.len() == self.tried.len() && self.attempts.iter().all(|ended| ended.outcome == refused)
    }

    /// Everybody may be tried once more but those whom we did not reach.
    fn begin_round(&mut self, pause: Duration) {
        self.retries.rounds += 1;
        self.retries.pause = Some(pause);
        self.tried.clone_from(&self.retries.unreached);
    }

    fn next_pause(&self, now: Instant) -> Result<Duration, Reason> {
        let pause = retry::back_off(self.retries.rounds, fastrand::u64(..));
        if pause < self.time_left(now) { Ok(pause) } else { Err(Reason::NoTime) }
    }

    /// Notes in the log why the attempt that ends here is not followed by a retry.
    pub(super) fn note_reason(&mut self, reason: Reason) {
        match (&mut self.attempt, self.attempts.last_mut()) {
            (Some(attempt), _) => attempt.no_retry = reason.label(),
            (None, Some(ended)) => ended.no_retry = reason.label(),
            (None, None) => {}
        }
    }

    /// What is known for the decision.
    pub(super) fn circumstances(&self, session: &Session, now: Instant) -> Circumstances {
        Circumstances {
            attempts: self.attempts.len() + usize::from(self.attempt.is_some()),
            retries: self.retries.made,
            idempotent: session.req_header().method.is_idempotent(),
            replayable: self.is_replayable(session),
            had_free_try: self.had_free_try,
            response_begun: reply::has_begun(session),
            time_left: self.time_left(now),
        }
    }

    /// Whether all that has been read of the request's body is kept.
    pub(super) fn is_replayable(&self, session: &Session) -> bool {
        let buffer = self.plan.as_ref().map_or(0, |plan| plan.retry.buffer);
        self.body_seen <= buffer && !session.as_ref().retry_buffer_truncated()
    }

    /// A request and what a policy may ask of it.
    pub(super) fn ask(&self, plan: &Plan, head: &RequestHeader, now: Instant) -> Ask {
        let random = fastrand::u64(..);
        // Who has no key yet goes anywhere: as one key, all of them would drown one backend.
        let hash = plan.hash_key.as_ref().and_then(|key| self.hash(key, head)).unwrap_or(random);
        Ask { hash, random, now: Moment::of(now) }
    }
}

/// What the log says of an answer that was dropped.
pub(super) fn status_label(status: StatusCode) -> String {
    format!("status_{}", status.as_u16())
}
