//! How is an object of JSON written? Field by field: a line is made of every request, and serde looks at each byte of each
//! name.

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value as Json;

/// The name of a field, with what is around it.
pub(super) struct Field(pub(super) &'static str);

/// A [`Field`] by its name, which must need no escapes. Known when it is compiled, it is copied by a few instructions.
macro_rules! field {
    ($name:literal) => {
        $crate::observe::json::Field(concat!(",\"", $name, "\":"))
    };
}

pub(super) use field;

/// An object at the end of a line, which grows by a field at a time.
pub(super) struct Object<'a> {
    line: &'a mut Vec<u8>,
    /// Where it begins.
    start: usize,
}

impl<'a> Object<'a> {
    /// Begins an object that is written to the end of the line.
    pub(super) fn new(line: &'a mut Vec<u8>) -> Self {
        let start = line.len();
        Self { line, start }
    }

    /// Ends the object.
    pub(super) fn end(self) {
        match self.line.get_mut(self.start) {
            // Each field begins with a comma, the first one too.
            Some(first) => *first = b'{',
            None => self.line.push(b'{'),
        }
        self.line.push(b'}');
    }

    /// Begins a field; its value has to follow.
    #[inline]
    fn name(&mut self, name: Field) -> &mut Vec<u8> {
        self.line.extend_from_slice(name.0.as_bytes());
        self.line
    }

    /// A string, or `null`.
    #[inline]
    pub(super) fn text<'t>(&mut self, name: Field, value: impl Into<Option<&'t str>>) {
        let line = self.name(name);
        match value.into() {
            Some(value) => text(value, line),
            None => null(line),
        }
    }

    /// A number, or `null`.
    #[inline]
    pub(super) fn number(&mut self, name: Field, value: impl Into<Option<u64>>) {
        let line = self.name(name);
        match value.into() {
            Some(value) => line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            None => null(line),
        }
    }

    /// Milliseconds to three places, with one at least, or `null`: `3.0`, `0.25`.
    #[inline]
    pub(super) fn millis(&mut self, name: Field, value: impl Into<Option<Duration>>) {
        let line = self.name(name);
        match value.into() {
            Some(value) => millis(value, line),
            None => null(line),
        }
    }

    /// Visible ASCII without quotes and backslashes, as a string, or `null`.
    #[inline]
    pub(super) fn ascii(&mut self, name: Field, value: Option<&[u8]>) {
        let line = self.name(name);
        match value {
            Some(value) => quoted(value, line),
            None => null(line),
        }
    }

    /// What the value shows of itself, as a string, or `null`. It must need no escapes.
    #[inline]
    pub(super) fn shown(&mut self, name: Field, value: Option<impl Display>) {
        let line = self.name(name);
        match value {
            // To a vector, everything can be written.
            Some(value) => drop(write!(line, "\"{value}\"")),
            None => null(line),
        }
    }

    /// An address, as a string, or `null`.
    #[inline]
    pub(super) fn address(&mut self, name: Field, value: Option<IpAddr>) {
        match value {
            Some(IpAddr::V4(value)) => v4(value, self.name(name)),
            Some(IpAddr::V6(_)) | None => self.shown(name, value),
        }
    }

    /// Another object, or `null`.
    pub(super) fn object<T>(&mut self, name: Field, value: Option<&T>, write: impl FnOnce(&T, &mut Object<'_>)) {
        let line = self.name(name);
        let Some(value) = value else { return null(line) };
        let mut object = Object::new(line);
        write(value, &mut object);
        object.end();
    }

    /// Anything else.
    pub(super) fn value(&mut self, name: Field, value: &Json) {
        let line = self.name(name);
        // To a vector, everything can be written.
        let _ = serde_json::to_writer(line, value);
    }

    /// A list of objects.
    pub(super) fn objects<T>(&mut self, name: Field, items: &[T], write: impl Fn(&T, &mut Object<'_>)) {
        let line = self.name(name);
        line.push(b'[');
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                line.push(b',');
            }
            let mut object = Object::new(line);
            write(item, &mut object);
            object.end();
        }
        line.push(b']');
    }
}

fn null(line: &mut Vec<u8>) {
    line.extend_from_slice(b"null");
}

