//! Why did a front door not open? Every reason at once, with the key that it is about.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::listen::BindError;
use super::tls::TlsError;
use crate::backend::PeerTlsError;
use crate::cache::disk::DiskError;

/// Why a front door did not open.
#[derive(Debug, Error)]
pub enum StartError {
    /// Addresses cannot be listened on.
    #[error("{}", listed(.0))]
    Bind(Vec<Unbound>),
    /// A listener's certificates cannot be used.
    #[error("listeners[{index}].tls: {source}")]
    Tls {
        /// The listener.
        index: usize,
        /// Why.
        source: TlsError,
    },
    /// The TLS files of an upstream cannot be used.
    #[error("upstreams.{upstream}.tls: {source}")]
    PeerTls {
        /// The upstream.
        upstream: Arc<str>,
        /// Why.
        source: PeerTlsError,
    },
    /// The sockets of a running front door stay as they are.
    #[error("a change of {0} needs a restart")]
    NeedsRestart(String),
    /// A file that routes refer to cannot be used.
    #[error(transparent)]
    Unusable(#[from] crate::files::Unusable),
    /// The cache on disk cannot be opened.
    #[error("cache.disk: {0}")]
    CacheDisk(#[from] DiskError),
    /// The access log cannot be written.
    #[error("log.access: {0}")]
    AccessLog(io::Error),
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct Unbound {
    /// The key that asks for it.
    pub key: String,
    /// Why it cannot.
    pub source: BindError,
}

fn listed(unbound: &[Unbound]) -> String {
    let told = |Unbound { key, source }: &Unbound| format!("{key}: {source}\n  help: {}", source.help());
    unbound.iter().map(told).collect::<Vec<_>>().join("\n")
}
