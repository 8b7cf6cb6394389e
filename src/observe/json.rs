//! How is an object of JSON written? Field by field: a line is made of every request, and serde looks at each byte of each
//! name.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use serde_json::Value as Json;

/// An object at the end of a line, which grows by a field at a time.
pub(super) struct Object<'a> {
    line: &'a mut Vec<u8>,
    /// What the next field begins with.
    before: u8,
}

impl<'a> Object<'a> {
    /// Begins an object that is written to the end of the line.
    pub(super) fn new(line: &'a mut Vec<u8>) -> Self {
        Self { line, before: b'{' }
    }

    /// Ends the object.
    pub(super) fn end(self) {
        let end: &[u8] = if self.before == b'{' { b"{}" } else { b"}" };
        self.line.extend_from_slice(end);
    }

    /// Begins a field; its value has to follow. The name must need no escapes.
    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.line.reserve(name.len() + 4);
        self.line.extend_from_slice(&[self.before, b'"']);
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
        self.before = b',';
        self.line
    }

    /// A string, or `null`.
    pub(super) fn text<'t>(&mut self, name: &'static str, value: impl Into<Option<&'t str>>) {
        let line = self.name(name);
        match value.into() {
            Some(value) => text(value, line),
            None => null(line),
        }
    }

    /// A number, or `null`.
    pub(super) fn number(&mut self, name: &'static str, value: impl Into<Option<u64>>) {
        let line = self.name(name);
        match value.into() {
            Some(value) => line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            None => null(line),
        }
    }

    /// Milliseconds to three places, with one at least, or `null`: `3.0`, `0.25`.
    pub(super) fn millis(&mut self, name: &'static str, value: impl Into<Option<Duration>>) {
        let line = self.name(name);
        match value.into() {
            Some(value) => millis(value, line),
            None => null(line),
        }
    }

    /// What the value shows of itself, as a string, or `null`. It must need no escapes.
    pub(super) fn shown(&mut self, name: &'static str, value: Option<impl Display>) {
        let line = self.name(name);
        match value {
            Some(value) => drop(write!(line, "\"{value}\"")),
            None => null(line),
        }
    }

    /// Another object, or `null`.
    pub(super) fn object<T>(&mut self, name: &'static str, value: Option<&T>, write: impl FnOnce(&T, &mut Object<'_>)) {
        let line = self.name(name);
        let Some(value) = value else { return null(line) };
        let mut object = Object::new(line);
        write(value, &mut object);
        object.end();
    }

    /// Anything else.
    pub(super) fn value(&mut self, name: &'static str, value: &Json) {
        let line = self.name(name);
        // To a vector, everything can be written.
        let _ = serde_json::to_writer(line, value);
    }

    /// A list of objects.
    pub(super) fn objects<T>(&mut self, name: &'static str, items: &[T], write: impl Fn(&T, &mut Object<'_>)) {
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
    line.reserve(text.len() + 2);
    line.push(b'"');
    line.extend_from_slice(text.as_bytes());
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
            object.text("a", "b");
            object.text("c", None);
            object.number("d", 18_446_744_073_709_551_615);
            object.number("e", None);
            object.millis("f", None);
            object.value("g", &json!({"h": [1]}));
            object.objects("i", &[1, 2], |&n, item| item.number("j", n));
            object.objects("k", &[], |(), _| {});
        });
        let expected = concat!(
            r#"{"a":"b","c":null,"d":18446744073709551615,"e":null,"f":null,"g":{"h":[1]},"#,
            r#""i":[{"j":1},{"j":2}],"k":[]}"#
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn milliseconds_have_no_zeros_that_say_nothing() {
        let of = |micros| written(|object| object.millis("ms", Duration::from_micros(micros)));
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
                object.text("text", &*value);
                object.millis("ms", Duration::from_micros(micros));
            });
            prop_assert_eq!(&line, &format!("{{\"text\":{},\"ms\":{}}}", json!(value), json!(micros as f64 / 1000.0)));
            prop_assert!(serde_json::from_str::<Json>(&line).is_ok());
        }

        #[test]
        fn a_string_with_one_byte_that_has_to_be_escaped_is_found_wherever_it_is(
            byte in prop_oneof![0..32_u8, Just(b'"'), Just(b'\\')], before in 0..70_usize, after in 0..70_usize,
        ) {
            let value = format!("{}{}{}", "a".repeat(before), char::from(byte), "b".repeat(after));
            prop_assert_eq!(written(|object| object.text("t", &*value)), format!("{{\"t\":{}}}", json!(value)));
        }
    }
}
