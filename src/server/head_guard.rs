//! Stub of the guard: passes through.
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{ALPN, IO, Peek, Ssl, UniqueID, UniqueIDType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::answer::Refusal;
use crate::config::{ListenerLimits, ListenerTimeouts};
use crate::server::connection::Connection;
use crate::server::wire::pass_on_digests;

/// Told of each refusal that no hook sees, with the bytes of the head that had been read.
pub type OnRefusal = Arc<dyn Fn(&Connection, Refusal, usize) + Send + Sync>;

/// What a listener demands of the requests on its HTTP/1 connections.
pub struct Rules {
    timeouts: ListenerTimeouts,
    limits: ListenerLimits,
    on_refusal: OnRefusal,
}

impl Rules {
    /// From the listener's settings.
    pub fn new(timeouts: &ListenerTimeouts, limits: &ListenerLimits, on_refusal: OnRefusal) -> Self {
        Self { timeouts: timeouts.clone(), limits: limits.clone(), on_refusal }
    }
}

/// guard
pub struct HeadGuard<S> {
    inner: S,
    connection: Arc<Connection>,
    rules: Arc<Rules>,
}

impl<S> HeadGuard<S> {
    /// new
    pub fn new(inner: S, connection: Arc<Connection>, rules: Arc<Rules>) -> Self {
        Self { inner, connection, rules }
    }
    fn below(&self) -> &S {
        &self.inner
    }
    fn below_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}
impl<S> fmt::Debug for HeadGuard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadGuard").field("connection", &self.connection).finish_non_exhaustive()
    }
}
impl<S: IO> AsyncRead for HeadGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}
impl<S: IO> AsyncWrite for HeadGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
impl<S: IO> UniqueID for HeadGuard<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}
impl<S: IO> Ssl for HeadGuard<S> {
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
impl<S: IO> Peek for HeadGuard<S> {}
pass_on_digests!([S: IO] HeadGuard<S>);
