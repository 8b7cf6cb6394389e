//! How does another process take over, while clients notice nothing?
//!
//! Whoever asks on `server.upgrade_socket` has this process start its successor: a new program, or the same one with a
//! configuration that needs a restart. So it runs where this one runs, for the same user, below the same service manager.
//! It is given the listening sockets, whose queues of clients stay; both accept until it says that it serves. Only then
//! does this one stop accepting and finish what it has begun. A successor that fails changes nothing.

mod desk;
mod heritage;
mod line;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::admin::Readiness;
use super::{FrontDoor, Inner, LAST_BYTES};
use crate::cache::disk::DiskError;

pub use self::desk::{AskError, ask};
pub(super) use self::desk::{Desk, Wish};
pub use self::heritage::Heritage;
use self::heritage::name;
use self::line::{Line, Message};

/// How long a successor may take to start: it reads its files, looks up names and waits for its first probes.
const START: Duration = Duration::from_secs(60);

/// How long a successor waits for its first probes before it serves without them.
const FIRST_PROBES: Duration = Duration::from_secs(10);

/// How long a successor that cannot take over may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often we look whether we are ready, and whether the cache on disk is ours.
const LOOK: Duration = Duration::from_millis(10);
const LOOK_AT_DISK: Duration = Duration::from_millis(100);

/// Who took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// Its process.
    pub pid: u32,
    /// Whether it was ready by then.
    pub ready: bool,
}

