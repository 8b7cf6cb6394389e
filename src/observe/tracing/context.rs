//! Which trace does a request belong to? The `traceparent` field, read and written.
//!
//! <https://www.w3.org/TR/trace-context/>. Whatever does not follow its grammar to the letter is no trace, so that nobody
//! can write into logs and spans of ours what he likes.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName, HeaderValue};

/// <https://www.w3.org/TR/trace-context/#traceparent-header>
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// <https://www.w3.org/TR/trace-context/#tracestate-header>
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of version 00, and of the part of later versions that is known.
const LENGTH: usize = 55;

/// The bit of the flags that says that a trace is recorded.
const SAMPLED: u8 = 1;

/// The number of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

/// The number of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// Of chance.
    pub fn new() -> Self {
        Self(NonZeroU128::new(fastrand::u128(..)).unwrap_or(NonZeroU128::MIN))
    }
}

impl Default for TraceId {
    fn default() -> Self {
        Self::new()
    }
}

impl SpanId {
    /// Of chance.
    pub fn new() -> Self {
        Self(NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN))
    }
}

impl Default for SpanId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A span that others belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

impl Parent {
    /// The parent that a head names; `None` where it names none, or more than one.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let mut named = fields.get_all(TRACEPARENT).iter();
        let (first, second) = (named.next()?, named.next());
        Self::read(first.as_bytes()).filter(|_| second.is_none())
    }

    /// Reads the value of a field.
    pub fn read(value: &[u8]) -> Option<Self> {
        let [version, trace, span, flags] = parts(value)?;
        let (version, flags) = (u8::try_from(hex(version)?).ok()?, u8::try_from(hex(flags)?).ok()?);
        let is_known = version == 0 && value.len() == LENGTH;
        // Of a later version the beginning means the same, and more may follow.
        let is_later = version > 0 && version < u8::MAX && value.get(LENGTH).is_none_or(|next| *next == b'-');
        (is_known || is_later).then_some(())?;
        let trace = TraceId(NonZeroU128::new(hex(trace)?)?);
        let span = SpanId(NonZeroU64::new(u64::try_from(hex(span)?).ok()?)?);
        Some(Self { trace, span, is_sampled: flags & SAMPLED != 0 })
    }
}

impl TryFrom<Parent> for HeaderValue {
    type Error = http::header::InvalidHeaderValue;

    fn try_from(parent: Parent) -> Result<Self, Self::Error> {
        let Parent { trace, span, is_sampled } = parent;
        format!("00-{trace}-{span}-{:02x}", u8::from(is_sampled)).try_into()
    }
}

/// Version, trace, span and flags.
fn parts(value: &[u8]) -> Option<[&[u8]; 4]> {
    let known = value.get(..LENGTH)?;
    let dashes = [2, 35, 52].iter().all(|place| known.get(*place) == Some(&b'-'));
    dashes.then(|| [&known[..2], &known[3..35], &known[36..52], &known[53..]])
}

/// A number in lower-case digits: others are not allowed.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(text: &str) -> Option<Parent> {
        Parent::read(text.as_bytes())
    }

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in [GOOD, "00-0000000000000000000000000000000a-000000000000000b-00"] {
            assert_eq!(HeaderValue::try_from(read(text).unwrap()).unwrap(), text);
        }
        assert!(read(GOOD).unwrap().is_sampled);
        assert!(!read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02").unwrap().is_sampled);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for text in [
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-what-else",
        ] {
            assert_eq!(read(text), read(GOOD), "{text}");
        }
    }

    #[test]
    fn whatever_else_is_no_parent() {
        for text in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut fields = HeaderMap::new();
        fields.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&fields), read(GOOD));
        fields.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&fields), None);
    }
}
