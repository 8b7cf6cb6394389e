//! What lies between a socket and Pingora? Buffers, and the traits that Pingora asks of a stream.
//!
//! Pingora's own listeners put buffers around a socket; that function is private, so a socket that we accept ourselves
//! comes without. Unbuffered, a response costs one system call for its head and one for its body. This file looks at no
//! byte: framing is `guard`'s.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{Peek, Ssl, UniqueID, UniqueIDType};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, BufWriter, ReadBuf};

/// A segment's worth, so that a small head and a small body leave as one.
const WRITE_BUFFER: usize = 1460;

/// One TLS record and a bit: rustls asks for a few kilobytes at a time, and an upload would cost four calls a record.
const TLS_READ_BUFFER: usize = 32 * 1024;

/// A buffer of one byte is no buffer: every longer read goes past it, straight to the socket.
const NO_READ_BUFFER: usize = 1;

/// A socket with its buffers.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<BufWriter<Socket>>,
}

impl Wire {
    /// For a connection without TLS: Pingora reads into large buffers of its own.
    pub fn plain(socket: Socket) -> Self {
        Self::new(socket, NO_READ_BUFFER)
    }

    /// For a connection under TLS.
    pub fn under_tls(socket: Socket) -> Self {
        Self::new(socket, TLS_READ_BUFFER)
    }

    fn new(socket: Socket, read: usize) -> Self {
        let writer = BufWriter::with_capacity(WRITE_BUFFER, socket);
        Self { stream: BufReader::with_capacity(read, writer) }
    }

    fn below(&self) -> &Socket {
        self.stream.get_ref().get_ref()
    }

    fn below_mut(&mut self) -> &mut Socket {
        self.stream.get_mut().get_mut()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
        self.below().id()
    }
}

impl Ssl for Wire {}

// Pingora peeks for the HTTP/2 preface without a deadline, so that a client which sends less hangs for ever. A stream
// that cannot peek is taken for HTTP/2 at once, which is what `http2: only` says.
#[async_trait]
impl Peek for Wire {}

/// Passes on what Pingora asks of a stream beside bytes, to the stream below.
macro_rules! pass_on_digests {
    ([$($generics:tt)*] $stream:ty) => {
        impl<$($generics)*> pingora::protocols::GetTimingDigest for $stream {
            fn get_timing_digest(&self) -> Vec<Option<pingora::protocols::TimingDigest>> {
                self.below().get_timing_digest()
            }
            fn get_read_pending_time(&self) -> std::time::Duration {
                self.below().get_read_pending_time()
            }
            fn get_write_pending_time(&self) -> std::time::Duration {
                self.below().get_write_pending_time()
            }
        }
        impl<$($generics)*> pingora::protocols::GetProxyDigest for $stream {
            fn get_proxy_digest(&self) -> Option<std::sync::Arc<pingora::protocols::raw_connect::ProxyDigest>> {
                self.below().get_proxy_digest()
            }
            fn set_proxy_digest(&mut self, digest: pingora::protocols::raw_connect::ProxyDigest) {
                self.below_mut().set_proxy_digest(digest);
            }
        }
        impl<$($generics)*> pingora::protocols::GetSocketDigest for $stream {
            fn get_socket_digest(&self) -> Option<std::sync::Arc<pingora::protocols::SocketDigest>> {
                self.below().get_socket_digest()
            }
            fn set_socket_digest(&mut self, digest: pingora::protocols::SocketDigest) {
                self.below_mut().set_socket_digest(digest);
            }
        }
        #[async_trait::async_trait]
        impl<$($generics)*> pingora::protocols::Shutdown for $stream {
            async fn shutdown(&mut self) {
                // A client that is gone already is no news.
                let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
            }
        }
    };
}
pub(crate) use pass_on_digests;

pass_on_digests!([] Wire);
