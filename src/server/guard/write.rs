//! The writing half of the guard: bytes for the client, and our own last words.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use pingora::protocols::IO;
use tokio::io::AsyncWrite;

use super::date::{Redating, is_final_head};
use super::slow::arrived;
use super::{Guard, LINGER_BYTES, Stage, below};
use crate::answer::Refusal;

/// How the head of a response begins that turns the connection into a tunnel.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

impl<S: IO + 'static> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        if guard.keeps_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written =
            if guard.redates(bytes) { guard.poll_redated(cx, bytes) } else { guard.inner().poll_write(cx, bytes) };
        guard.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        let first = slices.iter().find(|slice| !slice.is_empty());
        if first.is_some_and(|first| guard.keeps_back(first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = match first {
            Some(first) if guard.redates(first) => guard.poll_redated(cx, first),
            Some(_) | None => guard.inner().poll_write_vectored(cx, slices),
        };
        guard.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.below().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if let Stage::Refusing { .. } | Stage::Lingering(_) | Stage::Closed = guard.stage {
            return Poll::Ready(Ok(()));
        }
        let flushed = guard.inner().poll_flush(cx);
        guard.watch(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if let Stage::Refusing { .. } | Stage::Lingering(_) = guard.stage {
            ready!(guard.poll_last_words(cx));
            // Shut with them, or not to be waited for.
            return Poll::Ready(Ok(()));
        }
        if guard.connection.turn.reads_slowly.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let shut = guard.inner().poll_shutdown(cx);
        ready!(guard.watch(cx, shut))?;
        if guard.has_unread() {
            guard.linger();
            ready!(guard.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: IO + 'static> Guard<S> {
    /// Whether these bytes are not for the client: we have refused, or do so now, as the answer is Pingora's own.
    fn keeps_back(&mut self, bytes: &[u8]) -> bool {
        match self.stage {
            Stage::Refusing { .. } | Stage::Lingering(_) | Stage::Closed => return true,
            Stage::Head(_) | Stage::Release(..) | Stage::Body(_) | Stage::Between if !self.hooks_know() => {
                self.refuse(Refusal::MalformedRequest);
                return true;
            }
            Stage::Body(_) | Stage::Between if bytes.starts_with(SWITCHING) => self.stage = Stage::Tunnel,
            Stage::Head(_) | Stage::Release(..) | Stage::Body(_) | Stage::Between | Stage::Tunnel | Stage::Broken => {}
        }
        false
    }

    /// Whether these bytes have to do with a date that is another one than what Pingora has written.
    fn redates(&mut self, bytes: &[u8]) -> bool {
        if self.redating.is_none() && self.connection.turn.has_date() && is_final_head(bytes) {
            self.redating = self.connection.turn.take_date().and_then(|date| Redating::of(bytes, date));
        }
        self.redating.is_some()
    }

    fn poll_redated(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(redating) = &mut self.redating else { return self.inner().poll_write(cx, bytes) };
        let written = ready!(below(&mut self.inner).poll_write_vectored(cx, &redating.parts(bytes)))?;
        if redating.advance(written) {
            self.redating = None;
        }
        Poll::Ready(Ok(written))
    }

    /// Holds the deadline of a write: it need not end in time, but it must make progress.
    fn watch<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let (socket, limit) = (self.below().id(), self.rules.timeouts.write);
        if progress.is_ready() {
            self.timer.clear();
            self.reader.goes_on(|| arrived(socket));
            return progress;
        }
        loop {
            self.timer.start(self.reader.wait(|| arrived(socket)).min(limit));
            if !self.timer.has_rung(cx) {
                return Poll::Pending;
            }
            self.timer.clear();
            if !self.reader.takes_enough(arrived(socket), limit) {
                break;
            }
        }
        self.connection.turn.reads_slowly.store(true, Relaxed);
        // Whatever is written from here on would only wait for it again.
        self.stage = Stage::Closed;
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the client takes too little")))
    }

    /// Writes why we refuse, ends our side, and lingers. All of it in the time that [`Guard::refuse`] has set.
    pub(super) fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Refusing { .. } = self.stage {
            let said = match self.poll_answer(cx) {
                Poll::Pending if self.timer.has_rung(cx) => false,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(said) => said.is_ok(),
            };
            self.stage = if said { Stage::Lingering(LINGER_BYTES) } else { Stage::Closed };
        }
        self.poll_linger(cx)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stage::Refusing { answer, written } = &mut self.stage else { return Poll::Ready(Ok(())) };
        while *written < answer.len() {
            match ready!(below(&mut self.inner).poll_write(cx, &answer[*written..]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        self.inner().poll_shutdown(cx)
    }
}
