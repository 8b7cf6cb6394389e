//! What changes while we run? Another configuration, taken over whole or not at all.
//!
//! Everything that can fail happens before the snapshot is swapped, so a bad file changes nothing. Backends that are
//! in both configurations keep their state, counts and numbers. Sockets and threads cannot be swapped; what would need
//! that is named instead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::facts::Loaded;
use super::front::Front;
use super::members::Followers;
use super::replacement::{Replacement, reads_files};
use super::tls::TlsState;
use super::{Inner, StartError};
use crate::config::changes::Changes;
use crate::config::{Config, Listener, ListenerTimeouts};
use crate::count::Count;
use crate::observe::access_log::AccessLog;
use crate::proxy::{Admissions, Gateway, Snapshot};

/// A listener, and the TLS state that it is to get.
type Swap<'a> = (&'a Front<Gateway>, Arc<TlsState>);

/// What a reload could not take over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys whose change needs a restart.
    pub needs_restart: Vec<String>,
}

/// What became of the reloads.
#[derive(Debug)]
pub(super) struct Reloads {
    pub(super) done: Count,
    pub(super) not_done: Count,
    has_failed: AtomicBool,
    /// When the configuration that is in effect was taken over, in milliseconds since 1970.
    at: AtomicU64,
}

impl Default for Reloads {
    fn default() -> Self {
        Self {
            done: Count::default(),
            not_done: Count::default(),
            has_failed: AtomicBool::new(false),
            at: now().into(),
        }
    }
}

impl Reloads {
    /// One has changed nothing.
    pub(super) fn failed(&self) {
        self.not_done.one();
        self.has_failed.store(true, Relaxed);
    }

    fn succeeded(&self) {
        self.done.one();
        self.has_failed.store(false, Relaxed);
        self.at.store(now(), Relaxed);
    }

