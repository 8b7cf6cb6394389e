//! Are we alive, and ready, and who is with us? `/healthz`, `/readyz`, `/metrics`, the registration of backends and purges
//! of the cache, on an address of their own.
//!
//! A few lines of HTTP/1.1 instead of the proxy: the answer must come even when the proxy is full, and nothing about
//! it depends on the configuration. One request a connection, each with a bound in time and size, and a bounded number
//! of connections. The address is a loopback one or a unix socket: whoever reaches it is on this machine, so there is no
//! authentication.

pub mod members;
mod purge;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::members::{Change, Reply};
use super::listen::Listening;
use crate::cache::Cache;
use crate::observe::metrics;

/// Connections at a time: probes are few; the next ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// For the whole head of a request, and again for the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a request's head; a probe sends a few hundred.
const HEAD: usize = 8 * 1024;
/// After an error of `accept`, such as too many open files: trying again at once would spin.
const BREATH: Duration = Duration::from_millis(100);

/// Whether traffic should be sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// No, and why, in plain words for the operator.
    NotReady(String),
}

/// Asked at each `/readyz`; must not block.
pub type Ready = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// Who is asked.
#[derive(Clone)]
pub struct Asked {
    /// At each `/readyz`.
    pub ready: Ready,
    /// At each request of a backend.
    pub members: Change,
    /// What `/metrics` says; it may block for a moment.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What is purged.
    pub cache: &'static Cache,
}

/// Answers on a listener until `shutdown` becomes true, or its sender is dropped.
pub async fn serve(listener: Listening, asked: Asked, mut shutdown: watch::Receiver<bool>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped at the end, with all connections that are still open.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|&stop| stop) => return,
            accepted = async {
                let seat = seats.clone().acquire_owned().await;
                (listener.accept().await, seat)
            } => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            (Ok(accepted), seat) => {
                let asked = asked.clone();
                connections.spawn(async move {
                    // A client that breaks off is its own affair.
                    let _ = converse(accepted.socket, &asked).await;
                    drop(seat);
                });
            }
            (Err(error), _) => {
                log::warn!(target: "portcullis::admin", "cannot accept: {error}");
                sleep(BREATH).await;
            }
        }
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, asked: &Asked) -> io::Result<()> {
    let answer = match timeout(DEADLINE, read_head(&mut stream)).await {
        Ok(Ok(Head::Whole(head))) if members::is_meant(path_of(&head)) || purge::is_meant(path_of(&head)) => {
            match timeout(DEADLINE, read_body(head, &mut stream)).await {
                Ok(Ok(Ok(request))) => change(&request, asked).await,
                Ok(Ok(Err(reply))) => reply.into(),
                Ok(Err(error)) => return Err(error),
                Err(_) => Answer::new("408 Request Timeout", "too slow"),
            }
        }
        Ok(Ok(Head::Whole(head))) => answer(&head, asked).await,
        Ok(Ok(Head::TooLarge)) => Answer::new("431 Request Header Fields Too Large", "too large"),
        Ok(Ok(Head::Nothing)) => return Ok(()),
        Ok(Err(error)) => return Err(error),
        Err(_) => Answer::new("408 Request Timeout", "too slow"),
    };
    timeout(DEADLINE, answer.send(stream)).await?
}

enum Head {
    Whole(Vec<u8>),
    TooLarge,
    Nothing,
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() > HEAD {
            return Ok(Head::TooLarge);
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(Head::Nothing);
        }
    }
    Ok(if head.len() > HEAD { Head::TooLarge } else { Head::Whole(head) })
}

/// A request that changes something.
struct Request {
    bytes: Vec<u8>,
    body: usize,
}

/// The request with its body; or why it is refused.
async fn read_body(mut bytes: Vec<u8>, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Request, Reply>> {
    let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let length = match members::body_length(&bytes[..body]) {
        Ok(length) => length,
        Err(reply) => return Ok(Err(reply)),
    };
    while bytes.len() < body + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(Err(Reply::error("400 Bad Request", "the body broke off")));
        }
    }
    bytes.truncate(body + length);
    Ok(Ok(Request { bytes, body }))
}

