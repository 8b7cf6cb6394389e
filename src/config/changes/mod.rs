//! What has been changed beside the file? Backends that an operator drains, weighs, adds or removes while we run.
//!
//! The file stays what it is; these changes are applied to what it says, each time upstreams are built, and end with the
//! process or when they are undone. Pure: who may change something, and when that takes effect, is not decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use log::LevelFilter;
use thiserror::Error;

use super::{Backend, Config, Upstream};

/// Changes of one upstream that are kept at most; nobody does more by hand.
const MOST: usize = 10_000;

/// Everything that has been changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    upstreams: BTreeMap<Arc<str>, OfUpstream>,
    /// The least important level that is logged, in place of the file's.
    pub log_level: Option<LevelFilter>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct OfUpstream {
    /// Of those that the file or discovery names, by name.
    edits: BTreeMap<Arc<str>, Edit>,
    /// Those that nobody else names.
    added: Vec<Backend>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Edit {
    drained: bool,
    removed: bool,
    weight: Option<u32>,
}

/// What an operator wants of one backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// It shall take nothing new.
    Drain,
    /// It shall take requests again.
    Undrain,
    /// Its share shall be this.
    Weigh(u32),
    /// It shall be gone.
    Remove,
}

/// Why something is not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no upstream by this name.
    #[error("there is no upstream `{0}`")]
    NoUpstream(String),
    /// The upstream has no backend by this name.
    #[error("upstream {0} has no backend `{1}`")]
    NoBackend(Arc<str>, String),
    /// It has one by this name, or at this place.
    #[error("upstream {0} has a backend `{1}` already")]
    Taken(Arc<str>, Arc<str>),
    /// Nobody would be left.
    #[error("`{1}` is the last backend of upstream {0}")]
    Last(Arc<str>, Arc<str>),
    /// Only the file can give it a share.
    #[error("the weight of `{1}` in upstream {0} is 0")]
    NoWeight(Arc<str>, Arc<str>),
    /// There are too many changes.
    #[error("upstream {0} has {MOST} changes already")]
    Full(Arc<str>),
}

impl Refused {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoUpstream(_) => "GET /status.json lists the upstreams",
            Self::NoBackend(..) => "GET /status.json lists the backends; a `/` in a name is written %2F",
            Self::Taken(..) => "choose another name or address, or remove that one first",
            Self::Last(..) => "add another one first; `drain` keeps it from new requests too",
            Self::NoWeight(..) => "PUT a weight above 0",
            Self::Full(_) => "write them into the file, and reload",
        }
    }
}

/// One thing that differs from the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The upstream.
    pub upstream: Arc<str>,
    /// The backend.
    pub backend: Arc<str>,
    /// What is different.
    pub what: What,
}

/// What is different of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It takes nothing new.
    Drained,
    /// Its share is `now`.
    Weight {
        /// What the file or discovery says.
        was: u32,
        /// What holds.
        now: u32,
    },
    /// The file does not name it.
    Added,
    /// The file names it, and it is gone.
    Removed,
}

impl What {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Weight { .. } => "weight",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

impl Changes {
    /// An upstream as it is with these changes.
    pub fn apply(&self, upstream: &mut Upstream) {
        let Some(of) = self.upstreams.get(&upstream.name) else { return };
        upstream.backends.retain(|backend| !of.edits.get(&backend.name).is_some_and(|edit| edit.removed));
        // Whoever was discovered meanwhile needs not be added any more.
        let new: Vec<_> = of.added.iter().filter(|new| !collides(upstream, new)).cloned().collect();
        upstream.backends.extend(new);
        for backend in &mut upstream.backends {
            if let Some(edit) = of.edits.get(&backend.name) {
                backend.drained = edit.drained;
                backend.weight = edit.weight.unwrap_or(backend.weight);
            }
        }
    }

    /// The same for all upstreams.
    pub fn apply_to(&self, config: &mut Config) {
        config.upstreams.iter_mut().for_each(|upstream| self.apply(upstream));
    }

