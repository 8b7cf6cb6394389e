//! What is allowed, and yet hardly meant?
//!
//! Warnings only. Each names a mistake that starts without a word and is found on a bad day.

use std::collections::HashMap;

use http::HeaderName;

use super::cache::unused_store;
use crate::config::file::{self, File, Marked};
use crate::config::problem::{Problems, Spot};
use crate::config::surroundings::Surroundings;
use crate::config::units::show_duration;
use crate::config::{Action, Address, Config, HostPattern, Listener, Match, PathPattern, ProxyProtocol, RateKey};

/// Descriptors for the log, the listeners, the event loops and the libraries.
const OWN_FILES: u64 = 100;

/// Tells every warning that needs the whole configuration.
pub(super) fn lint(file: &File, config: &Config, around: &Surroundings, problems: &mut Problems) {
    unreachable_routes(file, config, problems);
    weightless_upstreams(file, problems);
    attempts_beyond_timeout(file, config, problems);
    too_few_files(file, config, around, problems);
    fast_interval_that_is_slow(file, problems);
    checks_that_use_up_quotas(file, problems);
    unused_store(file, config, problems);
    announcements_of_nobody(file, config, problems);
    fields_that_are_ours(file, config, problems);
}

/// What a client says in a field of ours is taken away before anybody counts by it, or is told by somebody else.
fn fields_that_are_ours(file: &File, config: &Config, problems: &mut Problems) {
    let auth = |listener: &'_ Listener| listener.tls.as_ref().and_then(|tls| tls.client_auth.clone());
    let certified: Vec<_> = config.listeners.iter().filter_map(auth).flat_map(|auth| auth.headers).collect();
    for (written, route) in file.routes.iter().zip(&config.routes) {
        let Some(auth) = &route.auth else { continue };
        let is_told = |name: &HeaderName| auth.headers.iter().any(|(told, _)| alike(told) == alike(name));
        for (limit, checked) in written.rate_limits.iter().zip(&route.rate_limits) {
            let RateKey::Header(name) = &checked.key else { continue };
            if is_told(name) {
                let what =
                    format!("`{name}` is never there when it is counted: `auth.headers` tells it to backends alone");
                problems.warning(
                    &limit.key.at,
                    what,
                    "write `api_key`, which is the name of whoever came in, or `claim:NAME`",
                );
            }
        }
        let Some(fields) = written.auth.value.as_ref().map(|auth| &auth.headers) else { continue };
        if let Some((name, _)) = certified.iter().find(|(name, _)| is_told(name)) {
            let what = format!("`{name}` is also a field of `client_auth.headers`, which is not told on this route");
            problems.warning(&fields.at, what, "choose another name for one of the two");
        }
    }
}

/// As many backends read the name of a field.
fn alike(name: &HeaderName) -> String {
    name.as_str().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")
}

/// Nobody on the network is trusted, so nobody may announce a client.
fn announcements_of_nobody(file: &File, config: &Config, problems: &mut Problems) {
    for (written, listener) in file.listeners.iter().zip(&config.listeners) {
        let nobody = config.server.trusted_proxies.is_empty() && matches!(listener.address, Address::Tcp(_));
        let what = match listener.proxy_protocol {
            ProxyProtocol::Accept if nobody => "nobody is trusted, so no client is ever announced",
            ProxyProtocol::Require if nobody => "nobody is trusted, so every connection will be closed",
            ProxyProtocol::None | ProxyProtocol::Accept | ProxyProtocol::Require => continue,
        };
        let help = "name the balancers in front of us in `server.trusted_proxies`";
        problems.warning(&written.proxy_protocol.at, what, help);
    }
}

/// Two routes with the same conditions: the second never gets a request.
fn unreachable_routes(file: &File, config: &Config, problems: &mut Problems) {
    let mut seen: HashMap<String, &Spot> = HashMap::new();
    for (written, route) in file.routes.iter().zip(&config.routes) {
        // Each host is a route of its own; it is out of reach if an earlier one takes all of them.
        let keys = conditions(&route.matches);
        let mut taken = keys.iter().map(|key| seen.get(key));
        let first = taken.next().flatten();
        if let (Some(first), true) = (first, taken.all(|other| other.is_some())) {
            let what = format!("this route can never match: {} has the same conditions", first.key);
            problems.warning(&written.at, what, "change its `match`, or take one of the two away");
        }
        for key in keys {
            seen.entry(key).or_insert(&written.at);
        }
    }
}

/// The conditions of a match in a form that is equal if they are, once for each host.
fn conditions(matches: &Match) -> Vec<String> {
    let Match { listener, hosts, path, methods, headers, query } = matches;
    let (mut methods, mut headers, mut query) = (sorted(methods), sorted(headers), sorted(query));
    for list in [&mut methods, &mut headers, &mut query] {
        list.dedup();
    }
    let rest = format!("{listener:?} {path:?} {methods:?} {headers:?} {query:?}");
    if hosts.is_empty() {
        return vec![rest];
    }
    let name = |host: &HostPattern| match host {
        HostPattern::Exact(host) => format!("{host} {rest}"),
        HostPattern::Wildcard(domain) => format!("*.{domain} {rest}"),
    };
    hosts.iter().map(name).collect()
}

