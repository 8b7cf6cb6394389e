//! How is a connection to a backend made? The dialler that Pingora's connector calls, and the line that cuts one off.
//!
//! Pingora has one read timeout a connection, and starts it when the head of the request is sent, so it would blame a
//! backend for a client that uploads slowly. We time attempts ourselves (see `proxy::watch`), and need a way to end
//! one: each connection carries a second handle to its socket, a [`Line`], which shuts it down. Pingora then sees the
//! end of the stream and goes its usual way.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, GetProxyDigest};
use pingora::{Error, ErrorType, OrErr, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::idle::Idle;

const NO_HANDLE: &str = "no second handle to a socket";

/// How often a connection is said to have been used once it was cut for having been idle.
const CUT: u32 = u32::MAX;

/// A second handle to the socket of an upstream connection.
///
/// The connection itself has one, and each exchange that uses it another.
#[derive(Clone, Debug)]
pub struct Line(Arc<Socket>);

#[derive(Debug)]
pub(super) struct Socket {
    handle: OwnedFd,
    uses: AtomicU32,
}

impl From<Arc<Socket>> for Line {
    fn from(socket: Arc<Socket>) -> Self {
        Self(socket)
    }
}

impl Line {
    /// The line of the connection that a digest belongs to, for an exchange that uses it; `None` if another dialler made
    /// it.
    pub fn of(digest: &Digest) -> Option<Self> {
        Self::told_by(digest.proxy_digest.as_ref()?)
    }

    /// The same, of what the connection itself tells.
    pub fn told_by(proxy: &ProxyDigest) -> Option<Self> {
        Some(proxy.user_data.as_ref()?.downcast_ref::<Self>()?.taken())
    }

    /// The line of a socket.
    pub(crate) fn to(socket: &impl AsFd) -> io::Result<Self> {
        let handle = socket.as_fd().try_clone_to_owned()?;
        Ok(Self(Arc::new(Socket { handle, uses: AtomicU32::new(0) })))
    }

    /// Another handle, for one who uses the connection.
    pub(super) fn taken(&self) -> Self {
        self.0.uses.fetch_add(1, Relaxed);
        self.clone()
    }

    /// Ends the connection, in both directions.
    pub fn cut(&self) {
        // It may be closed already, and that is what was wanted.
        let _ = shutdown(&self.0.handle, Shutdown::Both);
    }

    /// Whether somebody uses it besides the connection itself and the one who asks, as on HTTP/2.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 2
    }

    /// How often it has been taken: a number that stays the same while nobody uses the connection.
    pub(super) fn uses(&self) -> u32 {
        self.0.uses.load(Relaxed)
    }

    /// Ends the connection unless somebody has taken it since; says whether it did. One who takes it at the very moment
    /// after meets a stale connection, as when the backend closes it.
    pub(super) fn cut_if_unused_since(&self, uses: u32) -> bool {
        let unused = self.0.uses.compare_exchange(uses, CUT, Relaxed, Relaxed).is_ok();
        if unused {
            self.cut();
        }
        unused
    }

    pub(super) fn downgrade(&self) -> Weak<Socket> {
        Arc::downgrade(&self.0)
    }

    /// Whether the backend has sent something that nobody has read yet: then it is not the one who is late.
    pub fn has_unread(&self) -> bool {
        self.is_ready(PollFlags::IN)
    }

    /// Whether the backend has room for more of the request.
    pub fn has_room(&self) -> bool {
        self.is_ready(PollFlags::OUT)
    }

    fn is_ready(&self, for_what: PollFlags) -> bool {
        let mut asked = [PollFd::new(&self.0.handle, for_what)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

/// Makes connections with a deadline, each with its [`Line`].
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) timeout: Duration,
    /// Who closes them when they are idle; `None` where Pingora does.
    pub(super) idle: Option<Arc<Idle>>,
    /// What is said before anything else, even before TLS.
    pub(super) header: Option<Vec<u8>>,
}

#[async_trait]
impl L4Connect for Dialler {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        match tokio::time::timeout(self.timeout, self.dial(address)).await {
            Ok(connected) => connected,
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, format!("no connection within {:?}", self.timeout)),
        }
    }
}

impl Dialler {
    async fn dial(&self, address: &SocketAddr) -> Result<Stream> {
        match address {
            SocketAddr::Inet(address) => {
                let mut socket = TcpStream::connect(address).await.map_err(refused)?;
                self.announce(&mut socket).await?;
                let line = self.line(&socket)?;
                Ok(with_line(Stream::from(socket), line))
            }
            SocketAddr::Unix(address) => {
                let path = address.as_pathname().unwrap_or("".as_ref());
                let mut socket = UnixStream::connect(path).await.map_err(refused)?;
                self.announce(&mut socket).await?;
                let line = self.line(&socket)?;
                Ok(with_line(Stream::from(socket), line))
            }
        }
    }

    async fn announce(&self, socket: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        match &self.header {
            Some(header) => socket.write_all(header).await.map_err(refused),
            None => Ok(()),
        }
    }

    fn line(&self, socket: &impl AsFd) -> Result<Line> {
        let line = Line::to(socket).or_err(ErrorType::InternalError, NO_HANDLE)?;
        if let Some(idle) = &self.idle {
            idle.watch(&line);
        }
        Ok(line)
    }
}

/// Pingora's connections have one slot for data of the program's: the answer of a CONNECT proxy, which we never use.
fn with_line(mut stream: Stream, line: Line) -> Stream {
    if let Ok(unused) = ResponseHeader::build(200, Some(0)) {
        stream.set_proxy_digest(ProxyDigest::new(Box::new(unused), Some(Box::new(line))));
    }
    stream
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the list of the system's errors is long, open, and not ours")]
fn refused(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        _ => ErrorType::ConnectError,
    };
    Error::because(kind, "cannot connect", error)
}
