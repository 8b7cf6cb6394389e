//! Who has said that it is there? Backends that register themselves, each for as long as its heartbeat holds.
//!
//! The book is pure: time comes in as an argument. Silence takes backends away one by one, but never the last: when all
//! fall silent at once it is likelier that they cannot reach us than that nobody is left. Whoever says that it leaves,
//! leaves, be it the last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value as Json;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::{Discovery, Failure, Found};
use crate::config::members::{Members, Rules, member};
use crate::config::{Backend, Target};

/// Backends that may register with one upstream.
const MOST: usize = 1000;

/// How long the first heartbeats are waited for, at most.
const FIRST_HEARTBEATS: Duration = Duration::from_secs(30);

/// Why a backend was not registered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotRegistered {
    /// It makes no sense.
    #[error("{0}")]
    Bad(String),
    /// There are too many.
    #[error("{MOST} backends have registered already")]
    Full,
}

type Place = (Target, bool);

/// Who has registered, and until when that holds.
#[derive(Clone, Debug, Default)]
struct Book {
    entries: HashMap<Place, (Backend, Instant)>,
}

impl Book {
    /// A heartbeat; says whether the backend is new.
    fn enter(&mut self, backend: Backend, until: Instant) -> Result<bool, NotRegistered> {
        let place = (backend.target.clone(), backend.tls);
        let new = !self.entries.contains_key(&place);
        if new && self.entries.len() >= MOST {
            return Err(NotRegistered::Full);
        }
        self.entries.insert(place, (backend, until));
        Ok(new)
    }

    /// Lets go of those who have been silent for too long, but of the last.
    fn expire(&mut self, now: Instant) {
        let last = self.entries.values().map(|(_, until)| *until).max();
        let all = last.is_some_and(|last| last <= now);
        let mut kept = false;
        self.entries.retain(|_, (_, until)| match (all, Some(*until) == last) {
            (false, _) => *until > now,
            (true, is_last) => is_last && !std::mem::replace(&mut kept, true),
        });
    }

    /// Whether nobody has said anything for too long.
    fn is_silent(&self, now: Instant) -> bool {
        !self.entries.is_empty() && self.entries.values().all(|(_, until)| *until <= now)
    }

    /// When the next one has been silent for too long.
    fn next_end(&self, now: Instant) -> Option<Instant> {
        self.entries.values().map(|(_, until)| *until).filter(|until| *until > now).min()
    }
}

/// Where the backends of one upstream register.
#[derive(Debug)]
pub struct Registry {
    book: Mutex<Book>,
    changed: Notify,
    ttl: Duration,
    https_by_address: bool,
}

impl Registry {
    /// One where a heartbeat holds for this long. Whoever has registered `before` need not do so again.
    pub fn new(ttl: Duration, rules: Rules<'_>, before: Option<&Self>) -> Arc<Self> {
        let book = before.map(|before| before.lock().clone()).unwrap_or_default();
        Arc::new(Self { book: Mutex::new(book), changed: Notify::new(), ttl, https_by_address: rules.https_by_address })
    }

    /// How long a heartbeat holds.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A heartbeat of the backend at this URL; says whether it is new.
    pub fn enter(&self, url: &str, about: &Json, now: Instant) -> Result<bool, NotRegistered> {
        let backend = member(url, about, self.rules()).map_err(NotRegistered::Bad)?;
        let entered = self.lock().enter(backend, now + self.ttl);
        self.changed.notify_one();
        entered
    }

    /// Backends that were there before there was a registry, as if each had just registered.
    pub fn expect(&self, known: &[Backend], now: Instant) {
        let until = now + self.ttl;
        let entry = |backend: &Backend| ((backend.target.clone(), backend.tls), (backend.clone(), until));
        self.lock().entries.extend(known.iter().map(entry));
    }

    /// The backend at this URL leaves; says whether it was there.
    pub fn leave(&self, url: &str) -> Result<bool, NotRegistered> {
        let nothing = Json::Object(serde_json::Map::new());
        let backend = member(url, &nothing, self.rules()).map_err(NotRegistered::Bad)?;
        let left = self.lock().entries.remove(&(backend.target, backend.tls)).is_some();
        self.changed.notify_one();
        Ok(left)
    }

    fn rules(&self) -> Rules<'_> {
        Rules { https_by_address: self.https_by_address, folder: None }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who have registered.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    asked: bool,
}

impl Registered {
    /// Those in this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, asked: false }
    }

    /// Until somebody comes or goes. Whoever has registered before is there at once.
    async fn wait(&mut self) {
        let now = Instant::now();
        let mut until = self.registry.lock().next_end(now);
        if !std::mem::replace(&mut self.asked, true) {
            if until.is_some() {
                return;
            }
            // Until the first heartbeats had their time, that nobody is there says nothing.
            until = Some(now + self.registry.ttl.min(FIRST_HEARTBEATS));
        }
        let end = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.registry.changed.notified() => {}
            () = end => {}
        }
    }
}

