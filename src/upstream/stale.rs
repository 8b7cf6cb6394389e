//! Does a backend close connections that we keep for it? Then what must not arrive twice goes on a fresh one.
//!
//! A pooled connection that the backend closes at the moment at which it is used costs a GET nothing: it gets a free try.
//! A POST might have been acted upon, so its client sees a failure; and no retry can help, only not to run the risk. A
//! backend that has shown once that it closes connections under us will do so again. So the next [`WARY`] requests that
//! must not arrive twice make a connection of their own, and where no connection was ever found stale none does. HTTP/2
//! says in its GOAWAY which requests it has taken, and shares a connection; there the pool is used as ever.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Pick;
use crate::config::Protocol;

/// So many requests are careful after a connection was found stale.
const WARY: u32 = 256;

/// How many requests are still careful with one backend.
#[derive(Debug, Default)]
pub(super) struct Stale(AtomicU32);

impl Stale {
    fn note(&self) {
        self.0.store(WARY, Relaxed);
    }

    /// Whether this request shall be careful.
    fn is_wary(&self) -> bool {
        // Nearly always it is 0, and then nobody writes.
        self.0.load(Relaxed) > 0 && self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

impl Pick {
    /// A connection from the pool was closed by the backend before it gave a byte of an answer.
    pub fn note_stale(&self) {
        self.member().stale.note();
    }

    /// Whether a request that must not arrive twice shall keep off the pool.
    pub fn distrusts_pool(&self) -> bool {
        self.upstream.config.protocol == Protocol::Http1 && self.member().stale.is_wary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_wary_before_a_connection_was_stale_and_so_many_are_after_that() {
        let stale = Stale::default();
        assert!(!stale.is_wary());
        stale.note();
        stale.note();
        assert_eq!((0..2 * WARY).filter(|_| stale.is_wary()).count(), WARY as usize);
    }
}
