//! How does a request get from its connection to the proxy? What Pingora asks of whoever serves one of HTTP/2.
//!
//! Each request runs in the scope of its connection and under a watch of its own. What is known of the connection is
//! in `proxy::connection`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::ProxyHttp;
use pingora::server::ShutdownWatch;

use crate::proxy::watched;
use crate::server::front::Front;

pub use crate::proxy::connection::*;

/// A connection of HTTP/2 on its way through the proxy: Pingora asks it for options and hands it every request.
pub(super) struct Served<P> {
    pub(super) connection: Arc<Connection>,
    pub(super) front: Arc<Front<P>>,
}

#[async_trait]
impl<P> HttpServerApp for Served<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    // Written out, where `async fn` would do: the future of a request takes some 13 KB, and each one that holds another
    // moves it once more.
    fn process_new_http<'app, 'shutdown, 'exchange>(
        self: &'app Arc<Self>,
        session: ServerSession,
        shutdown: &'shutdown ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'exchange>>
    where
        'app: 'exchange,
        'shutdown: 'exchange,
        Self: 'exchange,
    {
        self.connection.turn.next();
        Box::pin(watched(self.connection.clone(), self.front.proxy().process_new_http(session, shutdown)))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(self.front.server_options())
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.front.h2_options())
    }

    async fn http_cleanup(&self) {
        self.front.stop_waiting().await;
    }
}
