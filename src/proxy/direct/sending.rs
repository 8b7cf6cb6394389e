//! How does a body get to the backend? Piece by piece, as fast as the backend takes it, also while it answers already.

use std::time::Duration;

use bytes::Bytes;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::time::timeout;

use super::Trip;
use super::link::at_once;
use super::outbox::Outbox;
use crate::proxy::arrive;
use crate::proxy::exchange::Exchange;
use crate::proxy::queue::client_gone;

/// How far the body of a request is.
pub(super) struct Sending {
    /// There may be more of it.
    pub(super) is_open: bool,
    /// The backend took no more. It may have answered all the same.
    pub(super) broke_off: Option<Box<Error>>,
}

impl Sending {
    /// The body of this request, which an attempt before may have read in part.
    pub(super) fn of(session: &mut Session) -> Self {
        let has_body = !session.as_downstream_mut().is_body_empty();
        if has_body {
            session.as_mut().enable_retry_buffering();
        }
        Self { is_open: has_body, broke_off: None }
    }

    /// There is no more of it.
    pub(super) fn end(&mut self, outbox: &mut Outbox) {
        self.is_open = false;
        self.broke_off = outbox.end().err().map(|error| error.into_up());
    }

    /// The backend takes no more of it.
    pub(super) fn break_off(&mut self, error: Box<Error>) {
        *self = Self { is_open: false, broke_off: Some(error.into_up()) };
    }
}

impl Trip<'_> {
    /// Sends what has been read already, for an attempt before; else what there is.
    pub(super) fn send_again(&mut self) -> Result<()> {
        match self.session.as_ref().get_retry_buffer() {
            Some(known) => self.send(Some(known)),
            None => self.send_at_once(),
        }
    }

    /// Sends what is here of the body, where there is room for it.
    pub(super) fn send_at_once(&mut self) -> Result<()> {
        if self.sending.is_open
            && self.link.outbox.has_room()
            && let Some(piece) = at_once(from_client(self.session, true))
        {
            self.send(piece?)?;
        }
        Ok(())
    }

    /// Sends a piece in the turns that follow; `None` is the end.
    pub(super) fn send(&mut self, mut piece: Option<Bytes>) -> Result<()> {
        let is_last = piece.is_none() || self.session.is_body_done();
        self.exchange.pass_body(&mut piece, is_last)?;
        if let Some(piece) = piece {
            self.link.outbox.put(piece);
        }
        if is_last {
            self.sending.end(&mut self.link.outbox);
        }
        Ok(())
    }

    /// Sends what there is left of the body when the answer is over. Nothing else limits then how long the backend takes.
    pub(super) async fn send_the_rest(&mut self) -> Result<()> {
        loop {
            let sent = match at_once(self.link.send()) {
                Some(sent) => sent,
                None => {
                    let limit = self.exchange.limit_of_write();
                    let late = |_| Error::e_explain(ErrorType::WriteTimedout, "the rest of a body");
                    timeout(limit, self.link.send()).await.unwrap_or_else(late)
                }
            };
            if let Err(error) = sent {
                self.sending.break_off(error);
            }
            if !self.sending.is_open {
                return Ok(());
            }
            let piece = from_client(self.session, true).await?;
            self.send(piece)?;
        }
    }
}

/// What the client sends next; where nothing is to come, waits until it has gone.
pub(super) async fn from_client(session: &mut Session, is_open: bool) -> Result<Option<Bytes>> {
    match is_open {
        true => session.as_downstream_mut().read_body_or_idle(false).await.map_err(|error| error.into_down()),
        false => Err(client_gone(session).await),
    }
}

impl Exchange {
    /// How long the backend of this attempt may take nothing of a body.
    fn limit_of_write(&self) -> Duration {
        self.attempt.as_ref().map_or(Duration::ZERO, |attempt| attempt.pick.upstream().config.timeouts.write)
    }

    /// What is done with each piece of a body.
    pub(in crate::proxy) fn pass_body(&mut self, body: &mut Option<Bytes>, end_of_stream: bool) -> Result<()> {
        self.take_body(body.as_ref().map_or(0, Bytes::len), end_of_stream)?;
        self.decode_body(body, end_of_stream)?;
        arrive::end_once(body, end_of_stream);
        Ok(())
    }
}