/// Does what is asked for. A purge takes the time it takes.
async fn change(Request { bytes, body }: &Request, asked: &Asked) -> Answer {
    let (head, body) = bytes.split_at(*body);
    let (method, path) = (head.split(|&byte| byte == b' ').next().unwrap_or_default(), path_of(head));
    let (reply, allow) = if purge::is_meant(path) {
        (purge::answer(asked.cache, method, target_of(head), body).await, purge::allowed(path))
    } else {
        let read = members::read(method, path, body);
        (read.map_or_else(|reply| reply, |wish| (asked.members)(wish)), "PUT, DELETE")
    };
    let allow = Some(allow).filter(|_| reply.status.starts_with("405"));
    Answer { allow, ..reply.into() }
}

fn target_of(head: &[u8]) -> &[u8] {
    head.split(|&byte| byte == b' ').nth(1).unwrap_or_default()
}

/// The path of a request, without its query.
fn path_of(head: &[u8]) -> &[u8] {
    target_of(head).split(|&byte| byte == b'?').next().unwrap_or_default()
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
    /// The methods that are, where one is not.
    allow: Option<&'static str>,
    head_only: bool,
}

impl Answer {
    fn new(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into(), allow: None, head_only: false }
    }

    async fn send(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let (status, kind, length) = (self.status, self.kind, self.body.len() + 1);
        let allow = self.allow.map(|methods| format!("Allow: {methods}\r\n")).unwrap_or_default();
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\n{allow}Content-Type: {kind}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        );
        if !self.head_only {
            bytes.push_str(&self.body);
            bytes.push('\n');
        }
        stream.write_all(bytes.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing while bytes are unread would reset the connection, and the client might lose the answer.
        tokio::io::copy(&mut stream.take(HEAD as u64 * 8), &mut tokio::io::sink()).await.map(drop)
    }
}

impl From<Reply> for Answer {
    fn from(Reply { status, body }: Reply) -> Self {
        Self { kind: "application/json", ..Self::new(status, body) }
    }
}

async fn answer(head: &[u8], asked: &Asked) -> Answer {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let parts: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let [method, target, b"HTTP/1.0" | b"HTTP/1.1"] = parts[..] else {
        return Answer::new("400 Bad Request", "malformed");
    };
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let found = match path {
        b"/healthz" => Answer::new("200 OK", "alive"),
        b"/metrics" if matches!(method, b"GET" | b"HEAD") => scrape(&asked.metrics).await,
        b"/metrics" => Answer::new("200 OK", ""),
        b"/readyz" => match (asked.ready)() {
            Readiness::Ready => Answer::new("200 OK", "ready"),
            Readiness::NotReady(why) => Answer::new("503 Service Unavailable", format!("not ready: {why}")),
        },
        _ => Answer::new("404 Not Found", "there are /healthz, /readyz, /metrics and /cache"),
    };
    match method {
        b"GET" => found,
        b"HEAD" => Answer { head_only: true, ..found },
        _ if found.status.starts_with("404") => found,
        _ => Answer { allow: Some("GET, HEAD"), ..Answer::new("405 Method Not Allowed", "only GET and HEAD") },
    }
}

/// The metrics. Files of the system are read for them, so it is done where nobody waits.
async fn scrape(metrics: &Arc<dyn Fn() -> String + Send + Sync>) -> Answer {
    let metrics = metrics.clone();
    match tokio::task::spawn_blocking(move || metrics()).await {
        // The end of the last line is written behind every body.
        Ok(page) => Answer { kind: metrics::CONTENT_TYPE, ..Answer::new("200 OK", page.trim_end()) },
        Err(_) => Answer::new("500 Internal Server Error", "the metrics could not be gathered"),
    }
}

#[cfg(test)]
mod tests;
