//! Who waits for the next request of an HTTP/1 connection? We do, with little more than the connection at hand.
//!
//! Pingora's own loop makes the session and the future of an exchange first and waits in them: tens of kilobytes for a
//! connection that may never say another word.

use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpPersistentSettings, HttpServerApp};
use pingora::protocols::IO;
use pingora::protocols::http::ServerSession;
use pingora::proxy::ProxyHttp;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::proxy::watched;
use crate::server::connection::Connection;
use crate::server::front::Front;
use crate::server::guard::{self, Guard};

/// How long, when we leave, a connection may still show a request: one that has just been accepted may have been sent one
/// that the runtime was not told of yet.
const LAST_LOOK: Duration = Duration::from_millis(10);

impl<P> Front<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    /// Serves one request after the other, and closes the connection so that the client can read the last answer.
    pub(super) async fn serve_http1<S: IO + 'static>(
        self: Arc<Self>,
        guard: Box<Guard<S>>,
        connection: Arc<Connection>,
        shutdown: watch::Receiver<bool>,
    ) {
        let (mut next, mut settings, mut leaving) = (Some(guard), None, self.leaving());
        while let Some(mut guard) = next.take() {
            connection.turn.next();
            if !has_request(&mut guard, &mut leaving).await {
                guard.goodbye().await;
                break;
            }
            let session = self.session(guard, settings.take(), *shutdown.borrow());
            let exchange = self.proxy().process_new_http(session, &shutdown);
            if let Some(kept) = watched(connection.clone(), exchange).await {
                let (stream, of_the_connection) = kept.consume();
                // It is the guard that the session was made of.
                next = stream.into_any().downcast().ok();
                settings = of_the_connection;
            }
        }
        if let Some(stream) = connection.turn.take_leftover() {
            guard::end(stream).await;
        }
    }

    fn session<S: IO + 'static>(
        &self,
        guard: Box<Guard<S>>,
        settings: Option<HttpPersistentSettings>,
        is_last: bool,
    ) -> ServerSession {
        let mut session = ServerSession::new_http1(guard);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => {
                // The guard holds the deadlines of a head; 0 tells Pingora to hold none of its own.
                session.set_keepalive((!is_last).then_some(0));
                session.set_keepalive_reuses_remaining(self.server_options().keepalive_request_limit);
            }
        }
        session
    }
}

/// Waits for the head of a request. Without one, the client has left, was too slow or is refused, or we leave: then a head
/// that has begun may still come to its end.
async fn has_request<S: IO + 'static>(guard: &mut Guard<S>, leaving: &mut watch::Receiver<bool>) -> bool {
    let last = async {
        let _ = leaving.wait_for(|&is_so| is_so).await;
        // Boxed: connections that wait shall not carry the room for it.
        Box::pin(sleep(LAST_LOOK)).await;
    };
    tokio::select! {
        biased;
        () = guard.first_bytes() => {}
        () = last => return false,
    }
    guard.has_head().await
}
