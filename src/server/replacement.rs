//! Which upstreams stay, and which take their place? Prepared with all that can fail or wait, then swapped at once.
//!
//! Old and new upstreams share their backends, so the probes of the old ones end before those of the new ones begin:
//! two that watch one backend would each miss what the other has seen.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::StartError;
use crate::config;
use crate::config::Config;
use crate::proxy::Upstreams;
use crate::upstream::{OnChange, Tallies, Upstream};

/// The upstreams of a configuration, ready to be put in place.
pub(super) struct Replacement {
    upstreams: Upstreams,
    new: Vec<Arc<Upstream>>,
    old: Vec<Arc<Upstream>>,
}

impl Replacement {
    /// Builds the upstreams that are new or have changed, and those that shall be built `anew`, with their files read again,
    /// though they have not, and resolves their names; the others are taken over. What upstreams that are `gone` have sent
    /// still counts.
    pub(super) async fn prepare(
        config: &Config,
        running: &Upstreams,
        mut gone: Tallies,
        anew: impl Fn(&config::Upstream) -> bool,
    ) -> Result<Self, StartError> {
        let stays = |upstream: &Upstream| config.upstreams.iter().any(|wanted| wanted.name == *upstream.name());
        running.values().filter(|upstream| !stays(upstream)).for_each(|goes| gone.remember(goes));
        let mut it = Self { upstreams: Upstreams::new(), new: Vec::new(), old: Vec::new() };
        for wanted in &config.upstreams {
            let known = running.get(&wanted.name);
            let upstream = match known {
                Some(same) if same.config == *wanted && !anew(wanted) => same.clone(),
                Some(_) | None => {
                    let built = match known.filter(|_| !anew(wanted)) {
                        Some(known) => Upstream::after(wanted, known, &gone),
                        None => Upstream::beside(wanted, known.map(|known| &**known), &gone),
                    };
                    let built =
                        built.map_err(|source| StartError::PeerTls { upstream: wanted.name.clone(), source })?;
                    it.new.push(built.clone());
                    built
                }
            };
            it.upstreams.insert(wanted.name.clone(), upstream);
        }
        let goes = |upstream: &&Arc<Upstream>| {
            !it.upstreams.get(upstream.name()).is_some_and(|stays| Arc::ptr_eq(stays, upstream))
        };
        it.old = running.values().filter(goes).cloned().collect();
        // All at once: a resolver that hangs shall delay us once, not once an upstream.
        let lookups: JoinSet<()> = it.new.iter().map(|upstream| upstream.clone().resolve()).collect();
        lookups.join_all().await;
        Ok(it)
    }

    /// Whether everything stays as it is.
    pub(super) fn is_none(&self) -> bool {
        self.new.is_empty() && self.old.is_empty()
    }

    /// Ends the probes of the upstreams that go, and begins those of the new ones. Requests in flight may hold an old
    /// upstream for a long time.
    ///
    /// Backends that are gone finish what they have begun, and their tunnels have `grace`. Gives the upstreams that are
    /// in place, and those that are gone as a whole.
    pub(super) fn put_in_place(self, changes: &watch::Sender<u64>, grace: Duration) -> (Upstreams, Vec<Arc<Upstream>>) {
        self.old.iter().for_each(|upstream| upstream.stop());
        let told = changes.clone();
        let on_change: OnChange = Arc::new(move || told.send_modify(|count| *count += 1));
        for upstream in &self.new {
            upstream.watch(&on_change);
            upstream.see_off(grace, &on_change);
        }
        let gone: Vec<_> = self.old.into_iter().filter(|old| !self.upstreams.contains_key(old.name())).collect();
        gone.iter().for_each(|upstream| upstream.retire(grace, &on_change));
        (self.upstreams, gone)
    }
}

/// Files may have changed where the configuration has not, and a reload is how an operator says so.
pub(super) fn reads_files(upstream: &config::Upstream) -> bool {
    upstream.tls.ca.is_some() || upstream.tls.client.is_some()
}