    /// Does what is wanted of a backend of `whole`, which is an upstream without any change; says whether that is a
    /// change.
    pub fn wish(&mut self, whole: &Upstream, name: &str, wish: &Wish) -> Result<bool, Refused> {
        let mut now = whole.clone();
        self.apply(&mut now);
        let no_backend = || Refused::NoBackend(whole.name.clone(), name.to_owned());
        let backend = now.backends.iter().find(|backend| *backend.name == *name).ok_or_else(no_backend)?;
        let (upstream, name) = (whole.name.clone(), backend.name.clone());
        let of_file = whole.backends.iter().find(|backend| backend.name == name);
        let mut next = self.clone();
        let of = next.upstreams.entry(upstream.clone()).or_default();
        if of.edits.len() >= MOST {
            return Err(Refused::Full(upstream));
        }
        let edit = of.edits.entry(name.clone()).or_default();
        match wish {
            Wish::Drain => edit.drained = true,
            Wish::Undrain if backend.weight == 0 => return Err(Refused::NoWeight(upstream, name)),
            Wish::Undrain => edit.drained = false,
            Wish::Weigh(weight) => edit.weight = Some(*weight).filter(|now| of_file.is_none_or(|it| it.weight != *now)),
            Wish::Remove if now.backends.len() == 1 && whole.discover.is_none() => {
                return Err(Refused::Last(upstream, name));
            }
            Wish::Remove => {
                of.added.retain(|added| added.name != name);
                *edit = Edit { removed: of_file.is_some(), ..Edit::default() };
            }
        }
        next.tidy();
        let changed = *self != next;
        *self = next;
        Ok(changed)
    }

    /// Adds a backend to `whole`, an upstream without any change. One that was removed and is the same comes back; says
    /// whether it is new.
    pub fn add(&mut self, whole: &Upstream, new: Backend) -> Result<bool, Refused> {
        let mut now = whole.clone();
        self.apply(&mut now);
        if let Some(taken) = now.backends.iter().find(|it| are_one(it, &new)) {
            return Err(Refused::Taken(whole.name.clone(), taken.name.clone()));
        }
        let mut next = self.clone();
        let of = next.upstreams.entry(whole.name.clone()).or_default();
        if of.added.len() >= MOST {
            return Err(Refused::Full(whole.name.clone()));
        }
        let returns = whole.backends.iter().find(|it| are_one(it, &new));
        match returns {
            Some(known) if Backend { weight: new.weight, ..known.clone() } == new => {
                let weight = Some(new.weight).filter(|weight| *weight != known.weight);
                of.edits.insert(known.name.clone(), Edit { weight, ..Edit::default() });
            }
            Some(known) => return Err(Refused::Taken(whole.name.clone(), known.name.clone())),
            None => of.added.push(new),
        }
        next.tidy();
        *self = next;
        Ok(returns.is_none())
    }

    /// Keeps what still makes sense with another file, `whole` with those that were discovered, and says in words what was
    /// given up.
    pub fn settle(&mut self, whole: &Config) -> Vec<String> {
        let mut gone = Vec::new();
        for (name, of) in &mut self.upstreams {
            let Some(upstream) = whole.upstreams.iter().find(|upstream| upstream.name == *name) else {
                gone.push(format!("upstream {name} is gone"));
                *of = OfUpstream::default();
                continue;
            };
            of.added.retain(|added| {
                let is_named = upstream.discover.is_none() && collides(upstream, added);
                if is_named {
                    gone.push(format!("upstream {name}: the file names {} now", added.name));
                }
                !is_named
            });
            let added: Vec<_> = of.added.iter().map(|added| added.name.clone()).collect();
            of.edits.retain(|backend, edit| {
                let known = upstream.backends.iter().find(|it| it.name == *backend);
                edit.weight = edit.weight.filter(|weight| known.is_none_or(|known| known.weight != *weight));
                edit.drained = edit.drained && known.is_none_or(|known| known.weight > 0);
                // Who is discovered may be back tomorrow.
                let stays = known.is_some() || upstream.discover.is_some() || added.contains(backend);
                if !stays {
                    gone.push(format!("upstream {name}: backend {backend} is gone"));
                }
                stays
            });
        }
        for upstream in whole.upstreams.iter().filter(|upstream| upstream.discover.is_none()) {
            self.keep_one(upstream, &mut gone);
        }
        self.log_level = self.log_level.filter(|level| *level != whole.log.level);
        self.tidy();
        gone
    }