    /// Whether the last one was done, and when the configuration in effect was taken over, in seconds since 1970.
    pub(super) fn last(&self) -> (bool, f64) {
        (!self.has_failed.load(Relaxed), self.at.load(Relaxed) as f64 / 1000.0)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Inner {
    /// Takes over a configuration.
    pub(super) async fn reload(&self, config: Config) -> Result<Reloaded, StartError> {
        let outcome = self.take_over(config).await;
        match outcome {
            Ok(_) => self.reloads.succeeded(),
            Err(_) => self.reloads.failed(),
        }
        outcome
    }

    async fn take_over(&self, config: Config) -> Result<Reloaded, StartError> {
        let _one_at_a_time = self.reloading.lock().await;
        let old_config = self.with_config(Config::clone);
        let (mut config, needs_restart) = keep_what_is_fixed(config, &old_config)?;
        config.server.secret.get_or_insert_with(|| self.own_secret.clone());
        let old = self.snapshot.load_full();
        let tls = self.prepare_tls(&config)?;
        let followers = Followers::of(&config, &self.followers().clone(), &self.members_changed);
        followers.first_answers().await;
        let (mut whole, gone) = (followers.join(&config), self.gone_tallies());
        let mut changes = self.beside_file().clone();
        let given_up = changes.settle(&whole);
        changes.apply_to(&mut whole);
        let replacement = Replacement::prepare(&whole, &old.upstreams, gone, reads_files).await?;
        let admissions = Admissions::new(&config, &self.lasting)?;
        let logs = AccessLog::prepare(&old_config.log, &config.log).map_err(StartError::AccessLog)?;
        self.lasting.sources.issuers.first_answers().await;
        // From here on nothing can fail, and nothing waits.
        let (upstreams, gone) = replacement.put_in_place(&self.changes, config.server.grace_period);
        self.remember_gone(gone);
        self.snapshot.store(Arc::new(Snapshot::new(&config, upstreams, admissions, &self.lasting)));
        *self.followers() = followers;
        self.cache.resize(&config.cache);
        self.access_log.change(logs);
        for (front, state) in tls {
            front.replace_tls(state);
        }
        for front in &self.fronts {
            front.trust(&config.server.trusted_proxies);
        }
        log::set_max_level(changes.log_level.unwrap_or(config.log.level));
        tell_changes(&changes, &given_up);
        *self.beside_file() = changes;
        *self.loaded() = Loaded::of(&config);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        self.changes.send_modify(|count| *count += 1);
        Ok(Reloaded { needs_restart })
    }

    /// Reads certificates and whatever else is followed again, where it has changed.
    pub(super) fn reread_files(&self) {
        self.lasting.sources.files.reread();
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

/// Says what becomes of that which operators have changed beside the file.
fn tell_changes(changes: &Changes, given_up: &[String]) {
    for gone in given_up {
        log::info!(target: "portcullis::admin", "a change of an operator is given up: {gone}");
    }
    if !changes.is_empty() {
        let count = changes.len();
        log::info!(target: "portcullis::admin", "changes of operators that stay beside the file: {count}");
    }
}

/// Keeps the old value of everything that only a restart can change, and names its key. Where that would put requests
/// on a listener that they were not meant for, nothing is taken over at all.
fn keep_what_is_fixed(mut config: Config, old: &Config) -> Result<(Config, Vec<String>), StartError> {
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
    if keep(new_server.upgrade_socket != old_server.upgrade_socket, "server.upgrade_socket") {
        new_server.upgrade_socket.clone_from(&old_server.upgrade_socket);
    }
    if keep(new_server.reload != old_server.reload, "server.reload") {
        new_server.reload = old_server.reload.clone();
    }
    if keep(config.admin != old.admin, "admin.address") {
        config.admin.clone_from(&old.admin);
        // Another token was meant for another address: none at all may be right there and wrong here.
        if config.admin_token.is_none() {
            config.admin_token.clone_from(&old.admin_token);
        }
    }
    if keep(config.cache.eviction != old.cache.eviction, "cache.eviction") {
        config.cache.eviction = old.cache.eviction;
    }
    if keep(config.cache.disk != old.cache.disk, "cache.disk") {
        config.cache.disk.clone_from(&old.cache.disk);
    }
    if keep(config.log.usage != old.log.usage, "log.usage") {
        config.log.usage.clone_from(&old.log.usage);
    }
    if keep(config.log.loki != old.log.loki, "log.loki") {
        config.log.loki.clone_from(&old.log.loki);
    }
    if keep(config.log.dashboard != old.log.dashboard, "log.dashboard") {
        config.log.dashboard = old.log.dashboard;
    }
    if config.listeners.len() != old.listeners.len() {
        return Err(StartError::NeedsRestart("listeners".to_owned()));
    }
    for (index, (new, old)) in config.listeners.iter_mut().zip(&old.listeners).enumerate() {
        same_place(new, old).map_err(|key| StartError::NeedsRestart(format!("listeners[{index}].{key}")))?;
        keys.extend(keep_of_listener(new, old).iter().map(|key| format!("listeners[{index}].{key}")));
    }
    Ok((config, keys))
}

/// Whether a listener is still the one that its routes mean; else the key that says otherwise.
fn same_place(new: &Listener, old: &Listener) -> Result<(), &'static str> {
    match () {
        () if new.address != old.address => Err("address"),
        () if new.name != old.name => Err("name"),
        () if new.tls.is_some() != old.tls.is_some() => Err("tls"),
        () => Ok(()),
    }
}

/// Keeps what a listener was opened with, and names the keys. Its certificates, its redirect and its limits for bodies
/// and writes are taken over.
fn keep_of_listener(new: &mut Listener, old: &Listener) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if new.http2 != old.http2 {
        new.http2 = old.http2;
        keys.push("http2");
    }
    if new.max_connections_per_address != old.max_connections_per_address {
        new.max_connections_per_address = old.max_connections_per_address;
        keys.push("max_connections_per_address");
    }
    if new.proxy_protocol != old.proxy_protocol {
        new.proxy_protocol = old.proxy_protocol;
        keys.push("proxy_protocol");
    }
    if new.limits != old.limits {
        new.limits = old.limits.clone();
        keys.push("limits");
    }
    let live = |new: &ListenerTimeouts| ListenerTimeouts { body: new.body, write: new.write, ..old.timeouts.clone() };
    if new.timeouts != live(&new.timeouts) {
        new.timeouts = live(&new.timeouts);
        keys.push("timeouts");
    }
    keys
}
