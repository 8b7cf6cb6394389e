//! What is kept of a request's body, so that it can be sent again? Copies, on one account for all requests together.
//!
//! Copies, because a chunk that comes in over HTTP/2 is a view of its connection's read buffer, which a view of one
//! byte would keep whole. What is kept grows as it arrives: a client that only says that its body is large takes
//! nothing from the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};

/// The first piece; each one after it is as large as all before together.
const PIECE_MIN: usize = 4 << 10;

/// Large enough that writing one costs more than finding the next.
const PIECE_MAX: usize = 64 << 10;

/// What all that is kept takes together.
#[derive(Debug, Default)]
pub struct Account(AtomicUsize);

impl Account {
    /// How many bytes are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn take(&self, bytes: usize, limit: usize) -> bool {
        let within = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= limit);
        self.0.fetch_update(Relaxed, Relaxed, within).is_ok()
    }
}

/// The body of one request, as far as it has been read. What it takes of the account is given back when it is dropped.
#[derive(Debug)]
pub struct Kept {
    account: Arc<Account>,
    limits: Limits,
    pieces: Vec<BytesMut>,
    len: usize,
    taken: usize,
}

/// How much may be kept, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one body.
    pub body: usize,
    /// Of all bodies together.
    pub all: usize,
}

impl Kept {
    /// Nothing yet.
    pub fn new(account: Arc<Account>, limits: Limits) -> Self {
        Self { account, limits, pieces: Vec::new(), len: 0, taken: 0 }
    }

    /// Adds a copy; says no where that would be more than may be kept. What is there is then of no use any more.
    #[must_use]
    pub fn add(&mut self, mut bytes: &[u8]) -> bool {
        if self.len + bytes.len() > self.limits.body {
            return false;
        }
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = self.pieces.last().map_or(0, |piece| piece.capacity() - piece.len());
            if room == 0 {
                if !self.grow(bytes.len()) {
                    return false;
                }
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(piece) = self.pieces.last_mut() {
                piece.extend_from_slice(now);
            }
            bytes = later;
        }
        true
    }

    /// A copy of one piece, counted from 0; `None` when there are no more.
    pub fn piece(&self, index: usize) -> Option<Bytes> {
        self.pieces.get(index).map(|piece| Bytes::copy_from_slice(piece))
    }

    /// A copy of all of it.
    pub fn whole(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.len);
        self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    fn grow(&mut self, wanted: usize) -> bool {
        let size = wanted.max(self.taken).clamp(PIECE_MIN, PIECE_MAX);
        let granted = self.account.take(size, self.limits.all);
        if granted {
            self.taken += size;
            self.pieces.push(BytesMut::with_capacity(size));
        }
        granted
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.taken, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(account: &Arc<Account>, body: usize, all: usize) -> Kept {
        Kept::new(account.clone(), Limits { body, all })
    }

    #[test]
    fn a_body_of_the_largest_size_is_kept_and_one_byte_more_is_not() {
        let account = Arc::default();
        let mut kept = kept(&account, 100_000, 1 << 20);
        assert!(kept.add(&[1; 99_999]) && kept.add(&[2]));
        assert_eq!(kept.whole().len(), 100_000);
        assert!(!kept.add(&[3]));
    }

    #[test]
    fn all_together_never_take_more_than_there_is_and_give_all_of_it_back() {
        let account = Arc::<Account>::default();
        let mut bodies: Vec<_> = (0..64).map(|_| kept(&account, 1 << 20, 1 << 20)).collect();
        let mut refused = 0;
        for _ in 0..40 {
            for body in &mut bodies {
                refused += usize::from(!body.add(&[7; 1000]));
                assert!(account.taken() <= 1 << 20);
            }
        }
        assert!(refused > 0, "64 bodies of 40 KB need more");
        drop(bodies);
        assert_eq!(account.taken(), 0);
    }

    #[test]
    fn single_bytes_take_little_more_than_they_are() {
        let account = Arc::<Account>::default();
        let mut kept = kept(&account, 1 << 20, 1 << 20);
        assert!((0..300_000).all(|_| kept.add(&[1])));
        assert!(account.taken() <= 300_000 + PIECE_MAX, "{}", account.taken());
        assert!(kept.pieces() < 12);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_came(pieces in prop::collection::vec((any::<u8>(), 0..8_000usize), 0..30)) {
            let chunks: Vec<_> = pieces.into_iter().map(|(byte, length)| vec![byte; length]).collect();
            let account = Arc::<Account>::default();
            let mut kept = kept(&account, 1 << 20, 1 << 21);
            for chunk in &chunks {
                prop_assert!(kept.add(chunk));
            }
            prop_assert_eq!(kept.whole(), chunks.concat());
            let pieces: Vec<_> = (0..kept.pieces()).map(|index| kept.piece(index).unwrap()).collect();
            prop_assert_eq!(kept.whole(), pieces.concat());
            prop_assert!(account.taken() >= chunks.concat().len());
        }
    }
}
