//! Where do connections come from? Sockets that are bound before anything starts, and loops that never give up.
//!
//! Binding tells the operator in plain words what is wrong. Accepting never ends because of an error, and never spins on
//! one. What happens to a connection is `front`'s.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use pingora::proxy::ProxyHttp;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::Address;
use crate::server::front::Front;
use crate::server::wire::Socket;
use crate::server::workers::Place;

/// Connections that may wait for us: as many as the system allows, which cuts this to its own limit.
const BACKLOG: u32 = 65_535;

/// How many are still taken when we stop: as many as wait with Linux's usual limit, for others may come as fast as we take
/// them.
const LAST_ONES: usize = 4096;

/// Who may connect to a unix socket: us and our group, as usual for sockets between services of one machine.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// For ours alone: whoever may connect there may change what we do, or have us start a program.
const PRIVATE_SOCKET_MODE: u32 = 0o600;

/// How long to wait when the system has no room for a connection: some other must close first.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is in use by another process")]
    InUse {
        /// The address.
        address: String,
    },
    /// The system does not let us.
    #[error("no permission to listen on {address}")]
    PermissionDenied {
        /// The address.
        address: String,
    },
    /// No network interface of this machine has the address.
    #[error("{address} is not an address of this machine")]
    NotOurs {
        /// The address.
        address: String,
    },
    /// The directory of a unix socket does not exist.
    #[error("there is no directory for the socket {address}")]
    NoDirectory {
        /// The address.
        address: String,
    },
    /// There is a file in the socket's place, and it is no socket.
    #[error("{address} exists and is not a socket")]
    NotASocket {
        /// The address.
        address: String,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: String, source: io::Error) -> Self {
        let kind = source.kind();
        if kind == ErrorKind::AddrInUse {
            Self::InUse { address }
        } else if kind == ErrorKind::PermissionDenied {
            Self::PermissionDenied { address }
        } else if kind == ErrorKind::AddrNotAvailable {
            Self::NotOurs { address }
        } else if matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory) {
            Self::NoDirectory { address }
        } else {
            Self::Other { address, source }
        }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::InUse { address } if is_unix(address) => "`ss -lxp` shows by which; stop it, or choose another path",
            Self::InUse { .. } => "`ss -ltnp` shows by which; stop it, or choose another port",
            Self::PermissionDenied { address } if is_unix(address) => {
                "this user must be allowed to write to its directory, and to a socket that is there already"
            }
            Self::PermissionDenied { .. } => {
                "a port below 1024 needs CAP_NET_BIND_SERVICE (AmbientCapabilities= of systemd, `setcap \
                 cap_net_bind_service=+ep` on the program); or choose a port above"
            }
            Self::NotOurs { .. } => "`ip address` shows this machine's; 0.0.0.0 and [::] mean all of them",
            Self::NoDirectory { .. } => "create it first, for this user",
            Self::NotASocket { .. } => "choose another path, or take the file away",
            Self::Other { .. } => "choose another address",
        }
    }
}

fn is_unix(address: &str) -> bool {
    address.starts_with("unix:")
}

/// A bound address, and the runtime that is told of those who connect to it.
#[derive(Debug)]
pub struct Listening {
    acceptor: Acceptor,
    bound: Arc<Bound>,
    address: Address,
}

/// The system queues connections for it.
#[derive(Debug)]
struct Bound {
    socket: OwnedFd,
    /// The file of a unix socket, to remove in the end; `None` for TCP.
    file: Option<PathBuf>,
    /// Whether the file is another process's.
    shared: AtomicBool,
}

#[derive(Debug)]
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// In the runtime that this is called in.
    fn of(bound: &Bound) -> io::Result<Self> {
        let socket = bound.socket.try_clone()?;
        Ok(match bound.file {
            None => Self::Tcp(TcpListener::from_std(socket.into())?),
            Some(_) => Self::Unix(UnixListener::from_std(socket.into())?),
        })
    }
}

/// A way to a socket that another process may need, which does not keep it open.
#[derive(Debug)]
pub(super) struct Held {
    /// The address as the configuration has it: its port may be 0.
    pub(super) asked: Address,
    socket: Weak<Bound>,
}

