//! Does an HTTP/2 client send frames that only cost? Those that nobody above counts are counted here, below Pingora.
//!
//! The `h2` crate bounds what each stream and each head may take. It answers any number of `PING` and `SETTINGS`, and
//! Pingora begins a request for each stream even if it is given up at once. One who goes too far is told to be calm
//! (`GOAWAY`), if that can be said at once, and its connection ends. No byte is changed on its way.

mod count;

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::count::{Allowance, Frames};

/// `GOAWAY` with `ENHANCE_YOUR_CALM`, for whatever came (RFC 9113, sections 6.8 and 7).
const BE_CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];

/// Told once, when a client has gone too far.
pub(super) type OnFlood = Box<dyn Fn() + Send + Sync>;

/// A stream of HTTP/2 whose client must not flood us.
pub(super) struct Counted {
    inner: Stream,
    received: Frames,
    sent: Frames,
    allowance: Allowance,
    flooded: bool,
    on_flood: OnFlood,
}

impl Counted {
    pub(super) fn new(inner: Stream, on_flood: OnFlood) -> Self {
        let allowance = Allowance::new(Instant::now());
        let (received, sent) = (Frames::of_client(), Frames::of_server());
        Self { inner, received, sent, allowance, flooded: false, on_flood }
    }

    fn count(&mut self, bytes: &[u8]) {
        let (allowance, flooded) = (&mut self.allowance, &mut self.flooded);
        self.received.take(bytes, |frame| *flooded |= allowance.is_exceeded_by(frame, Instant::now));
    }

    /// Notes what has been written.
    fn note(&mut self, bytes: &[u8]) {
        self.sent.take(bytes, |frame| self.allowance.has_moved(frame.length));
    }

    /// Best effort: not within another frame, and without waiting for a client that may read nothing.
    fn end(&mut self, cx: &mut Context<'_>) -> io::Error {
        (self.on_flood)();
        if self.sent.is_between() {
            let _ = Pin::new(&mut self.inner).poll_write(cx, &BE_CALM);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        flooded()
    }
}

fn flooded() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "the client floods us with frames")
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let counted = self.get_mut();
        if counted.flooded {
            return Poll::Ready(Err(flooded()));
        }
        let start = buf.filled().len();
        let read = Pin::new(&mut counted.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            counted.count(&buf.filled()[start..]);
            if counted.flooded {
                return Poll::Ready(Err(counted.end(cx)));
            }
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let counted = self.get_mut();
        let written = Pin::new(&mut counted.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            counted.note(&bytes[..count]);
        }
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let counted = self.get_mut();
        let written = Pin::new(&mut counted.inner).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(mut count)) = written {
            for slice in slices {
                let step = count.min(slice.len());
                counted.note(&slice[..step]);
                count -= step;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("allowance", &self.allowance).finish_non_exhaustive()
    }
}

impl UniqueID for Counted {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Counted {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

#[async_trait]
impl Peek for Counted {}

impl GetTimingDigest for Counted {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Counted {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Counted {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[async_trait]
impl Shutdown for Counted {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}
