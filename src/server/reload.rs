//! What changes while we run? Another configuration, taken over whole or not at all.
//!
//! Everything that can fail happens before the snapshot is swapped, so a bad file changes nothing. Backends that are
//! in both configurations keep their state, counts and numbers. Sockets and threads cannot be swapped; what would need
//! that is named instead.

use std::sync::{Arc, PoisonError};

use super::front::Front;
use super::tls::TlsState;
use super::{Inner, StartError, start_upstreams};
use crate::config::{Config, Listener};
use crate::proxy::{Gateway, Snapshot};

/// A listener, and the TLS state that it is to get.
type Swap<'a> = (&'a Front<Gateway>, Arc<TlsState>);

/// What a reload could not take over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys whose change needs a restart.
    pub needs_restart: Vec<String>,
}

impl Inner {
    /// Takes over a configuration.
    pub(super) async fn reload(&self, config: Config) -> Result<Reloaded, StartError> {
        let _one_at_a_time = self.reloading.lock().await;
        let old_config = self.with_config(Config::clone);
        let (config, needs_restart) = keep_what_is_fixed(config, &old_config);
        let old = self.snapshot.load_full();
        let tls = self.prepare_tls(&config)?;
        let upstreams = start_upstreams(&config, &old.upstreams, &self.changes).await?;
        // From here on nothing can fail.
        self.snapshot.store(Arc::new(Snapshot::new(&config, upstreams.clone())));
        for (front, state) in tls {
            front.replace_tls(state);
        }
        for front in &self.fronts {
            front.trust(&config.server.trusted_proxies);
        }
        log::set_max_level(config.log.level);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        for (name, upstream) in &old.upstreams {
            let kept = upstreams.get(name).is_some_and(|new| Arc::ptr_eq(new, upstream));
            if !kept {
                // Requests in flight may hold it for a long time; its probes would go on beside the new ones.
                upstream.stop();
            }
        }
        self.changes.send_modify(|count| *count += 1);
        Ok(Reloaded { needs_restart })
    }

    /// Reads certificate files again where they have changed.
    pub(super) fn reload_certificates(&self) {
        for (index, front) in self.fronts.iter().enumerate() {
            match front.tls().map(|tls| tls.reload()) {
                Some(Ok(true)) => log::info!("listeners[{index}].tls: certificates were read again"),
                Some(Err(error)) => {
                    log::error!("listeners[{index}].tls: the old certificates stay in use: {error}");
                }
                Some(Ok(false)) | None => {}
            }
        }
    }

    /// Reads the certificates of listeners whose TLS has changed, ready to be put in place.
    fn prepare_tls(&self, config: &Config) -> Result<Vec<Swap<'_>>, StartError> {
        let mut swaps = Vec::new();
        for (index, (front, listener)) in self.fronts.iter().zip(&config.listeners).enumerate() {
            if let (Some(state), Some(tls)) = (front.tls(), &listener.tls) {
                let next = state.with_settings(tls).map_err(|source| StartError::Tls { index, source })?;
                swaps.push((&**front, Arc::new(next)));
            }
        }
        Ok(swaps)
    }
}

/// Keeps the old value of everything that only a restart can change, and names its key.
fn keep_what_is_fixed(mut config: Config, old: &Config) -> (Config, Vec<String>) {
    let mut keys = Vec::new();
    let mut keep = |changed: bool, key: &str| {
        if changed {
            keys.push(key.to_owned());
        }
        changed
    };
    let (new_server, old_server) = (&mut config.server, &old.server);
    if keep(new_server.threads != old_server.threads, "server.threads") {
        new_server.threads = old_server.threads;
    }
    if keep(new_server.max_connections != old_server.max_connections, "server.max_connections") {
        new_server.max_connections = old_server.max_connections;
    }
    if keep(new_server.reload != old_server.reload, "server.reload") {
        new_server.reload = old_server.reload.clone();
    }
    if keep(config.admin != old.admin, "admin.address") {
        config.admin.clone_from(&old.admin);
    }
    if keep(config.log.access != old.log.access, "log.access") {
        config.log.access.clone_from(&old.log.access);
    }
    if keep(config.log.dashboard != old.log.dashboard, "log.dashboard") {
        config.log.dashboard = old.log.dashboard;
    }
    let same_count = config.listeners.len() == old.listeners.len();
    let fixed = |new: &Listener, old: &Listener| fixed_part(new) == fixed_part(old);
    let same = same_count && config.listeners.iter().zip(&old.listeners).all(|(new, old)| fixed(new, old));
    if keep(!same, "listeners") {
        config.listeners.clone_from(&old.listeners);
    }
    (config, keys)
}

/// A listener without what a snapshot or its TLS state can take over.
fn fixed_part(listener: &Listener) -> Listener {
    let mut fixed = listener.clone();
    fixed.redirect_to_https = None;
    fixed.acme_challenges = None;
    if let Some(tls) = &mut fixed.tls {
        tls.certificates.clear();
        tls.self_signed.clear();
        tls.client_auth = None;
        tls.min_version = crate::config::TlsVersion::V1_2;
    }
    // Those of the body are in the snapshot; those of the head are kept by the guard below Pingora.
    fixed.timeouts.body = std::time::Duration::ZERO;
    fixed.timeouts.write = std::time::Duration::ZERO;
    fixed
}
