//! What does the process do between its start and its end? It waits for signals and for changed files.
//!
//! SIGHUP and a change of the file reload; SIGTERM drains and leaves; SIGINT leaves at once. What a reload means is
//! `reload`'s, what draining means is the front door's.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::watch_files::FileWatch;
use super::{FrontDoor, StartError};
use crate::config::{Address, Config, Problem, load};

/// How often files are looked at when the debounce is longer: a change must be seen twice to be quiet.
const LOOK_AT_FILES: Duration = Duration::from_millis(250);

/// Why a process ended early.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The runtime or a signal handler could not be set up.
    #[error("cannot set up the process: {0}")]
    Setup(#[from] io::Error),
    /// The front door did not open.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Worker threads: as configured, else one a core.
pub fn worker_threads(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    config.server.threads.map_or_else(cores, NonZeroUsize::get)
}

/// Runs a front door until a signal ends it. `file` is read again on SIGHUP, and when it changes. `opened` is told
/// where we listen as soon as we do.
pub fn run(config: Config, file: Option<&Path>, opened: impl FnOnce(&[Address])) -> Result<(), ProcessError> {
    raise_open_files();
    log::set_max_level(config.log.level);
    let runtime = runtime(worker_threads(&config))?;
    let ended = runtime.block_on(serve(config, file, opened));
    // What is still running has had its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

/// The workers serve; this thread reads files and waits for signals, so that a slow disk delays no request.
fn runtime(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).thread_name("portcullis").enable_all().build()
}

async fn serve(config: Config, file: Option<&Path>, opened: impl FnOnce(&[Address])) -> Result<(), ProcessError> {
    let mut signals = Signals::install()?;
    let mut files = Files::of(&config, file);
    let front_door = FrontDoor::start(config).await?;
    files.watch_certificates(front_door.certificate_files());
    for address in front_door.addresses() {
        log::info!("listening on {address}");
    }
    if let Some(address) = front_door.admin_address() {
        log::info!("/healthz and /readyz on {address}");
    }
    opened(front_door.addresses());
    loop {
        tokio::select! {
            event = signals.next() => match event {
                Event::Reload => reload(&front_door, file).await,
                Event::Drain => break,
                Event::Leave => {
                    log::info!("leaving at once");
                    return Ok(());
                }
            },
            changed = files.changed() => match changed {
                Changed::Configuration => reload(&front_door, file).await,
                Changed::Certificates => front_door.reload_certificates(),
            },
        }
        // A reload may have named others.
        files.watch_certificates(front_door.certificate_files());
    }
    log::info!("draining: {} requests in flight", front_door.in_flight());
    tokio::select! {
        finished = front_door.shutdown() => log::info!("{}", if finished { "drained" } else { "the grace period is over" }),
        () = signals.leave() => log::info!("leaving at once"),
    }
    Ok(())
}

async fn reload(front_door: &FrontDoor, file: Option<&Path>) {
    let Some(path) = file else { return };
    let checked = match load(path) {
        Ok(checked) => checked,
        Err(problems) => {
            log::error!("reload: nothing was changed, because the file has problems:{}", listed(&problems));
            return;
        }
    };
    if !checked.warnings.is_empty() {
        log::warn!("reload:{}", listed(&checked.warnings));
    }
    match front_door.reload(checked.config).await {
        Ok(done) if done.needs_restart.is_empty() => log::info!("reload: done"),
        Ok(done) => log::warn!("reload: done, but a change of {} needs a restart", done.needs_restart.join(", ")),
        Err(error) => log::error!("reload: nothing was changed: {error}"),
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n{problem}")).collect()
}

/// A connection takes a file, and one more to its backend; the soft limit of most systems is 1024.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        log::warn!("the limit of open files stays at {current:?}");
    }
}

enum Event {
    Reload,
    Drain,
    Leave,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.hangup.recv() => Event::Reload,
            _ = self.terminate.recv() => Event::Drain,
            _ = self.interrupt.recv() => Event::Leave,
        }
    }

    /// A second wish to leave while we drain.
    async fn leave(&mut self) {
        while !matches!(self.next().await, Event::Leave) {}
    }
}

enum Changed {
    Configuration,
    Certificates,
}

/// The files that are watched, and how.
struct Files {
    configuration: Option<FileWatch>,
    certificates: FileWatch,
    look: Interval,
    debounce: Duration,
    /// How long the configuration has been as it is since it changed; `None` when it has not.
    quiet_for: Option<Duration>,
}

impl Files {
    fn of(config: &Config, file: Option<&Path>) -> Self {
        let watched = file.filter(|_| config.server.reload.watch);
        let debounce = config.server.reload.debounce;
        let mut look = interval(LOOK_AT_FILES.min(debounce.max(Duration::from_millis(10))));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            configuration: watched.map(|file| FileWatch::new(vec![file.to_owned()])),
            certificates: FileWatch::new(Vec::new()),
            look,
            debounce,
            quiet_for: None,
        }
    }

    fn watch_certificates(&mut self, files: Vec<PathBuf>) {
        self.certificates.watch(files);
    }

    /// Waits until a file has changed, and has then been quiet for the debounce.
    async fn changed(&mut self) -> Changed {
        loop {
            self.look.tick().await;
            if self.certificates.changed() {
                return Changed::Certificates;
            }
            if self.configuration.as_mut().is_some_and(FileWatch::changed) {
                self.quiet_for = Some(Duration::ZERO);
            } else if let Some(quiet) = self.quiet_for {
                let quiet = quiet + self.look.period();
                self.quiet_for = (quiet < self.debounce).then_some(quiet);
                if self.quiet_for.is_none() {
                    return Changed::Configuration;
                }
            }
        }
    }
}
