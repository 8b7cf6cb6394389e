//! Who may ask for a handover, and how? One line of JSON on a unix socket, and one back.
//!
//! The socket is for the user that this process runs as, and for root: whoever asks says which program is to be started.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Begun, HandoverError, START, Successor};
use crate::config::Address;
use crate::server::listen::{Accepted, Listening};
use crate::server::wire::Socket;

/// How long whoever asks may take to say what for.
const QUESTION: Duration = Duration::from_secs(5);

/// No question is longer: it holds two paths.
const LONGEST: u64 = 16 * 1024;

/// What somebody wants to be started in our place.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::server) struct Wish {
    /// The program.
    pub(super) program: PathBuf,
    /// The configuration that it shall run.
    pub(super) config: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Serving(Successor),
    Error(String),
}

/// Where wishes come in.
#[derive(Debug)]
pub(in crate::server) struct Desk {
    listening: Listening,
    /// Who was started for a wish.
    pub(super) begun: Begun,
}

impl Desk {
    pub(in crate::server) fn new(listening: Listening) -> Self {
        Self { listening, begun: Begun::default() }
    }

    /// Waits for a wish of somebody who may have it.
    pub(super) async fn next_wish(&self) -> (Wish, UnixStream) {
        loop {
            match self.listening.accept().await {
                Ok(Accepted { socket: Socket::Unix(mut asker), .. }) => match read(&mut asker).await {
                    Ok(Some(wish)) => return (wish, asker),
                    // Whoever starts looks whether somebody is here.
                    Ok(None) => {}
                    Err(error) => log::warn!("upgrade: {error}"),
                },
                Ok(_) => {}
                Err(error) => {
                    log::error!("upgrade: cannot accept: {error}");
                    tokio::time::sleep(QUESTION).await;
                }
            }
        }
    }
}

async fn read(asker: &mut UnixStream) -> io::Result<Option<Wish>> {
    let who = asker.peer_cred()?.uid();
    if who != 0 && who != geteuid().as_raw() {
        return Err(io::Error::other(format!("user {who} may not ask for an upgrade")));
    }
    let mut line = String::new();
    let mut question = tokio::io::BufReader::new(asker.take(LONGEST));
    timeout(QUESTION, question.read_line(&mut line)).await??;
    if line.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&line)?)) }
}

/// Tells who asked how it went. That he may be gone by then changes nothing.
pub(super) async fn tell(mut asker: UnixStream, handed: &Result<Successor, HandoverError>) {
    let answer = match handed {
        Ok(successor) => Answer::Serving(*successor),
        Err(error) => Answer::Error(error.to_string()),
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    let _ = timeout(QUESTION, asker.write_all(&line)).await;
}

/// Why a handover that was asked for has not happened.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody can be asked.
    #[error("nobody answers on {address}: {source}")]
    Nobody {
        /// `server.upgrade_socket`.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Whoever was asked has said no, or nothing.
    #[error("{0}")]
    Refused(String),
}

/// Asks the front door behind an upgrade socket to have itself replaced, and waits until it is.
///
/// # Errors
/// Nobody is there, or the new process does not serve; the old one goes on then.
pub fn ask(socket: &Path, program: PathBuf, config: PathBuf) -> Result<Successor, AskError> {
    let nobody = |source| AskError::Nobody { address: Address::Unix(socket.to_owned()).to_string(), source };
    let mut stream = std::os::unix::net::UnixStream::connect(socket).map_err(nobody)?;
    let refused = |error: io::Error| AskError::Refused(format!("the running process gave no answer: {error}"));
    // It has its own deadline, within which it always answers.
    stream.set_read_timeout(Some(START + QUESTION)).map_err(refused)?;
    let mut line = serde_json::to_vec(&Wish { program, config }).map_err(io::Error::other).map_err(refused)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(refused)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(refused)?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Serving(successor)) => Ok(successor),
        Ok(Answer::Error(error)) => Err(AskError::Refused(error)),
        Err(_) => Err(AskError::Refused("the running process refused without a word; its log says why".to_owned())),
    }
}
