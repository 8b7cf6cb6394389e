//! What lies between a socket and Pingora? Buffers, and the traits that Pingora asks of a stream.
//!
//! Pingora's own listeners put buffers around a socket; that function is private, so a socket that we accept ourselves
//! comes without. Unbuffered, a response costs one system call for its head and one for its body. This file looks at no
//! byte: framing is `guard`'s.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::l4::ext::set_tcp_keepalive;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TcpKeepalive, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::server::listen::Accepted;

/// What is smaller waits for what comes next, so that a small head and a small body leave as one: a segment's worth.
const WRITE_BUFFER: usize = 1460;

/// How many pieces are written together.
const PARTS: usize = 16;

/// Two TLS records: rustls asks for a few kilobytes at a time, and an upload would cost four calls a record.
const READ_AHEAD: usize = 32 * 1024;

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
    socket: Socket,
    /// What is to be written together with what comes next; nothing where nothing is on its way.
    unsent: BytesMut,
    /// What was read from it and nobody has asked for yet.
    ahead: BytesMut,
    reading: Reading,
    digest: Arc<SocketDigest>,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// What is asked for: Pingora reads into large buffers of its own.
    AsAsked,
    /// What is asked for, until that was there to the last byte and more is to be expected. So a connection that waits for
    /// little, or for nothing, has no buffer.
    AsAskedFirst,
    /// As much as fits into a buffer, until there was less.
    Ahead,
}

impl Wire {
    /// For a connection without TLS.
    pub fn plain(accepted: Accepted) -> Self {
        Self::new(accepted, Reading::AsAsked)
    }

    /// For a connection under TLS.
    pub fn under_tls(accepted: Accepted) -> Self {
        Self::new(accepted, Reading::AsAskedFirst)
    }

    fn new(accepted: Accepted, reading: Reading) -> Self {
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
        Self { socket, unsent: BytesMut::new(), ahead, reading, digest: Arc::new(digest) }
    }