#[async_trait]
impl Discovery for Registered {
    async fn next(&mut self) -> Result<Found, Failure> {
        self.wait().await;
        let now = Instant::now();
        let mut book = self.registry.lock();
        book.expire(now);
        if book.is_silent(now) {
            let ttl = self.registry.ttl;
            return Err(Failure(format!("nobody has registered for {ttl:?}; the last one stays")));
        }
        let backends = book.entries.values().map(|(backend, _)| backend.clone()).collect();
        Ok(Found { members: Members { backends, skipped: Vec::new() }, may_be_empty: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    struct Scene {
        book: Book,
        began: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self { book: Book::default(), began: Instant::now() }
        }

        fn at(&self, secs: u64) -> Instant {
            self.began + Duration::from_secs(secs)
        }

        fn enter(&mut self, name: &str, secs: u64) -> bool {
            let rules = Rules { https_by_address: false, folder: None };
            let backend = member(&format!("{name}:80"), &serde_json::json!({}), rules).unwrap();
            let until = self.at(secs) + TTL;
            self.book.enter(backend, until).unwrap()
        }

        #[track_caller]
        fn check(&mut self, secs: u64, expected: &[&str]) {
            let now = self.at(secs);
            self.book.expire(now);
            let mut names: Vec<_> = self.book.entries.values().map(|(it, _)| it.name.to_string()).collect();
            names.sort();
            assert_eq!(names, expected, "after {secs} s");
        }
    }

    #[test]
    fn a_heartbeat_holds_for_its_time_and_the_last_one_is_kept() {
        let mut scene = Scene::new();
        assert!(scene.enter("a", 0));
        assert!(scene.enter("b", 1));
        assert!(!scene.enter("a", 10));
        scene.check(15, &["a:80", "b:80"]);
        scene.check(16, &["a:80"]);
        assert_eq!(scene.book.next_end(scene.at(16)), Some(scene.at(25)));
        assert!(!scene.book.is_silent(scene.at(16)));
        scene.check(100, &["a:80"]);
        assert!(scene.book.is_silent(scene.at(100)));
        assert_eq!(scene.book.next_end(scene.at(100)), None, "nothing to wait for");
        scene.enter("c", 101);
        scene.check(101, &["c:80"]);
    }

    #[test]
    fn of_all_that_fall_silent_at_once_one_is_kept() {
        let mut scene = Scene::new();
        for name in ["a", "b", "c"] {
            scene.enter(name, 0);
        }
        let end = scene.at(15);
        scene.book.expire(end);
        assert_eq!(scene.book.entries.len(), 1);
    }

    #[test]
    fn a_registry_takes_no_more_than_its_bound() {
        let registry = Registry::new(TTL, Rules { https_by_address: false, folder: None }, None);
        let (about, now) = (serde_json::json!({}), Instant::now());
        for n in 0..MOST {
            assert_eq!(registry.enter(&format!("10.0.{}.{}:80", n / 250, n % 250), &about, now), Ok(true));
        }
        assert_eq!(registry.enter("10.1.0.0:80", &about, now), Err(NotRegistered::Full));
        assert_eq!(registry.enter("10.0.0.0:80", &about, now), Ok(false), "a heartbeat is always welcome");
        assert_eq!((registry.leave("10.0.0.0:80"), registry.leave("10.0.0.0:80")), (Ok(true), Ok(false)));
        assert_eq!(registry.enter("10.1.0.0:80", &about, now), Ok(true));
    }

    #[tokio::test]
    async fn who_was_known_before_has_time_to_register() {
        let rules = Rules { https_by_address: false, folder: None };
        let registry = Registry::new(TTL, rules, None);
        let known = ["a:80", "b:80"].map(|url| member(url, &serde_json::json!({}), rules).unwrap());
        let now = Instant::now();
        registry.expect(&known, now);
        assert_eq!(Registered::new(registry.clone()).next().await.unwrap().members.backends.len(), 2);
        assert_eq!(registry.enter("a:80", &serde_json::json!({}), now + TTL / 2), Ok(false));
        registry.lock().expire(now + TTL);
        assert_eq!(registry.lock().entries.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_waits_for_heartbeats_for_a_bounded_time() {
        let rules = Rules { https_by_address: false, folder: None };
        let mut registered = Registered::new(Registry::new(Duration::from_secs(3600), rules, None));
        let began = tokio::time::Instant::now();
        assert_eq!(registered.next().await.unwrap().members, Members::default());
        let took = began.elapsed();
        assert!((FIRST_HEARTBEATS..FIRST_HEARTBEATS + Duration::from_secs(1)).contains(&took), "{took:?}");

        registered.registry.enter("10.0.0.1:80", &serde_json::json!({}), Instant::now()).unwrap();
        assert_eq!(registered.next().await.unwrap().members.backends.len(), 1);
        registered.registry.leave("10.0.0.1:80").unwrap();
        assert_eq!(registered.next().await.unwrap().members.backends.len(), 0);
    }
}
