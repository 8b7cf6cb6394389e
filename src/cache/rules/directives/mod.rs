//! What does the origin say in Cache-Control (RFC 9111, section 5.2)?
//!
//! Directives may come on several lines, twice, quoted, unreadable. Said twice, the smaller number counts; a number that
//! is none is zero (section 4.2.1: invalid freshness information is stale). What forbids is found wherever it stands, also
//! after a semicolon or a space that has no business there; what is written like that is never fresh.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::header::CACHE_CONTROL;

use super::list::{Quotes, closing, members, split};
use super::{fields, targeted};

/// What larger numbers count as (RFC 9111, section 1.2.2).
pub(super) const LONGEST: Duration = Duration::from_secs(1 << 31);

/// What the origin says about storing and reusing a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Nothing of it may be stored.
    pub no_store: bool,
    /// It may be stored only by who knows what its status means for a cache.
    pub must_understand: bool,
    /// Once stale, it must be revalidated.
    pub must_revalidate: bool,
    /// The same, for shared caches.
    pub proxy_revalidate: bool,
    /// It may be stored though its status is not one that is cacheable by itself.
    pub public: bool,
    /// It may be stored though the request had Authorization (RFC 9111, section 3.5).
    pub shared: bool,
    /// What of it must not be used without revalidation.
    pub no_cache: Reach,
    /// What of it is for one user only.
    pub private: Reach,
    /// How long it is fresh.
    pub max_age: Option<Duration>,
    /// How long it is fresh in a shared cache.
    pub s_maxage: Option<Duration>,
    /// How long it may be served stale while it is revalidated (RFC 5861, section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long it may be served stale when there is an error (RFC 5861, section 4).
    pub stale_if_error: Option<Duration>,
}

/// What a directive holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It was not said.
    #[default]
    Nothing,
    /// For these fields.
    Fields(Vec<HeaderName>),
    /// For the whole response.
    Whole,
}

/// One directive as it is written.
pub(super) struct Word<'a> {
    pub(super) name: &'a [u8],
    pub(super) argument: Argument<'a>,
}

/// What stands behind the `=`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    Absent,
    /// Without quotes; not looked at further.
    Token(&'a [u8]),
    /// Without its quotes.
    Quoted(&'a [u8]),
    /// With a quote that does not stand where one may.
    Broken,
}

impl Directives {
    /// What the lines of Cache-Control say.
    pub fn of(fields: &HeaderMap) -> Self {
        let mut directives = Self::default();
        let mut is_torn = false;
        for member in members(fields, &CACHE_CONTROL, Quotes::Escaped) {
            for (before, word) in words(member).enumerate() {
                directives.take(&word);
                is_torn |= before > 0 || word.argument == Argument::Broken;
            }
        }
        if is_torn {
            directives.distrust();
        }
        directives
    }

    /// What counts for us: CDN-Cache-Control where it can be read (RFC 9213, section 2.2), else Cache-Control; and which.
    pub(super) fn governing(fields: &HeaderMap) -> (Self, Source) {
        match targeted::directives(fields) {
            Some(directives) => (directives, Source::Targeted),
            None => (Self::of(fields), Source::CacheControl),
        }
    }

    /// Whether the response may be served stale at all (RFC 9111, section 4.2.4).
    pub fn may_be_stale(&self) -> bool {
        self.s_maxage.is_none() && self.may_be_stale_as_told()
    }

    /// Whether it may be served stale for as long as it says itself. Read strictly, `s-maxage` forbids that too; but
    /// whoever writes it beside `stale-while-revalidate` means the cache that we are, and all caches of this kind heed it.
    pub(super) fn may_be_stale_as_told(&self) -> bool {
        !self.must_revalidate && !self.proxy_revalidate && self.no_cache != Reach::Whole
    }

    /// The fields that must not come out of a store.
    pub(super) fn withheld(&self) -> impl Iterator<Item = &HeaderName> {
        self.no_cache.fields().iter().chain(self.private.fields())
    }

    pub(super) fn take(&mut self, word: &Word<'_>) {
        let is = |name: &str| word.name.eq_ignore_ascii_case(name.as_bytes());
        match word.name.len() {
            6 if is("public") => (self.public, self.shared) = (true, true),
            7 if is("max-age") => least(&mut self.max_age, word.seconds()),
            7 if is("private") => self.private.widen(&word.argument),
            8 if is("s-maxage") => {
                // One that cannot be read makes stale, and allows nothing.
                self.shared |= word.number().is_some();
                least(&mut self.s_maxage, word.seconds());
            }
            8 if is("no-store") => self.no_store = true,
            8 if is("no-cache") => self.no_cache.widen(&word.argument),
            14 if is("stale-if-error") => least(&mut self.stale_if_error, word.seconds()),
            15 if is("must-revalidate") => (self.must_revalidate, self.shared) = (true, true),
            15 if is("must-understand") => self.must_understand = true,
            16 if is("proxy-revalidate") => self.proxy_revalidate = true,
            22 if is("stale-while-revalidate") => least(&mut self.stale_while_revalidate, word.seconds()),
            _ => {}
        }
    }

    /// Something could not be read, so that the times may be other ones than were meant, and what allows something may be
    /// part of what forbids it: no time at all, not the operator's either, and nothing is allowed.
    fn distrust(&mut self) {
        self.max_age = Some(Duration::ZERO);
        self.s_maxage = self.s_maxage.map(|_| Duration::ZERO);
        (self.stale_while_revalidate, self.stale_if_error) = (Some(Duration::ZERO), Some(Duration::ZERO));
        (self.public, self.shared) = (false, false);
    }
}

/// Where directives come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    CacheControl,
    /// CDN-Cache-Control: Expires does not count beside it.
    Targeted,
}