    /// Takes back what was removed, if nobody else is left.
    fn keep_one(&mut self, upstream: &Upstream, gone: &mut Vec<String>) {
        let mut now = upstream.clone();
        self.apply(&mut now);
        let Some(of) = self.upstreams.get_mut(&upstream.name).filter(|_| now.backends.is_empty()) else { return };
        of.edits.values_mut().for_each(|edit| edit.removed = false);
        gone.push(format!("upstream {}: whoever was removed is back, as nobody else is left", upstream.name));
    }

    /// Everything that differs; `whole` is the file with those that were discovered, without any change.
    pub fn differences(&self, whole: &Config) -> Vec<Difference> {
        let mut all = Vec::new();
        for (upstream, of) in &self.upstreams {
            let found = whole.upstreams.iter().find(|it| it.name == *upstream);
            let weight = |name: &Arc<str>| {
                let backends = found.iter().flat_map(|it| &it.backends).chain(&of.added);
                backends.into_iter().find(|it| it.name == *name).map(|it| it.weight)
            };
            let mut add = |backend: &Arc<str>, what| {
                all.push(Difference { upstream: upstream.clone(), backend: backend.clone(), what });
            };
            of.added.iter().for_each(|added| add(&added.name, What::Added));
            for (backend, edit) in &of.edits {
                if edit.removed {
                    add(backend, What::Removed);
                }
                if edit.drained {
                    add(backend, What::Drained);
                }
                if let Some(now) = edit.weight {
                    add(backend, What::Weight { was: weight(backend).unwrap_or(now), now });
                }
            }
        }
        all
    }

    /// What differs of one backend, in one word each; whether nobody but a change names it.
    pub fn of_backend(&self, upstream: &str, backend: &str) -> (Vec<&'static str>, bool) {
        let Some(of) = self.upstreams.get(upstream) else { return (Vec::new(), false) };
        let is_added = of.added.iter().any(|added| *added.name == *backend);
        let edit = of.edits.get(backend);
        let drained = edit.filter(|edit| edit.drained).map(|_| What::Drained.word());
        let weight = edit.and_then(|edit| edit.weight).map(|now| What::Weight { was: now, now }.word());
        let added = is_added.then(|| What::Added.word());
        (added.into_iter().chain(drained).chain(weight).collect(), is_added)
    }

    /// How many things differ.
    pub fn len(&self) -> usize {
        let of_edit =
            |edit: &Edit| usize::from(edit.removed) + usize::from(edit.drained) + usize::from(edit.weight.is_some());
        let of = |of: &OfUpstream| of.added.len() + of.edits.values().map(of_edit).sum::<usize>();
        self.upstreams.values().map(of).sum::<usize>() + usize::from(self.log_level.is_some())
    }

    /// Whether all is as the file says.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The upstreams that are not as the file says.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<str>> {
        self.upstreams.keys()
    }

    fn tidy(&mut self) {
        for of in self.upstreams.values_mut() {
            of.edits.retain(|_, edit| *edit != Edit::default());
        }
        self.upstreams.retain(|_, of| *of != OfUpstream::default());
    }
}

fn collides(upstream: &Upstream, new: &Backend) -> bool {
    upstream.backends.iter().any(|known| are_one(known, new))
}

fn are_one(one: &Backend, other: &Backend) -> bool {
    one.name == other.name || (&one.target, one.tls) == (&other.target, other.tls)
}

#[cfg(test)]
mod tests;
