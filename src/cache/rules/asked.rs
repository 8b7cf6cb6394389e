//! What does the request say in Cache-Control (RFC 9111, section 5.2.1)?

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

use super::directives::{Argument, LONGEST, Word, words};
use super::list::{Quotes, members};

/// What the client wants of a cache. Said twice, or badly, the stricter wish counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Nothing that was not revalidated.
    pub no_cache: bool,
    /// Nothing of the exchange shall be stored.
    pub no_store: bool,
    /// Only what is stored; else 504.
    pub only_if_cached: bool,
    /// Nothing older.
    pub max_age: Option<Duration>,
    /// Nothing that does not stay fresh for so long.
    pub min_fresh: Option<Duration>,
    /// Also what has been stale for no longer; [`Duration::MAX`] is any time.
    pub max_stale: Option<Duration>,
}

/// What the request makes of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing: it is used while it is fresh, and what else holds for stale ones holds.
    AsStored,
    /// It must be revalidated first.
    Revalidate,
    /// It is used as if it were fresh: it is stale, and the client takes it so.
    FreshEnough,
}

impl Asked {
    /// What the request says. Pragma counts only where there is no Cache-Control (RFC 9111, section 5.4).
    pub fn of(fields: &HeaderMap) -> Self {
        let mut asked = Self::default();
        if !fields.contains_key(CACHE_CONTROL) {
            let mut members = members(fields, &PRAGMA, Quotes::Escaped);
            asked.no_cache = members.any(|member| member.eq_ignore_ascii_case(b"no-cache"));
            return asked;
        }
        for member in members(fields, &CACHE_CONTROL, Quotes::Escaped) {
            words(member).for_each(|word| asked.take(&word));
        }
        asked
    }

    /// What it makes of a response of this age, which is fresh until it is as old as its lifetime.
    pub fn verdict(&self, age: Duration, lifetime: Duration, may_be_stale: bool) -> Use {
        let is_stale = age >= lifetime;
        // Nobody says `max-age=0` who takes what was stored a moment ago.
        let is_too_old = self.max_age.is_some_and(|most| most.is_zero() || age > most);
        let is_late = self.min_fresh.is_some_and(|least| lifetime.saturating_sub(age) < least);
        // Who names an age and not `max-stale` takes nothing stale (section 5.2.1.1).
        let is_unwanted = is_stale && self.max_age.is_some() && self.max_stale.is_none();
        if self.no_cache || is_too_old || is_late || is_unwanted {
            return Use::Revalidate;
        }
        let stale_for = age.saturating_sub(lifetime);
        let is_taken = self.max_stale.is_some_and(|most| may_be_stale && stale_for <= most);
        if is_stale && is_taken { Use::FreshEnough } else { Use::AsStored }
    }

    fn take(&mut self, word: &Word<'_>) {
        let is = |name: &str| word.name.eq_ignore_ascii_case(name.as_bytes());
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age = Some(self.max_age.map_or(word.seconds(), |known| known.min(word.seconds())));
        } else if is("min-fresh") {
            let least = word.number().unwrap_or(LONGEST);
            self.min_fresh = Some(self.min_fresh.map_or(least, |known| known.max(least)));
        } else if is("max-stale") {
            let most = if word.argument == Argument::Absent { Duration::MAX } else { word.seconds() };
            self.max_stale = Some(self.max_stale.map_or(most, |known| known.min(most)));
        }
    }
}
