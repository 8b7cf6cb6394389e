//! Has the client had enough? What the rate limits of a route say, and how it is told to the client and to the log.
//!
//! Answers are told of it only on their way out, so that no field of ours is ever stored. Fields of the backend's stay:
//! nothing here makes them say more than they said.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::admit::Admission;
use super::exchange::Exchange;
use crate::answer::Refusal;
use crate::config::{self, RateFields};
use crate::limit::rate::tell::{self, Three};
use crate::limit::rate::{Limits, Standing, Table, Verdicts, Which, Who};
use crate::observe::seldom::Seldom;

/// draft-ietf-httpapi-ratelimit-headers, and how it writes the names.
const RATE_LIMIT: (HeaderName, &str) = (HeaderName::from_static("ratelimit"), "RateLimit");
const RATE_LIMIT_POLICY: (HeaderName, &str) = (HeaderName::from_static("ratelimit-policy"), "RateLimit-Policy");

/// The older fields.
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The limits of a route, and how they are told.
pub(super) struct Rates {
    limits: Limits,
    fields: RateFields,
    policy: Option<HeaderValue>,
    dry_run: Seldom,
}

impl Rates {
    pub(super) fn new(route: &config::Route, counts: &Arc<Table>, fields: RateFields) -> Option<Self> {
        let limits = Limits::new(&route.name, &route.rate_limits, counts)?;
        let policy = tell::policy(&limits).and_then(|policy| HeaderValue::try_from(policy).ok());
        Some(Self { limits, fields, policy, dry_run: Seldom::default() })
    }

    /// What each limit has said so far, by its name.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (&Arc<str>, &Verdicts)> {
        self.limits.iter().map(|limit| (&limit.name, &*limit.verdicts))
    }

    /// Warns of what would have been refused.
    fn warn(&self, route: &str, name: &str) {
        if let Some(more) = self.dry_run.may_log() {
            log::warn!(
                "{route}: the limit `{name}`, a dry run, would have refused a request; {more} more since the last word"
            );
        }
    }
}

impl Exchange {
    /// Refuses whoever has nothing left already, without knowing who it is.
    pub(super) fn look_at_rates(&mut self, admission: &Admission, head: &RequestHeader) -> Result<(), Refusal> {
        let Some(rates) = &admission.rates else { return Ok(()) };
        let standings = self.with_who(head, |who| rates.limits.look(who, Which::Anonymous, self.began));
        self.conclude(standings)
    }

    /// Charges the limits, if all let it pass.
    pub(super) fn charge(&mut self, admission: &Admission, head: &RequestHeader, which: Which) -> Result<(), Refusal> {
        let Some(rates) = &admission.rates else { return Ok(()) };
        let standings = self.with_who(head, |who| rates.limits.take(who, which, self.began));
        if let Some(standing) = standings.iter().find(|standing| standing.exceeded && standing.limit.dry_run) {
            rates.warn(self.plan.as_ref().map_or("", |plan| &plan.name), &standing.limit.name);
        }
        self.conclude(standings)
    }

    fn conclude(&mut self, standings: Vec<Standing>) -> Result<(), Refusal> {
        self.standings = standings;
        match tell::retry_after(&self.standings) {
            Some(retry_after) => Err(Refusal::RateLimited { retry_after }),
            None => Ok(()),
        }
    }

