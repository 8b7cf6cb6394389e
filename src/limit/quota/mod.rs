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
        Self { quotas, ended: VecDeque::new(), claimed: 0, sent: 0 }
    }

    /// These are its quotas from now on. What was sent stays known for as long as the longest window that there was.
    pub fn set(&mut self, quotas: &[Quota]) {
        if self.quotas != quotas {
            self.quotas = quotas.to_vec();
        }
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
        let last = self.ended.back().map_or(0, |end| end.saturating_add(self.longest()));
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
        let (now, longest) = (nanos(now), self.longest());
        while self.ended.front().is_some_and(|end| end.saturating_add(longest) < now) {
            self.ended.pop_front();
        }
        if self.ended.capacity() > 64 + 4 * self.ended.len() {
            self.ended.shrink_to(2 * self.ended.len());
        }
    }

    fn longest(&self) -> u64 {
        self.quotas.iter().map(length).max().unwrap_or(0)
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(most: u32, seconds: u64) -> Quota {
        Quota { most, window: Duration::from_secs(seconds) }
    }

    const fn at(millis: u64) -> Age {
        Duration::from_millis(millis)
    }

    /// One that is claimed and ended at this moment.
    fn serve(log: &mut Log, now: Age) -> bool {
        let claimed = log.claim(now);
        if claimed {
            log.sent();
            log.end(now);
        }
        claimed
    }

    #[test]
    fn a_window_moves_with_the_time_and_is_no_calendar() {
        let mut log = Log::new(vec![quota(2, 10)]);
        let served = [0, 9_000, 9_500, 10_000, 10_001, 18_999, 19_001].map(|millis| serve(&mut log, at(millis)));
        assert_eq!(served, [true, true, false, false, true, false, true]);
    }

    #[test]
    fn every_window_must_have_room() {
        let mut log = Log::new(vec![quota(2, 1), quota(3, 60)]);
        let served = [0, 1, 2, 2_000, 2_001, 59_000, 61_000].map(|millis| serve(&mut log, at(millis)));
        assert_eq!(served, [true, true, false, true, false, false, true]);
        assert_eq!(log.opens_in(at(61_000)), Duration::ZERO);
    }

    #[test]
    fn what_is_under_way_counts_until_a_window_after_its_end() {
        let mut log = Log::new(vec![quota(1, 10)]);
        assert!(log.claim(at(0)));
        log.sent();
        assert!(!log.claim(at(60_000)));
        assert_eq!(log.opens_in(at(60_000)), at(10_000));
        log.end(at(61_000));
        assert_eq!(log.opens_in(at(65_000)), at(6_000));
        assert!(!log.claim(at(71_000)) && log.claim(at(71_001)));
    }

    #[test]
    fn what_never_reached_the_backend_is_given_back() {
        let mut log = Log::new(vec![quota(1, 10)]);
        assert!(log.claim(at(0)) && !log.claim(at(1)));
        assert_eq!(log.opens_in(at(1)), Duration::ZERO);
        log.give_back();
        assert!(log.claim(at(2)));
    }

    #[test]
    fn what_is_left_is_told_of_the_quota_that_is_nearest_to_its_end() {
        let mut log = Log::new(vec![quota(10, 1), quota(100, 60)]);
        assert_eq!(log.left(at(0)).unwrap().0, 10);
        for _ in 0..5 {
            serve(&mut log, at(0));
        }
        assert_eq!(log.left(at(500)), Some((5, quota(10, 1))));
        assert_eq!(log.left(at(2_000)), Some((95, quota(100, 60))));
        assert!(log.claim(at(2_000)));
        assert_eq!(log.left(at(2_000)), Some((9, quota(10, 1))));
        assert_eq!(Log::new(Vec::new()).left(at(0)), None);
    }

    #[test]
    fn other_quotas_keep_what_is_known() {
        let mut log = Log::new(vec![quota(5, 60)]);
        for _ in 0..4 {
            serve(&mut log, at(0));
        }
        log.set(&[quota(3, 60)]);
        assert!(!log.claim(at(1)));
        log.set(&[quota(3, 60), quota(5, 30)]);
        assert!(!log.claim(at(31_000)) && log.claim(at(60_001)));
    }

    #[test]
    fn memory_follows_use() {
        let mut log = Log::new(vec![quota(10_000, 60)]);
        assert_eq!(log.ended.capacity(), 0);
        for _ in 0..20_000 {
            serve(&mut log, at(0));
        }
        assert_eq!(log.ended.len(), 10_000);
        assert!(!log.is_idle(at(60_000)) && log.is_idle(at(60_001)));
        serve(&mut log, at(120_001));
        assert!(log.ended.len() == 1 && log.ended.capacity() <= 128, "{}", log.ended.capacity());
    }

    /// A request under way: when it was sent, if it was.
    type UnderWay = Option<u64>;

    proptest! {
        #[test]
        fn no_window_is_exceeded_by_one_request(
            quotas in prop::collection::vec((1_u32..6, 1_u64..30), 1..4),
            steps in prop::collection::vec((0_u64..3_000, 0_u8..5, any::<prop::sample::Index>(), 0_u64..=100), 1..400),
        ) {
            let quotas: Vec<_> = quotas.into_iter().map(|(most, seconds)| quota(most, seconds)).collect();
            let mut log = Log::new(quotas.clone());
            let (mut now, mut under_way, mut received) = (0, Vec::<UnderWay>::new(), Vec::new());
            for (pause, what, which, when) in steps {
                now += pause;
                let place = (!under_way.is_empty()).then(|| which.index(under_way.len()));
                match (what, place) {
                    (0..2, _) | (_, None) => under_way.extend(log.claim(at(now)).then_some(None)),
                    (2, Some(place)) if under_way[place].is_none() => {
                        log.sent();
                        under_way[place] = Some(now);
                    }
                    (3, Some(place)) if under_way[place].is_none() => {
                        log.give_back();
                        under_way.swap_remove(place);
                    }
                    (_, Some(place)) => {
                        if let Some(sent) = under_way[place] {
                            // It reached the backend at any moment in between.
                            received.push(sent + (now - sent) * when / 100);
                            log.end(at(now));
                            under_way.swap_remove(place);
                        }
                    }
                }
            }
            received.sort_unstable();
            for quota in quotas {
                let most = quota.most as usize;
                for (first, next) in received.iter().zip(received.iter().skip(most)) {
                    prop_assert!(next - first >= quota.window.as_millis() as u64, "{:?}: {:?}", quota, received);
                }
            }
        }
    }
}