impl Held {
    /// The socket once more; `None` when we do not listen there any more.
    pub(super) fn share(&self) -> io::Result<Option<OwnedFd>> {
        let Some(bound) = self.socket.upgrade() else { return Ok(None) };
        bound.socket.try_clone().map(Some)
    }

    /// Says whether the socket's file is another process's, which leaves it there when we stop listening.
    pub(super) fn leave_file(&self, to_another: bool) {
        if let Some(bound) = self.socket.upgrade() {
            bound.shared.store(to_another, Relaxed);
        }
    }
}

/// Listens on an address. Must be called inside a tokio runtime.
pub fn bind(address: &Address) -> Result<Listening, BindError> {
    match address {
        Address::Tcp(address) => bind_tcp(*address).map_err(|error| BindError::new(address.to_string(), error)),
        Address::Unix(path) => bind_unix(path, UNIX_SOCKET_MODE),
    }
}

/// Listens; a unix socket is for this user and root alone. Must be called inside a tokio runtime.
pub(super) fn bind_private(address: &Address) -> Result<Listening, BindError> {
    match address {
        Address::Tcp(_) => bind(address),
        Address::Unix(path) => bind_unix(path, PRIVATE_SOCKET_MODE),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listening> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last connections of the process before it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Listening::tcp(socket.listen(BACKLOG)?.into_std()?)
}

fn bind_unix(path: &Path, mode: u32) -> Result<Listening, BindError> {
    let name = || format!("unix:{}", path.display());
    remove_stale(path)?;
    let listening = std::os::unix::net::UnixListener::bind(path).and_then(|listener| Listening::unix(listener, path));
    let listening = listening.map_err(|error| BindError::new(name(), error))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| BindError::new(name(), error))?;
    Ok(listening)
}

/// Goes on listening on a socket that another process has bound to an address, and whose file is its own until we are
/// told otherwise. Must be called inside a tokio runtime.
pub(super) fn inherit(socket: OwnedFd, address: &Address) -> Result<Listening, BindError> {
    let inherited = || match address {
        Address::Tcp(_) => Listening::tcp(socket.into()),
        Address::Unix(path) => Listening::unix(socket.into(), path),
    };
    let listening = inherited().map_err(|error| BindError::new(address.to_string(), error))?;
    listening.held(address).leave_file(true);
    Ok(listening)
}

/// Removes the socket file of a process that is gone: one that nobody answers on. Any other file stays.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt;
    let address = format!("unix:{}", path.display());
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { address });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| BindError::new(address, error))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(BindError::PermissionDenied { address }),
        // An answer, or a queue so full that there is none: either way somebody is there.
        Ok(_) | Err(_) => Err(BindError::InUse { address }),
    }
}

impl Listening {
    fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = Address::Tcp(listener.local_addr()?);
        Self::new(Bound { socket: listener.into(), file: None, shared: AtomicBool::new(false) }, address)
    }

    fn unix(listener: std::os::unix::net::UnixListener, path: &Path) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (file, shared) = (Some(path.to_owned()), AtomicBool::new(false));
        Self::new(Bound { socket: listener.into(), file, shared }, Address::Unix(path.to_owned()))
    }

    fn new(bound: Bound, address: Address) -> io::Result<Self> {
        Ok(Self { acceptor: Acceptor::of(&bound)?, bound: Arc::new(bound), address })
    }

    /// The same address, for another runtime. Whoever is first takes a connection.
    pub(super) fn in_runtime(&self, runtime: &Handle) -> Result<Self, BindError> {
        let _there = runtime.enter();
        let acceptor = Acceptor::of(&self.bound).map_err(|error| BindError::new(self.address.to_string(), error))?;
        Ok(Self { acceptor, bound: self.bound.clone(), address: self.address.clone() })
    }

    /// Remembers the socket, which was asked for by this address.
    pub(super) fn held(&self, asked: &Address) -> Held {
        Held { asked: asked.clone(), socket: Arc::downgrade(&self.bound) }
    }

    /// Where we listen, with the port that the system chose if it had to.
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.acceptor {
            Acceptor::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Accepted::tcp(stream, peer)),
            Acceptor::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::unix(stream)),
        }
    }

    /// One of those who wait for us at this moment. The system is asked itself: what the runtime was told may be old.
    fn accept_now(&self) -> io::Result<Accepted> {
        let socket = self.bound.socket.try_clone()?;
        if self.bound.file.is_some() {
            let (stream, _) = std::os::unix::net::UnixListener::from(socket).accept()?;
            stream.set_nonblocking(true)?;
            return UnixStream::from_std(stream).map(Accepted::unix);
        }
        let (stream, peer) = std::net::TcpListener::from(socket).accept()?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream).map(|stream| Accepted::tcp(stream, peer))
    }

    /// Those who wait for us when we stop listening, whom the system would turn away; nobody where another process goes on
    /// listening.
    fn last_ones(&self) -> impl Iterator<Item = Accepted> {
        let most = if self.bound.shared.load(Relaxed) { 0 } else { LAST_ONES };
        (0..most).map_while(|_| {
            loop {
                match self.accept_now() {
                    Err(error) if is_the_clients(&error) => {}
                    accepted => break accepted.ok(),
                }
            }
        })
    }
}