    fn poll_read_as_asked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if self.reading == Reading::AsAskedFirst && buf.remaining() == 0 {
            self.reading = Reading::Ahead;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ahead.reserve(READ_AHEAD);
        let read = pin!(self.socket.read_buf(&mut self.ahead)).poll(cx);
        if !matches!(read, Poll::Ready(Ok(count)) if count >= READ_AHEAD) {
            self.reading = Reading::AsAskedFirst;
        }
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        read.map_ok(|_| ())
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if self.reading != Reading::Ahead {
                return self.poll_read_as_asked(cx, buf);
            }
            ready!(self.poll_read_ahead(cx))?;
        }
        let step = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..step]);
        self.ahead.advance(step);
        if self.ahead.is_empty() && self.reading != Reading::Ahead {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    /// Keeps what is small, and writes what is not together with what was kept.
    fn poll_write_parts(&mut self, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.unsent.len() + length < WRITE_BUFFER {
            self.unsent.reserve(WRITE_BUFFER - self.unsent.len());
            parts.iter().for_each(|part| self.unsent.extend_from_slice(part));
            return Poll::Ready(Ok(length));
        }
        loop {
            if self.unsent.is_empty() {
                let socket = Pin::new(&mut self.socket);
                return match parts {
                    [bytes] => socket.poll_write(cx, bytes),
                    several => socket.poll_write_vectored(cx, several),
                };
            }
            let mut all = [io::IoSlice::new(&[]); PARTS];
            all[0] = io::IoSlice::new(&self.unsent);
            let count = parts.len().min(PARTS - 1);
            all[1..=count].copy_from_slice(&parts[..count]);
            let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &all[..=count]))?;
            let of_the_rest = written.saturating_sub(self.unsent.len());
            self.sent(written - of_the_rest)?;
            if of_the_rest > 0 {
                return Poll::Ready(Ok(of_the_rest));
            }
        }
    }

    fn poll_write_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.unsent))?;
            self.sent(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unsent.advance(count);
        if self.unsent.is_empty() {
            self.unsent = BytesMut::new();
        }
        Ok(())
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_unsent(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_unsent(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// What a read for `most` bytes gives; `None` where there is nothing now.
    async fn read(wire: &mut Wire, most: usize) -> Option<Vec<u8>> {
        let mut room = vec![0; most];
        poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut room);
            let read = Pin::new(&mut *wire).poll_read(cx, &mut buf);
            let filled = buf.filled().to_vec();
            Poll::Ready(match read {
                Poll::Ready(read) => read.map(|()| Some(filled)).unwrap(),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn under_tls_much_is_read_at_once_and_who_waits_has_no_buffer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::under_tls(Accepted::unix(ours));
        let said: Vec<u8> = (0..50_000u32).map(|at| at as u8).collect();
        theirs.write_all(&said[..100]).await.unwrap();
        assert_eq!(wire.read_u8().await.unwrap(), 0);
        assert_eq!(read(&mut wire, 4096).await.unwrap(), said[1..100], "there may be more");
        assert_eq!((wire.ahead.capacity(), read(&mut wire, 4096).await), (0, None), "there was no more");

        theirs.write_all(&said[100..]).await.unwrap();
        let mut heard = said[..100].to_vec();
        heard.push(wire.read_u8().await.unwrap());
        let mut most_ahead = 0;
        while let Some(bytes) = read(&mut wire, 1000).await {
            most_ahead = most_ahead.max(wire.ahead.len());
            heard.extend(bytes);
        }
        assert!(heard == said, "{} bytes of {}", heard.len(), said.len());
        assert!(most_ahead > READ_AHEAD / 2, "{most_ahead}");
        assert_eq!(wire.ahead.capacity(), 0);
        drop(theirs);
        assert_eq!(wire.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn without_tls_no_more_is_read_than_is_asked_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::plain(Accepted::unix(ours));
        theirs.write_all(&[7; 5000]).await.unwrap();
        for _ in 0..4 {
            assert_eq!(wire.read(&mut [0; 1000]).await.unwrap(), 1000);
            assert!(wire.ahead.is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_small_is_written_with_what_comes_next_and_leaves_no_buffer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::plain(Accepted::unix(ours));
        wire.write_all(b"head").await.unwrap();
        wire.write_all(b"body").await.unwrap();
        assert_eq!(theirs.try_read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        wire.flush().await.unwrap();
        let mut heard = [0; 8];
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!((&heard, wire.unsent.capacity()), (b"headbody", 0));
        wire.write_all(b"head").await.unwrap();
        wire.write_all(&[b'x'; WRITE_BUFFER]).await.unwrap();
        assert_eq!(theirs.try_read(&mut [0; 2 * WRITE_BUFFER]).unwrap(), 4 + WRITE_BUFFER);
        wire.write_all(b"the end").await.unwrap();
        AsyncWriteExt::shutdown(&mut wire).await.unwrap();
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"the end");
    }

    #[tokio::test]
    async fn whatever_the_sizes_all_arrives_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::plain(Accepted::unix(ours));
        let sizes: Vec<usize> = (0..200).map(|at| at * 7919 % 9000).collect();
        let said: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| (at / 251) as u8).collect();
        let all = said.clone();
        let hearing = tokio::spawn(async move {
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).await.map(|_| heard)
        });
        let mut rest = &all[..];
        for (at, size) in sizes.into_iter().enumerate() {
            let (piece, after) = rest.split_at(size);
            rest = after;
            if at % 3 > 0 {
                wire.write_all(piece).await.unwrap();
                continue;
            }
            // In two parts, as many times as it takes.
            let mut left = piece;
            while !left.is_empty() {
                let (one, other) = left.split_at(left.len() / 2);
                let count = wire.write_vectored(&[io::IoSlice::new(one), io::IoSlice::new(other)]).await.unwrap();
                left = &left[count..];
            }
        }
        AsyncWriteExt::shutdown(&mut wire).await.unwrap();
        assert!(hearing.await.unwrap().unwrap() == said);
    }
}
