//! What is in a body? Bytes that one writes and many read, also while they are being written.
//!
//! They lie in segments, of which the last one grows until it is full; readers of it get copies, readers of full segments
//! get clones of `Bytes`, and a body that is complete is read without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::budget::Charge;
use super::coded::Forms;
use super::segments::{SEGMENT, Segments};

/// A body, or what there is of it so far.
#[derive(Debug)]
pub(super) struct Body {
    growing: Mutex<Growing>,
    whole: OnceLock<Whole>,
    grown: Notify,
    /// When the backend was asked for what is on disk of it; 0 is never. Here, because what is learned later of an object
    /// changes its head, and not its body.
    pub(super) copied_at: AtomicU64,
    /// What it is in codings, once anybody asked. A box, because most bodies are never coded.
    pub(super) codings: OnceLock<Box<Forms>>,
}

#[derive(Debug)]
struct Whole {
    segments: Arc<[Bytes]>,
    len: u64,
}

#[derive(Debug)]
struct Growing {
    segments: Segments,
    broken: bool,
    charge: Charge,
}

impl Body {
    pub(super) fn new(charge: Charge) -> Arc<Self> {
        let growing = Growing { segments: Segments::default(), broken: false, charge };
        Arc::new(Self {
            growing: Mutex::new(growing),
            whole: OnceLock::new(),
            grown: Notify::new(),
            copied_at: AtomicU64::new(0),
            codings: OnceLock::new(),
        })
    }

    fn growing(&self) -> MutexGuard<'_, Growing> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its length, once it is complete.
    pub(super) fn len(&self) -> Option<u64> {
        self.whole.get().map(|whole| whole.len)
    }

    /// The bytes that have been paid for.
    pub(super) fn weight(&self) -> u64 {
        self.growing().charge.bytes()
    }

    /// All of it, if it is complete and lies in one segment.
    pub(super) fn in_one_piece(&self) -> Option<Bytes> {
        match &*self.whole.get()?.segments {
            [] => Some(Bytes::new()),
            [one] => Some(one.clone()),
            [_, _, ..] => None,
        }
    }

    /// All of it in segments, if it is complete.
    pub(super) fn pieces(&self) -> Option<Arc<[Bytes]>> {
        self.whole.get().map(|whole| whole.segments.clone())
    }

    /// What is there at a position; empty at the end. `None` where more is to come.
    fn at(&self, position: u64, most: usize) -> Result<Option<Bytes>, Broken> {
        let index = usize::try_from(position).unwrap_or(usize::MAX);
        let (segment, offset) = (index / SEGMENT, index % SEGMENT);
        let part = |full: &Bytes| full.slice(offset.min(full.len())..full.len().min(offset.saturating_add(most)));
        if let Some(whole) = self.whole.get() {
            return Ok(Some(whole.segments.get(segment).map(part).unwrap_or_default()));
        }
        let growing = self.growing();
        if growing.broken {
            return Err(Broken);
        }
        if let Some(full) = growing.segments.full(segment) {
            return Ok(Some(part(full)));
        }
        let last = growing.segments.last(segment);
        let there = last.and_then(|last| last.get(offset..last.len().min(offset.saturating_add(most))));
        Ok(there.filter(|there| !there.is_empty()).map(Bytes::copy_from_slice))
    }
}

/// The body will never be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The one who writes. Dropped before [`Writer::finish`], it leaves the body broken.
#[derive(Debug)]
pub(super) struct Writer {
    body: Arc<Body>,
    expected: Option<u64>,
}

impl Writer {
    /// `expected` is the length that was announced, which has been paid for.
    pub(super) fn new(body: Arc<Body>, expected: Option<u64>) -> Self {
        Self { body, expected }
    }

    /// Adds bytes. `pay` is asked to make the charge so large before memory is taken; `false` if it could not, or if
    /// there are more bytes than were announced.
    pub(super) fn write(&mut self, data: &[u8], pay: impl Fn(&mut Charge, u64) -> bool) -> bool {
        {
            let growing = &mut *self.body.growing();
            let len = growing.segments.len() + data.len() as u64;
            match self.expected {
                Some(expected) if len > expected => return false,
                Some(_) => {}
                None if !pay(&mut growing.charge, Segments::taken(len, None)) => return false,
                None => {}
            }
            growing.segments.extend(data, self.expected);
        }
        self.body.grown.notify_waiters();
        true
    }

