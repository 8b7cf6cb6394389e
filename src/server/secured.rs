//! What lies between a wire and Pingora under TLS? rustls, and the traits that Pingora asks of a stream.
//!
//! Pingora's own type for one keeps the room of the handshake, and a copy of what was settled, for as long as the
//! connection stays. Whatever is worth knowing is asked for once here, as [`TlsFacts`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::auth::Certificate;
use crate::server::connection::TlsFacts;
use crate::server::wire::Wire;

/// A wire under TLS, after the handshake.
#[derive(Debug)]
pub(super) struct Secured {
    stream: TlsStream<Wire>,
}

impl Secured {
    /// Shakes hands. An error is the system's, or tells of a [`rustls::Error`]; the wire comes back with it, since the alert
    /// that tells the client (RFC 8446, section 6.2) is not sent before whoever has it ends it.
    pub(super) async fn accept(config: Arc<ServerConfig>, wire: Wire) -> Result<Self, (io::Error, Wire)> {
        let stream = TlsAcceptor::from(config).accept(wire).into_fallible().await?;
        Ok(Self { stream })
    }

    /// What the handshake settled.
    pub(super) fn facts(&self) -> TlsFacts {
        let (_, session) = self.stream.get_ref();
        // rustls names the versions as its constants are; the world writes them with a dot.
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            // It speaks no other.
            Some(_) | None => "",
        };
        TlsFacts {
            version,
            server_name: session.server_name().map(Arc::from),
            certificate: session.peer_certificates().and_then(|chain| Certificate::new(chain.to_vec())).map(Arc::new),
        }
    }

    /// Whether the client has chosen HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    fn wire(&self) -> &Wire {
        self.stream.get_ref().0
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(_)) = read {
            // rustls has written an alert, and whoever gets the error will write nothing more.
            let _ = Pin::new(self.stream.get_mut().0).poll_flush(cx);
        }
        read
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl UniqueID for Secured {
    fn id(&self) -> UniqueIDType {
        self.wire().id()
    }
}

impl Ssl for Secured {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.is_http2().then_some(ALPN::H2)
    }
}

#[async_trait]
impl Peek for Secured {}

impl GetTimingDigest for Secured {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.wire().get_timing_digest()
    }
}

impl GetProxyDigest for Secured {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }

    fn set_proxy_digest(&mut self, _digest: ProxyDigest) {}
}

impl GetSocketDigest for Secured {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.wire().get_socket_digest()
    }

    /// The wire has its own from the start.
    fn set_socket_digest(&mut self, _digest: SocketDigest) {}
}

#[async_trait]
impl Shutdown for Secured {
    async fn shutdown(&mut self) {
        // A client that is gone already is no news.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}
