//! Where does an upstream's membership come from, besides the file? The `discover` section, checked.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where backends come from that the file does not name.
#[derive(Clone, Debug, PartialEq)]
pub enum Discover {
    /// Each address of a host in DNS.
    Dns {
        /// The name.
        host: Arc<str>,
        /// The port of each.
        port: u16,
        /// Whether they are spoken to over TLS.
        tls: bool,
        /// The longest time between two questions.
        interval: Duration,
        /// The server that is asked; `None` is those of the system.
        server: Option<SocketAddr>,
    },
    /// Each service of an SRV name.
    Srv {
        /// The name.
        name: Arc<str>,
        /// The longest time between two questions.
        interval: Duration,
        /// The server that is asked; `None` is those of the system.
        server: Option<SocketAddr>,
    },
    /// From a list in a file, which is watched.
    File(PathBuf),
    /// From a JSON list at a URL.
    Http {
        /// Where it is.
        url: HttpUrl,
        /// Between two looks.
        interval: Duration,
    },
    /// They register themselves.
    Register {
        /// How long a heartbeat holds.
        ttl: Duration,
    },
}

/// A URL that something is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// The host: a name, or an address without brackets.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl HttpUrl {
    /// Whether nobody else is on the way there.
    pub fn is_loopback(&self) -> bool {
        &*self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// What the Host field says: without a port that the scheme implies.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        let implied = if self.tls { 443 } else { 80 };
        if self.port == implied { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for HttpUrl {
    /// Without the query, which may hold what nobody shall read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}
