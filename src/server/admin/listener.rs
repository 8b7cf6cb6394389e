//! Where is the admin address? A TCP port or a unix socket, behind one `accept`.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::Address;

/// A bound admin address.
#[derive(Debug)]
pub enum Listener {
    /// On an IP address.
    Tcp(TcpListener),
    /// On a unix socket.
    Unix(UnixListener),
}

/// A connection of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    /// Binds the address. A unix socket that nobody listens on any more is replaced.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Address::Unix(path) => {
                remove_if_abandoned(path).await?;
                Ok(Self::Unix(UnixListener::bind(path)?))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Only a socket is ever removed, and only if nobody answers there: a path may be mistyped.
async fn remove_if_abandoned(path: &Path) -> io::Result<()> {
    let is_socket = tokio::fs::symlink_metadata(path).await.is_ok_and(|meta| meta.file_type().is_socket());
    match UnixStream::connect(path).await {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => {
            tokio::fs::remove_file(path).await
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
