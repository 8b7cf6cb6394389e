//! What does Pingora ask of a guard beside bytes? The stream below knows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::AsyncWriteExt;

use super::Guard;

impl<S: IO + 'static> UniqueID for Guard<S> {
    fn id(&self) -> UniqueIDType {
        self.below().id()
    }
}

impl<S: IO + 'static> Ssl for Guard<S> {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.below().selected_alpn_proto()
    }
}

#[async_trait]
impl<S: IO + 'static> Peek for Guard<S> {}

impl<S: IO + 'static> GetTimingDigest for Guard<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.below().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.below().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.below().get_write_pending_time()
    }
}

impl<S: IO + 'static> GetProxyDigest for Guard<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.below().get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.below_mut().set_proxy_digest(digest);
    }
}

impl<S: IO + 'static> GetSocketDigest for Guard<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.below().get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.below_mut().set_socket_digest(digest);
    }
}

#[async_trait]
impl<S: IO + 'static> Shutdown for Guard<S> {
    async fn shutdown(&mut self) {
        // A client that is gone already is no news.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}
