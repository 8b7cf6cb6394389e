//! How does something stored leave in a coding? As it was coded before, or coded now and kept for the next.

use std::sync::Arc;

use bytes::Bytes;
use pingora::proxy::Session;

use crate::cache::store::{Coded, CodedFilling, Object};
use crate::compress::Copy;
use crate::config::Coding;
use crate::proxy::exchange::Exchange;

/// Keeps what is sent to a client for those who come after it.
struct Keeping(CodedFilling);

impl Copy for Keeping {
    fn take(&mut self, piece: &Bytes) -> bool {
        self.0.write(piece)
    }

    fn end(self: Box<Self>) {
        self.0.finish();
    }
}

impl Exchange {
    /// Whether it is not known that what is served is hardly smaller in a coding.
    pub(super) fn is_worth(&self, session: &Session, coding: Coding) -> bool {
        !self.served(session).is_some_and(|object| matches!(object.coded(coding), Coded::NotWorthIt))
    }

    /// Keeps what an object is in a coding, if nobody does so already.
    pub(super) fn keep_coding(&self, object: &Arc<Object>, coding: Coding) -> Option<Box<dyn Copy>> {
        Some(Box::new(Keeping(self.store()?.claim_coding(object, coding)?)))
    }
}
