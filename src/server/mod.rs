//! Who starts, stops and swaps? The one place where the rooms are wired together.
//!
//! A [`FrontDoor`] is a running program: its listeners, upstreams and background work. It runs inside the caller's tokio
//! runtime and touches no signal, so a test can have many of them in one process.

pub mod admin;
pub mod connection;
mod counters;
mod facts;
mod frames;
pub mod front;
pub mod guard;
mod handover;
mod http1;
mod http2;
mod introduce;
pub mod limits;
pub mod listen;
mod members;
mod operate;
mod options;
mod process;
mod refused;
mod reload;
mod replacement;
mod scrape;
mod secured;
mod sockets;
mod start_error;
mod status;
mod systemd;
pub mod tls;
pub mod watch_files;
pub mod watching;
pub mod wire;
pub mod workers;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::cache::Cache;
use crate::compress::Workshop;
use crate::config::changes::Changes;
use crate::config::{Address, Config, Secret};
use crate::observe::access_log::{AccessLog, Losses};
use crate::observe::dashboard;
use crate::proxy::{Admissions, Belongings, Gateway, Lasting, Snapshot, Upstreams, streams_from_the_store};
use crate::upstream::{Tallies, Upstream};

use self::connection::InFlight;
use self::facts::Loaded;
use self::front::{Front, Shared};
use self::handover::Desk;
use self::limits::TotalLimit;
use self::listen::{Held, Listening, accept_forever};
use self::members::Followers;
use self::refused::Refused;
use self::reload::Reloads;
use self::replacement::{Replacement, reads_files};
use self::sockets::{Accepting, Sockets, bind_all};
use self::status::Gone;
use self::tls::{TlsState, install_crypto};
use self::watching::Watching;
use self::workers::Workers;

pub use self::handover::{AskError, Heritage, Successor, ask as ask_for_handover};
pub use self::operate::{Outcome, ReloadAsked};
pub use self::process::{ProcessError, Source, run, worker_threads};
pub use self::reload::Reloaded;
pub use self::start_error::{StartError, Unbound};

/// Idle connections to backends that are kept, all upstreams together. Pingora's 128 a thread would close and open
/// connections all the time under load on a few backends.
const POOLED_CONNECTIONS: usize = 4096;

/// How long the last bytes of finished responses may take to leave, after the last exchange has ended.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// How long the last lines of the access log may take to where they are pushed.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long the last spans may take to a collector.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// Operators who may wait for a reload at once; more wait to be heard.
const RELOADS_ASKED: usize = 4;

/// A running front door.
pub struct FrontDoor {
    inner: Arc<Inner>,
    addresses: Vec<Address>,
    admin: Option<Address>,
    /// What accepts connections; ends by itself when asked to.
    accepting: JoinSet<()>,
    /// What runs until shutdown; like the others, it is aborted when the front door is dropped.
    tasks: JoinSet<()>,
}

/// What the tasks of a front door share.
struct Inner {
    config: Mutex<Config>,
    /// Where the configuration names none: cookies stay good over a reload, but not over a restart.
    own_secret: Secret,
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// What is known of those who come in.
    lasting: Lasting,
    /// What is left of upstreams that are not in the configuration any more.
    gone: Mutex<Gone>,
    /// What is answered without a backend.
    cache: &'static Cache,
    workshop: &'static Workshop,
    /// Where backends are discovered.
    followers: Mutex<Followers>,
    /// Told when somebody has come or gone.
    members_changed: Arc<Notify>,
    fronts: Vec<Arc<Front<Gateway>>>,
    in_flight: Arc<InFlight>,
    connections: Arc<TotalLimit>,
    access_log: AccessLog,
    refused: Refused,
    reloads: Reloads,
    /// Counts the changes of backends' states, for the dashboard.
    changes: watch::Sender<u64>,
    draining: AtomicBool,
    closing: watch::Sender<bool>,
    leaving: watch::Sender<bool>,
    /// The sockets that another process would get, and where it is asked for.
    sockets: Vec<Held>,
    desk: Option<Desk>,
    workers: Workers,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// What operators have changed beside the file.
    beside_file: Mutex<Changes>,
    /// What was taken over last.
    loaded: Mutex<Loaded>,
    /// What each second has brought.
    watching: Watching,
    /// Whether somebody waits for `reload_asks`.
    reads_file: AtomicBool,
    reload_asks: mpsc::Sender<ReloadAsked>,
    reloads_asked: tokio::sync::Mutex<mpsc::Receiver<ReloadAsked>>,
}

