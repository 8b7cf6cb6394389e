//! May it have one more within its quota? What was sent to one backend, and when.
//!
//! The guarantee: in any time of the length of a window, the backend gets at most as many requests as its quota says,
//! wherever that time begins. A request reaches the backend at some moment between its claim and its answer, and only
//! the backend knows when. So it counts from the claim on, and for one window after its end: whatever the moment was, all
//! that could lie within one window with it have been counted when it is claimed. A counter that is set back at the turn
//! of the minute, or a bucket that is filled up again, would let through twice as many around that moment.
//!
//! One log of ends serves all windows. It is as long as the largest quota at most, and grows only as it is used. What
//! certainly never reached the backend is given back. Reads no clock: an [`Age`] comes in.

use std::collections::VecDeque;
use std::time::Duration;

use super::Age;
use crate::config::Quota;

/// What was sent to one backend.
#[derive(Debug)]
pub struct Log {
    quotas: Vec<Quota>,
    /// The longest window there ever was, in nanoseconds, and the largest count: quotas that come back shall find what they
    /// need to know, and the log stays bounded.
    longest: u64,
    most: usize,
    /// When those that have ended did, in nanoseconds; the oldest first.
    ended: VecDeque<u64>,
    /// Claims that may still be given back.
    claimed: u32,
    /// Under way.
    sent: u32,
}

impl Log {
    /// Nothing was sent yet.
    pub fn new(quotas: Vec<Quota>) -> Self {
        let mut log = Self { quotas: Vec::new(), longest: 0, most: 0, ended: VecDeque::new(), claimed: 0, sent: 0 };
        log.set(&quotas);
        log
    }

    /// These are its quotas from now on. What was sent stays known for as long as the longest window that there was.
    pub fn set(&mut self, quotas: &[Quota]) {
        if self.quotas != quotas {
            self.quotas = quotas.to_vec();
        }
        self.longest = quotas.iter().map(length).fold(self.longest, u64::max);
        self.most = quotas.iter().map(|quota| quota.most as usize).fold(self.most, usize::max);
    }

    /// Claims one request, if every window has room for it; then it is [`Self::sent`] or given back.
    pub fn claim(&mut self, now: Age) -> bool {
        self.forget(now);
        let free = self.is_free(now);
        self.claimed += u32::from(free);
        free
    }

    /// Whether every window has room for one more.
    pub fn is_free(&self, now: Age) -> bool {
        let (now, under_way) = (nanos(now), self.claimed + self.sent);
        self.quotas
            .iter()
            .all(|quota| self.free_at(quota, under_way).is_some_and(|free_at| free_at == 0 || free_at < now))
    }

    /// A claim is on its way, and may reach the backend.
    pub fn sent(&mut self) {
        self.claimed = self.claimed.saturating_sub(1);
        self.sent += 1;
    }

    /// A claim has certainly not reached the backend, and will not.
    pub fn give_back(&mut self) {
        self.claimed = self.claimed.saturating_sub(1);
    }

    /// What was sent has been answered, or is over.
    pub fn end(&mut self, now: Age) {
        self.sent = self.sent.saturating_sub(1);
        // Two threads may tell their ends in another order than they read the clock in; later is safe.
        let now = nanos(now).max(self.ended.back().copied().unwrap_or(0));
        self.ended.push_back(now);
        self.forget(Duration::from_nanos(now));
    }

    /// How long until there may be room for one more at the soonest: if all that can be given back is, and all that is
    /// under way ends now.
    pub fn opens_in(&self, now: Age) -> Duration {
        let at = |quota: &Quota| match self.free_at(quota, self.sent) {
            Some(at) => Duration::from_nanos(at).saturating_sub(now),
            None => quota.window,
        };
        self.quotas.iter().map(at).max().unwrap_or_default()
    }

    /// The quota with the smallest share left, and how many requests that is.
    pub fn left(&self, now: Age) -> Option<(u32, Quota)> {
        let now = nanos(now);
        let left = |quota: &Quota| {
            let within = self.ended.len() - self.ended.partition_point(|end| end.saturating_add(length(quota)) < now);
            let used = u32::try_from(within).unwrap_or(u32::MAX).saturating_add(self.claimed + self.sent);
            (quota.most.saturating_sub(used), quota.clone())
        };
        let share = |(left, quota): &(u32, Quota)| f64::from(*left) / f64::from(quota.most.max(1));
        self.quotas.iter().map(left).min_by(|a, b| share(a).total_cmp(&share(b)))
    }

    /// Whether it knows of nothing that would still count.
    pub fn is_idle(&self, now: Age) -> bool {
        let last = self.ended.back().map_or(0, |end| end.saturating_add(self.longest));
        self.claimed + self.sent == 0 && (self.ended.is_empty() || last < nanos(now))
    }

    /// Until when a window has no room beside so many, 0 if it has; `None` while they alone fill it.
    fn free_at(&self, quota: &Quota, under_way: u32) -> Option<u64> {
        // If all windows had just so many, the oldest of them would have to leave first.
        let room = quota.most.checked_sub(under_way).filter(|&room| room > 0)?;
        let oldest = self.ended.len().checked_sub(room as usize).and_then(|place| self.ended.get(place));
        Some(oldest.map_or(0, |end| end.saturating_add(length(quota))))
    }

    /// Forgets what counts in no window any more.
    fn forget(&mut self, now: Age) {
        let now = nanos(now);
        // Before the last so many none decides anything, in any window.
        while self.ended.len() > self.most
            || self.ended.front().is_some_and(|end| end.saturating_add(self.longest) < now)
        {
            self.ended.pop_front();
        }
        if self.ended.capacity() > 64 + 4 * self.ended.len() {
            self.ended.shrink_to(2 * self.ended.len());
        }
    }
}

fn length(quota: &Quota) -> u64 {
    nanos(quota.window)
}

/// 584 years of them.
fn nanos(age: Age) -> u64 {
    u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
