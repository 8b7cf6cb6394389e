//! Does the client send its body in time, and take its answer? What a listener demands beside the pauses.
//!
//! The watch of the exchange has the clock. Where the backend is the one who keeps us from reading, nothing is held
//! against the client.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::Version;
use pingora::Result;
use pingora::proxy::Session;

use super::exchange::Exchange;
use super::watch::Late;
use crate::answer::Refusal;
use crate::limit::Pace;

/// Between two reads of a body, where no listener says it.
const BODY: Duration = Duration::from_secs(30);

/// How a body comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Upload {
    pace: Option<Pace>,
    /// When something came last, or we began to wait for it.
    since: Option<Instant>,
    /// When all of the request must be here.
    deadline: Option<Instant>,
}

impl Exchange {
    /// Notes what the listener demands.
    pub(super) fn expect_upload(&mut self) {
        let Some(listener) = self.listener() else { return };
        let (pace, request) = (listener.min_rate.map(Pace::new), listener.timeouts.request);
        let deadline = request.and_then(|whole| self.head_began().checked_add(whole));
        self.upload = Upload { pace, since: None, deadline };
    }

    /// When the first byte of the request was here.
    fn head_began(&self) -> Instant {
        let slow = self.connection.as_ref().and_then(|connection| {
            let millis = connection.turn.head_began.load(Relaxed);
            let began = connection.opened.into_std() + Duration::from_millis(millis);
            (millis > 0).then_some(began)
        });
        slow.unwrap_or(self.began)
    }

    /// How long the next piece of the body may take, and what the client is late with when it takes longer.
    pub(super) fn patience_with_client(&mut self, now: Instant) -> (Duration, Late) {
        self.upload.since = Some(now);
        let pause = self.listener().map_or(BODY, |listener| listener.timeouts.body);
        let pace = self.upload.pace.map(|pace| (pace.left(), Late::SlowBody));
        let whole = self.upload.deadline.map(|deadline| (deadline.saturating_duration_since(now), Late::WholeRequest));
        let nearest = pace.into_iter().chain(whole).min_by_key(|(limit, _)| *limit);
        nearest.filter(|(limit, _)| *limit < pause).unwrap_or((pause, Late::Body))
    }

    /// Some of the body is here. Refuses what is too late in all, and what the watch has found late on a connection that
    /// it could not cut.
    pub(super) fn keep_pace(&mut self, bytes: usize, now: Instant) -> Result<()> {
        if let Some(late) = self.watch.late_of_client() {
            return Err(self.refused(late.refusal()));
        }
        let waited = self.upload.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if let Some(pace) = &mut self.upload.pace
            && !pace.moved(waited, bytes as u64)
        {
            // The watch would have cut it off: so it was the backend that took nothing meanwhile.
            pace.forgive();
        }
        match self.upload.deadline {
            Some(deadline) if deadline <= now && self.request_ended.is_none() => {
                Err(self.refused(Refusal::RequestTimeout))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives an HTTP/2 client the time for a piece of the answer that its listener's rate allows. On HTTP/1 the guard below
    /// Pingora does, where it costs nothing.
    pub(super) fn give_time_to_read(&self, session: &mut Session, bytes: usize) {
        let Some(listener) = self.listener() else { return };
        if let Some(rate) = listener.min_rate.filter(|_| session.req_header().version == Version::HTTP_2) {
            let within = Pace::new(rate).time_for(bytes as u64);
            session.set_write_timeout(Some(within.min(listener.timeouts.write)));
        }
    }
}
