//! What has each second brought, and who wants to know? One look a second at what is counted anyway.
//!
//! Nothing here is on a request's way. The histories and the changes of state are kept whether or not anybody watches, as
//! it is the last minute that an operator comes to see; what differs is worked out only while somebody listens.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval};

use super::Inner;
use crate::backend::{Backend, Note, Since, State};
use crate::observe::status::difference::difference;
use crate::observe::status::{Change, History, LastSecond, Series, Time};

/// Changes that are remembered.
const CHANGES: usize = 200;

/// Who may listen at once: each takes a connection of the admin address, which has some left for probes.
const LISTENERS: usize = 24;

/// Differences that a listener may be late with; then it gets everything anew.
const LATE: usize = 16;

/// What differs from the moment before, or everything.
#[derive(Clone, Debug)]
pub struct News {
    /// `state` is everything, `change` what differs.
    pub event: &'static str,
    /// JSON in one line.
    pub data: Arc<str>,
}

/// What one listener hears.
pub struct Listener {
    /// Everything, to begin with.
    pub first: News,
    /// What comes after it.
    pub news: broadcast::Receiver<News>,
}

/// What was seen second by second, and who listens.
pub(super) struct Watching {
    seen: Mutex<Seen>,
    /// What the listeners know.
    told: Mutex<Json>,
    news: broadcast::Sender<News>,
    pub(super) started: SystemTime,
}

#[derive(Default)]
struct Seen {
    backends: HashMap<Place, Known>,
    changes: VecDeque<Change>,
    count: u64,
}

/// An upstream and a backend of it.
type Place = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Known {
    history: History,
    since: Since,
    round: u64,
}

/// What has changed, besides a state.
pub(super) struct Event<'a> {
    pub(super) kind: &'static str,
    pub(super) upstream: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    pub(super) what: String,
}

/// The numbers of one backend, as they were seen.
#[derive(Default)]
pub(super) struct Recent {
    pub(super) rates: (f64, f64),
    pub(super) last: LastSecond,
    pub(super) series: Series,
}

impl Default for Watching {
    fn default() -> Self {
        let (news, _) = broadcast::channel(LATE);
        Self { seen: Mutex::default(), told: Mutex::default(), news, started: SystemTime::now() }
    }
}

impl Watching {
    /// Remembers something that was done.
    pub(super) fn note(&self, event: Event<'_>) {
        let Event { kind, upstream, backend, what } = event;
        let at = Time(SystemTime::now());
        let (upstream, backend) = (upstream.map(Arc::from), backend.map(Arc::from));
        self.seen().add(Change { id: 0, at, kind, upstream, backend, from: None, to: None, what });
    }

    /// What has changed lately, the latest first.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut changes: Vec<_> = self.seen().changes.iter().cloned().collect();
        // A state that has changed is seen up to a second later.
        changes.sort_by_key(|change| Reverse((change.at, change.id)));
        changes
    }

    /// What is known of these backends.
    pub(super) fn recent(&self, upstream: &Arc<str>, names: impl Iterator<Item = Arc<str>>) -> Vec<Recent> {
        let seen = self.seen();
        let recent = |name| {
            let known = seen.backends.get(&(upstream.clone(), name));
            let recent = |Known { history, .. }: &Known| Recent {
                rates: history.rates(),
                last: history.last(),
                series: history.series(),
            };
            known.map(recent).unwrap_or_default()
        };
        names.map(recent).collect()
    }

    /// One look at everybody.
    fn look<'a>(&self, backends: impl Iterator<Item = &'a Arc<Backend>>, round: u64) {
        let mut seen = self.seen();
        let mut notes = Vec::new();
        for backend in backends {
            let known = seen.backends.entry((backend.upstream.clone(), backend.name.clone())).or_default();
            // One that leaves and one that has come in its place may have one name.
            if std::mem::replace(&mut known.round, round) != round {
                let reading = backend.totals();
                let [p95] = backend.latencies_since(&mut known.since, [0.95]);
                known.history.add(reading, p95);
            }
            // That a first probe passes is what everybody expects: of five hundred at a start nothing else would be seen.
            let is_news = |note: &Note| (note.from, note.to) != (State::Pending, State::Healthy);
            notes.extend(backend.take_notes().into_iter().filter(is_news).map(|note| (backend, note)));
        }
        seen.backends.retain(|_, known| known.round == round);
        notes.sort_by_key(|(_, note)| note.at);
        for (backend, note) in notes {
            seen.add(change(backend, note));
        }
    }

    /// Somebody listens, if not too many do; `now` gives everything.
    pub(super) fn listen(&self, now: impl FnOnce() -> Json) -> Option<Listener> {
        let mut told = self.told();
        match self.news.receiver_count() {
            0 => *told = now(),
            LISTENERS.. => return None,
            _ => {}
        }
        Some(Listener { first: News::everything(&told), news: self.news.subscribe() })
    }

    /// Everything as the listeners know it, for one who was too late.
    pub(super) fn told_so_far(&self) -> News {
        News::everything(&self.told())
    }

    fn tell(&self, now: Json) {
        let mut told = self.told();
        let news = match difference(&told, &now) {
            Some(differs) => News { event: "change", data: differs.to_string().into() },
            None => News::everything(&now),
        };
        *told = now;
        // That nobody listens any more is no harm.
        let _ = self.news.send(news);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Json> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn add(&mut self, change: Change) {
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.count += 1;
        self.changes.push_back(Change { id: self.count, ..change });
    }
}

impl News {
    fn everything(now: &Json) -> Self {
        Self { event: "state", data: now.to_string().into() }
    }
}

fn change(backend: &Backend, note: Note) -> Change {
    Change {
        id: 0,
        at: Time(note.at),
        kind: "state",
        upstream: Some(backend.upstream.clone()),
        backend: Some(backend.name.clone()),
        from: Some(note.from.as_str()),
        to: Some(note.to.as_str()),
        what: note.why,
    }
}

impl Inner {
    /// Looks at everybody once a second, for ever.
    pub(super) async fn keep_watching(&self) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for round in 1.. {
            second.tick().await;
            self.look(round);
            if self.watching.news.receiver_count() > 0 {
                self.watching.tell(self.status_json());
            }
        }
    }

    fn look(&self, round: u64) {
        let snapshot = self.snapshot.load();
        let mut backends = Vec::new();
        for upstream in snapshot.upstreams.values() {
            backends.extend(upstream.members().iter().map(|member| member.backend.clone()));
            backends.extend(upstream.leavers().iter().map(|leaver| leaver.backend().clone()));
        }
        self.watching.look(backends.iter(), round);
    }
}
