//! Does the client take what we write, and fast enough?
//!
//! A socket says that it has room again only when much of its buffer is free, so a client that reads steadily may seem to
//! do nothing for minutes. The system knows how much has arrived there, and is asked when it matters: when we wait.

use std::num::NonZeroU64;
use std::time::Duration;

use pingora::protocols::UniqueIDType;
use pingora::protocols::l4::ext::get_tcp_info;
use tokio::time::Instant;

use crate::limit::Pace;

/// How fast a client reads while we wait for it. No time counts in which we have nothing for it.
pub(super) struct Reader {
    pace: Pace,
    /// Since when we wait, and what had arrived until then.
    waiting: Option<(Instant, u64)>,
}

impl Reader {
    pub(super) fn new(rate: NonZeroU64) -> Self {
        Self { pace: Pace::new(rate), waiting: None }
    }

    /// We have to wait; how long that may last.
    pub(super) fn wait(&mut self, socket: UniqueIDType) -> Duration {
        self.waiting.get_or_insert_with(|| (Instant::now(), arrived(socket)));
        self.pace.left()
    }

    /// We need not wait any more.
    pub(super) fn goes_on(&mut self, socket: UniqueIDType) {
        if let Some((since, before)) = self.waiting.take() {
            // At the least something has moved, or the socket would have no room. Who was too slow would have been told.
            self.pace.moved(since.elapsed(), arrived(socket).saturating_sub(before));
        }
    }

    /// We have waited for as long as may be; says whether the client did its part meanwhile.
    pub(super) fn takes_enough(&mut self, socket: UniqueIDType, limit: Duration) -> bool {
        let Some((since, before)) = self.waiting.take() else { return true };
        let (waited, bytes) = (since.elapsed(), arrived(socket).saturating_sub(before));
        self.pace.moved(waited, bytes) && (bytes > 0 || waited < limit)
    }
}

/// The bytes that the other side has confirmed; none on a unix socket, which has no such count.
fn arrived(socket: UniqueIDType) -> u64 {
    get_tcp_info(socket).map_or(0, |info| info.tcpi_bytes_acked)
}
