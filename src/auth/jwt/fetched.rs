//! Which keys does an issuer publish now? A set of keys at a URL, fetched in the background.
//!
//! The last good set stays in use whatever the issuer does. A token that names a key which is not in it is a reason to look
//! at once, but not more often than every [`LEAST_PAUSE`]: whoever invents names must not make us trouble the issuer.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use xxhash_rust::xxh3::xxh3_128;

use crate::backend::Task;
use crate::config::HttpUrl;
use crate::config::jwks::KeySet;
use crate::fetch::Fetch;

/// A longer answer is no set of keys.
const LONGEST: usize = 1 << 20;

/// Between two looks that strangers are the reason for.
const LEAST_PAUSE: Duration = Duration::from_secs(10);

/// Until the next look after a failure; twice as long after each, up to `refresh`.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How long a request waits for a set that has just been asked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A set of keys at a URL.
pub(super) struct Fetched {
    url: HttpUrl,
    refresh: Duration,
    shared: Arc<Shared>,
    _task: Task,
}

#[derive(Default)]
struct Shared {
    now: ArcSwapOption<KeySet>,
    /// Told when somebody needs a set that is newer.
    wanted: Notify,
    /// How often it was looked, and told with each look.
    looks: AtomicU64,
    looked: Notify,
    /// The last look that somebody wanted: when, and how many there had been before it.
    asked: Mutex<Option<(Instant, u64)>>,
}

impl Shared {
    /// Whether a look is under way that somebody wanted, or begins now because it may.
    fn look_again(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match *asked {
            Some((at, looks)) if at.elapsed() < LEAST_PAUSE => self.looks.load(Relaxed) == looks,
            _ => {
                *asked = Some((Instant::now(), self.looks.load(Relaxed)));
                self.wanted.notify_one();
                true
            }
        }
    }
}

impl Fetched {
    fn new(url: HttpUrl, refresh: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let task = Task::spawn(follow(Fetch::new(url.clone(), LONGEST), refresh, shared.clone()));
        Self { url, refresh, shared, _task: task }
    }

    /// The last good set; `None` before there was one.
    pub(super) fn now(&self) -> Option<Arc<KeySet>> {
        self.shared.now.load_full()
    }

    /// Waits for a set that is newer than now, for a bounded time.
    pub(super) async fn newer(&self) -> Option<Arc<KeySet>> {
        let looked = self.shared.looked.notified();
        tokio::pin!(looked);
        // Registered before it is asked for, so that the answer is not missed.
        looked.as_mut().enable();
        if self.shared.look_again() {
            // Out of time is no failure: what is there will have to do.
            let _ = timeout(PATIENCE, looked).await;
        }
        self.now()
    }
}

/// Looks again and again, for ever.
async fn follow(mut fetch: Fetch, refresh: Duration, shared: Arc<Shared>) {
    let mut retry = FIRST_RETRY;
    let mut failed = false;
    let mut last = None;
    loop {
        let set = fetch.ask().await.and_then(|bytes| Ok((xxh3_128(&bytes), KeySet::read(&bytes)?)));
        let pause = match set {
            Ok((digest, set)) => {
                // Tokens that were good are known by the set that they were good by, so the same set stays.
                if last.replace(digest) != Some(digest) {
                    shared.now.store(Some(Arc::new(set)));
                }
                if std::mem::take(&mut failed) {
                    log::info!("{}: the keys can be fetched again", fetch.url());
                }
                retry = FIRST_RETRY;
                // A tenth more or less, so that many who ask drift apart.
                refresh.mul_f64(0.9 + 0.2 * fastrand::f64())
            }
            Err(why) => {
                if !std::mem::replace(&mut failed, true) {
                    log::error!("{}: no keys: {why}; those that were fetched before stay in use", fetch.url());
                }
                let longer = (retry * 2).min(refresh);
                std::mem::replace(&mut retry, longer).min(refresh)
            }
        };
        shared.looks.fetch_add(1, Relaxed);
        shared.looked.notify_waiters();
        tokio::select! {
            () = sleep(pause) => {}
            () = shared.wanted.notified() => {}
        }
    }
}

/// The sets that are fetched, so that one that is still used is found again after a reload.
#[derive(Default)]
pub struct FetchedKeys(Mutex<Vec<Weak<Fetched>>>);

impl FetchedKeys {
    /// The set at a URL; it is asked for from now on, unless it is already. Needs a tokio runtime.
    pub(super) fn at(&self, url: &HttpUrl, refresh: Duration) -> Arc<Fetched> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|set| set.strong_count() > 0);
        let same = |set: &Arc<Fetched>| set.url == *url && set.refresh == refresh;
        if let Some(set) = known.iter().filter_map(Weak::upgrade).find(same) {
            return set;
        }
        let set = Arc::new(Fetched::new(url.clone(), refresh));
        known.push(Arc::downgrade(&set));
        set
    }

    /// Waits until each has been asked for once, for a bounded time: whoever comes right after the start need not be refused.
    pub async fn first_answers(&self) {
        let sets: Vec<_> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let all = async {
            for set in sets {
                while set.shared.looks.load(Relaxed) == 0 {
                    let looked = set.shared.looked.notified();
                    tokio::pin!(looked);
                    looked.as_mut().enable();
                    if set.shared.looks.load(Relaxed) == 0 {
                        looked.await;
                    }
                }
            }
        };
        let _ = timeout(PATIENCE, all).await;
    }
}

impl fmt::Debug for FetchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FetchedKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A set of one key with this id.
    fn set(id: &str) -> String {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{ "keys": [{{ "kty": "OKP", "crv": "Ed25519", "kid": "{id}", "x": "{x}" }}] }}"#)
    }

    /// Answers each connection with the next of these, and then with the last again.
    async fn publish(listener: TcpListener, sets: [&str; 4]) {
        for number in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = socket.read(&mut head).await;
            let set = set(sets[sets.len().min(number + 1) - 1]);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{set}", set.len());
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn a_set_that_is_fetched_anew_and_says_the_same_is_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(publish(listener, ["a", "a", "a", "b"]));
        let url = HttpUrl { tls: false, host: "127.0.0.1".into(), port, path: "/".to_owned() };
        let fetched = Fetched::new(url, Duration::from_millis(20));
        until("the first set", || fetched.now().is_some()).await;
        let first = fetched.now().unwrap();
        until("another set", || {
            let now = fetched.now().unwrap();
            assert!(now.knows("b") || Arc::ptr_eq(&first, &now));
            now.knows("b")
        })
        .await;
        assert!(fetched.shared.looks.load(Relaxed) >= 3, "the same set was fetched several times");
        server.abort();
    }
}
