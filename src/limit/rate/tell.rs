//! How are limits told? The values of the fields that clients read.
//!
//! The standard to be (draft-ietf-httpapi-ratelimit-headers-08 and later) has two lists (RFC 9651): one member for each
//! limit. The older fields hold one number each, so they speak of the limit that is nearest to refuse. What is in a dry
//! run is told to nobody.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Limits, Standing};

/// The three numbers of the older fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Three {
    /// How many there are in all.
    pub limit: u64,
    /// How many are left.
    pub remaining: u32,
    /// The seconds until there are more.
    pub reset: u64,
}

/// Whole seconds, rounded up: who waits that long is not too early.
pub fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// The value of `RateLimit-Policy`; `None` where nothing is to be told.
pub fn policy(limits: &Limits) -> Option<String> {
    let mut value = String::new();
    for limit in limits.iter().filter(|limit| !limit.dry_run) {
        let comma = if value.is_empty() { "" } else { ", " };
        // Writing into a String does not fail.
        let _ = write!(value, "{comma}\"{}\";q={};w={}", limit.name, limit.quota, limit.window);
    }
    (!value.is_empty()).then_some(value)
}

/// The value of `RateLimit`. With a refusal only what refuses is told: `Retry-After` is then never earlier than it.
pub fn rate_limit(standings: &[Standing]) -> Option<String> {
    let mut value = String::with_capacity(48 * standings.len());
    for standing in told(standings) {
        let comma = if value.is_empty() { "\"" } else { ", \"" };
        // Not by `write!`: every answer has this field.
        let (mut remaining, mut time) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (remaining, time) = (remaining.format(standing.remaining), time.format(seconds(standing.more_after)));
        value.extend([comma, &standing.limit.name, "\";r=", remaining, ";t=", time]);
    }
    (!value.is_empty()).then_some(value)
}

/// The older fields.
pub fn three(standings: &[Standing]) -> Option<Three> {
    let nearest =
        told(standings).min_by_key(|standing| (standing.remaining, std::cmp::Reverse(standing.more_after)))?;
    let Standing { limit, remaining, more_after, .. } = nearest;
    Some(Three { limit: limit.quota, remaining: *remaining, reset: seconds(*more_after) })
}

/// How long to wait until all let the request pass, in seconds; `None` where they do.
pub fn retry_after(standings: &[Standing]) -> Option<u32> {
    let longest = standings.iter().filter(|standing| standing.refuses()).map(|standing| standing.more_after).max()?;
    Some(u32::try_from(seconds(longest)).unwrap_or(u32::MAX).max(1))
}

fn told(standings: &[Standing]) -> impl Iterator<Item = &Standing> {
    let refused = standings.iter().any(Standing::refuses);
    standings.iter().filter(move |standing| !standing.limit.dry_run && (!refused || standing.exceeded))
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;
    use std::sync::Arc;
    use std::time::Instant;

    use http::{HeaderMap, Method};

    use super::*;
    use crate::config::{RateKey, RateLimit};
    use crate::limit::rate::{Table, Which, Who};

    fn limit(name: &str, (count, seconds): (u32, u64), dry_run: bool) -> RateLimit {
        let period = Duration::from_secs(seconds);
        let key = RateKey::Route;
        RateLimit {
            name: name.into(),
            is_shared: false,
            count,
            period,
            burst: count,
            key,
            cost: 1,
            costs: Vec::new(),
            dry_run,
        }
    }

    #[test]
    fn limits_are_told_as_the_drafts_and_as_older_clients_read_them() {
        let now = Instant::now();
        let table = Arc::new(Table::new(100, RandomState::new(), now));
        let all = [limit("burst", (2, 10), false), limit("day", (5, 86_400), false), limit("try", (1, 60), true)];
        let limits = Limits::new("route", &all, &table).unwrap();
        assert_eq!(policy(&limits).unwrap(), r#""burst";q=2;w=10, "day";q=5;w=86400"#);

        let headers = HeaderMap::new();
        let who = Who { address: None, method: &Method::GET, headers: &headers, name: None, claim: &|_| None };
        let send = || limits.take(&who, Which::All, now);
        assert_eq!(rate_limit(&send()).unwrap(), r#""burst";r=1;t=5, "day";r=4;t=17280"#);
        let second = send();
        assert_eq!(rate_limit(&second).unwrap(), r#""burst";r=0;t=5, "day";r=3;t=34560"#);
        assert_eq!(three(&second), Some(Three { limit: 2, remaining: 0, reset: 5 }));
        assert_eq!(retry_after(&second), None);
        let third = send();
        assert_eq!(rate_limit(&third).unwrap(), r#""burst";r=0;t=5"#);
        assert_eq!((retry_after(&third), three(&third).unwrap().reset), (Some(5), 5));
        assert_eq!(third.iter().filter(|standing| standing.exceeded).count(), 2);
    }

    #[test]
    fn a_dry_run_alone_tells_nothing() {
        let now = Instant::now();
        let table = Arc::new(Table::new(100, RandomState::new(), now));
        let limits = Limits::new("route", &[limit("try", (1, 60), true)], &table).unwrap();
        assert_eq!((policy(&limits), rate_limit(&[]), three(&[]), retry_after(&[])), (None, None, None, None));
    }

    #[test]
    fn times_are_rounded_up() {
        assert_eq!([0, 1, 1_000, 1_001].map(|ms| seconds(Duration::from_millis(ms))), [0, 1, 1, 2]);
        assert_eq!(seconds(Duration::MAX), u64::MAX);
    }
}
