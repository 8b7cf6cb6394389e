//! Does it make sense how much backends get, and who waits?

use super::Check;
use crate::config::file;
use crate::config::problem::Problems;
use crate::config::{Adaptive, Limits, Queue};

/// Requests that wait hold memory and a connection each; nobody who waits behind so many is still there.
const QUEUE_MAX: u32 = 100_000;

/// Each is looked at with each request.
const QUOTAS_MAX: usize = 8;

impl Check<'_> {
    pub(super) fn queue(&mut self, upstream: &file::Upstream) -> Option<Queue> {
        let queue = upstream.queue.as_ref()?;
        if queue.size.get() > QUEUE_MAX {
            let help = format!("write at most {QUEUE_MAX}; 1024 suits most");
            self.problems.error(&queue.size.at, "nobody who waits behind so many is still there", help);
        }
        Some(Queue { size: queue.size.get() as usize, timeout: queue.timeout.0 })
    }

    pub(super) fn concurrency(&mut self, upstream: &file::Upstream) -> Option<Adaptive> {
        let adaptive = &upstream.concurrency.as_ref()?.adaptive;
        if adaptive.max.get() < adaptive.min.get() {
            self.problems.error(&adaptive.max.at, "no limit is as low as that", "give it at least what `min` says");
        }
        Some(Adaptive { min: adaptive.min.get(), max: adaptive.max.get() })
    }

    pub(super) fn priority(&mut self, route: &file::Route) -> i32 {
        if route.priority.written && route.upstream.is_none() {
            self.problems.error(&route.priority.at, "nothing is sent on that could wait", "leave `priority` out");
        }
        route.priority.0
    }
}

/// How much one backend gets; also one that was discovered.
pub(super) fn backend_limits(backend: &file::BackendSection, problems: &mut Problems) -> Limits {
    if backend.quota.len() > QUOTAS_MAX {
        let help = format!("keep the {QUOTAS_MAX} that matter");
        problems.error(&backend.quota.at, format!("more than {QUOTAS_MAX} quotas are no help"), help);
    }
    let quota: Vec<_> = backend.quota.iter().map(|quota| quota.value.0.clone()).collect();
    for (place, one) in backend.quota.iter().enumerate() {
        if quota.iter().take(place).any(|other| other.window == one.value.0.window) {
            let help = "keep the smaller of the two";
            problems.error(&one.at, "there is another quota for the same time", help);
        }
    }
    Limits { max_connections: backend.max_connections.map(std::num::NonZeroU32::get), quota }
}
