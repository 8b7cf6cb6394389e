//! Who belongs to an upstream, and where are they? Asked in the background, never on a request's way.
//!
//! A [`Discovery`] is one place that knows who belongs; [`follow`] asks it for ever and keeps what it has said last, so
//! that a place that fails or falls silent takes nobody away. Names become addresses in `dns`.

pub mod dns;
pub mod file;
mod follow;
pub mod set;

use async_trait::async_trait;
use thiserror::Error;

use crate::config::members::{Members, Rules};
use crate::config::{self, Discover};

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

/// The place that an upstream's configuration names, if it names one.
pub fn of(upstream: &config::Upstream) -> Option<Box<dyn Discovery>> {
    match upstream.discover.as_ref()? {
        Discover::File(path) => Some(Box::new(file::ListFile::new(path.clone(), Rules::of(upstream, path.parent())))),
    }
}
