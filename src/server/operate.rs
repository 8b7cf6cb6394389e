//! What may an operator change while we run? Wishes are granted here: each is logged with who had it.
//!
//! A change of backends is a small reload, the same swap under the same lock. What was changed is kept beside the file,
//! and lasts until it is undone or the process ends.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use log::LevelFilter;
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use super::admin::operator::{Form, Operator, Reply, Wish};
use super::facts::Loaded;
use super::watching::{Event, Listener, News};
use super::{FrontDoor, Inner, StartError};
use crate::backend::State;
use crate::config::changes::{self, Changes, Difference, Refused, What};
use crate::config::members::{Rules, entry};
use crate::config::{self, Config, Problem, Secret, shown};

/// Somebody who has the file is asked to read it again, and answers what came of it.
pub type ReloadAsked = oneshot::Sender<Outcome>;

/// What came of a reload that was asked for.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was taken over.
    Done {
        /// What the file says that it did not say before.
        changes: Vec<String>,
        /// The keys whose change needs a restart.
        needs_restart: Vec<String>,
        /// What is probably not meant as it is written.
        warnings: Vec<String>,
    },
    /// The file has problems.
    Bad(Vec<Problem>),
    /// It cannot be taken over.
    Refused(String),
}

impl FrontDoor {
    /// From now on operators may ask for a reload, and [`Self::reload_asked`] will be waited for: who asks before that waits
    /// too. Where nobody says so, such a request is refused.
    #[doc(hidden)]
    pub fn hear_reloads(&self) {
        self.inner.reads_file.store(true, Relaxed);
    }

    /// Waits until an operator asks for a reload at the admin address. Whoever has read the file, and has called
    /// [`FrontDoor::reload`], answers. To be called after [`Self::hear_reloads`].
    #[doc(hidden)]
    pub async fn reload_asked(&self) -> ReloadAsked {
        match self.inner.reloads_asked.lock().await.recv().await {
            Some(asked) => asked,
            // The other end is ours, and lives as long as we do.
            None => std::future::pending().await,
        }
    }

    /// Says on the status page what came of a reload: why nothing was changed, or that all was.
    #[doc(hidden)]
    pub fn note_reload(&self, problem: Option<String>) {
        self.inner.note_reload(problem);
    }
}

#[async_trait]
impl Operator for Inner {
    fn token(&self) -> Option<Secret> {
        self.with_config(|config| config.admin_token.clone())
    }

    fn listen(&self) -> Option<Listener> {
        self.watching.listen(|| self.status_json())
    }

    fn told_so_far(&self) -> News {
        self.watching.told_so_far()
    }

    async fn grant(&self, wish: Wish, who: &str) -> Reply {
        match wish {
            Wish::Status => Reply::of("200 OK", &self.status_json()),
            Wish::Config(form) => self.show_config(form),
            Wish::Differences(form) => self.show_differences(form),
            Wish::Undo => self.undo(who).await,
            Wish::Register { upstream, url, about } => self.register(&upstream, &url, &about),
            Wish::Backend { upstream, backend, wish: changes::Wish::Remove } => {
                self.remove(&upstream, &backend, who).await
            }
            Wish::Backend { upstream, backend, wish } => {
                self.change_backend(&upstream, &backend, &wish, who).await.unwrap_or_else(|reply| reply)
            }
            Wish::Add { upstream, entry } => self.add(&upstream, &entry, who).await.unwrap_or_else(|reply| reply),
            Wish::Reload => self.ask_for_reload(who).await,
            Wish::LogLevel(level) => self.set_log_level(level, who),
        }
    }
}

impl Inner {
    /// What was changed beside the file.
    pub(super) fn beside_file(&self) -> MutexGuard<'_, Changes> {
        self.beside_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was taken over last.
    pub(super) fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with those that were discovered, without any change.
    pub(super) fn whole(&self) -> Config {
        let config = self.with_config(Config::clone);
        self.followers().join(&config)
    }

    fn show_config(&self, form: Form) -> Reply {
        let (outline, level) = self.with_config(|config| (config.outline.clone(), config.log.level));
        let level = self.beside_file().log_level.unwrap_or(level);
        let snapshot = self.snapshot.load();
        let whole = outline.in_effect(snapshot.upstreams.values().map(|upstream| &upstream.config), level);
        match form {
            Form::Json => Reply::of("200 OK", &whole.json()),
            Form::Yaml => Reply::yaml(&whole.yaml()),
        }
    }

