//! How busy are we, and how hard may an encoder try then?

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, TryLockError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::config::Coding;

/// How old what we know may be. Shorter spans say more of chance than of load.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// The share of our processor time that is in use, as it was lately: all threads, of all processors that we work on.
#[derive(Debug)]
pub struct Load {
    last: Mutex<Sample>,
    percent: AtomicU8,
    processors: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Processor time since the start.
    used: Duration,
}

impl Sample {
    fn now() -> Self {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = Duration::from_secs(u64::try_from(tv_sec).unwrap_or(0));
        Self { at: Instant::now(), used: seconds + Duration::from_nanos(u64::try_from(tv_nsec).unwrap_or(0)) }
    }

    /// The share of the time since an earlier one that was used, in percent.
    fn share_since(self, earlier: Self, processors: u32) -> u8 {
        let had = (self.at - earlier.at).as_micros() * u128::from(processors);
        let used = self.used.saturating_sub(earlier.used).as_micros();
        u8::try_from((100 * used).checked_div(had).unwrap_or(0).min(100)).unwrap_or(100)
    }
}

impl Load {
    /// Of a process that works on so many processors, or on as many as it may.
    pub fn new(processors: usize) -> Self {
        let there = available_parallelism().map_or(processors, NonZeroUsize::get);
        let processors = u32::try_from(processors.clamp(1, there)).unwrap_or(u32::MAX);
        Self { last: Mutex::new(Sample::now()), percent: AtomicU8::new(0), processors }
    }

    /// The share in percent. Whoever asks first after a while looks anew; nobody waits for that.
    pub fn percent(&self) -> u8 {
        let mut last = match self.last.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.percent.load(Relaxed),
        };
        if last.at.elapsed() >= SAMPLE_EVERY {
            let now = Sample::now();
            self.percent.store(now.share_since(*last, self.processors), Relaxed);
            *last = now;
        }
        self.percent.load(Relaxed)
    }
}

/// How hard a coding tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What the operator asked for.
    pub asked: u8,
    /// What there is time for.
    pub now: u8,
}

impl Level {
    /// Whether the level that was asked for is meant for what is encoded once and sent often: a piece of 64 KiB takes some
    /// 5 ms at the highest level that is not.
    pub fn is_slow(self, coding: Coding) -> bool {
        self.asked > fast(coding)
    }

    /// The level for what another, who takes his time, is encoding already.
    pub fn in_passing(self, coding: Coding) -> u8 {
        self.now.min(fast(coding))
    }
}

/// The highest level that keeps up with requests.
pub fn fast(coding: Coding) -> u8 {
    match coding {
        Coding::Zstd => 12,
        Coding::Br => 6,
        Coding::Gzip | Coding::Deflate => 9,
    }
}

/// The level for a load: what was asked for up to `max` percent, and from there on less, down to 1 at 100 percent.
pub fn level_at(level: u8, percent: u8, max: u8) -> u8 {
    let over = u16::from(percent.min(100).saturating_sub(max));
    let room = u16::from(100_u8.saturating_sub(max)).max(1);
    let less = (u16::from(level.saturating_sub(1)) * over).div_ceil(room);
    level - u8::try_from(less).unwrap_or(0).min(level.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_step_down_from_the_limit_on_and_end_at_the_lowest() {
        for (level, percent, max, expected) in [
            (9, 0, 80, 9),
            (9, 80, 80, 9),
            (9, 81, 80, 8),
            (9, 90, 80, 5),
            (9, 99, 80, 1),
            (9, 100, 80, 1),
            (9, 255, 80, 1),
            (1, 100, 80, 1),
            (0, 100, 80, 0),
            (19, 100, 1, 1),
            (5, 100, 99, 1),
            (5, 99, 99, 5),
            (5, 100, 100, 5),
        ] {
            assert_eq!(level_at(level, percent, max), expected, "{level} at {percent} over {max}");
        }
    }

    #[test]
    fn a_slow_level_is_for_what_is_kept() {
        for (coding, asked, now, slow, in_passing) in [
            (Coding::Br, 11, 11, true, 6),
            (Coding::Br, 6, 6, false, 6),
            (Coding::Br, 11, 2, true, 2),
            (Coding::Zstd, 19, 19, true, 12),
            (Coding::Gzip, 9, 9, false, 9),
        ] {
            let level = Level { asked, now };
            assert_eq!((level.is_slow(coding), level.in_passing(coding)), (slow, in_passing), "{coding} {asked}");
        }
    }

    #[test]
    fn the_share_is_that_of_all_processors() {
        let then = Sample { at: Instant::now(), used: Duration::from_secs(5) };
        let now = Sample { at: then.at + Duration::from_secs(1), used: Duration::from_secs(6) };
        assert_eq!((now.share_since(then, 1), now.share_since(then, 4)), (100, 25));
        assert_eq!(now.share_since(now, 4), 0, "no time has gone by");
        assert_eq!(then.share_since(Sample { used: Duration::from_secs(7), ..then }, 2), 0, "a clock set back");
    }

    #[test]
    fn what_is_known_is_looked_up_again_only_after_a_while() {
        let load = Load::new(1);
        load.percent.store(42, Relaxed);
        assert_eq!(load.percent(), 42, "just sampled");
        let long_ago = Sample { at: Instant::now() - Duration::from_secs(3600), used: Duration::ZERO };
        if let Ok(mut last) = load.last.lock() {
            *last = long_ago;
        }
        assert!(load.percent() < 42, "a test takes less than 42 % of an hour");
        assert!(load.last.lock().is_ok_and(|last| last.at > long_ago.at));
    }
}
