//! How far has a remembered body been read, in this attempt?

use bytes::Bytes;

use crate::retry::Kept;

/// What has been read of a request's body, and how far it has been read again.
pub(super) struct Memory {
    /// `None` once nothing needs to be remembered any more, or there was too much of it.
    kept: Option<Kept>,
    next: usize,
    is_lost: bool,
    is_last_time: bool,
}

impl Memory {
    pub(super) fn new(kept: Kept) -> Self {
        Self { kept: Some(kept), next: 0, is_lost: false, is_last_time: false }
    }

    /// The next attempt begins: the body is read from its beginning.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
    }

    /// Whether the body cannot be read from its beginning any more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether the rest of the body is with the client.
    pub(super) fn is_read(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| self.next >= kept.pieces())
    }

    /// The next part of what is remembered.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let piece = self.kept.as_ref()?.piece(self.next)?;
        self.next += 1;
        self.forget_what_is_read();
        Some(piece)
    }

    /// Takes what the client has sent. To be called when all that is remembered has been read.
    pub(super) fn remember(&mut self, bytes: &[u8]) {
        let Some(kept) = &mut self.kept else { return };
        let fits = kept.add(bytes);
        self.next = kept.pieces();
        if !fits {
            self.is_lost = true;
            self.kept = None;
        }
    }

    /// There will be no further attempt: what has been read need not be remembered.
    pub(super) fn read_once_more(&mut self) {
        self.is_last_time = true;
        self.forget_what_is_read();
    }

    fn forget_what_is_read(&mut self) {
        if self.is_last_time && self.is_read() {
            self.kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::retry::{Account, Limits};

    fn memory(account: &Arc<Account>, body: usize) -> Memory {
        Memory::new(Kept::new(account.clone(), Limits { body, all: 1 << 20 }))
    }

    fn rest(memory: &mut Memory) -> Vec<u8> {
        std::iter::from_fn(|| memory.next()).flatten().collect()
    }

    #[test]
    fn each_attempt_reads_from_the_beginning() {
        let mut memory = memory(&Arc::default(), 1 << 20);
        assert!(memory.is_read());
        memory.remember(b"one");
        assert!(memory.is_read() && memory.next().is_none(), "this attempt has seen it");
        memory.rewind();
        assert!(!memory.is_read());
        assert_eq!(rest(&mut memory), b"one");
        memory.remember(b"two");
        assert!(memory.is_read() && memory.next().is_none());
        memory.rewind();
        assert_eq!(rest(&mut memory), b"onetwo");
    }

    #[test]
    fn what_was_too_much_is_given_up_and_given_back() {
        let account = Arc::default();
        let mut memory = memory(&account, 5);
        memory.remember(b"one");
        memory.remember(b"two");
        assert!(memory.is_lost() && memory.is_read());
        memory.remember(b"three");
        memory.rewind();
        assert_eq!((memory.next(), account.taken()), (None, 0));
    }

    #[test]
    fn once_an_answer_is_passed_on_nothing_is_remembered_but_what_must_still_be_read() {
        let account = Arc::default();
        let mut memory = memory(&account, 1 << 20);
        memory.remember(&[1; 100_000]);
        memory.rewind();
        memory.read_once_more();
        assert!(account.taken() > 0 && !memory.is_lost());
        assert_eq!(rest(&mut memory).len(), 100_000);
        assert_eq!((account.taken(), memory.is_read()), (0, true));
    }
}