    fn show_differences(&self, form: Form) -> Reply {
        match form {
            Form::Json => Reply::of("200 OK", &self.differences()),
            Form::Yaml => {
                let config = self.with_config(Config::clone);
                Reply::yaml(&config.outline.to_paste(&config, &self.beside_file()))
            }
        }
    }

    fn differences(&self) -> Json {
        let whole = self.whole();
        let beside = self.beside_file().clone();
        let told = |Difference { upstream, backend, what }: Difference| {
            let (file, now) = match what {
                What::Weight { was, now } => (json!(was), json!(now)),
                What::Drained | What::Added | What::Removed => (Json::Null, Json::Null),
            };
            json!({ "upstream": &*upstream, "backend": &*backend, "what": what.word(), "file": file, "now": now })
        };
        let mut all: Vec<_> = beside.differences(&whole).into_iter().map(told).collect();
        if let Some(level) = beside.log_level {
            let (file, now) = (shown::word(whole.log.level), shown::word(level));
            all.push(json!({ "upstream": null, "backend": null, "what": "log_level", "file": file, "now": now }));
        }
        json!({ "differences": all })
    }

    async fn undo(&self, who: &str) -> Reply {
        let level = self.with_config(|config| config.log.level);
        let done = self.change_members(|changes, _| {
            *changes = Changes::default();
            Ok(())
        });
        if let Err(reply) = done.await {
            return reply;
        }
        log::set_max_level(level);
        self.tell(who, (None, None), "undid all changes beside the file");
        Reply::of("200 OK", &self.differences())
    }

    async fn remove(&self, upstream: &str, backend: &str, who: &str) -> Reply {
        if let Some(left) = self.leave(upstream, backend) {
            self.tell(who, (Some(upstream), Some(backend)), "took it from the registered ones");
            return left;
        }
        // Who registers says by itself that it leaves. Were it removed by its name too, when it says so twice, it could
        // never come back.
        if self.takes_registrations(upstream) && !self.is_named(upstream, backend) {
            let what = format!("{backend} has not registered");
            return Reply::problem("404 Not Found", what, "GET /status.json lists the backends");
        }
        match self.change_backend(upstream, backend, &changes::Wish::Remove, who).await {
            Ok(_) => Reply::of("200 OK", &json!({ "backend": backend, "left": true })),
            Err(reply) => reply,
        }
    }

    /// Whether the file names it, or an operator has added it.
    fn is_named(&self, upstream: &str, backend: &str) -> bool {
        let is_it = |config: &Config| {
            let upstream = config.upstreams.iter().find(|it| *it.name == *upstream)?;
            upstream.backends.iter().find(|it| *it.name == *backend).map(drop)
        };
        self.with_config(is_it).is_some() || self.beside_file().of_backend(upstream, backend).1
    }

    async fn change_backend(
        &self,
        upstream: &str,
        backend: &str,
        wish: &changes::Wish,
        who: &str,
    ) -> Result<Reply, Reply> {
        let changed = self.change_members(|changes, whole| changes.wish(find(whole, upstream)?, backend, wish)).await?;
        if changed {
            let what = match wish {
                changes::Wish::Drain => "drained it".to_owned(),
                changes::Wish::Undrain => "undrained it".to_owned(),
                changes::Wish::Weigh(weight) => format!("gave it the weight {weight}"),
                changes::Wish::Remove => "removed it".to_owned(),
            };
            self.tell(who, (Some(upstream), Some(backend)), &what);
        }
        Ok(self.changed("200 OK", (upstream, backend), changed))
    }

    async fn add(&self, upstream: &str, said: &Json, who: &str) -> Result<Reply, Reply> {
        let help =
            "say it as an entry of `backends`: \"10.0.0.1:8000\" or { \"url\": \"10.0.0.1:8000\", \"weight\": 2 }";
        let whole = self.whole();
        let rules = Rules::of(find(&whole, upstream).map_err(refused)?, None);
        let new = entry(said, rules).map_err(|why| Reply::problem("422 Unprocessable Content", why, help))?;
        let name = new.name.clone();
        self.change_members(|changes, whole| changes.add(find(whole, upstream)?, new)).await?;
        self.tell(who, (Some(upstream), Some(&name)), "added it");
        Ok(self.changed("201 Created", (upstream, &name), true))
    }

