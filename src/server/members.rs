//! Who comes and goes while the file stays? Follows the places that upstreams discover their backends from, and swaps
//! an upstream when its members change: a small reload, which leaves everything else as it is.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::admin::operator::Reply;
use super::replacement::Replacement;
use super::{Inner, StartError};
use crate::backend::Task;
use crate::config::changes::Changes;
use crate::config::{self, Config};
use crate::proxy::{Admissions, Snapshot};
use crate::upstream::discovery::register::{NotRegistered, Registry};
use crate::upstream::discovery::{self, Followed, Place, follow, set};

/// How long first answers may delay the start, or a reload.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// The places that are followed, by upstream.
#[derive(Clone, Default)]
pub(super) struct Followers(HashMap<Arc<str>, Arc<Follower>>);

struct Follower {
    /// What the place was made for: another one is made when this changes.
    made_for: MadeFor,
    followed: Arc<Followed>,
    /// Where backends register, if that is how they are discovered.
    registry: Option<Arc<Registry>>,
    _task: Task,
}

type MadeFor = (config::Discover, config::UpstreamTls);

impl Followers {
    /// Follows what a configuration names. A place that was followed before stays, with all that it has said; `changed`
    /// is told when somebody has come or gone.
    pub(super) fn of(config: &Config, before: &Self, changed: &Arc<Notify>) -> Self {
        let follower = |upstream: &config::Upstream| {
            let made_for = (upstream.discover.clone()?, upstream.tls.clone());
            let known = before.0.get(&upstream.name);
            if let Some(same) = known.filter(|known| known.made_for == made_for) {
                return Some((upstream.name.clone(), same.clone()));
            }
            let registry = known.and_then(|known| known.registry.as_deref());
            let followed = Arc::new(Followed::new(upstream.name.clone(), known.map(|known| &*known.followed)));
            let Place { discovery, registry } = discovery::of(upstream, registry, &followed.found())?;
            let task = Task::spawn(follow(followed.clone(), discovery, changed.clone()));
            Some((upstream.name.clone(), Arc::new(Follower { made_for, followed, registry, _task: task })))
        };
        Self(config.upstreams.iter().filter_map(follower).collect())
    }

    /// Waits for the first answers, for a bounded time.
    pub(super) async fn first_answers(&self) {
        let mut answers = JoinSet::new();
        // Those that register come when they come.
        for follower in self.0.values().filter(|follower| follower.registry.is_none()) {
            let followed = follower.followed.clone();
            answers.spawn(async move { followed.first_answer().await });
        }
        // Out of time is no failure: whoever comes later joins then.
        let _ = timeout(FIRST_ANSWERS, async { while answers.join_next().await.is_some() {} }).await;
    }

    /// The configuration with everybody who was discovered.
    pub(super) fn join(&self, config: &Config) -> Config {
        let mut whole = config.clone();
        for upstream in &mut whole.upstreams {
            if let Some(follower) = self.0.get(&upstream.name) {
                let (joined, nameless) = set::together(upstream, &follower.followed.found());
                follower.followed.tell_nameless(nameless);
                *upstream = joined;
            }
        }
        whole
    }

    /// An upstream whose first answer is still worth waiting for.
    pub(super) fn awaited(&self) -> Option<&Arc<str>> {
        self.0.iter().find(|(_, follower)| follower.followed.is_awaited()).map(|(name, _)| name)
    }
}

impl Inner {
    /// A backend says that it is there.
    pub(super) fn register(&self, upstream: &str, url: &str, about: &Json) -> Reply {
        let Some(registry) = self.registry(upstream) else {
            let what = format!("no upstream {upstream:?} has `discover: {{ register: ... }}`");
            return Reply::problem(
                "404 Not Found",
                what,
                "add it to the upstream, or POST to /upstreams/NAME/backends",
            );
        };
        match registry.enter(url, about, Instant::now()) {
            Ok(new) => {
                let ttl = registry.ttl().as_secs_f64();
                let status = if new { "201 Created" } else { "200 OK" };
                Reply::of(status, &json!({ "backend": url, "new": new, "expires_in_seconds": ttl }))
            }
            Err(NotRegistered::Bad(why)) => {
                let help = "the path ends with the URL of the backend, and the body is {} or says weight, tier or name";
                Reply::problem("422 Unprocessable Content", why, help)
            }
            Err(error @ NotRegistered::Full) => {
                let help = "those that have stopped have to say so, or to be silent for the `ttl`";
                Reply::problem("507 Insufficient Storage", error.to_string(), help)
            }
        }
    }

    /// A backend that has registered at this URL leaves; `None` if there is none.
    pub(super) fn leave(&self, upstream: &str, url: &str) -> Option<Reply> {
        let left = self.registry(upstream)?.leave(url).unwrap_or_default();
        left.then(|| Reply::of("200 OK", &json!({ "backend": url, "left": true })))
    }

    /// Whether backends register with this upstream.
    pub(super) fn takes_registrations(&self, upstream: &str) -> bool {
        self.registry(upstream).is_some()
    }

    fn registry(&self, upstream: &str) -> Option<Arc<Registry>> {
        self.followers().0.get(upstream)?.registry.clone()
    }

    pub(super) fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps upstreams whose members have changed, for ever.
    pub(super) async fn keep_members(&self) {
        loop {
            self.members_changed.notified().await;
            self.take_over_members().await;
        }
    }

    async fn take_over_members(&self) {
        let _one_at_a_time = self.reloading.lock().await;
        let changes = self.beside_file().clone();
        if let Err(error) = self.swap_members(&changes).await {
            log::error!("the members of upstreams stay as they were: {error}");
        }
    }

    /// Swaps upstreams whose members are others with these changes beside the file. Whoever calls it keeps others from
    /// swapping meanwhile.
    pub(super) async fn swap_members(&self, changes: &Changes) -> Result<(), StartError> {
        let config = self.with_config(Config::clone);
        let mut whole = self.followers().join(&config);
        changes.apply_to(&mut whole);
        let old = self.snapshot.load_full();
        // Nobody has said that files of certificates have changed.
        let replacement = Replacement::prepare(&whole, &old.upstreams, self.gone_tallies(), |_| false).await?;
        if replacement.is_none() {
            return Ok(());
        }
        let admissions = Admissions::new(&config, &self.lasting)?;
        let (upstreams, gone) = replacement.put_in_place(&self.changes, config.server.grace_period);
        self.remember_gone(gone);
        self.snapshot.store(Arc::new(Snapshot::new(&config, upstreams, admissions, &self.lasting)));
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }
}