impl Drop for Bound {
    /// Whatever ends it, its socket file goes with it, unless another process listens there.
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && !self.shared.load(Relaxed)
        {
            // Best effort: the next start removes a file that nobody answers on.
            drop(std::fs::remove_file(file));
        }
    }
}

/// A connection that nobody has been served on yet.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub socket: Socket,
    /// Who connected; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that it connected to; `None` on a unix socket.
    pub local: Option<SocketAddr>,
    /// What has been read already, and is to be read again.
    pub ahead: BytesMut,
    /// The balancer that it comes from did not say whose it is.
    pub is_nobodys: bool,
}

impl Accepted {
    fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        // A socket for both families shows IPv4 clients under addresses of IPv6.
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let local = stream.local_addr().ok().map(canonical);
        Self {
            socket: Socket::Tcp(stream),
            peer: Some(canonical(peer)),
            local,
            ahead: BytesMut::new(),
            is_nobodys: false,
        }
    }

    /// In another runtime than the one that it was accepted in.
    pub(super) fn in_runtime(self, runtime: &Handle) -> io::Result<Self> {
        let _there = runtime.enter();
        let socket = match self.socket {
            Socket::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Socket::Unix(stream) => Socket::Unix(UnixStream::from_std(stream.into_std()?)?),
        };
        Ok(Self { socket, ..self })
    }

    /// The peers of a unix socket have no address.
    pub(super) fn unix(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), peer: None, local: None, ahead: BytesMut::new(), is_nobodys: false }
    }
}

/// Accepts connections until `shutdown` turns true (or nobody is left to turn it), and has each served by the worker that
/// has least to do. To be run by the worker whose place this is.
///
/// Who has connected by then is served. The address is free as soon as the last worker has come so far, and whatever has
/// begun goes on in tasks of its own.
pub async fn accept_forever<P>(
    listening: Listening,
    front: Arc<Front<P>>,
    place: Place,
    shutdown: watch::Receiver<bool>,
) where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut asked = shutdown.clone();
    let asked = asked.wait_for(|&down| down);
    tokio::pin!(asked);
    let serve = |accepted| {
        // Counted from here on, so that nobody who leaves overlooks one that no worker has looked at yet.
        let Some(admitted) = front.admit() else { return };
        let serve = |accepted| front.clone().serve(accepted, admitted, shutdown.clone());
        if let Err(error) = place.share_out(accepted, serve) {
            log::debug!("a connection was closed, because it could not be handed over: {error}");
        }
    };
    let mut in_trouble = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut asked => break,
            accepted = listening.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                in_trouble = false;
                serve(accepted);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                // One line for a whole stretch of trouble: the next accept would say the same, ten times a second.
                if !std::mem::replace(&mut in_trouble, true) {
                    log::error!("cannot accept connections, still trying: {error}");
                }
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
    listening.last_ones().for_each(serve);
}

/// Whether a connection was given up before we took it, which says nothing about the next one.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
