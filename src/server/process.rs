//! What does the process do between its start and its end? It waits for signals and for changed files.
//!
//! SIGHUP and a change of the file reload; SIGUSR1 opens the logs anew; SIGTERM drains and leaves; SIGINT leaves at once,
//! and neither waits for a reload. What a reload means is `reload`'s, what draining means is the front door's.

use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::handover::{Heritage, Successor};
use super::systemd::{self, Fact};
use super::tls::files_of;
use super::watch_files::FileWatch;
use super::workers::Workers;
use super::{FrontDoor, Outcome, ReloadAsked, StartError};
use crate::config::diff;
use crate::config::{Address, Config, Outline, Problem, Route, load};
use crate::custom::Additions;

/// How often files are looked at when the debounce is longer: a change must be seen twice to be quiet.
const LOOK_AT_FILES: Duration = Duration::from_millis(250);

/// How long certificates and keys must be as they are before they are read: whoever renews them writes one after the
/// other, and half of a pair is none.
const WHOLE_PAIR: Duration = Duration::from_millis(500);

/// Lines of one reload: whoever replaces a whole file knows it.
const CHANGES_SHOWN: usize = 100;

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

/// The file that a configuration was read from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it said when it was last taken over.
    pub outline: Outline,
    /// What it may name that the program brings.
    pub additions: Arc<Additions>,
}

/// Runs a front door until a signal ends it. `file` is read again on SIGHUP, and when it changes. `opened` is told
/// where we listen as soon as we do. With a heritage, the process before us is told to leave then.
pub fn run(
    config: Config,
    file: Option<Source>,
    heritage: Heritage,
    opened: impl FnOnce(&[Address]),
) -> Result<(), ProcessError> {
    raise_open_files();
    log::set_max_level(config.log.level);
    let (runtime, (workers, threads)) = (background()?, Workers::start(worker_threads(&config))?);
    let ended = runtime.block_on(serve(config, workers, file, heritage, opened));
    // What is still running has had its time.
    threads.end();
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

/// The workers serve, one thread does what no request waits for, and this one reads files and waits for signals, so that
/// neither a slow disk nor a thousand probes delay a request.
fn background() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name("background").enable_all().build()
}

async fn serve(
    config: Config,
    workers: Workers,
    file: Option<Source>,
    mut heritage: Heritage,
    opened: impl FnOnce(&[Address]),
) -> Result<(), ProcessError> {
    let mut signals = Signals::install()?;
    let (hangups, logs_moved) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
    let mut files = Files::of(&config, file.as_ref().map(|file| &*file.path));
    // Before they are read, so that no change falls between the two.
    files.follow(files_of_config(&config));
    let front_door = tokio::select! {
        started = FrontDoor::succeed(config, &mut heritage, workers) => started?,
        _ = signals.next() => {
            log::info!("leaving before the start");
            return Ok(());
        }
    };
    if file.is_some() {
        front_door.hear_reloads();
    }
    tell_addresses(&front_door);
    opened(front_door.addresses());
    systemd::tell(&[Fact::Ready]);
    front_door.take_over(heritage);
    // A reload that waits for names is given up: nothing of it has been put in place.
    let end = tokio::select! {
        end = signals.next() => end,
        successor = front_door.successor() => End::HandedOver(successor),
        never = keep_current(&front_door, file, files, (hangups, logs_moved)) => match never {},
    };
    if !matches!(end, End::HandedOver(_)) {
        front_door.give_up_handover();
    }
    let finished = match end {
        End::Leave => {
            log::info!("leaving at once");
            return Ok(());
        }
        End::Drain => {
            systemd::tell(&[Fact::Stopping]);
            log::info!("draining: {} requests in flight", front_door.in_flight());
            Box::pin(front_door.shutdown()) as Pin<Box<dyn Future<Output = bool>>>
        }
        End::HandedOver(successor) => {
            systemd::tell(&[Fact::MainPid(successor.pid), Fact::Ready]);
            log::info!("draining: {} requests in flight", front_door.in_flight());
            Box::pin(front_door.give_way())
        }
    };
    tokio::select! {
        finished = finished => log::info!("{}", if finished { "drained" } else { "the grace period is over" }),
        () = signals.leave() => log::info!("leaving at once"),
    }
    Ok(())
}

fn tell_addresses(front_door: &FrontDoor) {
    for address in front_door.addresses() {
        log::info!("listening on {address}");
    }
    if let Some(address) = front_door.admin_address() {
        log::info!("status page, admin API, /metrics, /healthz and /readyz on {address}");
    }
}

/// Takes over what changes, for ever.
async fn keep_current(
    front_door: &FrontDoor,
    mut file: Option<Source>,
    mut files: Files,
    (mut hangups, mut logs_moved): (Signal, Signal),
) -> Infallible {
    loop {
        let changed = tokio::select! {
            _ = hangups.recv() => Changed::Configuration,
            _ = logs_moved.recv() => Changed::Logs,
            changed = files.changed() => changed,
            asked = front_door.reload_asked(), if file.is_some() => Changed::Asked(asked),
        };
        match changed {
            Changed::Configuration => drop(reload(front_door, file.as_mut(), &mut files).await),
            Changed::Followed => front_door.reread_files(),
            Changed::Logs => front_door.reopen_logs(),
            // Whoever has asked may be gone.
            Changed::Asked(asked) => drop(asked.send(reload(front_door, file.as_mut(), &mut files).await)),
        }
    }
}