/// A string with its quotes. Most need no escapes, which is found faster for all bytes at once.
fn text(text: &str, line: &mut Vec<u8>) {
    let has_escapes = text.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    if has_escapes {
        // To a vector, everything can be written.
        let _ = serde_json::to_writer(line, text);
        return;
    }
    quoted(text.as_bytes(), line);
}

fn quoted(text: &[u8], line: &mut Vec<u8>) {
    line.reserve(text.len() + 2);
    line.push(b'"');
    line.extend_from_slice(text);
    line.push(b'"');
}

/// A quarter of what `Display` takes.
fn v4(address: Ipv4Addr, line: &mut Vec<u8>) {
    let mut before = b'"';
    for octet in address.octets() {
        line.push(before);
        line.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
        before = b'.';
    }
    line.push(b'"');
}

fn millis(time: Duration, line: &mut Vec<u8>) {
    let micros = time.as_micros();
    line.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
    let rest = (micros % 1000) as u16;
    let places = [rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8);
    let kept = places.iter().rposition(|&digit| digit != b'0').unwrap_or(0);
    line.push(b'.');
    line.extend(places.iter().take(kept + 1));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written(write: impl FnOnce(&mut Object<'_>)) -> String {
        let mut line = Vec::new();
        let mut object = Object::new(&mut line);
        write(&mut object);
        object.end();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn an_object_has_its_fields_in_the_order_in_which_they_came() {
        assert_eq!(written(|_| {}), "{}");
        let line = written(|object| {
            object.text(field!("a"), "b");
            object.text(field!("c"), None);
            object.number(field!("d"), 18_446_744_073_709_551_615);
            object.number(field!("e"), None);
            object.millis(field!("f"), None);
            object.value(field!("g"), &json!({"h": [1]}));
            object.objects(field!("i"), &[1, 2], |&n, item| item.number(field!("j"), n));
            object.objects(field!("k"), &[], |(), _| {});
        });
        let expected = concat!(
            r#"{"a":"b","c":null,"d":18446744073709551615,"e":null,"f":null,"g":{"h":[1]},"#,
            r#""i":[{"j":1},{"j":2}],"k":[]}"#
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn addresses_and_what_shows_itself_are_strings() {
        let line = written(|object| {
            object.address(field!("a"), Some("203.0.113.70".parse().unwrap()));
            object.address(field!("b"), Some("2001:db8::1".parse().unwrap()));
            object.address(field!("c"), None);
            object.shown(field!("d"), Some(7));
            object.ascii(field!("e"), Some(b"f"));
        });
        assert_eq!(line, r#"{"a":"203.0.113.70","b":"2001:db8::1","c":null,"d":"7","e":"f"}"#);
    }

    #[test]
    fn milliseconds_have_no_zeros_that_say_nothing() {
        let of = |micros| written(|object| object.millis(field!("ms"), Duration::from_micros(micros)));
        for (micros, expected) in
            [(0, "0.0"), (1, "0.001"), (10, "0.01"), (250, "0.25"), (3000, "3.0"), (1_234_567, "1234.567")]
        {
            assert_eq!(of(micros), format!("{{\"ms\":{expected}}}"));
        }
    }

    proptest! {
        #[test]
        fn strings_and_times_are_as_serde_writes_them(value in any::<String>(), micros in 0..10_000_000_000_000_u64) {
            let line = written(|object| {
                object.text(field!("text"), &*value);
                object.millis(field!("ms"), Duration::from_micros(micros));
            });
            prop_assert_eq!(&line, &format!("{{\"text\":{},\"ms\":{}}}", json!(value), json!(micros as f64 / 1000.0)));
            prop_assert!(serde_json::from_str::<Json>(&line).is_ok());
        }

        #[test]
        fn a_string_with_one_byte_that_has_to_be_escaped_is_found_wherever_it_is(
            byte in prop_oneof![0..32_u8, Just(b'"'), Just(b'\\')], before in 0..70_usize, after in 0..70_usize,
        ) {
            let value = format!("{}{}{}", "a".repeat(before), char::from(byte), "b".repeat(after));
            prop_assert_eq!(written(|object| object.text(field!("t"), &*value)), format!("{{\"t\":{}}}", json!(value)));
        }
    }
}
