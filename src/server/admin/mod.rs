//! Who asks us, and for what? Probes, operators, the status page and backends that register, on an address of their own.
//!
//! A few lines of HTTP/1.1 instead of the proxy: the answer must come even when the proxy is full, and nothing about
//! it depends on the configuration. One request a connection, each with a bound in time and size, and a bounded number
//! of connections. What there is to ask stands in `operations`, who may ask in `guard`, what is wanted in `operator`.

mod answer;
mod guard;
mod head;
mod openapi;
mod operations;
pub mod operator;
mod page;
mod purge;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::answer::{Answer, stream_events};
use self::guard::{From, Who};
use self::head::{Head, NoHead};
use self::operations::{Found, What, find};
use self::operator::{Asking, Operator, Reply};
use super::listen::{Accepted, Listening};
use super::wire::Socket;
use crate::cache::Cache;
use crate::observe::metrics;
use crate::observe::seldom::Seldom;

/// Connections at a time: probes are few; the next ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// For the whole head of a request, for its body, and again for the answer.
const DEADLINE: Duration = Duration::from_secs(5);
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
    /// For whatever an operator wants.
    pub operator: Arc<dyn Operator>,
    /// What `/metrics` says; it may block for a moment.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What is purged.
    pub cache: &'static Cache,
}

/// Answers on a listener until `shutdown` becomes true, or its sender is dropped.
pub async fn serve(listener: Listening, asked: Asked, mut shutdown: watch::Receiver<bool>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let refused = Arc::new(Seldom::default());
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
                let (asked, refused) = (asked.clone(), refused.clone());
                connections.spawn(async move {
                    let from = from(&accepted);
                    // A client that breaks off is its own affair.
                    let _ = converse(accepted.socket, from, &asked, &refused).await;
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

fn from(accepted: &Accepted) -> From {
    let user = match &accepted.socket {
        Socket::Tcp(_) => None,
        Socket::Unix(stream) => stream.peer_cred().ok().map(|peer| peer.uid()),
    };
    From { peer: accepted.peer, user }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    from: From,
    asked: &Asked,
    refused: &Seldom,
) -> io::Result<()> {
    let too_slow = || Answer::text("408 Request Timeout", "too slow");
    let mut head = match timeout(DEADLINE, head::read(&mut stream)).await {
        Ok(head) => match head? {
            Ok(head) => head,
            Err(NoHead::Nothing) => return Ok(()),
            Err(NoHead::TooLarge) => {
                return send(Answer::text("431 Request Header Fields Too Large", "too large"), stream).await;
            }
            Err(NoHead::Malformed) => return send(Answer::text("400 Bad Request", "malformed"), stream).await,
        },
        Err(_) => return send(too_slow(), stream).await,
    };
    let (operation, parameters, who) = match admitted(&head, from, asked, refused) {
        Ok(admitted) => admitted,
        Err(answer) => return send(answer.without_body_for(&head), stream).await,
    };
    if operation == What::Events {
        return events(&head, stream, asked).await;
    }
    let answer = match timeout(DEADLINE, head.body(&mut stream)).await {
        Ok(body) => match body? {
            Ok(body) => answer(operation, &head, (&parameters, &body), asked, &who).await,
            Err(reply) => reply.into(),
        },
        Err(_) => too_slow(),
    };
    send(answer.without_body_for(&head), stream).await
}

async fn send(answer: Answer, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    timeout(DEADLINE, answer.send(stream)).await?
}

/// What is asked for, and by whom, if it is there and they may.
fn admitted(head: &Head, from: From, asked: &Asked, refused: &Seldom) -> Result<(What, Vec<String>, Who), Answer> {
    let found = find(&head.method, head.path());
    let kind = if let Found::Operation(operation, _) = &found { operation.what.kind() } else { guard::Kind::Fact };
    let who = guard::admit(head, kind, from, asked.operator.token().as_ref()).map_err(|reply| {
        if let Some(more) = refused.may_log() {
            let (method, why) = (&head.method, reply.status);
            let from = from.peer.map_or_else(|| "the socket".to_owned(), |peer| peer.to_string());
            log::warn!(target: "portcullis::admin", "{from} was refused: {} {why} ({more} more)", method.escape_debug());
        }
        Answer::from(reply)
    })?;
    match found {
        Found::Operation(operation, parameters) => Ok((operation.what, parameters, who)),
        Found::OtherMethods(methods) => {
            let help = format!("the methods here are {methods}");
            Err(Answer::from(Reply::problem("405 Method Not Allowed", "this method is not for this path", help))
                .allow(methods))
        }
        Found::Nothing => {
            Err(Reply::problem("404 Not Found", "there is nothing here", "GET /openapi.json lists all that there is")
                .into())
        }
        Found::Malformed => {
            let help = "write names in UTF-8, with %2F for a slash";
            Err(Reply::problem("400 Bad Request", "a name in the path cannot be read", help).into())
        }
    }
}

/// Does what is asked for. A purge, and a change of backends, take the time they take.
async fn answer(what: What, head: &Head, (parameters, body): (&[String], &[u8]), asked: &Asked, who: &Who) -> Answer {
    match what {
        What::Healthz => Answer::text("200 OK", "alive"),
        What::Readyz => match (asked.ready)() {
            Readiness::Ready => Answer::text("200 OK", "ready"),
            Readiness::NotReady(why) => Answer::text("503 Service Unavailable", format!("not ready: {why}")),
        },
        What::Page(file) => Answer::page(file),
        What::Metrics => scrape(&asked.metrics).await,
        What::OpenApi => Reply::of("200 OK", &openapi::document()).into(),
        What::Cache => purge::status(asked.cache).into(),
        What::Purge => purge::purge(asked.cache, head.query(), body, who).await.into(),
        What::Operate(operate) => {
            let asking = Asking { parameters, query: head.query(), body };
            match asking.read(operate) {
                Ok(wish) => asked.operator.grant(wish, &who.to_string()).await.into(),
                Err(reply) => reply.into(),
            }
        }
        // Answered as long as somebody listens, and not here.
        What::Events => Answer::text("200 OK", ""),
    }
}

/// The metrics. Files of the system are read for them, so it is done where nobody waits.
async fn scrape(metrics: &Arc<dyn Fn() -> String + Send + Sync>) -> Answer {
    let metrics = metrics.clone();
    match tokio::task::spawn_blocking(move || metrics()).await {
        // The end of the last line is written behind every body.
        Ok(page) => Answer::text("200 OK", page.trim_end()).of_kind(metrics::CONTENT_TYPE),
        Err(_) => Answer::text("500 Internal Server Error", "the metrics could not be gathered"),
    }
}

async fn events(head: &Head, stream: impl AsyncRead + AsyncWrite + Unpin, asked: &Asked) -> io::Result<()> {
    if head.method == "HEAD" {
        return send(Answer::of_events().without_body_for(head), stream).await;
    }
    match asked.operator.listen() {
        Some(listener) => stream_events(listener, stream, &*asked.operator).await,
        None => {
            let what = "too many listen already";
            send(Reply::problem("503 Service Unavailable", what, "close a page that is open elsewhere").into(), stream)
                .await
        }
    }
}

#[cfg(test)]
mod tests;
