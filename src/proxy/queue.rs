//! Who waits for a backend, and for how long? The steps of an exchange to its next pick, through the queue if need be.

use std::sync::Arc;
use std::time::Instant;

use http::Version;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::exchange::{Again, Exchange};
use super::snapshot::Plan;
use crate::answer::Refusal;
use crate::upstream::{Missed, Pick, Upstream, Want};

/// Why there is no attempt.
#[derive(Debug)]
pub(super) enum NoPick {
    /// We answer instead.
    Refused(Refusal),
    /// The client has gone while it waited.
    ClientGone(Box<Error>),
}

impl Exchange {
    /// The backend of the next attempt, after a wait if all that could serve have as much as they may have; then it is
    /// later than it was.
    pub(super) async fn next_pick(
        &mut self,
        plan: &Plan,
        session: &mut Session,
        now: &mut Instant,
    ) -> Result<Again, NoPick> {
        if let Some(again) = self.again.take() {
            return Ok(again);
        }
        let upstream = plan.upstream.as_ref().ok_or(NoPick::Refused(Refusal::NoRoute))?;
        self.note_choice(upstream);
        let ask = self.ask(plan, session.req_header(), *now);
        let of_session = self.session_of(plan, session.req_header());
        let want = Want {
            ask,
            tried: &self.tried,
            session: of_session.map(|session| session.seat),
            priority: plan.priority,
            within: self.time_left(*now),
        };
        let pick = match upstream.pick_for(&want) {
            Ok(pick) => Ok(pick),
            Err(Missed::Nobody) => Err(NoPick::Refused(upstream.refuse_for_nobody())),
            // In a box, since few come here and all would carry its state.
            Err(Missed::Full) => {
                let pick = Box::pin(wait(upstream, &want, session)).await;
                *now = Instant::now();
                pick
            }
        };
        match pick {
            Ok(pick) => Ok(Again { pick, fresh: false }),
            // What the last attempt failed with tells more than that there is nobody left.
            Err(NoPick::Refused(refusal)) => Err(NoPick::Refused(self.refusal.unwrap_or(refusal))),
            Err(gone) => Err(gone),
        }
    }

    /// Ends the exchange without another attempt.
    pub(super) fn without_a_peer(&mut self, why: NoPick) -> Box<Error> {
        match why {
            NoPick::Refused(refusal) => {
                self.refusal = Some(refusal);
                Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), refusal.label())
            }
            NoPick::ClientGone(error) => {
                self.refusal = None;
                error
            }
        }
    }
}

/// Waits for a backend, or until the client goes away: a place in the queue is not for those who have left.
async fn wait(upstream: &Arc<Upstream>, want: &Want<'_>, session: &mut Session) -> Result<Pick, NoPick> {
    tokio::select! {
        biased;
        pick = upstream.wait(want) => pick.map_err(NoPick::Refused),
        error = client_gone(session) => Err(NoPick::ClientGone(error)),
    }
}

/// Until the client goes away. On HTTP/1 that cannot be seen behind what it has sent of a body, which is not ours to
/// read here.
pub(super) async fn client_gone(session: &mut Session) -> Box<Error> {
    // Asked of the head, since another session may stand in for the client's.
    let over_http2 = session.req_header().version == Version::HTTP_2;
    let downstream = session.as_downstream_mut();
    if (over_http2 || downstream.is_body_done())
        && let Err(error) = downstream.read_body_or_idle(true).await
    {
        return error.into_down();
    }
    std::future::pending().await
}
