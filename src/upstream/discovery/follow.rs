//! What did it say last? Asks one place for ever, and keeps the last good answer.
//!
//! Neither a failure nor an empty answer takes anybody away: it is told once, and that it is over is told too. What is
//! found changes nothing by itself; whoever swaps upstreams is told that there is something new.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::set::tidy;
use super::{Discovery, Failure, Found};
use crate::config::Backend;

/// For so long a first answer is worth waiting for before we say that we are ready.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// What one place has said last.
#[derive(Debug)]
pub struct Followed {
    upstream: Arc<str>,
    found: Mutex<Arc<[Backend]>>,
    answered: watch::Sender<bool>,
    began: Instant,
    failing: AtomicBool,
    /// Who has got no name, as was told last.
    nameless: Mutex<Vec<Arc<str>>>,
}

impl Followed {
    /// Nothing has been said yet; `before` is what another place has said of this upstream, and holds until then.
    pub fn new(upstream: Arc<str>, before: Option<&Self>) -> Self {
        let found = before.map_or_else(|| Arc::from([]), Self::found);
        let answered = watch::Sender::new(false);
        Self {
            upstream,
            found: Mutex::new(found),
            answered,
            began: Instant::now(),
            failing: AtomicBool::default(),
            nameless: Mutex::default(),
        }
    }

    /// Everybody who belongs, as far as is known.
    pub fn found(&self) -> Arc<[Backend]> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first answer, be it none.
    pub async fn first_answer(&self) {
        // The sender lives as long as we do, so this only ends with an answer.
        let _ = self.answered.subscribe().wait_for(|answered| *answered).await;
    }

    /// Whether there is reason to wait for a first good answer: nobody is known, and it is not too late for one.
    pub fn is_awaited(&self) -> bool {
        let has_none = !*self.answered.borrow() || self.failing.load(Relaxed);
        has_none && self.found().is_empty() && self.began.elapsed() < FIRST_ANSWER
    }

    /// Tells which places were left out as others have their names; once, not whenever it is looked.
    pub fn tell_nameless(&self, nameless: Vec<Arc<str>>) {
        let mut told = self.nameless.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != nameless
            && let Some(first) = nameless.first()
        {
            let (upstream, count) = (&self.upstream, nameless.len());
            log::warn!(
                target: "portcullis::discovery",
                "upstream {upstream}: left out, as another backend has its name: {first} ({count} in all)"
            );
        }
        *told = nameless;
    }

    /// Takes an answer over; says whether somebody came or went.
    fn take(&self, answer: Result<Found, Failure>, odd: &mut Vec<String>) -> bool {
        let changed = match answer {
            Ok(Found { members, may_be_empty }) => {
                self.tell_odd(&members.skipped, odd);
                match members.backends.is_empty() && !may_be_empty {
                    true => self.complain("the answer names nobody"),
                    false => self.replace(tidy(members.backends)),
                }
            }
            Err(Failure(why)) => self.complain(&why),
        };
        self.answered.send_replace(true);
        changed
    }

    fn replace(&self, set: Vec<Backend>) -> bool {
        let upstream = &self.upstream;
        if self.failing.swap(false, Relaxed) {
            log::info!(target: "portcullis::discovery", "upstream {upstream}: discovery works again");
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if **found == *set {
            return false;
        }
        let count = |one: &[Backend], other: &[Backend]| {
            let known: HashSet<_> = other.iter().map(|it| (&it.target, it.tls)).collect();
            one.iter().filter(|it| !known.contains(&(&it.target, it.tls))).count()
        };
        let (came, went) = (count(&set, &found), count(&found, &set));
        log::info!(
            target: "portcullis::discovery",
            "upstream {upstream}: backends discovered: {}; new: {came}, gone: {went}",
            set.len()
        );
        *found = set.into();
        true
    }

    /// Once, not at every failure.
    fn complain(&self, why: &str) -> bool {
        if !self.failing.swap(true, Relaxed) {
            let (upstream, kept) = (&self.upstream, self.found().len());
            let why = why.escape_debug();
            log::warn!(
                target: "portcullis::discovery",
                "upstream {upstream}: discovery fails, backends kept: {kept}: {why}"
            );
        }
        false
    }

    /// What is wrong with an answer is told when it was not wrong before.
    fn tell_odd(&self, skipped: &[String], told: &mut Vec<String>) {
        if *told != *skipped
            && let Some(first) = skipped.first()
        {
            let (upstream, count) = (&self.upstream, skipped.len());
            let first = first.escape_debug();
            log::warn!(
                target: "portcullis::discovery",
                "upstream {upstream}: discovery skips entries: {count}, the first: {first}"
            );
        }
        skipped.clone_into(told);
    }
}

/// Asks a place for ever; `changed` is told when somebody has come or gone.
pub async fn follow(followed: Arc<Followed>, mut place: Box<dyn Discovery>, changed: Arc<Notify>) {
    let mut odd = Vec::new();
    loop {
        let answer = place.next().await;
        if followed.take(answer, &mut odd) {
            changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::members::{Members, Rules, members};

    fn found(list: &str) -> Result<Found, Failure> {
        Ok(members(list, Rules { https_by_address: false, folder: None }).unwrap().into())
    }

    fn names(followed: &Followed) -> Vec<String> {
        followed.found().iter().map(|backend| backend.name.to_string()).collect()
    }

    #[test]
    fn neither_a_failure_nor_an_empty_answer_takes_anybody_away() {
        let followed = Followed::new("app".into(), None);
        let mut odd = Vec::new();
        let mut take = |answer| followed.take(answer, &mut odd);
        assert!(!take(Err(Failure("SERVFAIL".into()))));
        assert!(followed.is_awaited(), "a failure is no first good answer");
        assert!(take(found("[10.0.0.1:80, 10.0.0.2:80]")));
        assert!(!followed.is_awaited());
        for bad in [found("[]"), found("[nonsense]"), Err(Failure("SERVFAIL".into()))] {
            assert!(!take(bad));
            assert_eq!(names(&followed), ["10.0.0.1:80", "10.0.0.2:80"]);
        }
        assert!(!take(found("[10.0.0.2:80, 10.0.0.1:80]")), "the same in another order");
        assert!(take(found("[10.0.0.2:80, nonsense]")));
        assert_eq!(names(&followed), ["10.0.0.2:80"]);
    }

    #[test]
    fn nobody_may_be_the_truth_where_the_place_says_so() {
        let followed = Followed::new("app".into(), None);
        assert!(followed.take(found("[10.0.0.1:80]"), &mut Vec::new()));
        let nobody = Found { members: Members::default(), may_be_empty: true };
        assert!(followed.take(Ok(nobody), &mut Vec::new()));
        assert_eq!(names(&followed), [""; 0]);
    }

    #[test]
    fn another_place_begins_with_what_the_one_before_has_said() {
        let before = Followed::new("app".into(), None);
        before.take(found("[10.0.0.1:80]"), &mut Vec::new());
        let followed = Followed::new("app".into(), Some(&before));
        assert_eq!(names(&followed), ["10.0.0.1:80"]);
        assert!(!followed.is_awaited(), "there is somebody who serves");
    }
}