fn sorted(items: &[impl std::fmt::Debug]) -> Vec<String> {
    let mut shown: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    shown.sort();
    shown
}

fn weightless_upstreams(file: &File, problems: &mut Problems) {
    for upstream in file.upstreams.0.iter().filter_map(|named| named.value.as_ref()) {
        let mut weights = upstream.backends.iter().map(|backend| backend.0.weight.0);
        if !upstream.backends.is_empty() && weights.all(|weight| weight == 0) {
            let help = "give at least one backend a weight above 0";
            problems.warning(&upstream.backends.at, "every backend has weight 0, so none gets a request", help);
        }
    }
}

/// One attempt that takes as long as it may leaves nothing for the answer, and all of them nothing for the last.
fn attempts_beyond_timeout(file: &File, config: &Config, problems: &mut Problems) {
    let upstreams: HashMap<_, _> = config.upstreams.iter().map(|upstream| (&upstream.name, upstream)).collect();
    for (written, route) in file.routes.iter().zip(&config.routes) {
        let Action::Upstream(name) = &route.action else { continue };
        let Some(upstream) = upstreams.get(name) else { continue };
        let attempt = upstream.timeouts.connect + upstream.timeouts.first_byte;
        let attempt = route.retry.per_attempt.map_or(attempt, |limit| limit.min(attempt));
        let all = attempt.saturating_mul(if route.retry.when.timeout { route.retry.attempts } else { 1 });
        if attempt <= route.timeout && all > route.timeout {
            let what = format!(
                "{} attempts at `{name}` may take {} ({} each), longer than this route's {}",
                route.retry.attempts,
                show_duration(all),
                show_duration(attempt),
                show_duration(route.timeout)
            );
            let help = "give `retry.per_attempt` a limit, so that there is time left for the last of them";
            problems.warning(&written.timeout.at, what, help);
        }
        if attempt > route.timeout {
            let what = format!(
                "one attempt at `{name}` may take {} (connect and first_byte), longer than this route's {}",
                show_duration(attempt),
                show_duration(route.timeout)
            );
            problems.warning(&written.timeout.at, what, "raise the route's timeout or lower the upstream's");
        }
    }
}

/// A connection of a client and one to a backend are two open files.
fn too_few_files(file: &File, config: &Config, around: &Surroundings, problems: &mut Problems) {
    let Some(limit) = around.open_files else { return };
    let connections = &file.server.max_connections;
    let wanted = config.server.max_connections as u64;
    // The default is far above what most need: it is worth a word only if the limit is far below.
    let needed = if connections.written { 2 * wanted } else { wanted / 50 };
    if limit < needed + OWN_FILES {
        let what = format!("{wanted} connections need {} open files, and the limit is {limit}", 2 * wanted + OWN_FILES);
        problems.warning(&connections.at, what, "raise the limit (`ulimit -Hn`, LimitNOFILE=), or lower this number");
    }
}

/// A backend in doubt that is asked less often than one that is not.
fn fast_interval_that_is_slow(file: &File, problems: &mut Problems) {
    for upstream in file.upstreams.0.iter().filter_map(|named| named.value.as_ref()) {
        let Some(check) = &upstream.health_check.value else { continue };
        if check.fast_interval.0 > check.interval.0 {
            let help = "it is meant to find out sooner: choose it below `interval`";
            problems.warning(&check.fast_interval.at, "the fast interval is longer than the usual one", help);
        }
    }
}

/// Checks that are requests count as requests.
fn checks_that_use_up_quotas(file: &File, problems: &mut Problems) {
    for upstream in file.upstreams.0.iter().filter_map(|named| named.value.as_ref()) {
        let Some(check) = upstream.health_check.value.as_ref().filter(|check| check.path.is_some()) else { continue };
        for quota in upstream.backends.iter().flat_map(|backend| &backend.value.0.quota.value) {
            let checks = quota.value.0.window.as_secs_f64() / check.interval.0.as_secs_f64();
            if checks * 4.0 > f64::from(quota.value.0.most) {
                let what =
                    format!("health checks alone are {:.0} of these, since those with a `path` count", checks.ceil());
                let help = "give `health_check` a longer `interval`, or leave its `path` out";
                problems.warning(&quota.at, what, help);
            }
        }
    }
}

/// A prefix to strip that no matched path begins with.
pub(super) fn strips_nothing(prefix: Option<&Marked<String>>, condition: &file::Match, problems: &mut Problems) {
    let Some(prefix) = prefix else { return };
    let path = match &condition.path.value {
        PathPattern::Any => return,
        PathPattern::Exact(path) | PathPattern::Prefix(path) => path,
    };
    let below =
        |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !below(path, prefix) && !below(prefix, path) {
        let what = format!("no path that this route matches begins with `{}`", **prefix);
        problems.warning(&prefix.at, what, "compare it with `match.path`");
    }
}
