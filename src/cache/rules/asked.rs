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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::samples::head;
    use proptest::prelude::*;

    fn asked(lines: &[&str]) -> Asked {
        let fields: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
        Asked::of(&head(&fields))
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_directives_of_rfc_9111_section_5_2_1_are_read() {
        assert_eq!(
            asked(&["No-Cache, no-store", "ONLY-IF-CACHED, max-age=1,min-fresh=\"2\", max-stale=3, no-transform"]),
            Asked {
                no_cache: true,
                no_store: true,
                only_if_cached: true,
                max_age: Some(seconds(1)),
                min_fresh: Some(seconds(2)),
                max_stale: Some(seconds(3)),
            }
        );
        assert_eq!(asked(&["foo=\"no-cache, no-store\", max-age-x=3"]), Asked::default());
    }

    #[test]
    fn the_stricter_of_two_wishes_counts_and_so_it_is_with_what_cannot_be_read() {
        let twice = asked(&["max-age=9, min-fresh=2, max-stale", "max-age=8, min-fresh=3, max-stale=4"]);
        assert_eq!(twice.max_age, Some(seconds(8)));
        assert_eq!(twice.min_fresh, Some(seconds(3)));
        assert_eq!(twice.max_stale, Some(seconds(4)));
        for bad in ["x", "-1", "1.5", "+1", "'1'", "", "\"1", " 1"] {
            let bad = asked(&[&format!("max-age={bad}"), &format!("min-fresh={bad}"), &format!("max-stale={bad}")]);
            assert_eq!(bad.max_age, Some(Duration::ZERO), "{bad:?}");
            assert_eq!(bad.min_fresh, Some(LONGEST), "{bad:?}");
            assert_eq!(bad.max_stale, Some(Duration::ZERO), "{bad:?}");
        }
        assert_eq!(asked(&["max-stale"]).max_stale, Some(Duration::MAX));
    }

    #[test]
    fn pragma_counts_without_cache_control_only_as_rfc_9111_section_5_4_says() {
        assert!(Asked::of(&head(&[("pragma", "foo, No-Cache")])).no_cache);
        assert!(!Asked::of(&head(&[("pragma", "no-cache"), ("cache-control", "max-stale")])).no_cache);
        assert!(!Asked::of(&head(&[("pragma", "no-cache"), ("cache-control", "")])).no_cache);
        assert!(!Asked::of(&head(&[("pragma", "foo")])).no_cache);
    }

    #[track_caller]
    fn check(line: &str, age: u64, lifetime: u64, expected: Use) {
        assert_eq!(asked(&[line]).verdict(seconds(age), seconds(lifetime), true), expected, "{line} {age} {lifetime}");
    }

    #[test]
    fn a_request_that_asks_nothing_changes_nothing() {
        for age in [0, 9, 10, 99] {
            check("", age, 10, Use::AsStored);
            check("no-store, only-if-cached", age, 10, Use::AsStored);
        }
    }

    #[test]
    fn no_cache_is_always_revalidated_as_rfc_9111_section_5_2_1_4_says() {
        check("no-cache", 0, 10, Use::Revalidate);
        check("no-cache, max-stale", 20, 10, Use::Revalidate);
    }

    #[test]
    fn max_age_takes_nothing_older_and_nothing_stale_as_rfc_9111_section_5_2_1_1_says() {
        check("max-age=0", 0, 10, Use::Revalidate);
        check("max-age=5", 5, 10, Use::AsStored);
        check("max-age=5", 6, 10, Use::Revalidate);
        check("max-age=50", 10, 10, Use::Revalidate);
        check("max-age=50, max-stale=5", 15, 10, Use::FreshEnough);
        check("max-age=12, max-stale=5", 15, 10, Use::Revalidate);
    }

    #[test]
    fn min_fresh_takes_nothing_that_is_stale_soon_as_rfc_9111_section_5_2_1_3_says() {
        check("min-fresh=5", 5, 10, Use::AsStored);
        check("min-fresh=5", 6, 10, Use::Revalidate);
        check("min-fresh=0", 10, 10, Use::AsStored);
    }

    #[test]
    fn max_stale_takes_what_is_stale_for_no_longer_as_rfc_9111_section_5_2_1_2_says() {
        check("max-stale=5", 9, 10, Use::AsStored);
        check("max-stale=5", 10, 10, Use::FreshEnough);
        check("max-stale=5", 15, 10, Use::FreshEnough);
        check("max-stale=5", 16, 10, Use::AsStored);
        check("max-stale", u64::MAX, 10, Use::FreshEnough);
    }

    #[test]
    fn max_stale_gives_nothing_that_must_not_be_served_stale_as_rfc_9111_section_4_2_4_says() {
        assert_eq!(asked(&["max-stale"]).verdict(seconds(20), seconds(10), false), Use::AsStored);
    }

    proptest! {
        #[test]
        fn what_must_be_revalidated_must_be_so_when_it_is_older(
            line in "((max-age|min-fresh|max-stale)=[0-9]{1,2},? ?){0,3}", age in 0_u64..120, more in 0_u64..120, lifetime in 0_u64..120,
        ) {
            let asked = asked(&[&line]);
            let verdict = |age| asked.verdict(seconds(age), seconds(lifetime), true);
            let is_used = |age| match verdict(age) {
                Use::AsStored => age < lifetime,
                Use::FreshEnough => true,
                Use::Revalidate => false,
            };
            prop_assert!(is_used(age) || !is_used(age + more), "{:?} at {}, {:?} later", verdict(age), age, verdict(age + more));
        }
    }
}
