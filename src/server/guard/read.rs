//! The reading half of the guard: bytes from the client, stage by stage.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pingora::protocols::IO;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::scan::Head;
use super::{Body, Guard, LINGER_BYTES, Stage, below};
use crate::answer::Refusal;

/// What is read at once into a buffer of ours: a usual head fits.
const STEP: usize = 4096;

/// What a client may send ahead of its turn, in bytes. More waits in the system's buffers.
const AHEAD: usize = 16 * 1024;

impl<S: IO + 'static> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        loop {
            match guard.stage {
                Stage::Release(..) => {
                    guard.release(buf);
                    return Poll::Ready(Ok(()));
                }
                // Pingora has the whole head, and reads on without having called a hook: it does not agree where it ends.
                Stage::Body(_) | Stage::Between if !guard.hooks_know() => guard.refuse(Refusal::MalformedRequest),
                Stage::Body(_) => return guard.poll_body(cx, buf),
                Stage::Between => return guard.poll_between(cx),
                Stage::Tunnel => return guard.poll_tunnel(cx, buf),
                Stage::Broken => return Poll::Ready(Err(broken())),
                Stage::Refusing { .. } | Stage::Lingering(_) => ready!(guard.poll_last_words(cx)),
                // As if the client had left, which Pingora takes without a word. It never waits for a head.
                Stage::Head(_) | Stage::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: IO + 'static> Guard<S> {
    /// Waits for the first bytes of the next request, or for its client to leave or be silent for too long.
    pub(in crate::server) async fn first_bytes(&mut self) {
        self.begin_head();
        poll_fn(|cx| self.poll_first(cx)).await;
    }

    /// Waits for the rest of the head whose first bytes are there; says whether it is one that Pingora may see.
    pub(in crate::server) async fn has_head(&mut self) -> bool {
        poll_fn(|cx| self.poll_head(cx)).await;
        matches!(self.stage, Stage::Release(..))
    }

    /// Leaves a client whose request Pingora does not get to see: says why, where there is a reason, and goodbye, under TLS
    /// with `close_notify`.
    pub(in crate::server) async fn goodbye(&mut self) {
        poll_fn(|cx| {
            ready!(self.poll_last_words(cx));
            // If it can be said at once: who takes nothing now has nothing to wait for.
            let _ = self.inner().poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while matches!(self.stage, Stage::Head(_)) {
            self.drop_empty_lines();
            if self.blank > self.rules.bounds.size {
                self.refuse(Refusal::MalformedRequest);
                break;
            }
            // The first may be half of an empty line's end.
            if !matches!(self.buffer[..], [] | [b'\r']) {
                self.see_first();
                break;
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => self.stage = Stage::Closed,
                Poll::Pending => ready!(self.poll_idle_deadline(cx)),
            }
        }
        Poll::Ready(())
    }

    /// Empty lines before a request are forgiven (RFC 9112, section 2.2), and begin none: some clients send one behind a body.
    fn drop_empty_lines(&mut self) {
        while self.buffer.starts_with(b"\r\n") {
            self.buffer.advance(2);
            self.blank += 2;
        }
        self.drop_empty_buffer();
    }

    /// A large head leaves a large buffer, which an idle connection should not keep.
    fn drop_empty_buffer(&mut self) {
        if self.buffer.is_empty() && self.buffer.try_reclaim(STEP / 4) {
            self.buffer = BytesMut::new();
        }
    }

    /// The first bytes of a head are there. Mostly they are all of it.
    fn see_first(&mut self) {
        if self.judge() {
            return;
        }
        let opened = self.connection.opened.elapsed().as_millis();
        self.connection.turn.head_began.store(u64::try_from(opened).unwrap_or(u64::MAX).max(1), Relaxed);
        if self.timer_is_for_idling() {
            // The idle time is over with the first byte; the time for the head begins.
            self.timer.clear();
        }
    }

    /// Reads until a head is complete, or too late, or not allowed. What is there has been looked at.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while matches!(self.stage, Stage::Head(_)) {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {
                    self.judge();
                }
                Poll::Ready(Ok(0) | Err(_)) => self.stage = Stage::Closed,
                Poll::Pending => ready!(self.poll_head_deadline(cx)),
            }
        }
        Poll::Ready(())
    }

    /// Looks at what has come of a head since the last time; says whether that decides what becomes of it.
    fn judge(&mut self) -> bool {
        let Stage::Head(scan) = &mut self.stage else { return true };
        match scan.read(&self.buffer, self.rules.bounds) {
            Ok(Some(Head { length, framing })) => {
                self.timer.clear();
                self.stage = Stage::Release(length, Body::new(framing));
            }
            Ok(None) => return false,
            Err(refusal) => self.refuse(refusal),
        }
        true
    }

    /// Whether this is not the first request: the deadline of a fresh connection stands, silence or not.
    fn timer_is_for_idling(&self) -> bool {
        self.connection.turn.requests.load(Relaxed) > 1
    }

    fn poll_idle_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.start(self.rules.timeouts.idle);
        if !self.timer.has_rung(cx) {
            return Poll::Pending;
        }
        // There is no request that an answer could belong to.
        self.stage = Stage::Closed;
        Poll::Ready(())
    }

    fn poll_head_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.start(self.rules.timeouts.header);
        if !self.timer.has_rung(cx) {
            return Poll::Pending;
        }
        self.refuse(Refusal::HeaderTimeout);
        Poll::Ready(())
    }

    fn release(&mut self, buf: &mut ReadBuf<'_>) {
        let Stage::Release(left, _) = &mut self.stage else { return };
        let step = (*left).min(buf.remaining());
        buf.put_slice(&self.buffer[..step]);
        self.buffer.advance(step);
        *left -= step;
        if *left > 0 {
            return;
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Between);
        if let Stage::Release(_, body) = stage {
            self.enter(body);
        }
        self.drop_empty_buffer();
    }

    fn enter(&mut self, body: Body) {
        self.stage = if body.is_done() { Stage::Between } else { Stage::Body(body) };
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Stage::Body(body) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let taken = if self.buffer.is_empty() {
            // Straight into Pingora's buffer; what belongs to the next request is taken out again.
            let start = buf.filled().len();
            ready!(below(&mut self.inner).poll_read(cx, buf))?;
            let taken = body.take(&buf.filled()[start..]);
            taken.map(|taken| {
                self.buffer.extend_from_slice(&buf.filled()[start + taken..]);
                buf.set_filled(start + taken);
            })
        } else {
            let step = self.buffer.len().min(buf.remaining());
            body.take(&self.buffer[..step]).map(|taken| {
                buf.put_slice(&self.buffer[..taken]);
                self.buffer.advance(taken);
            })
        };
        if taken.is_err() {
            self.connection.turn.body_is_malformed.store(true, Relaxed);
            self.stage = Stage::Broken;
            return Poll::Ready(Err(broken()));
        }
        if body.is_done() {
            self.stage = Stage::Between;
        }
        Poll::Ready(Ok(()))
    }

    /// Pingora reads here to learn whether the client has left. What the client sends is for the next request.
    fn poll_between(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Who has sent its next request before it closed its side has not left. Of one who has sent nothing more and
            // closes its side nobody can tell, and the work is spared, as in nginx.
            if self.buffer.len() >= AHEAD || (self.at_end && !self.buffer.is_empty()) {
                return Poll::Pending;
            }
            if ready!(self.poll_fill(cx))? == 0 && self.buffer.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return self.inner().poll_read(cx, buf);
        }
        let step = self.buffer.len().min(buf.remaining());
        buf.put_slice(&self.buffer[..step]);
        self.buffer.advance(step);
        self.drop_empty_buffer();
        Poll::Ready(Ok(()))
    }

    /// Reads some bytes into our buffer; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.at_end {
            return Poll::Ready(Ok(0));
        }
        let count = if self.buffer.is_empty() {
            // Whoever waits has no room of its own: mostly nothing comes, or little.
            let mut scratch = [MaybeUninit::uninit(); STEP];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(below(&mut self.inner).poll_read(cx, &mut read))?;
            self.buffer.extend_from_slice(read.filled());
            read.filled().len()
        } else {
            if self.buffer.capacity() - self.buffer.len() < STEP / 4 {
                self.buffer.reserve(STEP);
            }
            ready!(pin!(below(&mut self.inner).read_buf(&mut self.buffer)).poll(cx))?
        };
        self.at_end = count == 0;
        Poll::Ready(Ok(count))
    }

    /// Reads and drops what still comes, for a while.
    pub(super) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; STEP];
        while let Stage::Lingering(left) = &mut self.stage {
            let mut buf = ReadBuf::new(&mut scratch);
            let read = below(&mut self.inner).poll_read(cx, &mut buf);
            let count = buf.filled().len();
            match read {
                Poll::Ready(Ok(())) if count > 0 && count < *left => *left -= count,
                Poll::Ready(_) => self.stage = Stage::Closed,
                Poll::Pending if self.timer.has_rung(cx) => self.stage = Stage::Closed,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    pub(super) fn linger(&mut self) {
        self.timer.set(super::LINGER);
        self.stage = Stage::Lingering(LINGER_BYTES);
    }
}

fn broken() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the framing of the request's body is broken")
}
