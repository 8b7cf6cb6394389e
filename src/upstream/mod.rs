//! Who could serve it? A named group of backends with its policy and their health.
//!
//! [`Upstream::pick_for`] is the way to a backend: it gives a [`Pick`] that holds a lease, so the in-flight counts are
//! right whatever becomes of the request. Which backends may be chosen is worked out when a state changes, not when a
//! request asks. This room does not know what a request is.

mod addresses;
pub mod choice;
pub mod dial;
pub mod discovery;
pub mod eligible;
mod idle;
mod learner;
mod leaving;
mod lesson;
mod limits;
mod live;
mod peer;
mod pick;
mod queue;
mod quota;
mod seats;
pub mod slow_start;
mod stale;
pub mod sticky;
pub mod survey;
pub mod tiers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::backend::{Backend, Loads, PeerTls, PeerTlsError, Seat, State, Task};
use crate::config;
use crate::health::{self, Keeper};
use crate::retry::Budget;

use self::addresses::Addresses;
use self::choice::Choice;
use self::discovery::dns;
use self::limits::Limits;
use self::peer::PeerTemplate;
use self::queue::Queue;
use self::seats::{FreeSeats, loads};
use self::slow_start::{SlowStart, slow_start};
use self::stale::Stale;

pub use self::leaving::Leaver;
pub use self::lesson::Lesson;
pub use self::peer::{Connect, Relayed, Way};
pub use self::pick::{Missed, Pick, Want};
pub use self::quota::Tallies;

/// How long the first look-up of names may delay the start.
const FIRST_LOOKUP: Duration = Duration::from_secs(2);

/// Told of every change of a backend's state.
pub type OnChange = Arc<dyn Fn() + Send + Sync>;

/// A named group of backends.
pub struct Upstream {
    /// What the operator asked for.
    pub config: config::Upstream,
    /// How many retries its requests may have.
    pub retries: Arc<Budget>,
    members: Box<[Member]>,
    /// Whether any of them has a limit.
    is_limited: bool,
    /// Who waits for one of them.
    queue: Arc<Queue>,
    /// What was sent to those that have a quota.
    tallies: Tallies,
    tls: Arc<PeerTls>,
    /// The member on each seat; seats of backends that are gone stay empty.
    by_seat: Box<[Option<usize>]>,
    loads: Loads,
    choice: ArcSwapOption<Choice>,
    turns: AtomicU64,
    /// Who has just come, if that matters; for the task that chooses and for a reload.
    slow_start: Option<Mutex<SlowStart>>,
    /// Whether too few are alive, as the log was last told.
    in_panic: AtomicBool,
    /// Held while it is decided whether a backend can be spared.
    ejecting: Mutex<()>,
    /// Held while it is worked out who may be chosen.
    choosing: Mutex<()>,
    /// Whether all have been probed once; of all upstreams by this name, before and after reloads.
    was_probed: Arc<AtomicBool>,
    /// Who is gone from the configuration and still at work.
    leaving: Mutex<Vec<Leaver>>,
    /// The probes and look-ups, which end when the upstream is dropped.
    tasks: Mutex<Vec<Task>>,
}

/// A backend, with what a reload may change of it.
pub struct Member {
    /// The backend, which outlives reloads.
    pub backend: Arc<Backend>,
    /// Its share of the requests; none while it is drained.
    pub weight: u32,
    is_drained: bool,
    /// Which tier it is in: the next takes what one cannot carry.
    pub tier: u32,
    limits: Limits,
    /// Owns its state, and outlives reloads too.
    keeper: Arc<Keeper>,
    addresses: Addresses,
    stale: Stale,
    template: PeerTemplate,
}

impl Upstream {
    /// Builds an upstream that keeps the backends, with their numbers, that it has in common with `old`. It gives no
    /// pick until it is watched.
    pub fn new(config: &config::Upstream, old: Option<&Self>) -> Result<Arc<Self>, PeerTlsError> {
        Self::beside(config, old, &Tallies::default())
    }

    /// The same where other upstreams are `gone`: what they have sent to its backends still counts.
    pub fn beside(config: &config::Upstream, old: Option<&Self>, gone: &Tallies) -> Result<Arc<Self>, PeerTlsError> {
        Ok(Self::with_tls(config, old, gone, Arc::new(PeerTls::load(&config.tls)?)))
    }

    /// The same in the place of `old`, for other members: the files of its `tls` are not read again, as they may be broken
    /// just now, and nobody has said that they have changed.
    pub fn after(config: &config::Upstream, old: &Self, gone: &Tallies) -> Result<Arc<Self>, PeerTlsError> {
        match old.config.tls == config.tls {
            true => Ok(Self::with_tls(config, Some(old), gone, old.tls.clone())),
            false => Self::beside(config, Some(old), gone),
        }
    }

