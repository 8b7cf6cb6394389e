//! What does one backend say? One request without a body to one backend, until the head of its answer is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType, Result};
use tokio::time::timeout;

use crate::backend::Backend;
use crate::proxy::cause;
use crate::proxy::direct::head;
use crate::proxy::patience::Patience;
use crate::proxy::reply::never_has_a_body;
use crate::proxy::watch::Late;
use crate::upstream::dial::Line;

/// A request that is to be sent.
pub(super) struct Call {
    pub(super) connector: Arc<Connector>,
    pub(super) peer: Box<HttpPeer>,
    pub(super) head: RequestHeader,
    pub(super) patience: Patience,
    pub(super) backend: Arc<Backend>,
}

/// What came of it, once there was a connection.
pub(super) struct Heard {
    pub(super) link: Box<Link>,
    /// Taken when the connection was, which says that it is in use.
    pub(super) line: Option<Line>,
    /// When the request was on its way.
    pub(super) sent: Instant,
    /// How long connecting took; `None` on a connection of the pool.
    pub(super) connect: Option<Duration>,
    pub(super) head: Result<(Box<ResponseHeader>, End)>,
    pub(super) late: Option<Late>,
}

/// Whether a response has more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Here,
    Later,
}

impl From<bool> for End {
    fn from(ended: bool) -> Self {
        if ended { Self::Here } else { Self::Later }
    }
}

impl Call {
    /// Sends it and waits for the head of the answer. An error is that there was no connection.
    pub(super) async fn make(self) -> Result<Heard> {
        let Self { connector, peer, head, patience, backend } = self;
        let began = Instant::now();
        let (session, reused) = connector.get_http_session(&*peer).await.map_err(|error| error.into_up())?;
        backend.counts.connection(reused);
        let line = session.digest().and_then(Line::of);
        let sent = Instant::now();
        let mut link = Box::new(Link { session: Some(session), connector, peer, reused });
        let (limit, late) = patience.at(sent);
        let answered = timeout(limit, link.ask(head)).await;
        let late = answered.is_err().then_some(late);
        let head = answered.unwrap_or_else(|_| Err(cause::of_a_cut()));
        let connect = (!reused).then(|| sent.saturating_duration_since(began));
        Ok(Heard { link, line, sent, connect, head, late })
    }
}

/// A connection that holds one exchange. Dropped before its end it is closed; on HTTP/2 only the stream is.
pub(super) struct Link {
    session: Option<HttpSession>,
    connector: Arc<Connector>,
    pub(super) peer: Box<HttpPeer>,
    pub(super) reused: bool,
}

impl Link {
    /// Sends a request, and reads the head of its answer.
    async fn ask(&mut self, head: RequestHeader) -> Result<(Box<ResponseHeader>, End)> {
        let options = &self.peer.options;
        let (read, write, tls) = (options.read_timeout, options.write_timeout, self.peer.is_tls());
        let session = self.session()?;
        session.set_read_timeout(read);
        session.set_write_timeout(write);
        let asked = match session {
            HttpSession::H1(http1) => match http1.write_request_header(Box::new(head)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            HttpSession::H2(http2) => http2.write_request_header(Box::new(head::for_http2(head, tls)?), true),
            HttpSession::Custom(()) => Err(nothing_else()),
        };
        asked.map_err(|error| error.into_up())?;
        loop {
            match self.next().await? {
                HttpTask::Header(head, end) if is_final(head.status) => return Ok((head, end.into())),
                // Nobody has asked for an interim response (RFC 9110, section 15.2).
                HttpTask::Header(..) => {}
                HttpTask::Body(..)
                | HttpTask::UpgradedBody(..)
                | HttpTask::Trailer(_)
                | HttpTask::Done
                | HttpTask::Failed(_) => return Err(nothing_else().into_up()),
            }
        }
    }

    /// The next part of the response.
    pub(super) async fn next(&mut self) -> Result<HttpTask> {
        let task = match self.session()? {
            HttpSession::H1(http1) => http1.read_response_task().await,
            HttpSession::H2(http2) => next_of_http2(http2).await,
            HttpSession::Custom(()) => Err(nothing_else()),
        };
        if let Err(error) = &task {
            self.prefer_http1_after(error);
        }
        task.map_err(|error| error.into_up())
    }

    /// Gives the connection back to the pool. To be called when the response has been read to its end.
    pub(super) async fn release(mut self) {
        if let Some(session) = self.session.take() {
            self.connector.release_http_session(session, &*self.peer, self.peer.idle_timeout()).await;
        }
    }

    fn session(&mut self) -> Result<&mut HttpSession> {
        self.session.as_mut().ok_or_else(nothing_else)
    }

    /// As Pingora does where there is a choice.
    fn prefer_http1_after(&self, error: &Error) {
        let may = self.peer.get_alpn().is_none_or(|alpn| alpn.get_min_http_version() == 1);
        if may && matches!(error.etype(), ErrorType::H2Downgrade | ErrorType::InvalidH2) {
            self.connector.prefer_h1(&*self.peer);
        }
    }
}

impl Drop for Link {
    /// A connection of HTTP/2 lives on, and must get back to the pool to be closed by it some day.
    fn drop(&mut self) {
        let Some(session @ HttpSession::H2(_)) = self.session.take() else { return };
        let (connector, peer) = (self.connector.clone(), self.peer.clone());
        tokio::spawn(async move { connector.release_http_session(session, &*peer, peer.idle_timeout()).await });
    }
}

fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

async fn next_of_http2(session: &mut Http2Session) -> Result<HttpTask> {
    if session.response_header().is_none() {
        session.read_response_header().await?;
        let ended = session.check_response_end_or_error()?;
        let head = Box::new(session.response_header().cloned().ok_or_else(nothing_else)?);
        if ended && promises_a_body(session, &head) {
            return Error::e_explain(ErrorType::H2Error, "the body that was announced is missing");
        }
        return Ok(HttpTask::Header(head, ended));
    }
    while let Some(data) = session.read_response_body().await? {
        let ended = session.check_response_end_or_error()?;
        // To HTTP/1.1 an empty chunk would be the last one.
        if ended || !data.is_empty() {
            return Ok(HttpTask::Body(Some(data), ended));
        }
    }
    Ok(session.read_trailers().await?.map_or(HttpTask::Done, |trailers| HttpTask::Trailer(Some(Box::new(trailers)))))
}

/// RFC 9113, section 8.1.1: what the length says must come, but to HEAD, or with 204 or 304.
fn promises_a_body(session: &Http2Session, head: &ResponseHeader) -> bool {
    let without =
        never_has_a_body(head.status) || session.request_header().is_some_and(|request| request.method == Method::HEAD);
    let length = head.headers.get(CONTENT_LENGTH);
    !without && length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// What Pingora's sessions never do.
fn nothing_else() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "this session is of another kind or over")
}
