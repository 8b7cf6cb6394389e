//! What lets a client come back without a full handshake, and how often does one?
//!
//! rustls tells nobody whether a handshake was a short one, but asks here for what would make it one. A client that shows
//! something good and is refused for another reason, as for another name, is counted too; those are few.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ProducesTickets, ServerConfig, ServerSessionMemoryCache, StoresServerSessions};

use super::TlsError;
use crate::count::Count;

/// Sessions of TLS 1.2 clients without tickets that may resume; each takes a few hundred bytes.
const SESSIONS: usize = 10_000;

/// Tickets and sessions.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    /// New ones; what is good is counted.
    pub(super) fn new(good: &Arc<Count>) -> Result<Self, TlsError> {
        // Its keys change every six hours, and the one before is honoured for as long again.
        let tickets = Counted { inner: aws_lc_rs::Ticketer::new()?, good: good.clone() };
        let sessions = Counted { inner: ServerSessionMemoryCache::new(SESSIONS), good: good.clone() };
        Ok(Self { tickets: Arc::new(tickets), sessions: Arc::new(sessions) })
    }

    /// Has a configuration use them.
    pub(super) fn put_into(self, config: &mut ServerConfig) {
        config.ticketer = self.tickets;
        config.session_storage = self.sessions;
    }
}

/// Counts what was good.
#[derive(Debug)]
struct Counted<T> {
    inner: T,
    good: Arc<Count>,
}

impl<T> Counted<T> {
    fn count(&self, found: Option<Vec<u8>>) -> Option<Vec<u8>> {
        self.good.add(found.is_some().into());
        found
    }
}

impl ProducesTickets for Counted<Arc<dyn ProducesTickets>> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.count(self.inner.decrypt(cipher))
    }
}

impl StoresServerSessions for Counted<Arc<ServerSessionMemoryCache>> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.count(self.inner.get(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.count(self.inner.take(key))
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}
