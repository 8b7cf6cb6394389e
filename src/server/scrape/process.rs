//! What does the process take? Its runtime's numbers, and what Linux tells of it in `/proc`; elsewhere those are missing.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Handle, RuntimeMetrics};

use crate::observe::metrics::Page;
use crate::observe::metrics::catalogue as c;
use crate::server::workers::Workers;

/// Linux tells user space times in hundredths of a second, whatever it counts in itself.
const TICKS: f64 = 100.0;

/// Of the workers, which may be one runtime with several threads.
pub(super) fn runtimes(page: &mut Page, workers: &Workers) {
    let metrics: Vec<_> = workers.runtimes().map(Handle::metrics).collect();
    let busy = |it: &RuntimeMetrics| -> f64 {
        (0..it.num_workers()).map(|worker| it.worker_total_busy_duration(worker).as_secs_f64()).sum()
    };
    page.single(&c::WORKERS, metrics.iter().map(RuntimeMetrics::num_workers).sum::<usize>());
    page.single(&c::WORKER_BUSY, metrics.iter().map(busy).sum::<f64>());
    page.single(&c::TASKS, metrics.iter().map(RuntimeMetrics::num_alive_tasks).sum::<usize>());
    page.single(&c::TASK_QUEUE, metrics.iter().map(RuntimeMetrics::global_queue_depth).sum::<usize>());
}

pub(super) fn process(page: &mut Page) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    page.single(&c::CPU, used.tv_sec as f64 + used.tv_nsec as f64 / 1e9);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    page.family(&c::RESIDENT, |series| series.put_some([], kibibytes(&status, "VmRSS:")));
    page.family(&c::VIRTUAL, |series| series.put_some([], kibibytes(&status, "VmSize:")));
    // The one that reads the folder is open too.
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1));
    page.family(&c::OPEN_FDS, |series| series.put_some([], open));
    page.family(&c::MAX_FDS, |series| series.put_some([], getrlimit(Resource::Nofile).current));
    page.family(&c::STARTED, |series| series.put_some([], started()));
}

/// The value of a line, in bytes.
fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// In seconds since 1970.
fn started() -> Option<f64> {
    let (stat, system) = (fs::read_to_string("/proc/self/stat").ok()?, fs::read_to_string("/proc/stat").ok()?);
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks_after_boot(&stat)? / TICKS)
}

/// The 22nd field, of which the second, a name in brackets, may hold anything.
fn ticks_after_boot(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        assert_eq!(kibibytes("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(kibibytes("VmRSS:\t?\n", "VmRSS:"), None);
        let fields: Vec<_> = (3..60).map(|number| number.to_string()).collect();
        assert_eq!(ticks_after_boot(&format!("1 (a ) (b) {}", fields.join(" "))), Some(22.0));
    }

    #[test]
    fn this_process_has_started_lately() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = started().unwrap();
        assert!(started <= now + 1.0 && started > now - 3600.0, "{started} is not shortly before {now}");
    }
}
