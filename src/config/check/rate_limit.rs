//! Do the rate limits make sense, alone and beside each other?

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::files::given;
use super::{Check, Names};
use crate::config::file::{self, Marked};
use crate::config::problem::Spot;
use crate::config::units::show_duration;
use crate::config::{RateKey, RateLimit, RateLimiting};

/// Each is asked about each request, and told in its answer.
const LIMITS_MAX: usize = 16;

/// Clients read it in each answer.
const NAME_MAX: usize = 64;

const ENTRIES: std::ops::RangeInclusive<u32> = 1_000..=100_000_000;

/// The limits that have a name, which is one limit in all routes.
pub(super) type SharedLimits = HashMap<Arc<str>, (RateLimit, Spot)>;

impl Check<'_> {
    pub(super) fn rate_limiting(&mut self, limiting: &file::RateLimiting) -> RateLimiting {
        let entries = *limiting.entries;
        if !ENTRIES.contains(&entries.get()) {
            let help = "200000 suit most; each takes about 100 bytes";
            self.problems.error(&limiting.entries.at, "this must be from 1000 to 100000000", help);
        }
        RateLimiting { entries: entries.get() as usize, headers: *limiting.headers }
    }

    pub(super) fn rate_limits(&mut self, route: &file::Route, shared: &mut SharedLimits) -> Vec<RateLimit> {
        if route.rate_limits.len() > LIMITS_MAX {
            let what = format!("more than {LIMITS_MAX} limits are no help");
            self.problems.error(&route.rate_limits.at, what, format!("keep the {LIMITS_MAX} that matter"));
        }
        let mut names = Names::default();
        let limits: Vec<_> = route.rate_limits.iter().map(|limit| self.rate_limit(limit)).collect();
        for (limit, written) in limits.iter().zip(route.rate_limits.iter()) {
            self.is_somebody(written, route);
            let at = if limit.is_shared { &written.name.at } else { &written.at };
            // One that could not be read has the name of what stands in its place.
            if !self.problems.speak_of(&written.at.key) {
                names.claim(&limit.name, at, "the limit", self.problems);
            }
            self.is_the_same_everywhere(limit, at, shared);
        }
        limits
    }

    /// Whom a limit counts must be known.
    fn is_somebody(&mut self, limit: &file::RateLimit, route: &file::Route) {
        let known = route.auth.is_some() || self.problems.speak_of(&route.auth.at.key);
        if limit.key.needs_identity() && !known {
            let help = "give the route `auth`, or choose another key";
            self.problems.error(&limit.key.at, "without `auth` nobody is known here", help);
        }
    }

    fn rate_limit(&mut self, limit: &Marked<file::RateLimit>) -> RateLimit {
        let burst = limit.burst.unwrap_or(std::num::NonZeroU32::MIN.saturating_add(limit.rate.count - 1));
        let costs: Vec<_> = limit.costs.0.iter().filter_map(|named| self.method_cost(named)).collect();
        let written = limit.costs.0.iter().filter_map(|named| Some((&named.at, named.value?)));
        let all = written.chain([(if limit.cost.written { &limit.cost.at } else { &limit.at }, limit.cost.get())]);
        for (at, _) in all.filter(|(_, cost)| *cost > burst.get()) {
            let what = format!("this could never pass: at most {burst} can be had at once");
            self.problems.error(at, what, "give it a lower cost, or the limit a larger `burst`");
        }
        let rate = limit.rate.value;
        RateLimit {
            name: self.limit_name(limit),
            is_shared: limit.name.is_some(),
            count: rate.count,
            period: rate.period,
            burst: burst.get(),
            key: limit.key.value.clone(),
            cost: limit.cost.get(),
            costs,
            dry_run: *limit.dry_run,
        }
    }

    fn method_cost(&mut self, named: &file::Named<u32>) -> Option<(Method, u32)> {
        let method = named.name.parse::<Method>().ok();
        let method = method.filter(|_| !named.name.bytes().any(|byte| byte.is_ascii_lowercase()));
        if method.is_none() {
            let what = format!("`{}` is no method", named.name);
            self.problems.error(&named.at, what, "write GET, POST, PUT, ... in capital letters");
        }
        Some((method?, named.value?))
    }

    /// The name that was given, or one that says what the limit does. Clients get it in quotes.
    fn limit_name(&mut self, limit: &file::RateLimit) -> Arc<str> {
        let Some(name) = given(&limit.name) else { return description(limit).into() };
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if name.len() > NAME_MAX || !name.bytes().all(plain) {
            let help = format!("choose one of at most {NAME_MAX} ASCII letters, without `\"` and `\\`");
            self.problems.error(&name.at, "clients could not read this name", help);
        }
        name.value.into()
    }

    fn is_the_same_everywhere(&mut self, limit: &RateLimit, at: &Spot, shared: &mut SharedLimits) {
        if !limit.is_shared {
            return;
        }
        let what = |limit: &RateLimit| (limit.count, limit.period, limit.burst, limit.key.clone());
        match shared.get(&limit.name) {
            Some((other, first)) if what(other) != what(limit) => {
                let what = format!("`{}` is another limit at line {} ({})", limit.name, first.mark.line, first.key);
                let help = "limits of one name are one: give them the same rate, burst and key, or another name";
                self.problems.error(at, what, help);
            }
            Some(_) => {}
            None => drop(shared.insert(limit.name.clone(), (limit.clone(), at.clone()))),
        }
    }
}

fn description(limit: &file::RateLimit) -> String {
    let period = show_duration(limit.rate.period);
    // 100/s rather than 100/1s, as one would write it.
    let unit = period.strip_prefix('1').filter(|unit| unit.starts_with(|first: char| first.is_ascii_alphabetic()));
    let key = match &limit.key.value {
        RateKey::ClientAddress => "client_address".to_owned(),
        RateKey::ApiKey => "api_key".to_owned(),
        RateKey::Header(name) => format!("header:{name}"),
        RateKey::Claim(name) => format!("claim:{}", name.escape_default()),
        RateKey::Route => "route".to_owned(),
    };
    format!("{}/{} by {key}", limit.rate.count, unit.unwrap_or(&period))
}
