//! Which bytes of an HTTP/1 client does Pingora get to see? Those of one whole request, and never of the next.
//!
//! Pingora answers a malformed head with a bare 400 and a slow one with silence, both without our hooks; it takes up to a
//! mebibyte of head, waits for ever on a kept-alive connection, and is lenient about chunks. So below it every HTTP/1
//! connection has a guard that holds a head back until it is complete and allowed, and knows where its body ends. What it
//! refuses it answers, reports and closes by itself. It does not know what a request means.
//!
//! Since Pingora never sees a byte of the next request, pipelined requests wait here for their turn.

mod chunks;
mod read;
mod scan;
mod timer;
mod write;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{ALPN, IO, Peek, Ssl, UniqueID, UniqueIDType};

use crate::answer::Refusal;
use crate::config::{ListenerLimits, ListenerTimeouts};
use crate::server::connection::Connection;
use crate::server::wire::pass_on_digests;
use chunks::Chunks;
use scan::{Bounds, Framing, Scan};
use timer::Timer;

/// How long we go on reading what nobody wants any more. Closing with unread bytes resets the connection, and the client
/// would lose our last answer with it.
const LINGER: Duration = Duration::from_secs(1);

/// How many such bytes.
const LINGER_BYTES: usize = 256 * 1024;

/// Told of each refusal that no hook sees, with the bytes of the head that had been read.
pub type OnRefusal = Arc<dyn Fn(&Connection, Refusal, usize) + Send + Sync>;

/// What a listener demands of the requests on its HTTP/1 connections.
pub(super) struct Rules {
    timeouts: ListenerTimeouts,
    bounds: Bounds,
    on_refusal: OnRefusal,
}

impl Rules {
    pub(super) fn new(timeouts: &ListenerTimeouts, limits: &ListenerLimits, on_refusal: OnRefusal) -> Self {
        let bounds = Bounds { size: limits.header_size, fields: limits.headers };
        Self { timeouts: timeouts.clone(), bounds, on_refusal }
    }
}

/// A stream whose client must keep to the rules.
pub(super) struct Guard<S> {
    inner: S,
    connection: Arc<Connection>,
    rules: Arc<Rules>,
    stage: Stage,
    /// Received, and not handed on yet.
    buffer: BytesMut,
    /// The client will send no more.
    at_end: bool,
    /// For the head of a request, or else for a write that makes no progress.
    timer: Timer,
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

impl<S> Guard<S> {
    pub(super) fn new(inner: S, connection: Arc<Connection>, rules: Arc<Rules>) -> Self {
        let mut timer = Timer::default();
        // A connection is opened to say something. Only between two requests may there be silence.
        timer.set(rules.timeouts.header);
        let stage = Stage::Head(Scan::default());
        Self { inner, connection, rules, stage, buffer: BytesMut::new(), at_end: false, timer }
    }

    /// The next request is expected. Whatever is left of the one before makes the connection useless.
    fn begin_head(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Between => {
                self.timer.clear();
                Stage::Head(Scan::default())
            }
            Stage::Release(..) | Stage::Body(_) | Stage::Tunnel | Stage::Broken => Stage::Closed,
            same @ (Stage::Head(_) | Stage::Refusing { .. } | Stage::Lingering(_) | Stage::Closed) => same,
        };
    }

    /// Answers in the hooks' place. From here on nothing that Pingora writes gets through.
    fn refuse(&mut self, refusal: Refusal) {
        (self.rules.on_refusal)(&self.connection, refusal, self.buffer.len());
        self.stage = Stage::Refusing { answer: refusal.bytes().into(), written: 0 };
        self.timer.set(LINGER);
    }

    fn hooks_know(&self) -> bool {
        self.connection.turn.answered_by_hooks.load(Relaxed)
    }

    fn below(&self) -> &S {
        &self.inner
    }

    fn below_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: Unpin> Guard<S> {
    fn inner(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.inner)
    }
}

impl<S> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No bytes: Pingora logs its streams.
        f.debug_struct("Guard").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl<S: IO> UniqueID for Guard<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<S: IO> Ssl for Guard<S> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

#[async_trait]
impl<S: IO> Peek for Guard<S> {}

pass_on_digests!([S: IO] Guard<S>);
