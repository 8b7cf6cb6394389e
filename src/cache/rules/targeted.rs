//! What does the origin say to caches like this one in CDN-Cache-Control (RFC 9213)?
//!
//! The field is a dictionary of structured values (RFC 8941, section 3.2). If it is empty, or anything in it cannot be
//! read, or a number is none, the whole field counts as absent (RFC 9213, section 2.1).

use http::HeaderMap;
use http::HeaderName;

use super::directives::{Argument, Directives, Word};
use super::list::{Quotes, closing, is_token};

/// The field.
pub(super) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Directives whose argument is a number.
const NUMBERS: &[&[u8]] = &[b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"];
/// Directives whose argument, if there is one, names fields.
const LISTS: &[&[u8]] = &[b"no-cache", b"private"];

/// A value of which nothing is kept but what directives have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Boolean(bool),
    Integer(&'a [u8]),
    /// A String or a Token.
    Text(&'a [u8]),
    Other,
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

/// What the field says; `None` if it is absent, or to be ignored.
pub(super) fn directives(fields: &HeaderMap) -> Option<Directives> {
    let mut lines = fields.get_all(CDN_CACHE_CONTROL).into_iter().map(http::HeaderValue::as_bytes);
    let first = lines.next()?;
    match lines.next() {
        None => read(first),
        Some(second) => {
            let all: Vec<_> = [first, second].into_iter().chain(lines).collect();
            read(&all.join(&b", "[..]))
        }
    }
}

fn read(text: &[u8]) -> Option<Directives> {
    // Of a key that comes twice the last one counts (RFC 8941, section 4.2.2), so none is taken before all are read.
    let mut members: Vec<(&[u8], Value<'_>)> = Vec::new();
    let mut reader = Reader(text);
    reader.skip(b" ");
    while !reader.0.is_empty() {
        let (key, value) = reader.member()?;
        members.retain(|(known, _)| *known != key);
        members.push((key, value));
        reader.skip(b" \t");
        if reader.0.is_empty() {
            break;
        }
        reader.eat(b',')?;
        reader.skip(b" \t");
        reader.0.first()?;
    }
    let mut directives = Directives::default();
    for (name, value) in &members {
        directives.take(&word(name, value)?.unwrap_or(Word { name: b"", argument: Argument::Absent }));
    }
    (!members.is_empty()).then_some(directives)
}

/// A member as a directive: `Some(None)` if it says that it is not meant, `None` if its type is wrong.
fn word<'a>(name: &'a [u8], value: &Value<'a>) -> Option<Option<Word<'a>>> {
    let argument = match *value {
        Value::Boolean(false) => return Some(None),
        Value::Integer(digits) if NUMBERS.contains(&name) => Argument::Token(digits),
        Value::Boolean(true) | Value::Text(_) | Value::Other if NUMBERS.contains(&name) => return None,
        Value::Text(list) if LISTS.contains(&name) => Argument::Quoted(list),
        Value::Integer(_) | Value::Other if LISTS.contains(&name) => return None,
        Value::Boolean(true) | Value::Integer(_) | Value::Text(_) | Value::Other => Argument::Absent,
    };
    Some(Some(Word { name, argument }))
}

impl<'a> Reader<'a> {
    fn member(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let key = self.key()?;
        let value = if self.eat(b'=').is_some() { self.item_or_list()? } else { Value::Boolean(true) };
        self.parameters()?;
        Some((key, value))
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        self.0.first().filter(|first| first.is_ascii_lowercase() || **first == b'*')?;
        Some(self.run(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)))
    }

    /// Parameters mean nothing in this field (RFC 9213, section 2.1), but must be well-formed.
    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';').is_some() {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=').is_some() {
                self.item()?;
            }
        }
        Some(())
    }

    fn item_or_list(&mut self) -> Option<Value<'a>> {
        if self.eat(b'(').is_none() {
            return self.item();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')').is_some() {
                return Some(Value::Other);
            }
            self.item()?;
            self.parameters()?;
            self.0.first().filter(|next| matches!(next, b' ' | b')'))?;
        }
    }

    fn item(&mut self) -> Option<Value<'a>> {
        match self.0.first()? {
            b'"' => self.string().map(Value::Text),
            b'?' => self.boolean(),
            b':' => self.enclosed(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte), b':'),
            b'-' | b'0'..=b'9' => self.number(),
            first if first.is_ascii_alphabetic() || *first == b'*' => {
                let is_letter = |byte: u8| is_token(&[byte]) || b":/".contains(&byte);
                Some(Value::Text(self.run(is_letter)))
            }
            _ => None,
        }
    }

    /// An Integer as its digits, a Decimal as something else (RFC 8941, section 4.2.4). A lifetime below zero cannot be read
    /// as a number of seconds, so that it becomes zero.
    fn number(&mut self) -> Option<Value<'a>> {
        let start = self.0;
        let is_negative = self.eat(b'-').is_some();
        let whole = self.run(|byte| byte.is_ascii_digit());
        let fraction = self.eat(b'.').map(|()| self.run(|byte| byte.is_ascii_digit()));
        match fraction {
            None if !(1..=15).contains(&whole.len()) => None,
            None if is_negative => Some(Value::Integer(&start[..=whole.len()])),
            None => Some(Value::Integer(whole)),
            Some(fraction) => {
                let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
                fits.then_some(Value::Other)
            }
        }
    }

    /// Without its quotes, with its backslashes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let end = closing(self.0, Quotes::Escaped)?;
        let (text, rest) = self.0.split_at(end);
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            let escaped = *byte != b'\\' || bytes.next().is_some_and(|next| b"\\\"".contains(next));
            if !escaped || !matches!(byte, b' '..=b'~') {
                return None;
            }
        }
        self.0 = &rest[1..];
        Some(text)
    }

    fn boolean(&mut self) -> Option<Value<'a>> {
        self.eat(b'?')?;
        let value = match self.0.first()? {
            b'0' => false,
            b'1' => true,
            _ => return None,
        };
        self.0 = &self.0[1..];
        Some(Value::Boolean(value))
    }

    fn enclosed(&mut self, is_inside: impl Fn(u8) -> bool, mark: u8) -> Option<Value<'a>> {
        self.eat(mark)?;
        self.run(is_inside);
        self.eat(mark)?;
        Some(Value::Other)
    }

    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !belongs(*byte)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        run
    }

    fn skip(&mut self, bytes: &[u8]) {
        self.run(|byte| bytes.contains(&byte));
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == byte).then(|| self.0 = rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::directives::{Reach, Source};
    use crate::cache::rules::samples::head;
    use proptest::prelude::*;
    use std::time::Duration;

    fn of(lines: &[&str]) -> Option<Directives> {
        let fields: Vec<_> = lines.iter().map(|line| ("cdn-cache-control", *line)).collect();
        directives(&head(&fields))
    }

    #[track_caller]
    fn check_max_age(lines: &[&str], expected: Option<u64>) {
        let max_age = of(lines).map(|directives| directives.max_age.unwrap());
        assert_eq!(max_age, expected.map(Duration::from_secs), "{lines:?}");
    }

    #[test]
    fn a_dictionary_is_read_as_rfc_9213_section_2_1_says() {
        check_max_age(&["max-age=3600"], Some(3600));
        check_max_age(&["foobar, max-age=3600"], Some(3600));
        check_max_age(&["max-age=2147483648"], Some(1 << 31));
        check_max_age(&["max-age=99999999999"], Some(1 << 31));
        check_max_age(&["  max-age=1 \t,\t foo=(a \"b\" 1.5;x);y=:YWJj:  "], Some(1));
        check_max_age(&["foo=bar/baz:qux", "max-age=1;foo=bar;baz, a=?1"], Some(1));
        check_max_age(&["foo=\"max-age=5, \\\" \", max-age=1"], Some(1));
        let all = of(&["no-store, no-cache, private, must-revalidate, public, stale-if-error=5"]).unwrap();
        assert!(all.no_store && all.must_revalidate && all.public);
        assert_eq!((all.no_cache, all.private), (Reach::Whole, Reach::Whole));
        assert_eq!(all.stale_if_error, Some(Duration::from_secs(5)));
    }

    #[test]
    fn of_a_key_that_comes_twice_the_last_counts_as_rfc_8941_section_4_2_2_says() {
        check_max_age(&["max-age=1, max-age=3600"], Some(3600));
        check_max_age(&["max-age=3600", "max-age=1"], Some(1));
        assert!(!of(&["no-store, no-store=?0"]).unwrap().no_store);
    }

    #[test]
    fn what_cannot_be_read_is_ignored_as_a_whole_as_rfc_9213_section_2_1_says() {
        for line in [
            "",
            " ",
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age=10.5",
            "max-age",
            "max-age=a",
            "max-age=?1",
            "max-age =100",
            "max-age= 100",
            "MaX-aGe=3600",
            "max-age=1,",
            ",max-age=1",
            "max-age=1,,a",
            "max-age=1 a",
            "max-age=1;",
            "max-age=1;A",
            "max-age=+1",
            "max-age=",
            "max-age=1000000000000000",
            "max-age='1'",
            "a=\"b",
            "a=\"b\\c\"",
            "a=:b",
            "a=(b",
            "a=(b\"c\")",
            "a=?2",
            "a=-",
            "a=1.",
            "a=1.2345",
            "no-cache=5",
            "private=(a)",
            "s-maxage=x, max-age=1",
            "stale-if-error=1.0, max-age=1",
            "max-age=1\u{e9}",
            "a=\"\u{e9}\"",
        ] {
            assert_eq!(of(&[line]), None, "{line}");
        }
        assert_eq!(directives(&head(&[("cache-control", "max-age=1")])), None);
    }

    #[test]
    fn a_lifetime_below_zero_is_none() {
        check_max_age(&["max-age=-1"], Some(0));
    }

    #[test]
    fn no_cache_and_private_may_name_fields() {
        let directives = of(&["no-cache=\"a, b\", private=set-cookie"]).unwrap();
        assert_eq!(directives.no_cache.fields(), ["a", "b"]);
        assert_eq!(directives.private.fields(), ["set-cookie"]);
    }

    #[test]
    fn it_stands_above_cache_control_where_it_can_be_read() {
        let source = |targeted| {
            let fields = head(&[("cdn-cache-control", targeted), ("cache-control", "no-store")]);
            let (directives, source) = Directives::governing(&fields);
            (directives.no_store, source)
        };
        assert_eq!(source("max-age=1"), (false, Source::Targeted));
        assert_eq!(source("max-age=1, &"), (true, Source::CacheControl));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            read(&text);
        }

        #[test]
        fn nothing_that_looks_like_it_makes_it_panic(text in "([a-z]=?|[0-9]|[\"?:;,(). \\\\-]){0,24}") {
            read(text.as_bytes());
        }
    }
}
