//! What did a backend say that was given up? The body of an answer that is dropped for a retry, where it is small.
//!
//! If nobody has a better answer the client gets it whole. So it is read before the retry begins, instead of being
//! written to the client; but not for long: what comes slowly is not worth waiting for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::{Place, StandIn, stand_in_for};
use crate::filter::announced_length;
use crate::proxy::exchange::{Exchange, Phase};
use crate::proxy::watch::Late;
use crate::retry::{Account, Kept};

/// An error page or a JSON object that says why fits well.
const BODY_MAX: u64 = 64 << 10;

/// How long the rest of it may take: mostly it comes with its head.
const PATIENCE: Duration = Duration::from_millis(100);

/// An answer that is held back.
pub(super) struct Held {
    body: Kept,
    is_whole: bool,
}

impl Held {
    /// Takes parts of the answer. It ends with an error, upon which the request is tried again.
    pub(super) fn take(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        for task in tasks {
            let ended = task.is_end();
            let fits = match task {
                HttpTask::Body(Some(data), _) => self.body.add(&data),
                HttpTask::Failed(error) => return Err(error),
                HttpTask::Header(..)
                | HttpTask::Body(None, _)
                | HttpTask::UpgradedBody(..)
                | HttpTask::Trailer(_)
                | HttpTask::Done => true,
            };
            self.is_whole = fits && ended;
            if ended || !fits {
                return Err(Error::explain(ErrorType::InternalError, "another backend is asked").into_up());
            }
        }
        Ok(false)
    }

    fn into_body(self) -> Option<Kept> {
        self.is_whole.then_some(self.body)
    }
}

impl Exchange {
    /// Passes an answer on, or gives it up for another attempt: that is an error, which comes at once, or when the body
    /// of the answer has been read.
    pub(in crate::proxy) fn pass_on(
        &mut self,
        session: &mut Session,
        head: &ResponseHeader,
        account: &Arc<Account>,
    ) -> Result<()> {
        let goes_on = self.give_up_for_another(session, head);
        // The cache would take what is held back for the answer.
        let is_judged = session.cache.enabled() || session.cache.bypassing();
        if goes_on.is_err() && !is_judged && self.holds_back(session, head, account) { Ok(()) } else { goes_on }
    }

    /// Has the body of the answer read that is given up, instead of going on at once; says whether that is done.
    fn holds_back(&mut self, session: &mut Session, head: &ResponseHeader, account: &Arc<Account>) -> bool {
        // Meanwhile Pingora would go on reading the request, perhaps beyond what can be sent again.
        if self.request_ended.is_none() {
            return false;
        }
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.timed_by_us) else { return false };
        if session.req_header().method == Method::HEAD || session.is_upgrade_req() || !is_small(head) {
            return false;
        }
        attempt.phase = Phase::Dropped;
        self.watch.expect(Instant::now(), PATIENCE, Late::BetweenBytes);
        let held = Held { body: self.kept(account, BODY_MAX), is_whole: false };
        let place = self.place.get_or_insert_with(|| {
            let place = Arc::new(Place::default());
            stand_in_for(session, |client| StandIn::without_memory(client, place.clone()));
            place
        });
        place.hold(held);
        true
    }

    /// The answer that was held back is over: what there is of it is kept, and the client's own session takes its place
    /// again, unless a body is remembered.
    pub(in crate::proxy) fn end_hold(&mut self, session: &mut Session) {
        let Some(held) = self.place.as_ref().and_then(|place| place.take_held()) else { return };
        // It may have been late.
        self.watch.take_late();
        self.complete_dropped_answer(held.into_body());
        if self.place.as_ref().is_some_and(|place| !place.remembers()) {
            self.forget_body(session);
        }
    }
}

fn is_small(head: &ResponseHeader) -> bool {
    announced_length(&head.headers).is_some_and(|length| (1..=BODY_MAX).contains(&length))
}