impl FrontDoor {
    /// Opens a front door: binds every address, starts the probes, then accepts.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::succeed(config, &mut Heritage::default(), Workers::here()).await
    }

    /// Opens a front door in the place of another, whose sockets it goes on listening on.
    pub(crate) async fn succeed(
        mut config: Config,
        heritage: &mut Heritage,
        workers: Workers,
    ) -> Result<Self, StartError> {
        install_crypto();
        let own_secret = heritage.take_secret().unwrap_or_else(own_secret);
        config.server.secret.get_or_insert_with(|| own_secret.clone());
        let Sockets { addresses, accepting, admin, desk, held: sockets } =
            bind_all(&config, heritage, &workers).map_err(StartError::Bind)?;
        let access_log = AccessLog::open(&config.log).map_err(StartError::AccessLog)?;
        let (changes, members_changed) = (watch::Sender::new(0), Arc::new(Notify::new()));
        let followers = Followers::of(&config, &Followers::default(), &members_changed);
        let lasting = Lasting::default();
        let snapshot = Arc::new(first_snapshot(&config, &followers, &lasting, &changes).await?);
        let (closing, conf) = (watch::Sender::new(false), Arc::new(pingora_conf(&config)));
        let (cache, workshop) = (Cache::new(&config.cache, streams_from_the_store), Workshop::new(conf.threads));
        let belongings = Belongings {
            snapshot: snapshot.clone(),
            access_log: access_log.clone(),
            closing: closing.subscribe(),
            cache,
            workshop,
        };
        let proxy = Arc::new(http_proxy(&conf, Gateway::new(belongings, &conf)));
        let (shared, refused) = shared(&config, &access_log);
        let fronts = fronts(&config, &addresses, &proxy, &shared)?;
        heritage.open_disk(cache, &config).await?;
        let (reload_asks, reloads_asked) = mpsc::channel(RELOADS_ASKED);
        let inner = Arc::new(Inner {
            loaded: Mutex::new(Loaded::of(&config)),
            config: Mutex::new(config),
            own_secret,
            snapshot,
            lasting,
            gone: Mutex::default(),
            cache,
            workshop,
            followers: Mutex::new(followers),
            members_changed,
            fronts,
            in_flight: shared.in_flight,
            connections: shared.connections,
            access_log,
            refused,
            reloads: Reloads::default(),
            changes,
            draining: AtomicBool::new(false),
            closing,
            leaving: watch::Sender::new(false),
            sockets,
            desk,
            workers,
            reloading: tokio::sync::Mutex::new(()),
            beside_file: Mutex::default(),
            watching: Watching::default(),
            reads_file: AtomicBool::new(false),
            reload_asks,
            reloads_asked: tokio::sync::Mutex::new(reloads_asked),
        });
        let admin_address = admin.as_ref().map(|listening| listening.local_address().clone());
        let (accepting, tasks) = (inner.start_accepting(accepting), inner.start_tasks(admin, heritage.is_any()));
        Ok(Self { inner, addresses, admin: admin_address, accepting, tasks })
    }

    /// Where each listener listens, in the order of the configuration.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where `/healthz` and `/readyz` are served.
    pub fn admin_address(&self) -> Option<&Address> {
        self.admin.as_ref()
    }

    /// Requests in flight.
    #[doc(hidden)]
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight.count()
    }

    /// Open connections of clients.
    #[doc(hidden)]
    pub fn connections(&self) -> usize {
        self.inner.connections.open()
    }

    /// An upstream by name, as it is now.
    #[doc(hidden)]
    pub fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.inner.snapshot.load().upstreams.get(name).cloned()
    }

    /// Takes over another configuration, or changes nothing.
    #[doc(hidden)]
    pub async fn reload(&self, config: Config) -> Result<Reloaded, StartError> {
        self.inner.reload(config).await
    }

    /// Counts a reload that found nothing to take over, because the file has problems.
    #[doc(hidden)]
    pub fn note_bad_file(&self) {
        self.inner.reloads.failed();
    }

    /// The metrics as `GET /metrics` shows them. Reads files of the system, so it blocks for a moment; needs a tokio runtime.
    #[doc(hidden)]
    pub fn metrics(&self) -> String {
        self.inner.scrape()
    }

    /// Reads certificates, lists and whatever else is followed again where it has changed; what cannot be read stays as it
    /// was.
    #[doc(hidden)]
    pub fn reread_files(&self) {
        self.inner.reread_files();
    }

    /// Opens the files of the access log and of usage events anew: those that there were have been moved.
    #[doc(hidden)]
    pub fn reopen_logs(&self) {
        self.inner.access_log.reopen();
        log::info!("the files of the access log were opened again");
    }

    /// How many lines of logs, and usage events, were dropped since the start.
    #[doc(hidden)]
    pub fn log_losses(&self) -> Losses {
        self.inner.access_log.losses()
    }

    /// The files whose change is a reason to call [`FrontDoor::reread_files`].
    #[doc(hidden)]
    pub fn followed_files(&self) -> Vec<std::path::PathBuf> {
        let certificates = self.inner.fronts.iter().filter_map(|front| front.tls()).flat_map(|tls| tls.files());
        certificates.chain(self.inner.lasting.sources.files.paths()).collect()
    }

    /// Says no to `/readyz`, waits the drain delay, stops accepting, lets the requests in flight finish within the
    /// grace period, and returns as soon as the last is done. Says whether all were.
    pub async fn shutdown(self) -> bool {
        let (drain_delay, grace_period) = self.inner.shutdown_times();
        self.inner.draining.store(true, Relaxed);
        tokio::time::sleep(drain_delay).await;
        self.leave(Duration::ZERO, grace_period).await
    }

    /// Stops accepting, and waits for what is in flight, within the grace period. For so long, a connection that waits for
    /// its next request may still send it: it is told to be the last.
    async fn leave(mut self, patience: Duration, grace_period: Duration) -> bool {
        self.inner.closing.send_replace(true);
        // They give their addresses back: were they aborted, a socket file could stay.
        while self.accepting.join_next().await.is_some() {}
        let asked = Instant::now();
        let _ = timeout(patience, self.inner.connections_closed()).await;
        for front in &self.inner.fronts {
            front.stop_waiting().await;
        }
        let left = |most: Duration| most.saturating_sub(asked.elapsed());
        let finished = loop {
            let finished = timeout(left(grace_period), self.inner.in_flight.none_left()).await.is_ok();
            // An exchange ends when its response has been handed over; HTTP/2 and TLS may still have bytes to send.
            let _ = timeout(LAST_BYTES, self.inner.connections_closed()).await;
            // A head that was under way may have come to its end meanwhile.
            if !finished || self.inner.in_flight.count() == 0 {
                break finished;
            }
        };
        self.inner.cache.close_disk(left(grace_period).max(LAST_BYTES)).await;
        self.inner.leaving.send_replace(true);
        self.tasks.shutdown().await;
        self.inner.access_log.close(LAST_LINES).await;
        let _ = timeout(LAST_SPANS, self.inner.lasting.tracers.flush()).await;
        finished
    }
}

