//! Which metrics are there? The one list of them, from which the page, its check and `docs/metrics.md` follow.
//!
//! A family that is not here cannot be written, and one that is here is on every page, with or without values.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It is what it is at the moment.
    Gauge,
    /// How many were at most as large as each of some bounds, in seconds.
    Histogram,
}

impl Kind {
    /// The word in the exposition format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric, with all its series.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The labels that tell its series apart, in the order in which their values are given.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

impl Family {
    /// What it is counted in, as its name says.
    pub fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or("")
    }
}

/// Families about one thing.
#[derive(Debug)]
pub struct Section {
    /// What they are about.
    pub about: &'static str,
    /// The families, in the order of the page.
    pub families: &'static [&'static Family],
}

/// Declares the sections: a constant a family, and the list of all.
macro_rules! catalogue {
    ($( $about:literal { $( $id:ident = $kind:ident $name:literal [$($label:literal)*] $help:literal; )* } )*) => {
        $($(
            #[doc = $help]
            pub const $id: Family = Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*)*

        /// All there are, in the order of the page.
        pub const CATALOGUE: &[Section] = &[$( Section { about: $about, families: &[$(&$id),*] } ),*];
    };
}

catalogue! {
    "Requests" {
        REQUESTS = Counter "portcullis_requests_total" ["route" "status" "protocol"]
            "Requests that have ended, by the exact status that the client got; `none` if it got none. The route is empty where none matched.";
        REQUEST_FAILURES = Counter "portcullis_request_failures_total" ["route" "reason"]
            "Requests that did not end well, by the `reason` of the access log and of Proxy-Status.";
        REQUESTS_REFUSED_EARLY = Counter "portcullis_requests_refused_early_total" ["reason"]
            "Requests that were refused before a route was looked for, because their head was broken, late or too large; they are in no other count of requests.";
        FIRST_BYTE = Histogram "portcullis_request_first_byte_seconds" ["route"]
            "Time from the beginning of a request to the head of the backend's answer, of requests that a backend answered.";
        DURATION = Histogram "portcullis_request_duration_seconds" ["route"]
            "Time from the beginning of a request to the last byte of its answer.";
        REQUEST_BYTES = Counter "portcullis_request_body_bytes_total" ["route"]
            "Bytes of the bodies of requests.";
        RESPONSE_BYTES = Counter "portcullis_response_body_bytes_total" ["route"]
            "Bytes of the bodies of answers, as they were sent.";
        IN_FLIGHT = Gauge "portcullis_requests_in_flight" []
            "Requests that are being answered.";
    }
    "Attempts and retries" {
        ATTEMPTS = Counter "portcullis_backend_attempts_total" ["upstream" "backend" "outcome"]
            "Attempts at a backend that have ended, by the `outcome` of the access log: `ok`, a reason, `hedged_out`, or `status_503` and the like where the answer was dropped for a retry.";
        RETRIES = Counter "portcullis_retries_total" ["route"]
            "Attempts that were paid for from the budget of retries because one before had failed.";
        HEDGES = Counter "portcullis_hedges_total" ["route"]
            "Second attempts that were begun beside a late one.";
        NO_RETRIES = Counter "portcullis_retries_refused_total" ["route" "reason"]
            "Failed attempts that were not followed by a retry, by the `no_retry` of the access log.";
    }
    "Backends" {
        BACKEND_STATE = Gauge "portcullis_backend_state" ["upstream" "backend" "state"]
            "1 for the state that the backend is in, 0 for the others.";
        BACKEND_TRIAL = Gauge "portcullis_backend_on_trial" ["upstream" "backend"]
            "1 while the backend is EJECTED and single requests try it.";
        BACKEND_IN_FLIGHT = Gauge "portcullis_backend_requests_in_flight" ["upstream" "backend"]
            "Requests in flight at the backend.";
        BACKEND_LIMIT = Gauge "portcullis_backend_requests_in_flight_limit" ["upstream" "backend"]
            "The most requests that may be in flight at the backend, configured or learnt; missing where there is no limit.";
        BACKEND_WEIGHT = Gauge "portcullis_backend_weight" ["upstream" "backend"]
            "The weight of the backend; 0 where it only finishes what it has.";
        BACKEND_TIER = Gauge "portcullis_backend_tier" ["upstream" "backend"]
            "The tier of the backend.";
        BACKEND_REQUESTS = Counter "portcullis_backend_requests_total" ["upstream" "backend"]
            "Attempts that the backend answered, or that failed by its fault: the `requests` of the dashboard.";
        BACKEND_ERRORS = Counter "portcullis_backend_errors_total" ["upstream" "backend"]
            "Those of them that failed by its fault, or that it answered with a status of 500 or more: the `errors` of the dashboard.";
        BACKEND_P50 = Gauge "portcullis_backend_latency_p50_seconds" ["upstream" "backend"]
            "The median latency of the answers of the last minute; missing where there were none.";
        BACKEND_P99 = Gauge "portcullis_backend_latency_p99_seconds" ["upstream" "backend"]
            "The 99th percentile of the same.";
        BACKEND_EJECTIONS = Counter "portcullis_backend_ejections_total" ["upstream" "backend"]
            "How often the backend was ejected because live requests failed.";
        BACKEND_PROBES = Counter "portcullis_backend_probes_total" ["upstream" "backend" "outcome"]
            "Health checks of the backend: `passed` or `failed`.";
        BACKEND_LAST_HEALTHY = Gauge "portcullis_backend_last_healthy_timestamp_seconds" ["upstream" "backend"]
            "When the backend was last known to be well; missing if it never was.";
        BACKEND_CONNECTIONS = Counter "portcullis_backend_connections_total" ["upstream" "backend" "kind"]
            "Connections that attempts went out on: `new` ones, or `reused` ones from the pool.";
        UPSTREAM_READY = Gauge "portcullis_upstream_backends_ready" ["upstream"]
            "Backends that are HEALTHY or PENDING and have a weight; 0 also where discovery has found nobody.";
    }
    "Queue" {
        QUEUE_LENGTH = Gauge "portcullis_queue_requests" ["upstream"]
            "Requests that wait for a backend; missing where none ever has to.";
        QUEUE_WAITS = Counter "portcullis_queue_waits_total" ["upstream" "outcome"]
            "Waits for a backend that have ended: `served`, a reason, or `client_gone`.";
        QUEUE_SECONDS = Histogram "portcullis_queue_wait_seconds" ["upstream"]
            "How long those waited that were served.";
    }
    "Limits and access" {
        RATE_LIMIT = Counter "portcullis_rate_limit_requests_total" ["route" "limit" "verdict"]
            "What a rate limit said of requests: `allowed`, `refused`, or `would_refuse` in a dry run.";
        RATE_ENTRIES = Gauge "portcullis_rate_limit_entries" []
            "Keys that the rate limits count now.";
        RATE_ENTRIES_LIMIT = Gauge "portcullis_rate_limit_entries_limit" []
            "The most keys that are counted each by itself: `server.rate_limits.entries`.";
        AUTH = Counter "portcullis_auth_requests_total" ["route" "outcome"]
            "Requests on routes with `auth`: `admitted`, or the reason why they were not.";
        FOLLOWED_UP = Gauge "portcullis_followed_file_up" ["file"]
            "1 if what a watched file of passwords, keys or addresses says is in use; 0 if it cannot be used and what it said before is.";
        KEY_STORE_UP = Gauge "portcullis_key_store_up" ["store"]
            "1 if the database of API keys could be read when it was last looked at; with 0 the keys that were read before are in use.";
        KEY_STORE_KEYS = Gauge "portcullis_key_store_keys" ["store"]
            "API keys that are in use from the database.";
    }
    "Cache" {
        CACHE_REQUESTS = Counter "portcullis_cache_requests_total" ["route" "outcome"]
            "Requests on routes with a cache: `hit`, `collapsed`, `stale`, `revalidated`, `expired`, `miss`, `not_stored` or `bypass`. The first four were served from the store.";
        CACHE_OBJECTS = Gauge "portcullis_cache_objects" []
            "Answers that are stored in memory.";
        CACHE_BYTES = Gauge "portcullis_cache_bytes" []
            "Bytes that they take.";
        CACHE_LIMIT = Gauge "portcullis_cache_limit_bytes" []
            "The most that they may take: `cache.size`.";
        CACHE_STORED = Counter "portcullis_cache_stored_total" []
            "Answers that were stored in memory.";
        CACHE_EVICTIONS = Counter "portcullis_cache_evictions_total" []
            "Answers that left memory to make room for others.";
        DISK_BYTES = Gauge "portcullis_cache_disk_bytes" []
            "Bytes that the tier on disk takes; missing without one, as are the others of the disk.";
        DISK_LOOKUPS = Counter "portcullis_cache_disk_lookups_total" ["outcome"]
            "Lookups on disk: `hit` or `miss`.";
        DISK_MISSES = Counter "portcullis_cache_disk_refused_total" ["reason"]
            "Those of the misses that met something: `unusable` if it was broken, purged or too old, `busy` if too many lookups were under way.";
        DISK_STORED = Counter "portcullis_cache_disk_writes_total" ["outcome"]
            "Answers for the disk: `stored`, `dropped` because it was behind, or `too_large`.";
        DISK_WRITTEN = Counter "portcullis_cache_disk_written_bytes_total" []
            "Bytes that were written to disk.";
        DISK_READ = Counter "portcullis_cache_disk_read_bytes_total" []
            "Bytes that were read from disk.";
    }
    "Compression" {
        CODED_ANSWERS = Counter "portcullis_compression_answers_total" ["coding" "direction"]
            "Answers whose body was recoded: `encode` made it smaller, `decode` took the coding off.";
        CODED_IN = Counter "portcullis_compression_input_bytes_total" ["coding" "direction"]
            "Bytes of their bodies as they came.";
        CODED_OUT = Counter "portcullis_compression_output_bytes_total" ["coding" "direction"]
            "Bytes of their bodies as they left.";
        CODED_SECONDS = Counter "portcullis_compression_seconds_total" ["coding" "direction"]
            "Time that it took, of processors and not of requests.";
    }
    "Connections and TLS" {
        CONNECTIONS = Gauge "portcullis_connections" ["listener"]
            "Connections of clients that are open.";
        CONNECTIONS_ACCEPTED = Counter "portcullis_connections_accepted_total" ["listener"]
            "Connections of clients that were accepted.";
        CONNECTIONS_REFUSED = Counter "portcullis_connections_refused_total" ["listener" "reason"]
            "Connections that were closed at once: over `max_connections` or `max_connections_per_address`, or not announced by a trusted balancer (`proxy_protocol`).";
        HANDSHAKES = Counter "portcullis_tls_handshakes_total" ["listener" "version"]
            "TLS handshakes that succeeded.";
        HANDSHAKE_FAILURES = Counter "portcullis_tls_handshake_failures_total" ["listener" "reason"]
            "TLS handshakes that did not: `timeout`, `closed`, `not_tls`, `incompatible`, `client_certificate`, `alert`, `no_http2` or `protocol`.";
        RESUMPTIONS = Counter "portcullis_tls_resumptions_total" ["listener"]
            "Handshakes in which a client showed a ticket or a session of an earlier one that was good.";
        CERTIFICATE_EXPIRY = Gauge "portcullis_certificate_expiry_timestamp_seconds" ["listener" "certificate"]
            "When a certificate that is in use ends; by its file, or `self_signed`.";
    }
    "Configuration and logs" {
        RELOADS = Counter "portcullis_reloads_total" ["outcome"]
            "Reloads of the configuration: `done` or `failed`. One that failed has changed nothing.";
        RELOAD_OK = Gauge "portcullis_last_reload_successful" []
            "1 if the last reload was done, or there was none; 0 if it failed.";
        RELOADED_AT = Gauge "portcullis_last_reload_success_timestamp_seconds" []
            "When the configuration that is in effect was taken over.";
        CONFIG = Gauge "portcullis_config_info" ["hash"]
            "Always 1; the hash of the configuration in effect is the same where the same version has the same configuration. Secrets are not in it.";
        LOG_DROPPED = Counter "portcullis_log_lines_dropped_total" ["log"]
            "Lines that were dropped because whatever takes them was behind: `access`, `usage` (events) or `loki`.";
        SPANS = Counter "portcullis_trace_spans_total" ["outcome"]
            "Spans of sampled requests: `exported` to the collector, or `dropped` because it was behind or did not take them.";
        BUILD = Gauge "portcullis_build_info" ["version"]
            "Always 1.";
    }
    "Runtime and process" {
        WORKERS = Gauge "portcullis_runtime_workers" []
            "Threads that serve.";
        WORKER_BUSY = Counter "portcullis_runtime_busy_seconds_total" []
            "Time that these threads were busy, all together.";
        TASKS = Gauge "portcullis_runtime_tasks" []
            "Tasks of these threads that are alive; a connection is at least one.";
        TASK_QUEUE = Gauge "portcullis_runtime_queued_tasks" []
            "Tasks that another thread has woken and that these have not come to yet. What stays above 0 says that they are not enough.";
        CPU = Counter "process_cpu_seconds_total" []
            "Time of processors that the process has used.";
        RESIDENT = Gauge "process_resident_memory_bytes" []
            "Memory that the process has in use.";
        VIRTUAL = Gauge "process_virtual_memory_bytes" []
            "Addresses that the process has taken.";
        OPEN_FDS = Gauge "process_open_fds" []
            "Files and sockets that are open.";
        MAX_FDS = Gauge "process_max_fds" []
            "The most that may be.";
        STARTED = Gauge "process_start_time_seconds" []
            "When the process started.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Family> {
        CATALOGUE.iter().flat_map(|section| section.families.iter().copied())
    }

    #[test]
    fn each_name_is_there_once_and_well_formed() {
        let mut seen = HashSet::new();
        for family in all() {
            assert!(seen.insert(family.name), "{} twice", family.name);
            assert!(family.name.starts_with("portcullis_") || family.name.starts_with("process_"), "{}", family.name);
            assert!(family.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            assert!(family.kind != Kind::Histogram || family.unit() == "seconds", "{}", family.name);
        }
    }

    #[test]
    fn each_help_is_a_sentence_and_no_label_is_there_twice() {
        for family in all() {
            assert!(family.help.ends_with('.') && family.help.len() > 8, "{}", family.name);
            let labels: HashSet<_> = family.labels.iter().collect();
            assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
            assert!(!family.labels.contains(&"le"), "{}", family.name);
        }
    }
}
