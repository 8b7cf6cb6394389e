//! When is a backend probed? One task each, so that a slow backend delays nobody else.
//!
//! The arithmetic of rise and fall is in `ladder`, the probes themselves in `probe`, and what follows from them in
//! `keeper`. This file has the clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backend::Task;
use crate::config::{HealthCheck, Schedule};

use super::{Keeper, Probe, Speech, Toll};

/// First probes are spread over this time, so that a big pool does not connect everywhere in one moment.
const SPREAD_MS: u64 = 100;

/// Probes a backend until the task is dropped; needs a tokio runtime. Probes that are requests are paid for with `toll`,
/// and left out when that gives nothing. Without a check its probes are taken to pass, and
/// there is no task.
///
/// A backend that has a state already (from before a reload) keeps it until enough probes disagree.
pub fn watch(keeper: Arc<Keeper>, check: &HealthCheck, speech: Speech, toll: Option<Box<dyn Toll>>) -> Option<Task> {
    let schedule = match check {
        HealthCheck::None => {
            keeper.probe_by(None);
            return None;
        }
        HealthCheck::Tcp(schedule) | HealthCheck::Http { schedule, .. } => schedule.clone(),
    };
    keeper.probe_by(Some(&schedule));
    let (backend, check, same) = (keeper.backend().clone(), check.clone(), check.clone());
    // To connect is no request.
    let toll = toll.filter(|_| matches!(check, HealthCheck::Http { .. }));
    let build = move || Probe::new(&backend, &check, &speech).paid_with(toll);
    Some(Task::spawn(keep_watching(keeper, same, schedule, build)))
}

async fn keep_watching(
    keeper: Arc<Keeper>,
    check: HealthCheck,
    schedule: Schedule,
    build: impl FnOnce() -> Probe + Send + 'static,
) {
    // It may read the certificates of the system. That it cannot be joined means that the runtime is going down.
    let Ok(probe) = spawn_blocking(build).await else { return };
    let mut failures = 0_usize;
    sleep(Duration::from_millis(fastrand::u64(0..=SPREAD_MS))).await;
    // Whoever comes and goes beside it shall not cause more probes, nor fewer.
    if let Some(due) = keeper.pace.due(&check) {
        wait_until(due, &keeper, &schedule).await;
    }
    loop {
        let outcome = match timeout(schedule.timeout, probe.run(keeper.backend(), failures)).await {
            Ok(outcome) => outcome,
            Err(_) => Some(Err("probe timeout".to_owned())),
        };
        let paid = outcome.is_some();
        if let Some(outcome) = outcome {
            failures = if outcome.is_ok() { 0 } else { failures.wrapping_add(1) };
            keeper.probed(&outcome);
        }
        keeper.pace.set_paid(paid);
        let pause = keeper.pause(&schedule, fastrand::u64(..));
        // That there was nothing to pay with will not change at once.
        let due = Instant::now() + if paid { pause } else { pause.max(schedule.interval) };
        keeper.pace.set_due(&check, due);
        wait_until(due, &keeper, &schedule).await;
    }
}

/// Waits for the next probe, which a live failure brings nearer: the backend is in doubt.
async fn wait_until(due: Instant, keeper: &Keeper, schedule: &Schedule) {
    tokio::select! {
        () = sleep_until(due) => {}
        () = keeper.doubted() => sleep_until(due.min(Instant::now() + schedule.fast_interval)).await,
    }
}

#[cfg(test)]
mod tests;
