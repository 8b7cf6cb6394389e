//! Does it ask to be left alone, and for how long? What the fields of one response say.
//!
//! Understood are `Retry-After` (RFC 9110, section 10.2.3) on a 429 or a 503, and on any response the fields that tell
//! of a quota that is used up: `RateLimit` in the forms of the drafts up to 06, 07, and from 08 on, and the older
//! `X-RateLimit-*`. `Retry-After` goes before the others, as the drafts ask. All of it comes from outside: what is
//! malformed is ignored, what is too long is clamped, and both are told, so that the operator hears of it once.
//!
//! Pure: a clock is only read by the closure that is given, and only when there is a date to compare.

mod fields;

use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};

use self::fields::{http_date, items, reset, seconds};
use crate::config::Obey;

/// <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What a response asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// To be left alone for so long, which is more than nothing and no more than `obey.max`.
    pub wait: Option<Duration>,
    /// To be asked less for so long: its quota is nearly used up.
    pub low: Option<Duration>,
    /// The field that said so, or that could not be obeyed to the letter.
    pub field: &'static str,
    /// What is wrong with the field, if it is.
    pub odd: Option<Odd>,
}

/// What is left of a quota. Of several, the greatest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Plenty,
    /// Less than a tenth, until there is more after this time.
    Little(Duration),
    /// Until there is some after this time.
    Nothing(Duration),
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// It does not say how long, in any form that we know.
    Malformed,
    /// It asks for more than `obey.max`.
    TooLong,
}

impl Odd {
    /// A few words for the operator.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "it is not understood, and ignored",
            Self::TooLong => "it is longer than obey.max, which holds",
        }
    }
}

/// Reads a response.
pub fn read(status: StatusCode, fields: &HeaderMap, rules: &Obey, now: impl Fn() -> SystemTime) -> Advice {
    let refused = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let mut advice = Advice::default();
    if rules.retry_after && refused && fields.contains_key(RETRY_AFTER) {
        advice = advise("Retry-After", retry_after(fields, &now).map(Left::Nothing), rules.max);
    }
    if advice.wait.is_none() && rules.rate_limit_fields {
        let quota = quota(fields, &now).map(|(field, left)| advise(field, left, rules.max));
        // What was wrong with the first field is told, unless the second can be obeyed.
        advice = quota.filter(|quota| quota.wait.is_some() || advice.odd.is_none()).unwrap_or(advice);
    }
    advice
}

fn advise(field: &'static str, left: Option<Left>, max: Duration) -> Advice {
    let none = Advice { field, ..Advice::default() };
    match left {
        None => Advice { odd: Some(Odd::Malformed), ..none },
        Some(Left::Plenty | Left::Little(Duration::ZERO) | Left::Nothing(Duration::ZERO)) => Advice::default(),
        Some(Left::Little(time)) => Advice { low: Some(time.min(max)), ..none },
        Some(Left::Nothing(wait)) => {
            Advice { wait: Some(wait.min(max)), odd: (wait > max).then_some(Odd::TooLong), ..none }
        }
    }
}

/// The wait that `Retry-After` asks for; `None` if there is none, or it is malformed. A date in the past is no wait.
pub fn retry_after(fields: &HeaderMap, now: &impl Fn() -> SystemTime) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return seconds(text);
    }
    let until = http_date(text)?;
    // A clock that is wrong is wrong in both fields.
    let date = fields.get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
    Some(until.duration_since(date.unwrap_or_else(now)).unwrap_or_default())
}

/// What is left, and the field that says so; `None` instead of what is left if that is malformed. Nothing at all if
/// nothing is said of a quota.
fn quota(fields: &HeaderMap, now: &impl Fn() -> SystemTime) -> Option<(&'static str, Option<Left>)> {
    // Every response comes by here, and hardly any tells of a quota: one look at each name is less than three searches.
    if !fields.keys().any(tells_of_a_quota) {
        return None;
    }
    let text = |name: &HeaderName| fields.get(name).and_then(|value| value.to_str().ok());
    // Early drafts may list more after the number: `100, 100;w=60`.
    let first = |name: &HeaderName| seconds(items(text(name)?).next()?.name);
    if let Some(value) = fields.get(RATELIMIT) {
        return Some(("RateLimit", value.to_str().ok().and_then(|text| of_items(text, fields))));
    }
    if fields.contains_key(RATELIMIT_REMAINING) {
        let (remaining, limit) = (first(&RATELIMIT_REMAINING), first(&RATELIMIT_LIMIT));
        return Some(("RateLimit-Reset", left(remaining, limit, || seconds(text(&RATELIMIT_RESET)?))));
    }
    fields.get(X_RATELIMIT_REMAINING)?;
    let (remaining, limit) = (first(&X_RATELIMIT_REMAINING), first(&X_RATELIMIT_LIMIT));
    Some(("X-RateLimit-Reset", left(remaining, limit, || reset(text(&X_RATELIMIT_RESET)?, now))))
}

/// Compared as bytes from the front, where nearly every name differs: searching for a string sets up more than that.
fn tells_of_a_quota(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    name.strip_prefix(b"x-").unwrap_or(name).starts_with(b"ratelimit")
}

/// Counts are read as seconds are. Without a limit nobody knows whether what remains is little.
fn left(
    remaining: Option<Duration>,
    limit: Option<Duration>,
    reset: impl FnOnce() -> Option<Duration>,
) -> Option<Left> {
    let remaining = remaining?;
    if remaining.is_zero() {
        return reset().map(Left::Nothing);
    }
    let little = limit.is_some_and(|limit| remaining.saturating_mul(10) < limit);
    Some(if little { reset().map_or(Left::Plenty, Left::Little) } else { Left::Plenty })
}

/// `limit=100, remaining=0, reset=5` is draft 07; `"burst";r=0;t=30, "day";r=7` is draft 08 and later.
fn of_items(text: &str, fields: &HeaderMap) -> Option<Left> {
    let listed: Vec<_> = items(text).collect();
    let draft_07 = |wanted: &str| listed.iter().find_map(|item| item.name.strip_prefix(wanted)?.strip_prefix('='));
    if let Some(remaining) = draft_07("remaining") {
        let limit = draft_07("limit").and_then(seconds);
        return left(seconds(remaining), limit, || seconds(draft_07("reset")?));
    }
    let mut worst = None;
    for item in &listed {
        let remaining = seconds(item.parameter("r")?);
        let policy = |key| policy(item.name, key, fields);
        // A quota without a time comes back with its window, at the latest.
        let reset = || item.parameter("t").and_then(seconds).or_else(|| policy("w"));
        worst = worst.max(Some(left(remaining, policy("q"), reset)?));
    }
    worst
}

/// A number of the policy with this name.
fn policy(name: &str, key: &str, fields: &HeaderMap) -> Option<Duration> {
    let policies = fields.get(RATELIMIT_POLICY)?.to_str().ok()?;
    let policy = items(policies).find(|policy| policy.name == name)?;
    seconds(policy.parameter(key)?)
}

#[cfg(test)]
mod tests;
