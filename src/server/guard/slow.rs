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

/// How a client reads while we wait for it. No time counts in which we have nothing for it.
pub(super) struct Reader {
    /// How fast it must be, if that matters.
    pace: Option<Pace>,
    waiting: Option<Waiting>,
}

/// We have more for the client than it takes.
struct Waiting {
    /// Since when, or since the last look.
    since: Instant,
    /// What had arrived until then. Where the pace does not matter, nobody asks before the first look: few waits last so long.
    arrived: Option<u64>,
    /// When something arrived last.
    moved: Instant,
}

impl Reader {
    pub(super) fn new(rate: Option<NonZeroU64>) -> Self {
        Self { pace: rate.map(Pace::new), waiting: None }
    }

    /// We have to wait; how long before the next look.
    pub(super) fn wait(&mut self, arrived: impl FnOnce() -> u64) -> Duration {
        let pace = self.pace;
        self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            Waiting { since: now, arrived: pace.map(|_| arrived()), moved: now }
        });
        pace.map_or(LOOK, |pace| pace.left().min(LOOK))
    }

    /// We need not wait any more.
    pub(super) fn goes_on(&mut self, arrived: impl FnOnce() -> u64) {
        if let Some(Waiting { since, arrived: Some(before), .. }) = self.waiting.take()
            && let Some(pace) = &mut self.pace
        {
            // Whoever was too slow has been cut off.
            pace.moved(since.elapsed(), arrived().saturating_sub(before));
        }
    }

    /// Looks again after a wait, when so much has arrived; says whether the client did its part meanwhile, and took something
    /// within `limit` or little more.
    pub(super) fn takes_enough(&mut self, arrived: u64, limit: Duration) -> bool {
        let Some(waiting) = &mut self.waiting else { return true };
        let now = Instant::now();
        let Some(before) = waiting.arrived.replace(arrived) else {
            // What came until now is not known: rather a look too late than too early.
            waiting.moved = now;
            return true;
        };
        let bytes = arrived.saturating_sub(before);
        let fast_enough = self.pace.as_mut().is_none_or(|pace| pace.moved(now - waiting.since, bytes));
        if bytes > 0 {
            waiting.moved = now;
        }
        waiting.since = now;
        fast_enough && now - waiting.moved < limit
    }
}

/// Whether somebody counts what arrives on the other side.
pub(super) fn is_counted(socket: UniqueIDType) -> bool {
    get_tcp_info(socket).is_ok()
}

/// The bytes that the other side has confirmed; none where nobody counts them.
pub(super) fn arrived(socket: UniqueIDType) -> u64 {
    get_tcp_info(socket).map_or(0, |info| info.tcpi_bytes_acked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    /// Whether the client may go on after each of these seconds, in which so much arrived.
    async fn looks(mut reader: Reader, arriving: &[u64]) -> Vec<bool> {
        let mut arrived = 0;
        let mut looks = Vec::new();
        reader.wait(|| arrived);
        for bytes in arriving {
            tokio::time::advance(LOOK).await;
            arrived += bytes;
            looks.push(reader.takes_enough(arrived, LIMIT));
            reader.wait(|| arrived);
        }
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_now_and_then_may_go_on_where_the_pace_does_not_matter() {
        let steadily = looks(Reader::new(None), &[1; 60]).await;
        assert!(steadily.iter().all(|&may| may), "{steadily:?}");
        assert_eq!(
            looks(Reader::new(None), &[0, 0, 1, 0, 0, 1, 0, 0, 0]).await,
            [[true; 8].as_slice(), &[false]].concat()
        );
        for nothing_after in [[0; 4], [1, 0, 0, 0]] {
            assert_eq!(looks(Reader::new(None), &nothing_after).await, [true, true, true, false]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_too_slow_is_found_out_where_it_does() {
        let rate = NonZeroU64::new(100);
        assert!(looks(Reader::new(rate), &[100; 60]).await.iter().all(|&may| may));
        let slowly = looks(Reader::new(rate), &[50; 60]).await;
        assert!(slowly.first() == Some(&true) && slowly.last() == Some(&false), "{slowly:?}");
    }
}