/// Why nobody took over.
#[derive(Debug, Error)]
pub(super) enum HandoverError {
    /// The program cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// It ended before it served.
    #[error("the new process ended before it served ({0}); the log says why")]
    Ended(String),
    /// It neither served nor ended.
    #[error("the new process did not serve within {} seconds, and was ended", START.as_secs())]
    TooLate,
    /// Anything else.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// A successor that has been started and has not taken over yet.
#[derive(Clone, Debug, Default)]
struct Begun(Arc<Mutex<Option<u32>>>);

impl Begun {
    fn note(&self, pid: Option<u32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    /// Ends it: whoever is told to leave shall not leave somebody behind.
    fn give_up(&self) {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let process = begun.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(process) = process {
            log::info!("upgrade: ending process {}, which had not taken over yet", process.as_raw_nonzero());
            // It may have ended by itself.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// What is passed on.
struct Estate {
    sockets: Vec<(String, OwnedFd)>,
    secret: Vec<u8>,
}

impl FrontDoor {
    /// Serves the upgrade socket until a process has taken over; for ever where there is none.
    pub(super) async fn successor(&self) -> Successor {
        let Some(desk) = &self.inner.desk else { return std::future::pending().await };
        loop {
            let (wish, asker) = desk.next_wish().await;
            if let Some(successor) = self.inner.hand_over(wish, asker).await {
                return successor;
            }
        }
    }

    /// Tells the process before us to leave, as soon as we are ready or have waited long enough.
    pub(super) fn take_over(&self, heritage: Heritage) {
        let Some(waiting) = heritage.settle() else { return };
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let ready = timeout(FIRST_PROBES, inner.ready()).await.is_ok();
            inner.sockets.iter().for_each(|held| held.leave_file(false));
            waiting.tell(ready);
        });
    }

    /// Ends a successor that has been started and has not taken over.
    pub(super) fn give_up_handover(&self) {
        self.inner.begun().give_up();
    }

    /// Leaves to the successor what it has taken, and finishes what has begun. Connections that wait for a request may
    /// still send one: a client whose connection were closed under its request would see that it failed.
    pub(super) async fn give_way(self) -> bool {
        let (_, grace_period) = self.inner.shutdown_times();
        self.inner.sockets.iter().for_each(|held| held.leave_file(true));
        self.inner.draining.store(true, Relaxed);
        self.inner.leaving.send_replace(true);
        // The successor waits for the folder.
        self.inner.cache.close_disk(LAST_BYTES).await;
        self.leave(grace_period, grace_period).await
    }
}

impl Inner {
    /// Waits until `/readyz` would say yes.
    async fn ready(&self) {
        while self.readiness() != Readiness::Ready {
            sleep(LOOK).await;
        }
    }

    /// Opens the cache on disk as soon as the process before us has let go of it.
    pub(super) async fn inherit_disk(&self) {
        let config = self.with_config(|config| config.cache.clone());
        loop {
            match self.cache.open_disk(&config).await {
                Ok(()) => return,
                Err(DiskError::InUse { .. }) => sleep(LOOK_AT_DISK).await,
                Err(error) => return log::error!("cache.disk: there is none until a restart: {error}"),
            }
        }
    }

    async fn hand_over(&self, wish: Wish, asker: UnixStream) -> Option<Successor> {
        log::info!("upgrade: starting {} with {}", wish.program.display(), wish.config.display());
        let handed = match self.estate() {
            Ok(estate) => {
                let begun = self.begun();
                spawn_blocking(move || start(&wish, &estate, &begun)).await.map_err(io::Error::other)
            }
            Err(error) => Err(error),
        };
        let handed = handed.map_err(HandoverError::from).and_then(|handed| handed);
        match &handed {
            Ok(successor) => {
                log::info!("upgrade: process {} has taken over", successor.pid);
                if !successor.ready {
                    log::warn!("upgrade: process {} serves, but is not ready yet", successor.pid);
                }
            }
            Err(error) => log::error!("upgrade: this process goes on: {error}"),
        }
        desk::tell(asker, &handed).await;
        handed.ok()
    }

    fn begun(&self) -> Begun {
        self.desk.as_ref().map(|desk| desk.begun.clone()).unwrap_or_default()
    }

    fn estate(&self) -> io::Result<Estate> {
        let mut sockets = Vec::new();
        for held in &self.sockets {
            if let Some(socket) = held.share()? {
                sockets.push((name(&held.asked), socket));
            }
        }
        Ok(Estate { sockets, secret: self.own_secret.bytes().to_vec() })
    }
}

/// Starts a process, passes all on, and waits until it serves.
fn start(wish: &Wish, estate: &Estate, begun: &Begun) -> Result<Successor, HandoverError> {
    let (line, theirs) = Line::pair()?;
    let mut command = Command::new(&wish.program);
    command.arg("run").arg("--successor").arg("--config").arg(&wish.config).stdin(Stdio::from(theirs));
    let started = command.spawn();
    // It holds the end of the line that is the child's: were it kept, we would wait for a child that is gone.
    drop(command);
    let mut child =
        started.map_err(|source| HandoverError::Start { program: wish.program.display().to_string(), source })?;
    begun.note(Some(child.id()));
    let passed = pass_on(&line, estate);
    begun.note(None);
    match passed {
        Ok(ready) => Ok(Successor { pid: child.id(), ready }),
        Err(error) => Err(gave_up(&mut child, error)),
    }
}

/// Says what there is, and waits to be told that it is in use; whether it is ready.
fn pass_on(line: &Line, estate: &Estate) -> io::Result<bool> {
    for (address, socket) in &estate.sockets {
        line.send(&Message::Socket(address.clone()), Some(socket.as_fd()))?;
    }
    line.send(&Message::Secret(estate.secret.clone()), None)?;
    line.send(&Message::Whole, None)?;
    line.wait_at_most(START)?;
    match line.receive()? {
        (Message::Serving { ready }, _) => Ok(ready),
        (Message::Socket(_) | Message::Secret(_) | Message::Whole, _) => Err(ErrorKind::InvalidData.into()),
    }
}

/// Whether a process that has nothing to say any more ends within a moment.
fn ends_by_itself(child: &mut Child) -> bool {
    let until = Instant::now() + LAST_WORDS;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::park_timeout(LOOK);
    }
    false
}

/// Ends a process that has not taken over, and says why it has not.
fn gave_up(child: &mut Child, error: io::Error) -> HandoverError {
    let late = error.kind() == ErrorKind::WouldBlock;
    let left = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
    if !(left && ends_by_itself(child)) {
        // If it is gone already there is nothing to end.
        let _ = child.kill();
    }
    match child.wait() {
        Ok(_) if late => HandoverError::TooLate,
        Ok(status) if left => HandoverError::Ended(status.to_string()),
        Ok(_) => HandoverError::Other(error),
        Err(error) => HandoverError::Other(error),
    }
}
