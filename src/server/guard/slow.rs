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

/// How often is looked while we wait: what came at the beginning of a long wait would else pay for the silence after it.
const LOOK: Duration = Duration::from_secs(1);

/// How fast a client reads while we wait for it. No time counts in which we have nothing for it.
pub(super) struct Reader {
    pace: Pace,
    waiting: Option<Waiting>,
}

/// We have more for the client than it takes.
struct Waiting {
    /// Since when, or since the last look.
    since: Instant,
    /// What had arrived until then.
    arrived: u64,
    /// When something arrived last.
    moved: Instant,
}

impl Reader {
    pub(super) fn new(rate: NonZeroU64) -> Self {
        Self { pace: Pace::new(rate), waiting: None }
    }

    /// We have to wait; how long that may last.
    pub(super) fn wait(&mut self, socket: UniqueIDType) -> Duration {
        self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            Waiting { since: now, arrived: arrived(socket), moved: now }
        });
        self.pace.left().min(LOOK)
    }

    /// We need not wait any more.
    pub(super) fn goes_on(&mut self, socket: UniqueIDType) {
        if let Some(Waiting { since, arrived: before, .. }) = self.waiting.take() {
            // Whoever was too slow has been cut off.
            self.pace.moved(since.elapsed(), arrived(socket).saturating_sub(before));
        }
    }

    /// Looks again after a wait; says whether the client did its part meanwhile.
    pub(super) fn takes_enough(&mut self, socket: UniqueIDType, limit: Duration) -> bool {
        let Some(waiting) = &mut self.waiting else { return true };
        let (now, until) = (Instant::now(), arrived(socket));
        let bytes = until.saturating_sub(waiting.arrived);
        let fast_enough = self.pace.moved(now - waiting.since, bytes);
        (waiting.since, waiting.arrived) = (now, until);
        if bytes > 0 {
            waiting.moved = now;
        }
        fast_enough && now - waiting.moved < limit
    }
}

/// The bytes that the other side has confirmed; none on a unix socket, which has no such count.
fn arrived(socket: UniqueIDType) -> u64 {
    get_tcp_info(socket).map_or(0, |info| info.tcpi_bytes_acked)
}
