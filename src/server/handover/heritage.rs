//! What does a process get from the one before it? The sockets that it listens on, and what it signed cookies with.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::dup2_stdin;

use super::line::{Line, Message};
use crate::config::{Address, Secret};

/// File descriptors below are standard input, output and error.
const AFTER_STANDARD: i32 = 3;

/// What another process has left to this one; empty where there was none.
#[derive(Debug, Default)]
pub struct Heritage {
    sockets: Vec<(String, OwnedFd)>,
    secret: Option<Secret>,
    line: Option<Line>,
}

impl Heritage {
    /// Takes what the process that has started this one passes on through standard input, which is empty afterwards.
    ///
    /// # Errors
    /// Standard input is no line to such a process, or that process broke off.
    pub fn receive() -> io::Result<Self> {
        let stdin = io::stdin();
        let end = fcntl_dupfd_cloexec(stdin.as_fd(), AFTER_STANDARD)?;
        dup2_stdin(File::open("/dev/null")?)?;
        let mut heritage = Self::default();
        let line = Line::new(end)?;
        loop {
            match line.receive()? {
                (Message::Socket(address), Some(socket)) => heritage.sockets.push((address, socket)),
                (Message::Secret(bytes), None) => heritage.secret = Some(Secret::new(&bytes)),
                (Message::Whole, None) => break,
                (Message::Socket(_) | Message::Secret(_) | Message::Whole | Message::Serving { .. }, _) => {
                    return Err(io::Error::other("the process before this one speaks another language"));
                }
            }
        }
        heritage.line = Some(line);
        Ok(heritage)
    }

    /// The socket that listens on an address already.
    pub(in crate::server) fn take(&mut self, address: &Address) -> Option<OwnedFd> {
        let name = name(address);
        let place = self.sockets.iter().position(|(it, _)| *it == name)?;
        Some(self.sockets.remove(place).1)
    }

    /// What the process before has signed cookies with, if its configuration named nothing.
    pub(in crate::server) fn take_secret(&mut self) -> Option<Secret> {
        self.secret.take()
    }

    /// Whether there was a process before, which may still be at work.
    pub(in crate::server) fn is_any(&self) -> bool {
        self.line.is_some()
    }

    /// Lets go of what nobody has taken, and gives the process that waits for us.
    pub(in crate::server) fn settle(self) -> Option<Waiting> {
        let left = self.sockets.into_iter().map(|(address, _)| address).collect();
        self.line.map(|line| Waiting { line, left })
    }
}

/// What both processes call an address, wherever each was started: paths are whole.
pub(super) fn name(address: &Address) -> String {
    match address {
        Address::Unix(path) => Address::Unix(std::path::absolute(path).unwrap_or_else(|_| path.clone())).to_string(),
        Address::Tcp(_) => address.to_string(),
    }
}

/// A process that goes on until we say that we serve.
#[derive(Debug)]
pub(in crate::server) struct Waiting {
    line: Line,
    /// Where it listens, and we do not.
    left: Vec<String>,
}

impl Waiting {
    /// Tells it to leave. Does not block: the line has room for more than this.
    pub(in crate::server) fn tell(self, ready: bool) {
        if let Err(error) = self.line.send(&Message::Serving { ready }, None) {
            return log::warn!("the process before this one cannot be told to leave: {error}");
        }
        for address in &self.left {
            log::info!("not listening on {address} any more");
            if let Some(path) = address.strip_prefix("unix:") {
                // Nobody else will: the process before believes that it is still in use.
                let _ = std::fs::remove_file(Path::new(path));
            }
        }
    }
}