    /// Completes the body; `false` if it has not the length that was announced.
    pub(super) fn finish(self) -> bool {
        let growing = &mut *self.body.growing();
        let len = growing.segments.len();
        if self.expected.is_some_and(|expected| expected != len) {
            return false;
        }
        let segments = std::mem::take(&mut growing.segments).into_pieces();
        growing.charge.resize(len);
        self.body.whole.set(Whole { segments: segments.into(), len }).is_ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.body.whole.get().is_none() {
            let growing = &mut *self.body.growing();
            growing.broken = true;
            growing.segments = Segments::default();
            growing.charge.resize(0);
        }
        self.body.grown.notify_waiters();
    }
}

/// One who reads, from a position to another.
#[derive(Debug)]
pub(super) struct Reader {
    body: Arc<Body>,
    at: u64,
    end: u64,
}

impl Reader {
    pub(super) fn new(body: Arc<Body>) -> Self {
        Self { body, at: 0, end: u64::MAX }
    }

    /// Reads from `at` to before `end`.
    pub(super) fn seek(&mut self, at: u64, end: u64) {
        (self.at, self.end) = (at, end);
    }

    /// The next bytes; `None` at the end. Waits for those that are still to come.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let most = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(None);
        }
        loop {
            let grown = self.body.grown.notified();
            tokio::pin!(grown);
            // Registered before the look, so that what comes between the two is not missed.
            grown.as_mut().enable();
            if let Some(bytes) = self.body.at(self.at, most)? {
                self.at += bytes.len() as u64;
                return Ok(Some(bytes).filter(|bytes| !bytes.is_empty()));
            }
            grown.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn body(limit: u64) -> (Arc<Budget>, Arc<Body>) {
        let budget = Budget::new(limit);
        let body = Body::new(Charge::none(&budget));
        (budget, body)
    }

    async fn rest(reader: &mut Reader) -> Result<Vec<u8>, Broken> {
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_is_written_in_pieces_is_read_whole_from_any_position() {
        let (budget, body) = body(1 << 20);
        let mut writer = Writer::new(body.clone(), None);
        let all = bytes(3 * SEGMENT + 17);
        for piece in all.chunks(1000) {
            assert!(writer.write(piece, Charge::resize));
        }
        assert!(writer.finish());
        assert_eq!(budget.used(), all.len() as u64);
        for (from, to) in [(0, all.len()), (SEGMENT - 1, SEGMENT + 1), (5, 6), (3 * SEGMENT, all.len())] {
            let mut reader = Reader::new(body.clone());
            reader.seek(from as u64, to as u64);
            assert_eq!(rest(&mut reader).await.as_deref(), Ok(&all[from..to]), "{from}..{to}");
        }
    }

    #[tokio::test]
    async fn a_reader_follows_the_writer_and_learns_that_it_gave_up() {
        let (_, body) = body(1 << 20);
        let mut writer = Writer::new(body.clone(), Some(10));
        let mut reader = Reader::new(body.clone());
        assert!(writer.write(b"hello", Charge::resize));
        assert_eq!(reader.next().await, Ok(Some(Bytes::from_static(b"hello"))));
        let (next, ()) = tokio::join!(reader.next(), async { assert!(writer.write(b"world", Charge::resize)) });
        assert_eq!(next, Ok(Some(Bytes::from_static(b"world"))));
        drop(writer);
        assert_eq!(reader.next().await, Err(Broken));
    }

    #[test]
    fn a_body_of_another_length_than_announced_is_never_complete() {
        for (announced, sent) in [(3, "four"), (5, "four")] {
            let (budget, body) = body(100);
            let mut writer = Writer::new(body.clone(), Some(announced));
            let written = writer.write(sent.as_bytes(), Charge::resize);
            assert!(!(written && writer.finish()), "{announced}");
            assert_eq!((body.len(), budget.used()), (None, 0));
        }
    }

    #[test]
    fn what_cannot_be_paid_for_is_not_kept() {
        let (_, body) = body(SEGMENT as u64);
        let mut writer = Writer::new(body, None);
        assert!(writer.write(&bytes(SEGMENT), Charge::resize));
        assert!(!writer.write(b"x", Charge::resize));
    }

    #[test]
    fn a_short_body_is_one_piece() {
        let (_, body) = body(100_000);
        let mut writer = Writer::new(body.clone(), Some(5));
        assert!(writer.write(b"short", Charge::resize) && writer.finish());
        assert_eq!(body.in_one_piece(), Some(Bytes::from_static(b"short")));
    }
}
