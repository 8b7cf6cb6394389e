//! Who belongs to an upstream, and where are they? Asked in the background, never on a request's way.
//!
//! A [`Discovery`] is one place that knows who belongs; `follow` asks it for ever and keeps what it has said last, so
//! that a place that fails or falls silent takes nobody away. Names become addresses in `dns`.

pub mod ask;
pub mod dns;
pub mod file;
mod follow;
pub mod http;
pub mod located;
pub mod names;
pub mod register;
pub mod set;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use thiserror::Error;

use crate::config::members::{Members, Rules};
use crate::config::{self, Backend, Discover};

use self::file::ListFile;
use self::http::PolledList;
use self::names::{Addresses, Asking, Services};
use self::register::{Registered, Registry};

pub use self::follow::{Followed, follow};

/// A place that knows who belongs to an upstream.
#[async_trait]
pub trait Discovery: Send {
    /// Waits until it is time to look (the first time that is at once), and says who belongs.
    async fn next(&mut self) -> Result<Found, Failure>;
}

/// Everybody who belongs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The backends, and what could not be understood.
    pub members: Members,
    /// Whether nobody may be the truth; else it is taken for a failure.
    pub may_be_empty: bool,
}

/// Why there is no answer, in a few words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl From<Members> for Found {
    fn from(members: Members) -> Self {
        Self { members, may_be_empty: false }
    }
}

/// A place, and where backends register if it is of that kind.
pub struct Place {
    /// Who is asked.
    pub discovery: Box<dyn Discovery>,
    /// Where backends register.
    pub registry: Option<Arc<Registry>>,
}

/// The place that an upstream's configuration names, if it names one. Whoever has registered `before` is still there, and
/// if there was no registry, whoever was `known` has time to register.
pub fn of(upstream: &config::Upstream, before: Option<&Registry>, known: &[Backend]) -> Option<Place> {
    let rules = Rules::of(upstream, None);
    let discovery: Box<dyn Discovery> = match upstream.discover.clone()? {
        Discover::Dns { host, port, tls, interval, server } => {
            Box::new(Addresses::new(host, port, tls, Asking { server, interval }))
        }
        Discover::Srv { name, interval, server } => Box::new(Services::new(name, Asking { server, interval })),
        Discover::File(path) => Box::new(ListFile::new(path, rules)),
        Discover::Http { url, interval } => Box::new(PolledList::new(url, interval, rules)),
        Discover::Register { ttl } => {
            let registry = Registry::new(ttl, rules, before);
            if before.is_none() {
                registry.expect(known, Instant::now());
            }
            let discovery = Box::new(Registered::new(registry.clone()));
            return Some(Place { discovery, registry: Some(registry) });
        }
    };
    Some(Place { discovery, registry: None })
}
