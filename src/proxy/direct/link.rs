//! One connection to a backend, for one exchange.
//!
//! What is to be sent is written while the answer is read: a backend may answer before it has everything, and may read no
//! more until its answer is read.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::Method;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::unconstrained;

use super::answer::Answer;
use super::outbox::Outbox;
use super::pool::Pool;
use crate::upstream::dial::Line;

/// A connection of HTTP/1. Dropped before the end of its exchange it is closed.
pub(super) struct Link {
    stream: Stream,
    pub(super) reused: bool,
    pub(super) outbox: Outbox,
    pub(super) answer: Answer,
    /// Something was written and may still be held back.
    holds_back: bool,
}

/// What a turn of a connection has brought.
pub(super) enum Turn<T> {
    /// What was looked for in the answer, or that it will not come.
    Said(Result<T>),
    /// There is room for more of the body again.
    Room,
    /// The backend takes no more.
    BrokeOff(Box<Error>),
}

impl Link {
    /// A connection that was at rest.
    pub(super) fn reused(stream: Stream) -> Self {
        Self { stream, reused: true, outbox: Outbox::default(), answer: Answer::default(), holds_back: false }
    }

    /// A new one.
    pub(super) async fn new(connector: &Connector, peer: &HttpPeer) -> Result<Self> {
        match connector.get_http_session(peer).await? {
            (HttpSession::H1(session), reused) => Ok(Self { reused, ..Self::reused(session.into_inner()) }),
            (HttpSession::H2(_) | HttpSession::Custom(()), _) => {
                Error::e_explain(ErrorType::InternalError, "not a connection of HTTP/1")
            }
        }
    }

    /// Where it can be cut.
    pub(super) fn line(&self) -> Option<Line> {
        self.stream.get_proxy_digest().as_deref().and_then(Line::told_by)
    }

    /// Begins an exchange with this head, which is sent in the turns that follow.
    pub(super) fn ask(&mut self, head: &RequestHeader) -> Result<()> {
        self.answer = Answer::to(head.method == Method::HEAD);
        self.outbox.put_head(head)
    }

    /// Writes what waits and reads until `look` finds in the answer what it looks for, or until there is room again for one
    /// who `waits_for_room`. To be dropped at any time: nothing is lost.
    pub(super) async fn turn<T>(
        &mut self,
        waits_for_room: bool,
        mut look: impl FnMut(&mut Answer) -> Result<Option<T>>,
    ) -> Turn<T> {
        poll_fn(|context| {
            if let Poll::Ready(Err(error)) = self.poll_send(context) {
                let owes_the_head = self.outbox.owes_the_head();
                // A flush would fail again and again: under TLS what cannot be written stays.
                self.outbox.give_up();
                self.holds_back = false;
                let error = Error::because(ErrorType::WriteError, "to a backend", error);
                // Whatever it says was not said to this request.
                return Poll::Ready(if owes_the_head { Turn::Said(Err(error)) } else { Turn::BrokeOff(error) });
            }
            if waits_for_room && self.outbox.has_room() {
                return Poll::Ready(Turn::Room);
            }
            loop {
                match look(&mut self.answer) {
                    Ok(Some(found)) => return Poll::Ready(Turn::Said(Ok(found))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Turn::Said(Err(error))),
                }
                let read = pin!(self.stream.read_buf(self.answer.room())).poll(context);
                let read = match read {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => self.answer.end(),
                    Poll::Ready(read) => read.map(drop).or_err(ErrorType::ReadError, "from a backend"),
                };
                if let Err(error) = read {
                    return Poll::Ready(Turn::Said(Err(error)));
                }
            }
        })
        .await
    }

    /// Writes all that waits.
    pub(super) async fn send(&mut self) -> Result<()> {
        let sent = poll_fn(|context| self.poll_send(context)).await;
        sent.or_err(ErrorType::WriteError, "to a backend")
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let bytes = self.outbox.next();
            if bytes.is_empty() {
                break;
            }
            let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.wrote(written);
            self.holds_back = true;
        }
        if self.holds_back {
            std::task::ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.holds_back = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Puts the connection to rest where it can be used again. To be called when the answer has been read to its end.
    pub(super) fn release(mut self, pool: &Pool, key: u64) {
        if self.answer.leaves_the_connection() {
            pool.put(key, self.stream);
        } else {
            // Says good-bye under TLS. Nobody waits until the backend has read it.
            let _ = at_once(self.stream.shutdown());
        }
    }
}

/// What a future has to say without waiting. Not held back by what else the task has done: that would look like a wait.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(unconstrained(future)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
