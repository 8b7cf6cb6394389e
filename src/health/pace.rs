//! When was it probed, and when would it have been probed next? What the probes of a backend leave to those that take their
//! place: every reload, and everybody who joins or leaves, starts them anew.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::config::HealthCheck;

/// What outlives the task that probes.
#[derive(Default)]
pub struct Pace {
    /// When the next probe of this kind is due.
    due: Mutex<Option<(HealthCheck, Instant)>>,
    /// The last one could not be paid for.
    unpaid: AtomicBool,
}

impl Pace {
    /// The next probe by this check is due then.
    pub(super) fn set_due(&self, check: &HealthCheck, due: Instant) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = Some((check.clone(), due));
    }

    /// When the next probe by this check is due; `None` if it has not been probed by it.
    pub(super) fn due(&self, check: &HealthCheck) -> Option<Instant> {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.as_ref().filter(|(known, _)| known == check).map(|(_, due)| *due)
    }

    /// Whether a probe was paid for.
    pub(super) fn set_paid(&self, paid: bool) {
        self.unpaid.store(!paid, Relaxed);
    }

    /// Whether the last probe could not be paid for, so that nobody should wait for its outcome.
    pub fn is_unpaid(&self) -> bool {
        self.unpaid.load(Relaxed)
    }
}
