//! Can a long body be sent again? What goes beyond the 64 KiB that Pingora keeps.
//!
//! Pingora reads such a body only once. So a session of ours ([`stand_in`]) takes the place of the client's: it
//! remembers what it reads, within `retry.buffer` and `server.retry_buffers`, and each attempt reads it from the
//! beginning. The body streams all the same: nothing waits for its end. What is larger is sent once.
//!
//! The same session holds an answer back that is given up for another ([`held`]).

mod held;
mod memory;
mod stand_in;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::CONTENT_TYPE;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::proxy::Session;

use self::held::Held;
use self::stand_in::StandIn;
use super::exchange::Exchange;
use crate::filter::announced_length;
use crate::retry::{Account, Kept, Limits};

/// What Pingora keeps of a body by itself.
const KEPT_BY_PINGORA: u64 = 64 << 10;

/// What is shared with the session that stands in for the client's.
#[derive(Default)]
pub(super) struct Place {
    client: Mutex<Option<ServerSession>>,
    ends_connection: AtomicBool,
    /// A body is remembered.
    remembers: bool,
    /// An answer that is not written to the client.
    held: Mutex<Option<Held>>,
    is_holding: AtomicBool,
}

impl Place {
    fn put(&self, client: ServerSession) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    fn take(&self) -> Option<ServerSession> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn remembers(&self) -> bool {
        self.remembers
    }

    fn hold(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        self.is_holding.store(true, Relaxed);
    }

    /// Whether an answer is held back.
    fn is_holding(&self) -> bool {
        self.is_holding.load(Relaxed)
    }

    fn hold_back(&self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_mut().map_or(Ok(false), |held| held.take(tasks))
    }

    fn take_held(&self) -> Option<Held> {
        self.is_holding.store(false, Relaxed);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The connection must end with this exchange.
    fn ends_connection(&self) -> bool {
        self.ends_connection.load(Relaxed)
    }
}

impl Exchange {
    /// Has a long body remembered, where it may be sent again.
    pub(super) fn remember_body(&mut self, session: &mut Session, account: &Arc<Account>) {
        let buffer = self.plan.as_ref().map_or(0, |plan| plan.retry.buffer);
        if buffer <= KEPT_BY_PINGORA || session.is_upgrade_req() || session.is_body_empty() {
            return;
        }
        if !is_worth_it(session.req_header(), buffer) {
            return;
        }
        let kept = self.kept(account, buffer);
        let place = Arc::new(Place { remembers: true, ..Place::default() });
        stand_in_for(session, |client| StandIn::new(client, kept, place.clone()));
        self.place = Some(place);
    }

    /// Room for one body of at most so many bytes, within what all of them may take.
    fn kept(&self, account: &Arc<Account>, body: u64) -> Kept {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Kept::new(account.clone(), Limits { body: size(body), all: size(self.snapshot.retry_buffers) })
    }

    /// Puts the client's own session back into its place: nothing will be sent again.
    pub(super) fn forget_body(&mut self, session: &mut Session) {
        let Some(place) = self.place.take() else { return };
        drop(std::mem::replace(&mut *session.downstream_session, nobody()));
        if let Some(client) = place.take() {
            *session.downstream_session = client;
        }
        if place.ends_connection() {
            session.set_keepalive(None);
        }
    }

    /// Ends the client's connection with this exchange. To be called before the head of the response is written.
    pub(super) fn end_connection(&self, session: &mut Session) {
        session.set_keepalive(None);
        if let Some(place) = &self.place {
            place.ends_connection.store(true, Relaxed);
        }
    }
}

/// Puts a session in the place of the client's.
fn stand_in_for(session: &mut Session, new: impl FnOnce(ServerSession) -> StandIn) {
    let client = std::mem::replace(&mut *session.downstream_session, nobody());
    *session.downstream_session = ServerSession::new_custom(Box::new(new(client)));
}

/// A session of nobody's, for the moment between two.
fn nobody() -> ServerSession {
    ServerSession::new_custom(Box::new(()))
}

/// Whether a body may be long enough and is not too long. Streams of gRPC have no end that one could wait for, and what
/// is sent on them is answered message by message.
fn is_worth_it(head: &RequestHeader, buffer: u64) -> bool {
    let length = announced_length(&head.headers);
    let is_grpc = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    !is_grpc && length.is_none_or(|length| (KEPT_BY_PINGORA + 1..=buffer).contains(&length))
}
