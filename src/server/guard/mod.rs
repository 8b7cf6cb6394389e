//! Which bytes of an HTTP/1 client does Pingora get to see? Those of one whole request, and never of the next.
//!
//! Pingora answers a malformed head with a bare 400 and a slow one with silence, both without our hooks; it takes up to a
//! mebibyte of head, waits for ever on a kept-alive connection, and is lenient about chunks. So below it every HTTP/1
//! connection has a guard that holds a head back until it is complete and allowed, and knows where its body ends. What it
//! refuses it answers, reports and closes by itself. It does not know what a request means.
//!
//! Since Pingora never sees a byte of the next request, pipelined requests wait here for their turn.

mod chunks;
mod date;
mod facts;
mod read;
mod scan;
mod slow;
mod write;

use std::fmt;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pingora::protocols::{IO, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::answer::Refusal;
use crate::config::{ListenerLimits, ListenerTimeouts};
use crate::proxy::Timer;
use crate::server::connection::Connection;
use chunks::Chunks;
use date::Redating;
use scan::{Bounds, Framing, Scan};
use slow::{Reader, is_counted};

/// How long we go on reading what nobody wants any more. Closing with unread bytes resets the connection, and the client
/// would lose our last answer with it.
const LINGER: Duration = Duration::from_secs(1);

/// How many such bytes.
const LINGER_BYTES: usize = 256 * 1024;

/// Ends a stream that a guard has left behind, so that its client can read our last answer.
pub(super) async fn end(mut stream: Stream) {
    let end = async {
        stream.shutdown().await.ok()?;
        let rest = (&mut stream).take(LINGER_BYTES as u64);
        tokio::io::copy(&mut { rest }, &mut tokio::io::sink()).await.ok()
    };
    // Either way the stream is dropped now.
    let _ = tokio::time::timeout(LINGER, end).await;
}

/// Told of each refusal that no hook sees, with the bytes of the head that had been read.
pub type OnRefusal = Arc<dyn Fn(&Connection, Refusal, usize) + Send + Sync>;

/// What a listener demands of the requests on its HTTP/1 connections.
pub(super) struct Rules {
    timeouts: ListenerTimeouts,
    bounds: Bounds,
    min_rate: Option<NonZeroU64>,
    on_refusal: OnRefusal,
}

impl Rules {
    pub(super) fn new(timeouts: &ListenerTimeouts, limits: &ListenerLimits, on_refusal: OnRefusal) -> Self {
        let bounds = Bounds { size: limits.header_size, fields: limits.headers };
        let header = timeouts.request.map_or(timeouts.header, |whole| whole.min(timeouts.header));
        let timeouts = ListenerTimeouts { header, ..timeouts.clone() };
        Self { timeouts, bounds, min_rate: limits.min_rate, on_refusal }
    }
}

/// A stream whose client must keep to the rules.
pub(super) struct Guard<S: IO + 'static> {
    /// Taken only by the drop of the guard.
    inner: Option<S>,
    connection: Arc<Connection>,
    rules: Arc<Rules>,
    stage: Stage,
    /// Received, and not handed on yet.
    buffer: BytesMut,
    /// Bytes of empty lines that were dropped before the head that is expected.
    blank: usize,
    /// The client will send no more.
    at_end: bool,
    /// For the head of a request, or else for the next look at a write that makes no progress.
    timer: Timer,
    /// While the head of a response is written whose date is another one.
    redating: Option<Redating>,
    /// How the client takes what we write.
    reader: Reader,
}

/// What comes next from the client.
enum Stage {
    /// A head.
    Head(Scan),
    /// A head is complete; so many bytes of it have still to be handed on, and then this body.
    Release(usize, Body),
    /// A body.
    Body(Body),
    /// Nothing that Pingora may see: the request is read to its end.
    Between,
    /// Anything: the protocol was switched.
    Tunnel,
    /// Nothing good: the framing of the body is broken, and the hooks may still answer.
    Broken,
    /// We refused, and write why.
    Refusing { answer: Box<[u8]>, written: usize },
    /// Everything is said; so many bytes are still read and dropped.
    Lingering(usize),
    /// Nothing any more.
    Closed,
}

/// What is left of a body.
enum Body {
    Length(u64),
    Chunked(Chunks),
}

impl Body {
    fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::new()),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
        }
    }

    /// How many of the bytes belong to it.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, chunks::BadChunk> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.take(bytes),
        }
    }
}

impl<S: IO + 'static> Guard<S> {
    pub(super) fn new(inner: S, connection: Arc<Connection>, rules: Arc<Rules>) -> Self {
        let mut timer = Timer::default();
        // A connection is opened to say something. Only between two requests may there be silence.
        timer.set(rules.timeouts.header);
        let stage = Stage::Head(Scan::default());
        let buffer = BytesMut::new();
        // Nobody counts what arrives behind a unix socket.
        let reader = Reader::new(rules.min_rate.filter(|_| is_counted(inner.id())));
        let (inner, redating) = (Some(inner), None);
        Self { inner, connection, rules, stage, buffer, blank: 0, at_end: false, timer, redating, reader }
    }

    /// The next request is expected. Whatever is left of the one before makes the connection useless.
    fn begin_head(&mut self) {
        self.redating = None;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Between => {
                self.timer.clear();
                self.blank = 0;
                Stage::Head(Scan::default())
            }
            Stage::Release(..) | Stage::Body(_) | Stage::Tunnel | Stage::Broken => Stage::Closed,
            same @ (Stage::Head(_) | Stage::Refusing { .. } | Stage::Lingering(_) | Stage::Closed) => same,
        };
    }

    /// Answers in the hooks' place. From here on nothing that Pingora writes gets through.
    fn refuse(&mut self, refusal: Refusal) {
        (self.rules.on_refusal)(&self.connection, refusal, self.buffer.len());
        self.stage = Stage::Refusing { answer: refusal.to_bytes(SystemTime::now()).into(), written: 0 };
        self.timer.set(LINGER);
    }

    fn hooks_know(&self) -> bool {
        self.connection.turn.answered_by_hooks.load(Relaxed)
    }

    /// Whether the client may still be sending what nobody will read.
    fn has_unread(&self) -> bool {
        let is_unread = match &self.stage {
            Stage::Body(_) | Stage::Broken | Stage::Release(..) => true,
            Stage::Between => !self.buffer.is_empty(),
            Stage::Head(_) | Stage::Tunnel | Stage::Refusing { .. } | Stage::Lingering(_) | Stage::Closed => false,
        };
        is_unread && !self.at_end
    }

    fn inner(&mut self) -> Pin<&mut S> {
        below(&mut self.inner)
    }

    fn below(&self) -> &S {
        self.inner.as_ref().expect("taken only when dropped")
    }

    fn below_mut(&mut self) -> &mut S {
        self.inner.as_mut().expect("taken only when dropped")
    }
}

/// The stream below, beside a borrow of the stage.
fn below<S: IO>(inner: &mut Option<S>) -> Pin<&mut S> {
    Pin::new(inner.as_mut().expect("taken only when dropped"))
}

impl<S: IO + 'static> Drop for Guard<S> {
    /// Pingora drops a stream after an error without closing it in order. Whoever serves the connection does that then.
    fn drop(&mut self) {
        if self.has_unread()
            && self.hooks_know()
            && let Some(inner) = self.inner.take()
        {
            self.connection.turn.leave(Box::new(inner));
        }
    }
}

impl<S: IO + 'static> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No bytes: Pingora logs its streams.
        f.debug_struct("Guard").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