    fn with_tls(config: &config::Upstream, old: Option<&Self>, gone: &Tallies, tls: Arc<PeerTls>) -> Arc<Self> {
        let mut known: HashMap<_, _> = old.map(Self::known_backends).unwrap_or_default();
        let mut free = FreeSeats::beside(old.into_iter().flat_map(Self::taken_seats), old.map(|old| &old.loads));
        let mut newcomers = Vec::new();
        let tallies = Tallies::of(config, old.map(|old| &old.tallies), gone);
        let members: Box<[Member]> = config
            .backends
            .iter()
            .map(|entry| {
                let kept = known.remove(&(entry.target.clone(), entry.tls, entry.name.clone()));
                let keeper = kept.unwrap_or_else(|| {
                    let seat = free.take();
                    newcomers.push(seat);
                    Arc::new(Keeper::new(Arc::new(Backend::new(&config.name, entry, seat))))
                });
                let backend = keeper.backend().clone();
                Member {
                    weight: if entry.drained { 0 } else { entry.weight },
                    is_drained: entry.drained,
                    tier: entry.tier,
                    limits: Limits::of(entry, &tallies).learning(config, old, backend.seat),
                    addresses: Addresses::default(),
                    stale: Stale::default(),
                    template: PeerTemplate::new(config, &backend, &tls).announcing(entry.send_proxy),
                    backend,
                    keeper,
                }
            })
            .collect();
        let seats = members.iter().map(|member| member.backend.seat.0 as usize + 1).max().unwrap_or(0);
        let mut by_seat = vec![None; seats].into_boxed_slice();
        for (index, member) in members.iter().enumerate() {
            by_seat[member.backend.seat.0 as usize] = Some(index);
        }
        Arc::new(Self {
            loads: loads(config, old, seats, &newcomers),
            slow_start: slow_start(config, old, &by_seat, &newcomers),
            leaving: Mutex::new(leaving::left_behind(old, &members)),
            config: config.clone(),
            is_limited: limits::are_there(config),
            queue: old.map_or_else(Arc::default, |old| old.queue.clone()),
            tallies,
            retries: old.map_or_else(|| Arc::new(Budget::new(Instant::now())), |old| old.retries.clone()),
            was_probed: old.map_or_else(Arc::default, |old| {
                old.is_probed();
                old.was_probed.clone()
            }),
            members,
            tls,
            by_seat,
            choice: ArcSwapOption::empty(),
            // Front doors that start together shall not all begin with the first backend.
            turns: AtomicU64::new(fastrand::u64(..)),
            in_panic: AtomicBool::new(old.is_some_and(|old| old.in_panic.load(Relaxed))),
            ejecting: Mutex::default(),
            choosing: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Looks up the names that have no address yet, for a bounded time.
    pub async fn resolve(self: Arc<Self>) {
        let backends = self.members.iter().map(|member| &member.backend);
        let unknown = backends.filter(|backend| backend.addresses().is_empty()).cloned();
        dns::resolve_once(unknown.collect::<Vec<_>>(), &Arc::new(dns::System), FIRST_LOOKUP).await;
    }

    /// Starts the probes and the look-ups. `on_change` is told after a state has changed.
    pub fn watch(self: &Arc<Self>, on_change: &OnChange) {
        let resolver = Arc::new(dns::System);
        let (check, protocol) = (&self.config.health_check, self.config.protocol);
        let speech = |send_proxy| health::Speech { protocol, tls: self.tls.clone(), send_proxy };
        let changes = Arc::new(Notify::new());
        let mut tasks = Vec::new();
        for member in &self.members {
            let changes = changes.clone();
            member.keeper.tell(Arc::new(move || changes.notify_one()));
            member.stay();
            let toll = member.limits.toll();
            tasks.extend(health::watch(member.keeper.clone(), check, speech(member.template.send_proxy()), toll));
            tasks.extend(dns::resolve_forever(member.backend.clone(), resolver.clone()));
        }
        self.settle_limits();
        // Before the task that chooses from now on: what changes meanwhile waits for it. And before those who wait are
        // handed over, or whoever is served in between would find that nobody may serve.
        let look_again = self.choose_again();
        self.queue.belongs_to(self);
        self.queue.look();
        tasks.push(Task::spawn(live::keep_choosing(Arc::downgrade(self), look_again, changes, on_change.clone())));
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }

    /// Supposes that every backend may be asked, without asking any: for whoever explains what would happen.
    pub fn suppose(self: &Arc<Self>) {
        self.settle_limits();
        self.choose_again();
        self.queue.belongs_to(self);
    }

    /// Ends the probes and the look-ups; requests in flight go on.
    pub fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The name of the upstream.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// The backends, in the order of the configuration.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Requests in flight on a backend.
    pub fn in_flight(&self, backend: &Backend) -> u32 {
        self.loads.in_flight(backend.seat)
    }

    /// Whether each backend that is probed has been probed, once: who joins later does not change that. Nobody waits for a
    /// probe that a quota leaves out.
    pub fn is_probed(&self) -> bool {
        let known = |member: &Member| member.backend.state() != State::Pending || member.keeper.pace.is_unpaid();
        let probed = self.was_probed.load(Relaxed) || self.members.iter().all(known);
        if probed && !self.members.is_empty() {
            self.was_probed.store(true, Relaxed);
        }
        probed
    }

    /// Whether any backend could be asked. One that is EJECTED is, before a request is refused.
    pub fn may_serve(&self) -> bool {
        let takes = |state| matches!(state, State::Healthy | State::Pending | State::Ejected);
        self.members.iter().any(|member| member.weight > 0 && takes(member.backend.state()))
    }

    fn place(&self, seat: Seat) -> Option<usize> {
        self.by_seat.get(seat.0 as usize).copied().flatten()
    }

    fn name_of(&self, seat: Seat) -> &str {
        self.place(seat).and_then(|place| self.members.get(place)).map_or("", |member| &member.backend.name)
    }

    /// Those who could stay: the members, and who left them and is still at work.
    fn known_backends(&self) -> HashMap<(config::Target, bool, Arc<str>), Arc<Keeper>> {
        let key = |backend: &Backend| (backend.target.clone(), backend.tls, backend.name.clone());
        let leavers = self.leavers().into_iter().map(|leaver| leaver.keeper().clone());
        let keepers = leavers.chain(self.members.iter().map(|member| member.keeper.clone()));
        keepers.map(|keeper| (key(keeper.backend()), keeper)).collect()
    }
}