    /// What has changed, and how many are left that are ready: whoever drains the last one shall see it.
    fn changed(&self, status: &'static str, (upstream, backend): (&str, &str), changed: bool) -> Reply {
        let snapshot = self.snapshot.load();
        let members = snapshot.upstreams.get(upstream).map(|upstream| upstream.members()).unwrap_or_default();
        let ready = members.iter().filter(|member| member.backend.state() == State::Healthy).count();
        Reply::of(status, &json!({ "upstream": upstream, "backend": backend, "changed": changed, "ready": ready }))
    }

    /// Changes what stands beside the file, and swaps upstreams; if that fails, nothing has changed.
    async fn change_members<T>(
        &self,
        change: impl FnOnce(&mut Changes, &Config) -> Result<T, Refused>,
    ) -> Result<T, Reply> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut next = self.beside_file().clone();
        let done = change(&mut next, &self.whole()).map_err(refused)?;
        self.swap_members(&next).await.map_err(not_built)?;
        *self.beside_file() = next;
        Ok(done)
    }

    async fn ask_for_reload(&self, who: &str) -> Reply {
        let (asked, answer) = oneshot::channel();
        let nobody = || {
            let help = "it was started by a program; that one has to call `FrontDoor::reload`";
            Reply::problem("409 Conflict", "this front door was started without a file", help)
        };
        if !self.reads_file.load(Relaxed) || self.reload_asks.send(asked).await.is_err() {
            return nobody();
        }
        self.tell(who, (None, None), "asked for a reload");
        match answer.await {
            Ok(Outcome::Done { changes, needs_restart, warnings }) => Reply::of(
                "200 OK",
                &json!({ "changes": changes, "needs_restart": needs_restart, "warnings": warnings }),
            ),
            Ok(Outcome::Bad(problems)) => Reply::bad_file(&problems),
            Ok(Outcome::Refused(why)) => Reply::problem("409 Conflict", why, "the log says more; nothing was changed"),
            Err(_) => nobody(),
        }
    }

    fn set_log_level(&self, level: LevelFilter, who: &str) -> Reply {
        let of_file = self.with_config(|config| config.log.level);
        // Told before, in case the new level would not let it be told; and after, in case the old one does not.
        let what = format!("set the log to {}", shown::word(level));
        self.tell(who, (None, None), &what);
        self.beside_file().log_level = Some(level).filter(|level| *level != of_file);
        log::set_max_level(level);
        Reply::of("200 OK", &json!({ "level": shown::word(level) }))
    }

    /// Says in the log and on the page what an operator did.
    fn tell(&self, who: &str, (upstream, backend): (Option<&str>, Option<&str>), what: &str) {
        let mut text = String::new();
        if let (Some(upstream), Some(backend)) = (upstream, backend) {
            let _ = write!(text, "upstream {}: backend {}: ", upstream.escape_debug(), backend.escape_debug());
        }
        log::info!(target: "portcullis::admin", "{text}{who} {what}");
        self.watching.note(Event { kind: "operator", upstream, backend, what: format!("{who} {what}") });
    }

    /// What came of a reload, for the page.
    pub(super) fn note_reload(&self, problem: Option<String>) {
        let what = problem
            .as_ref()
            .map_or_else(|| "the file was taken over".to_owned(), |why| format!("nothing was changed: {why}"));
        self.loaded().problem = problem;
        self.watching.note(Event { kind: "reload", upstream: None, backend: None, what });
    }
}

fn find<'a>(whole: &'a Config, upstream: &str) -> Result<&'a config::Upstream, Refused> {
    let found = whole.upstreams.iter().find(|it| *it.name == *upstream);
    found.ok_or_else(|| Refused::NoUpstream(upstream.to_owned()))
}

fn refused(error: Refused) -> Reply {
    let status = match &error {
        Refused::NoUpstream(_) | Refused::NoBackend(..) => "404 Not Found",
        Refused::Taken(..) | Refused::Last(..) | Refused::NoWeight(..) | Refused::Full(_) => "409 Conflict",
    };
    Reply::problem(status, error.to_string(), error.help())
}

fn not_built(error: StartError) -> Reply {
    log::error!("the members of upstreams stay as they were: {error}");
    let help = "the log says why; it is most likely a file of `tls` that has changed";
    Reply::problem("500 Internal Server Error", "the upstream could not be built anew, and nothing was changed", help)
}
