//! When is a backend probed, and who hears of it? One task each, so that a slow backend delays nobody else.
//!
//! The arithmetic of rise and fall is in `ladder`, the probes themselves in `probe`. This file has the clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::backend::{Backend, PeerTls, State, Task};
use crate::config::{HealthCheck, Protocol, Schedule};

use super::{Ladder, Probe};

/// First probes are spread over this time, so that a big pool does not connect everywhere in one moment.
const SPREAD_MS: u64 = 100;

/// Told after a state has changed.
pub type OnChange = Arc<dyn Fn() + Send + Sync>;

/// Probes a backend until the task is dropped; needs a tokio runtime. Without a check it is HEALTHY at once, and there
/// is no task.
///
/// A backend that has a state already (from before a reload) keeps it until enough probes disagree.
pub fn watch(
    backend: Arc<Backend>,
    check: &HealthCheck,
    protocol: Protocol,
    tls: Arc<PeerTls>,
    on_change: OnChange,
) -> Option<Task> {
    let schedule = match check {
        HealthCheck::None => {
            change(&backend, State::Healthy, "not checked", &on_change);
            return None;
        }
        HealthCheck::Tcp(schedule) | HealthCheck::Http { schedule, .. } => schedule.clone(),
    };
    let check = check.clone();
    let build = {
        let backend = backend.clone();
        move || Probe::new(&backend, &check, protocol, &tls)
    };
    Some(Task::spawn(keep_watching(backend, schedule, build, on_change)))
}

async fn keep_watching(
    backend: Arc<Backend>,
    schedule: Schedule,
    build: impl FnOnce() -> Probe + Send + 'static,
    on_change: OnChange,
) {
    // It may read the certificates of the system. That it cannot be joined means that the runtime is going down.
    let Ok(probe) = spawn_blocking(build).await else { return };
    let mut ladder = ladder_of(&backend, &schedule);
    let mut failures = 0_usize;
    sleep(Duration::from_millis(fastrand::u64(0..=SPREAD_MS))).await;
    loop {
        let outcome = match timeout(schedule.timeout, probe.run(&backend, failures)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("probe timeout".to_owned()),
        };
        failures = if outcome.is_ok() { 0 } else { failures.wrapping_add(1) };
        note(&backend, &mut ladder, &outcome, &on_change);
        sleep(ladder.pause(&schedule, fastrand::u64(..))).await;
    }
}

fn ladder_of(backend: &Backend, schedule: &Schedule) -> Ladder {
    let mut ladder = Ladder::new(schedule.fall, schedule.rise);
    // The first result decides where a ladder starts.
    match backend.state() {
        State::Pending => {}
        State::Healthy => {
            ladder.record(true);
        }
        State::Unreachable => {
            ladder.record(false);
        }
    }
    ladder
}

fn note(backend: &Backend, ladder: &mut Ladder, outcome: &Result<(), String>, on_change: &OnChange) {
    match outcome {
        Ok(()) => backend.record_probe_success(),
        Err(what) => backend.record_probe_failure(what),
    }
    if let Some(state) = ladder.record(outcome.is_ok()) {
        change(backend, state, outcome.as_ref().map_or_else(String::as_str, |()| "probes pass"), on_change);
    }
}

fn change(backend: &Backend, to: State, why: &str, on_change: &OnChange) {
    if backend.state() == to {
        return;
    }
    backend.set_state(to);
    let level = if to == State::Healthy { log::Level::Info } else { log::Level::Warn };
    let (upstream, name, why) = (&backend.upstream, &backend.name, why.escape_debug());
    log::log!(target: "portcullis::health", level, "upstream {upstream}: backend {name} is {to}: {why}");
    on_change();
}

#[cfg(test)]
mod tests;
