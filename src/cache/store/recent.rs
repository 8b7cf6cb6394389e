//! Which purges hold for answers that are still on their way? Those of the last minute, and a moment before which
//! nobody knows any more.
//!
//! An answer that a backend was asked for before a purge may be from before it, whenever it comes. So whoever stores one
//! asks here, and once more if a purge has come in between; what was stored before a purge is found by its search.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::cache::purge::Purge;

/// How long a purge is remembered. What takes longer than this to answer is not stored if it was asked for before a
/// purge of anything.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// How many are, each with an address or a tag of a few kilobytes at most.
const REMEMBERED_MAX: usize = 1024;

/// What the purges leave of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None of them means it.
    Untouched,
    /// It is stale since this moment.
    Stale(SystemTime),
    /// It may not be stored.
    Gone,
}

/// The purges of the last minute.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// How many there have been, so that most answers need no lock.
    count: AtomicU64,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    purges: VecDeque<Purge>,
    /// When the last of those was that have been forgotten.
    forgotten_until: Option<SystemTime>,
}

impl Recent {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a purge. To be called before its search begins.
    pub(super) fn add(&self, purge: &Purge) {
        let mut list = self.list();
        list.purges.push_back(purge.clone());
        let old = purge.at.checked_sub(REMEMBERED_FOR);
        while let Some(first) = list.purges.front()
            && (list.purges.len() > REMEMBERED_MAX || old.is_some_and(|old| first.at < old))
        {
            list.forgotten_until = list.forgotten_until.max(Some(first.at));
            list.purges.pop_front();
        }
        self.count.fetch_add(1, Relaxed);
    }

    /// How many there have been.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// What they leave of an answer with this address and these tags, for which a backend was asked at this moment.
    pub(super) fn verdict(&self, url: &[u8], tags: &[Box<str>], asked_at: SystemTime) -> Verdict {
        if self.count() == 0 {
            return Verdict::Untouched;
        }
        let list = self.list();
        if list.forgotten_until.is_some_and(|until| asked_at <= until) {
            return Verdict::Gone;
        }
        let meant = list.purges.iter().filter(|purge| asked_at <= purge.at && purge.matches(url, tags));
        meant.fold(Verdict::Untouched, |verdict, purge| match (verdict, purge.soft) {
            (Verdict::Gone, _) | (_, false) => Verdict::Gone,
            (Verdict::Stale(since), true) => Verdict::Stale(since.min(purge.at)),
            (Verdict::Untouched, true) => Verdict::Stale(purge.at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::purge::What;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn purge(tag: &str, soft: bool, seconds: u64) -> Purge {
        Purge { what: What::Tag(tag.to_owned()), soft, at: at(seconds) }
    }

    fn after(purges: &[Purge]) -> Recent {
        let recent = Recent::default();
        purges.iter().for_each(|purge| recent.add(purge));
        recent
    }

    fn verdict(recent: &Recent, seconds: u64) -> Verdict {
        recent.verdict(b"https://a/", &["red".into()], at(seconds))
    }

    #[test]
    fn a_purge_holds_for_what_was_asked_for_before_it_and_for_nothing_else() {
        let recent = after(&[purge("red", false, 10), purge("blue", false, 30)]);
        assert_eq!(
            [9, 10, 11].map(|asked| verdict(&recent, asked)),
            [Verdict::Gone, Verdict::Gone, Verdict::Untouched]
        );
    }

    #[test]
    fn a_hard_purge_counts_more_than_soft_ones_of_which_the_first_counts() {
        let softs = [purge("red", true, 20), purge("red", true, 30)];
        assert_eq!(verdict(&after(&softs), 15), Verdict::Stale(at(20)));
        assert_eq!(verdict(&after(&softs), 25), Verdict::Stale(at(30)));
        let [first, second] = softs;
        for order in [[&first, &second], [&second, &first]] {
            let recent = after(&[order[0].clone(), purge("red", false, 25), order[1].clone()]);
            assert_eq!(verdict(&recent, 15), Verdict::Gone);
        }
    }

    #[test]
    fn what_is_forgotten_holds_for_everything_from_before_it() {
        let recent = after(&[purge("blue", true, 10), purge("blue", true, 70)]);
        assert_eq!(verdict(&recent, 5), Verdict::Untouched, "it is still known that this was not meant");
        recent.add(&purge("blue", true, 71));
        assert_eq!([10, 11].map(|asked| verdict(&recent, asked)), [Verdict::Gone, Verdict::Untouched]);
    }

    #[test]
    fn it_is_bounded_in_number_too() {
        let recent = Recent::default();
        for _ in 0..=REMEMBERED_MAX {
            recent.add(&purge("blue", false, 10));
        }
        assert_eq!(recent.list().purges.len(), REMEMBERED_MAX);
        assert_eq!([10, 11].map(|asked| verdict(&recent, asked)), [Verdict::Gone, Verdict::Untouched]);
    }
}
