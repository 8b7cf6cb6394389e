//! What lies between a socket and Pingora? Buffers, and the traits that Pingora asks of a stream.
//!
//! Pingora's own listeners put buffers around a socket; that function is private, so a socket that we accept ourselves
//! comes without. Unbuffered, a response costs one system call for its head and one for its body. This file looks at no
//! byte: framing is `guard`'s.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::l4::ext::set_tcp_keepalive;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TcpKeepalive, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::server::listen::Accepted;

/// A segment's worth, so that a small head and a small body leave as one.
const WRITE_BUFFER: usize = 1460;

/// One TLS record and a bit: rustls asks for a few kilobytes at a time, and an upload would cost four calls a record.
const TLS_READ_BUFFER: usize = 32 * 1024;

/// A buffer of one byte is no buffer: every longer read goes past it, straight to the socket.
const NO_READ_BUFFER: usize = 1;

/// When a silent peer is asked whether it is still there, how often, and how many answers may be missing.
const KEEPALIVE: (Duration, Duration, usize) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A socket that we have accepted. Pingora's own type for one takes the time of every wait.
#[derive(Debug)]
pub enum Socket {
    /// From the network.
    Tcp(TcpStream),
    /// From this machine.
    Unix(UnixStream),
}

/// Calls a method of the socket, whichever it is.
macro_rules! either {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// A socket with its buffers.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<BufWriter<Socket>>,
    /// What was read from it before there was this.
    ahead: BytesMut,
    digest: Arc<SocketDigest>,
}

impl Wire {
    /// For a connection without TLS: Pingora reads into large buffers of its own.
    pub fn plain(accepted: Accepted) -> Self {
        Self::new(accepted, NO_READ_BUFFER)
    }

    /// For a connection under TLS.
    pub fn under_tls(accepted: Accepted) -> Self {
        Self::new(accepted, TLS_READ_BUFFER)
    }

    fn new(accepted: Accepted, read: usize) -> Self {
        let Accepted { socket, peer, ahead, .. } = accepted;
        if let Socket::Tcp(stream) = &socket {
            let (idle, interval, count) = KEEPALIVE;
            let keepalive = TcpKeepalive { idle, interval, count, user_timeout: Duration::ZERO };
            // A socket that refuses an option is one whose peer is gone; the first read will say so.
            let _ = stream.set_nodelay(true);
            let _ = set_tcp_keepalive(stream, &keepalive);
        }
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        // The cell is new, so it takes the value; were it not, Pingora would ask the system.
        let _ = digest.peer_addr.set(peer.map(Into::into));
        let writer = BufWriter::with_capacity(WRITE_BUFFER, socket);
        Self { stream: BufReader::with_capacity(read, writer), ahead, digest: Arc::new(digest) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let step = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(step));
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().get_ref().as_raw_fd()
    }
}

impl Ssl for Wire {}

// Pingora peeks for the HTTP/2 preface without a deadline, so that a client which sends less hangs for ever. A stream
// that cannot peek is taken for HTTP/2 at once, which is what `http2: only` says.
#[async_trait]
impl Peek for Wire {}

impl GetTimingDigest for Wire {
    /// Nobody asks when a client connected.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }

    fn set_proxy_digest(&mut self, _digest: ProxyDigest) {}
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }

    /// It has its own from the start.
    fn set_socket_digest(&mut self, _digest: SocketDigest) {}
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // A client that is gone already is no news.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}
