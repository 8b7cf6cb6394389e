//! Which answers on their way are not true any more? Those to addresses that a request has changed meanwhile.
//!
//! RFC 9111, section 4.4, speaks of what is stored. An answer that a backend gave before the change and that is stored
//! after it would be as wrong, and for as long.

use std::collections::VecDeque;
use std::time::SystemTime;

/// Changes that one shard remembers: four thousand in all. Under more of them than fit, what takes long is not stored.
const REMEMBERED_MAX: usize = 64;

/// The addresses that have been changed lately, in one shard.
#[derive(Debug, Default)]
pub(super) struct Changed {
    recent: VecDeque<(u128, SystemTime)>,
    /// When the last of those was that have been forgotten.
    forgotten_until: Option<SystemTime>,
}

impl Changed {
    pub(super) fn note(&mut self, url: u128, at: SystemTime) {
        self.recent.retain(|(other, _)| *other != url);
        self.recent.push_back((url, at));
        if self.recent.len() > REMEMBERED_MAX
            && let Some((_, at)) = self.recent.pop_front()
        {
            self.forgotten_until = self.forgotten_until.max(Some(at));
        }
    }

    /// Whether what was asked for then may be from before a change.
    pub(super) fn outdates(&self, url: u128, asked_at: SystemTime) -> bool {
        let is_changed = |(other, at): &(u128, SystemTime)| *other == url && asked_at <= *at;
        self.forgotten_until.is_some_and(|until| asked_at <= until) || self.recent.iter().any(is_changed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn only_what_was_asked_for_before_the_change_of_its_own_address_is_outdated() {
        let mut changed = Changed::default();
        changed.note(1, at(10));
        let found = [(1, 9), (1, 10), (1, 11), (2, 9)].map(|(url, asked)| changed.outdates(url, at(asked)));
        assert_eq!(found, [true, true, false, false]);
    }

    #[test]
    fn what_is_forgotten_outdates_everything_before_it() {
        let mut changed = Changed::default();
        for index in 0..=REMEMBERED_MAX {
            changed.note(index as u128, at(index as u64));
        }
        assert!(changed.outdates(9_999, at(0)) && !changed.outdates(9_999, at(1)));
        assert_eq!(changed.recent.len(), REMEMBERED_MAX);
    }
}
