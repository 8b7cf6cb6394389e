//! Which other requests does a stored response answer (RFC 9111, section 4.1)?

use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION, REFERER, USER_AGENT, VARY,
};
use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::Xxh3;

use super::list::{Quotes, members, split};

/// More than any site needs; each is looked up and hashed on every hit.
const MOST_NAMES: usize = 16;

/// Fields in which a comma separates nothing, so that the white space around it may mean something.
const NO_LISTS: &[HeaderName] = &[AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION, REFERER, USER_AGENT];

/// What of the request has chosen the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// Nothing but what the key has.
    Nothing,
    /// These fields, each once and in order.
    Fields(Vec<HeaderName>),
    /// What no cache can know: `*`, a name that is none, or more names than we look at.
    Star,
}

impl Vary {
    /// What a response says.
    pub fn of(fields: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for name in members(fields, &VARY, Quotes::Plain) {
            match HeaderName::from_bytes(name) {
                Ok(name) if name.as_str() != "*" => names.push(name),
                Ok(_) | Err(_) => return Self::Star,
            }
        }
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        match names.len() {
            0 => Self::Nothing,
            1..=MOST_NAMES => Self::Fields(names),
            _ => Self::Star,
        }
    }
}

/// A number for what a request says in these fields: another one for other values, the same for values that mean the same.
///
/// The seed is a secret of the store. Without it, whoever may choose values could look for two with the same number, and
/// have others served what was meant for his own.
pub fn variance(names: &[HeaderName], request: &HeaderMap, seed: u64) -> u128 {
    let mut hash = Hash(Xxh3::with_seed(seed));
    for name in names {
        hash.put(name.as_str().as_bytes());
        if !request.contains_key(name) {
            hash.absent();
        } else if *name == ACCEPT_ENCODING {
            hash.encodings(request);
        } else if *name == ACCEPT_LANGUAGE {
            hash.lowercase(request);
        } else if NO_LISTS.contains(name) {
            hash.list(request.get_all(name).into_iter().map(http::HeaderValue::as_bytes));
        } else {
            hash.list(members(request, name, Quotes::Escaped));
        }
    }
    hash.0.digest128()
}

/// Every text goes in with its length before it, and every list with its end, so that no two lists look the same.
struct Hash(Xxh3);

impl Hash {
    fn put(&mut self, text: &[u8]) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn list<'a>(&mut self, members: impl Iterator<Item = &'a [u8]>) {
        members.for_each(|member| self.put(member));
        self.0.update(&u64::MAX.to_le_bytes());
    }

    /// A field that is not there is not one without members.
    fn absent(&mut self) {
        self.0.update(&(u64::MAX - 1).to_le_bytes());
    }

    /// Their order means nothing, nor does a weight of one (RFC 9110, sections 12.4.2 and 12.5.3).
    fn encodings(&mut self, request: &HeaderMap) {
        let mut all: Vec<Vec<u8>> = members(request, &ACCEPT_ENCODING, Quotes::Escaped).map(encoding).collect();
        all.sort_unstable();
        all.dedup();
        self.list(all.iter().map(Vec::as_slice));
    }

    /// Their order is not touched: many servers take the first of equals (RFC 9110, section 12.5.4).
    fn lowercase(&mut self, request: &HeaderMap) {
        let all: Vec<_> = members(request, &ACCEPT_LANGUAGE, Quotes::Escaped).map(encoding).collect();
        self.list(all.iter().map(Vec::as_slice));
    }
}

/// In small letters, without white space, and without a weight that says nothing.
fn encoding(member: &[u8]) -> Vec<u8> {
    let parts = split(member, b";", Quotes::Escaped).map(|part| {
        let lower = part.iter().filter(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_lowercase);
        lower.collect::<Vec<_>>()
    });
    let is_full = |part: &[u8]| matches!(part, b"q=1" | b"q=1." | b"q=1.0" | b"q=1.00" | b"q=1.000");
    parts.filter(|part| !is_full(part)).collect::<Vec<_>>().join(&b';')
}
