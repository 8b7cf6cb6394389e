//! Where does each HTTP/2 frame begin, and of which kind is it? And how many of them are too many?
//!
//! Pure: bytes and moments come in. Nothing is decoded but the nine bytes before each frame.

use std::time::Instant;

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: usize = 24;

const HEAD: usize = 9;

/// The kinds of frames that carry what a connection is for.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// Bounded by the `h2` crate, which ends a connection whose head takes more frames than its size explains.
const CONTINUATION: u8 = 9;

/// Streams that a client may give up at once: twice as many as are open by default, as of one who leaves two pages.
const RESETS: f64 = 200.0;

/// And for how many a second it may go on. Whoever asks and gives up faster than this (CVE-2023-44487) is after the work
/// that each of them costs, which `h2_streams` does not bound, since a stream that is given up is none any more.
const RESETS_PER_SECOND: f64 = 100.0;

/// Frames about the connection itself that may come at once: `PING`, `SETTINGS`, `PRIORITY`, `WINDOW_UPDATE` and those
/// that we do not know. Many of them are answered, none brings anybody further, and the `h2` crate counts none.
const CHATTER: f64 = 1000.0;

/// And for how many a second they may go on beside what they belong to.
const CHATTER_PER_SECOND: f64 = 100.0;

/// What moves allows for more of them: a client that downloads at full speed sends two updates of a window for each frame
/// of 16 KiB at the most, and asks with `PING` how long the way is.
const BYTES_PER_CHATTER: f64 = 1024.0;

/// The frames of one direction, wherever they are cut.
#[derive(Debug)]
pub(super) struct Frames {
    /// Of the preface and of payloads: bytes that are passed over.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

/// One frame, as its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) length: usize,
}

impl Frames {
    /// Of a client, which begins with the preface.
    pub(super) fn of_client() -> Self {
        Self { skip: PREFACE, head: [0; HEAD], have: 0 }
    }

    /// Of a server.
    pub(super) fn of_server() -> Self {
        Self { skip: 0, head: [0; HEAD], have: 0 }
    }

    /// Reads on, and tells each frame that begins.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = &bytes[step..];
                continue;
            }
            let step = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEAD {
                let [a, b, c, kind, ..] = self.head;
                self.have = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                tell(Frame { kind, length: self.skip });
            }
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }
}

/// What a client may still send of the frames that only cost.
#[derive(Debug)]
pub(super) struct Allowance {
    resets: f64,
    chatter: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { resets: RESETS, chatter: CHATTER, at: now }
    }

    /// Counts a frame; says whether it is one too many.
    pub(super) fn is_exceeded_by(&mut self, frame: Frame, now: impl Fn() -> Instant) -> bool {
        match frame.kind {
            // Where nothing moves there is nothing to chat about, and the `h2` crate counts small and empty ones.
            DATA | HEADERS | CONTINUATION => {
                self.has_moved(frame.length);
                false
            }
            RST_STREAM => {
                self.pass(now());
                self.resets -= 1.0;
                self.resets < 0.0
            }
            _ => {
                self.pass(now());
                self.chatter -= 1.0;
                self.chatter < 0.0
            }
        }
    }

    /// So much was sent, or came.
    pub(super) fn has_moved(&mut self, bytes: usize) {
        self.chatter = (self.chatter + bytes as f64 / BYTES_PER_CHATTER).min(CHATTER);
    }

    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.resets = (self.resets + passed * RESETS_PER_SECOND).min(RESETS);
        self.chatter = (self.chatter + passed * CHATTER_PER_SECOND).min(CHATTER);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).unwrap().to_be_bytes();
        [&[a, b, c, kind, 0, 0, 0, 0, 1][..], &vec![PING; payload]].concat()
    }

    /// How many of these come before one is too many, one after each pause.
    fn borne(kind: u8, pause: Duration, most: usize) -> usize {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        (0..most)
            .position(|_| {
                now += pause;
                allowance.is_exceeded_by(Frame { kind, length: 4 }, || now)
            })
            .unwrap_or(most)
    }

    #[test]
    fn a_flood_is_found_and_a_steady_client_is_not() {
        assert_eq!(borne(RST_STREAM, Duration::ZERO, 10_000), 200);
        assert_eq!(borne(RST_STREAM, Duration::from_millis(10), 10_000), 10_000);
        for kind in [2, 4, PING, 8, 0xaa] {
            assert_eq!(borne(kind, Duration::ZERO, 10_000), 1000, "{kind}");
            assert_eq!(borne(kind, Duration::from_millis(10), 10_000), 10_000, "{kind}");
        }
        assert_eq!(borne(DATA, Duration::ZERO, 10_000), 10_000);
    }

    #[test]
    fn what_moves_allows_for_the_frames_that_belong_to_it() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        for _ in 0..100_000 {
            allowance.has_moved(16 * 1024);
            let update = Frame { kind: 8, length: 4 };
            assert!(!allowance.is_exceeded_by(update, || now) && !allowance.is_exceeded_by(update, || now));
        }
    }

    proptest! {
        #[test]
        fn frames_are_found_wherever_they_are_cut(
            sent in proptest::collection::vec((0_u8..12, 0_usize..100), 0..20), cut in 1_usize..40,
        ) {
            let bytes = [vec![PING; PREFACE], sent.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect()].concat();
            let (mut frames, mut found) = (Frames::of_client(), Vec::new());
            for part in bytes.chunks(cut) {
                frames.take(part, |frame| found.push((frame.kind, frame.length)));
            }
            prop_assert_eq!(found, sent);
            prop_assert!(frames.is_between());
        }
    }
}