impl Reach {
    /// The fields it holds for, if not for all.
    pub(super) fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Nothing | Self::Whole => &[],
        }
    }

    /// The directive is said once more. With an argument that names no fields it is meant for all, and also where it names
    /// one that we cannot do without: to leave out Vary would mix up the variants.
    pub(super) fn widen(&mut self, argument: &Argument<'_>) {
        let named = match argument {
            Argument::Token(list) | Argument::Quoted(list) => names(list),
            Argument::Absent | Argument::Broken => None,
        };
        let named = named.filter(|names| !names.iter().any(fields::is_needed));
        *self = match (std::mem::take(self), named) {
            (Self::Whole, _) | (_, None) => Self::Whole,
            (Self::Nothing, Some(names)) => Self::Fields(names),
            (Self::Fields(mut known), Some(names)) => {
                known.extend(names);
                Self::Fields(known)
            }
        };
    }
}

impl Word<'_> {
    /// Its number; zero if it has none, or none that can be read.
    pub(super) fn seconds(&self) -> Duration {
        self.number().unwrap_or_default()
    }

    /// Its number.
    pub(super) fn number(&self) -> Option<Duration> {
        match self.argument {
            Argument::Token(digits) | Argument::Quoted(digits) => seconds(digits),
            Argument::Absent | Argument::Broken => None,
        }
    }
}

/// The directives in a member. There is one, unless a comma was forgotten.
pub(super) fn words(member: &[u8]) -> impl Iterator<Item = Word<'_>> {
    split(member, b" \t;", Quotes::Escaped).map(|text| {
        let Some(equals) = text.iter().position(|byte| *byte == b'=') else {
            // A quote in a name cannot be seen through either.
            let argument = if text.contains(&b'"') { Argument::Broken } else { Argument::Absent };
            return Word { name: text, argument };
        };
        Word { name: &text[..equals], argument: argument(&text[equals + 1..]) }
    })
}

fn argument(text: &[u8]) -> Argument<'_> {
    match text {
        [b'"', quoted @ ..] => match closing(quoted, Quotes::Escaped) {
            Some(end) if end + 1 == quoted.len() => Argument::Quoted(&quoted[..end]),
            Some(_) | None => Argument::Broken,
        },
        torn if torn.contains(&b'"') => Argument::Broken,
        token => Argument::Token(token),
    }
}

/// Digits and nothing else (RFC 9111, section 1.2.2); more than can be waited for is as much as can be waited for.
pub(super) fn seconds(digits: &[u8]) -> Option<Duration> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| Duration::from_secs(digits.iter().fold(0, add)).min(LONGEST))
}

/// The names of fields in a list; `None` if one is no name, or if there is none.
fn names(list: &[u8]) -> Option<Vec<HeaderName>> {
    let names: Result<Vec<_>, _> = split(list, b", \t", Quotes::Plain).map(HeaderName::from_bytes).collect();
    names.ok().filter(|names| !names.is_empty())
}

fn least(slot: &mut Option<Duration>, number: Duration) {
    *slot = Some(slot.map_or(number, |known| known.min(number)));
}

#[cfg(test)]
mod tests;