    /// Says who it is to whoever counts.
    fn with_who<T>(&self, head: &RequestHeader, count: impl FnOnce(&Who<'_>) -> T) -> T {
        let identity = self.identity.as_deref();
        let claim = |name: &str| identity.and_then(|identity| identity.claim(name));
        count(&Who {
            address: self.sender.client,
            method: &head.method,
            headers: &head.headers,
            name: identity.and_then(|identity| identity.name.as_deref()),
            claim: &claim,
        })
    }

    /// Tells the client what it has left.
    pub(super) fn tell_rates(&self, head: &mut ResponseHeader) -> Result<()> {
        let rates = self.plan.as_ref().and_then(|plan| plan.admission.as_ref()?.rates.as_ref());
        let Some(rates) = rates.filter(|_| !self.standings.is_empty()) else { return Ok(()) };
        if matches!(rates.fields, RateFields::Draft | RateFields::Both) {
            let left = tell::rate_limit(&self.standings).and_then(|left| HeaderValue::try_from(left).ok());
            add_to_list(head, &RATE_LIMIT_POLICY, rates.policy.clone())?;
            add_to_list(head, &RATE_LIMIT, left)?;
        }
        if let (RateFields::Legacy | RateFields::Both, Some(three)) = (rates.fields, tell::three(&self.standings)) {
            put_three(head, three)?;
        }
        Ok(())
    }

    /// The names of the limits in a dry run that would have refused the request.
    pub(super) fn would_be_refused_by(&self) -> Option<Vec<Arc<str>>> {
        let dry = self.standings.iter().filter(|standing| standing.exceeded && standing.limit.dry_run);
        let names: Vec<_> = dry.map(|standing| standing.limit.name.clone()).collect();
        (!names.is_empty()).then_some(names)
    }
}

/// Adds a member to the backend's list. Where that is of an older form, which is no list, it stays alone: together they
/// could not be read at all.
fn add_to_list(
    head: &mut ResponseHeader,
    (name, written): &(HeaderName, &'static str),
    value: Option<HeaderValue>,
) -> Result<()> {
    let is_list = |field: &HeaderValue| field.as_bytes().trim_ascii_start().starts_with(b"\"");
    match value {
        Some(value) if head.headers.get_all(name).iter().all(is_list) => head.append_header(*written, value).map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Puts ours in the place of the backend's only where less is left of ours.
fn put_three(head: &mut ResponseHeader, three: Three) -> Result<()> {
    let theirs = [&LIMIT, &REMAINING, &RESET].iter().any(|name| head.headers.contains_key(*name));
    let left = head.headers.get(&REMAINING).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
    // What cannot be read may be stricter than ours.
    if theirs && left.is_none_or(|left| left <= three.remaining) {
        return Ok(());
    }
    head.insert_header(LIMIT, three.limit)?;
    head.insert_header(REMAINING, three.remaining)?;
    head.insert_header(RESET, three.reset)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn response(fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(StatusCode::OK, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn all(head: &ResponseHeader, name: &HeaderName) -> Vec<String> {
        head.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_lists_of_the_backend_are_added_to_and_what_is_no_list_is_left_alone() {
        let ours = || Some(HeaderValue::from_static(r#""ours";r=5;t=1"#));
        for (theirs, expected) in [
            (&[][..], &[r#""ours";r=5;t=1"#][..]),
            (&[r#""theirs";r=0;t=9"#], &[r#""theirs";r=0;t=9"#, r#""ours";r=5;t=1"#]),
            (&["limit=10, remaining=0, reset=9"], &["limit=10, remaining=0, reset=9"]),
        ] {
            let fields: Vec<_> = theirs.iter().map(|value| ("ratelimit", *value)).collect();
            let mut head = response(&fields);
            add_to_list(&mut head, &RATE_LIMIT, ours()).unwrap();
            assert_eq!(all(&head, &RATE_LIMIT.0), expected);
        }
    }

    #[test]
    fn older_fields_of_the_backend_give_way_only_to_stricter_ones() {
        for (theirs, expected) in [("3", "3"), ("5", "5"), ("6", "5"), ("many", "many")] {
            let mut head = response(&[("x-ratelimit-remaining", theirs), ("x-ratelimit-limit", "70")]);
            put_three(&mut head, Three { limit: 10, remaining: 5, reset: 1 }).unwrap();
            assert_eq!(all(&head, &REMAINING), [expected]);
            let is_ours = theirs == "6";
            assert_eq!((all(&head, &LIMIT) == ["10"], head.headers.contains_key(&RESET)), (is_ours, is_ours));
        }
        let mut head = response(&[]);
        put_three(&mut head, Three { limit: 10, remaining: 5, reset: 1 }).unwrap();
        assert_eq!((all(&head, &LIMIT), all(&head, &RESET)), (vec!["10".to_owned()], vec!["1".to_owned()]));
    }
}
