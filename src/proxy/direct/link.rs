//! One connection to a backend, for one exchange.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use pingora::connectors::http::Connector;
use pingora::protocols::Stream;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::HttpSession as Http1;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::task::unconstrained;

use super::pool::Pool;

/// A connection of HTTP/1. Dropped before the end of its exchange it is closed.
pub(super) struct Link {
    pub(super) session: Http1,
    pub(super) reused: bool,
}

impl Link {
    /// A connection that was at rest.
    pub(super) fn reused(stream: Stream) -> Self {
        Self { session: Http1::new(stream), reused: true }
    }

    /// A new one.
    pub(super) async fn new(connector: &Connector, peer: &HttpPeer) -> Result<Self> {
        match connector.get_http_session(peer).await? {
            (HttpSession::H1(session), reused) => Ok(Self { session, reused }),
            (HttpSession::H2(_) | HttpSession::Custom(()), _) => {
                Error::e_explain(ErrorType::InternalError, "not a connection of HTTP/1")
            }
        }
    }

    /// Puts the connection to rest. To be called when the response has been read to its end.
    pub(super) async fn release(mut self, pool: &Pool, key: u64) {
        self.session.respect_keepalive();
        if let Some(stream) = self.session.reuse().await {
            pool.put(key, stream);
        }
    }
}

/// What a future has to say without waiting. Not held back by what else the task has done: that would look like a wait.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(unconstrained(future)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