impl Inner {
    fn start_accepting(&self, accepting: Vec<Accepting>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for Accepting { listener, place, listening } in accepting {
            let (front, runtime) = (self.fronts[listener].clone(), place.runtime().clone());
            tasks.spawn_on(accept_forever(listening, front, place, self.closing.subscribe()), &runtime);
        }
        tasks
    }

    fn start_tasks(self: &Arc<Self>, admin: Option<Listening>, succeeds: bool) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if succeeds {
            let inner = self.clone();
            tasks.spawn(async move { inner.inherit_disk().await });
        }
        if let Some(listening) = admin {
            // It answers until the very end, so that whoever asks sees that we are draining.
            tasks.spawn(admin::serve(listening, self.asked(), self.leaving.subscribe()));
        }
        let (inner, when) = (self.clone(), self.with_config(|config| config.log.dashboard));
        let (members, watching) = (self.clone(), self.clone());
        tasks.spawn(async move { members.keep_members().await });
        tasks.spawn(async move { watching.keep_watching().await });
        tasks.spawn(dashboard::run(when, move || inner.report(), self.changes.subscribe()));
        tasks
    }

    fn with_config<T>(&self, read: impl FnOnce(&Config) -> T) -> T {
        read(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shutdown_times(&self) -> (Duration, Duration) {
        self.with_config(|config| (config.server.drain_delay, config.server.grace_period))
    }

    async fn connections_closed(&self) {
        while self.connections.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What the first requests consult.
async fn first_snapshot(
    config: &Config,
    followers: &Followers,
    lasting: &Lasting,
    changes: &watch::Sender<u64>,
) -> Result<ArcSwap<Snapshot>, StartError> {
    followers.first_answers().await;
    let whole = followers.join(config);
    let upstreams = Replacement::prepare(&whole, &Upstreams::new(), Tallies::default(), reads_files).await?;
    let admissions = Admissions::new(config, lasting)?;
    lasting.sources.issuers.first_answers().await;
    let (upstreams, _) = upstreams.put_in_place(changes, config.server.grace_period);
    Ok(ArcSwap::from_pointee(Snapshot::new(config, upstreams, admissions, lasting)))
}

fn fronts(
    config: &Config,
    addresses: &[Address],
    proxy: &Arc<HttpProxy<Gateway>>,
    shared: &Shared,
) -> Result<Vec<Arc<Front<Gateway>>>, StartError> {
    let listeners = config.listeners.iter().zip(addresses).enumerate();
    let front = |(index, (listener, address)): (usize, (&crate::config::Listener, &Address))| {
        let tls = listener.tls.as_ref().map(|tls| TlsState::new(tls, listener.http2).map(Arc::new)).transpose();
        let tls = tls.map_err(|source| StartError::Tls { index, source })?;
        Ok(Front::new((index, listener.clone()), address, proxy.clone(), tls, shared.clone()))
    };
    listeners.map(front).collect()
}

/// What all listeners share, and the count of what they refuse.
fn shared(config: &Config, access_log: &AccessLog) -> (Shared, Refused) {
    let refused = Refused::default();
    let shared = Shared {
        connections: TotalLimit::new(config.server.max_connections),
        in_flight: Arc::default(),
        on_refusal: refused.log_to(access_log.clone()),
        trusted_proxies: config.server.trusted_proxies.clone().into(),
    };
    (shared, refused)
}

fn own_secret() -> Secret {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("aws-lc ends the process rather than give no random bytes");
    Secret::new(&bytes)
}

fn pingora_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: worker_threads(config),
        upstream_keepalive_pool_size: POOLED_CONNECTIONS,
        // The corridor decides about attempts; one more than it will ever make.
        max_retries: crate::retry::ATTEMPTS_MAX + 1,
        ..ServerConf::default()
    }
}

#[cfg(test)]
mod tests;