async fn reload(front_door: &FrontDoor, file: Option<&mut Source>, files: &mut Files) -> Outcome {
    let Some(file) = file else { return Outcome::Refused("there is no file to read".to_owned()) };
    let checked = match load(&file.path, &file.additions) {
        Ok(checked) => checked,
        Err(problems) => {
            log::error!("reload: nothing was changed, because the file has problems:{}", listed(&problems));
            front_door.note_bad_file();
            let first = problems.first().map(|problem| format!("{}: {}", problem.key, problem.what));
            front_door.note_reload(Some(first.unwrap_or_default()));
            return Outcome::Bad(problems);
        }
    };
    if !checked.warnings.is_empty() {
        log::warn!("reload:{}", listed(&checked.warnings));
    }
    let mut followed = front_door.followed_files();
    followed.extend(files_of_config(&checked.config));
    files.follow(followed);
    let outcome = match front_door.reload(checked.config).await {
        Ok(done) => {
            let old = std::mem::replace(&mut file.outline, checked.outline);
            let changes = diff::changes(&old, &file.outline);
            tell(&changes, &done.needs_restart);
            front_door.note_reload(None);
            let warnings =
                checked.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.what)).collect();
            Outcome::Done { changes, needs_restart: done.needs_restart, warnings }
        }
        Err(error) => {
            log::error!("reload: nothing was changed: {error}");
            front_door.note_reload(Some(error.to_string()));
            Outcome::Refused(error.to_string())
        }
    };
    files.follow(front_door.followed_files());
    outcome
}

/// Says what a reload has changed, in one message.
fn tell(changes: &[String], needs_restart: &[String]) {
    let mut lines: String = changes.iter().take(CHANGES_SHOWN).map(|change| format!("\n{change}")).collect();
    if changes.len() > CHANGES_SHOWN {
        lines.push_str(&format!("\nand {} more", changes.len() - CHANGES_SHOWN));
    }
    let lines = if changes.is_empty() { ": the file says what it said before".to_owned() } else { format!(":{lines}") };
    match needs_restart {
        [] => log::info!("reload: done{lines}"),
        keys => log::warn!("reload: done, but a change of {} needs a restart{lines}", keys.join(", ")),
    }
}

fn files_of_config(config: &Config) -> Vec<PathBuf> {
    let certificates = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(files_of);
    certificates.chain(config.routes.iter().flat_map(Route::files)).collect()
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

/// How we are asked to leave.
enum End {
    Drain,
    Leave,
    HandedOver(Successor),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> End {
        tokio::select! {
            _ = self.terminate.recv() => End::Drain,
            _ = self.interrupt.recv() => End::Leave,
        }
    }

    /// A second wish to leave while we drain.
    async fn leave(&mut self) {
        while !matches!(self.next().await, End::Leave) {}
    }
}

enum Changed {
    Configuration,
    Followed,
    /// Somebody has moved them.
    Logs,
    Asked(ReloadAsked),
}

/// The files that are watched, and how.
struct Files {
    configuration: Option<Quiet>,
    followed: Quiet,
    look: Interval,
}

impl Files {
    fn of(config: &Config, file: Option<&Path>) -> Self {
        let watched = file.filter(|_| config.server.reload.watch);
        let debounce = config.server.reload.debounce;
        let mut look = interval(LOOK_AT_FILES.min(debounce.max(Duration::from_millis(10))));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            configuration: watched.map(|file| Quiet::new(vec![file.to_owned()], debounce)),
            followed: Quiet::new(Vec::new(), WHOLE_PAIR),
            look,
        }
    }

    fn follow(&mut self, files: Vec<PathBuf>) {
        self.followed.files.watch(files);
    }

    /// Waits until a file has changed, and has then been quiet for its time.
    async fn changed(&mut self) -> Changed {
        loop {
            self.look.tick().await;
            let passed = self.look.period();
            if self.followed.changed(passed) {
                return Changed::Followed;
            }
            if self.configuration.as_mut().is_some_and(|it| it.changed(passed)) {
                return Changed::Configuration;
            }
        }
    }
}

/// Files whose change is told once they have been quiet for a time.
struct Quiet {
    files: FileWatch,
    debounce: Duration,
    /// How long they have been as they are since they changed; `None` when they have not.
    quiet_for: Option<Duration>,
}

impl Quiet {
    fn new(files: Vec<PathBuf>, debounce: Duration) -> Self {
        Self { files: FileWatch::new(files), debounce, quiet_for: None }
    }

    /// Looks again, when so much time has passed since the last look.
    fn changed(&mut self, passed: Duration) -> bool {
        if self.files.changed() {
            self.quiet_for = Some(Duration::ZERO);
            return false;
        }
        let Some(quiet) = self.quiet_for else { return false };
        let quiet = quiet + passed;
        self.quiet_for = (quiet < self.debounce).then_some(quiet);
        self.quiet_for.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_certificate_and_its_key_are_one_change_though_one_comes_later() {
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        let mut pair = Quiet::new(vec![cert.clone(), key.clone()], WHOLE_PAIR);
        let mut look = || pair.changed(LOOK_AT_FILES);
        assert!(!look());
        fs::write(&cert, "new").unwrap();
        assert_eq!([look(), look()], [false; 2]);
        fs::write(&key, "new").unwrap();
        assert_eq!([look(), look(), look(), look()], [false, false, true, false]);
    }
}
