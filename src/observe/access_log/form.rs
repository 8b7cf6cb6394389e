//! What does a line look like? JSON, nginx's `combined`, or a template.
//!
//! Whatever a client has chosen is escaped, so that no request can end a line or a quoted part of one. In text that is
//! done as nginx does it (`escape=default`): quotes, backslashes and all that is no visible ASCII become `\xHH`.

use std::io::{self, Write};
use std::time::Duration;

use super::entry::{Entry, cut};
use crate::config::{LogField, LogForm, Piece};
use crate::observe::stamps::Stamps;

/// What stands for nothing, as in nginx.
const NOTHING: &[u8] = b"-";

/// Writes one line, without its end.
pub(super) fn write(form: &LogForm, entry: &Entry, stamps: &mut Stamps, line: &mut Vec<u8>) -> io::Result<()> {
    match form {
        LogForm::Json => {
            entry.write_json(stamps, line);
            Ok(())
        }
        LogForm::Combined => combined(entry, stamps, line),
        LogForm::Template(pieces) => pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => line.write_all(text.as_bytes()),
            Piece::Field(field) => self::field(*field, entry, stamps, line),
        }),
    }
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`
fn combined(entry: &Entry, stamps: &mut Stamps, line: &mut Vec<u8>) -> io::Result<()> {
    match entry.client {
        Some(address) => write!(line, "{address}")?,
        // As nginx calls who has no address.
        None => line.extend_from_slice(b"unix:"),
    }
    line.extend_from_slice(b" - ");
    field(LogField::Identity, entry, stamps, line)?;
    line.extend_from_slice(b" [");
    stamp(stamps.clf(entry.ended()), line);
    line.extend_from_slice(b"] \"");
    request_line(entry, line);
    write!(line, "\" {:03} {} \"", combined_status(entry), entry.bytes_out)?;
    field(LogField::Referer, entry, stamps, line)?;
    line.extend_from_slice(b"\" \"");
    field(LogField::UserAgent, entry, stamps, line)?;
    line.push(b'"');
    Ok(())
}

/// nginx writes 499 where the client has gone before it was answered.
fn combined_status(entry: &Entry) -> u16 {
    let gone = entry.reason == crate::answer::Ended::ClientGone.label();
    entry.status.unwrap_or(if gone { 499 } else { 0 })
}

/// What the field says, or `-`.
fn field(field: LogField, entry: &Entry, stamps: &mut Stamps, line: &mut Vec<u8>) -> io::Result<()> {
    let quoted = entry.quoted.as_deref();
    match field {
        LogField::Time => stamp(stamps.rfc3339(entry.time), line),
        LogField::TimeClf => stamp(stamps.clf(entry.ended()), line),
        LogField::Id => text(Some(&entry.id), line),
        LogField::TraceId => number(entry.trace_id, line)?,
        LogField::Client => number(entry.client, line)?,
        LogField::Identity => text(entry.identity.as_deref(), line),
        LogField::DryRun => match &entry.dry_run {
            Some(names) => text(Some(&names.join(",")), line),
            None => line.extend_from_slice(NOTHING),
        },
        LogField::Method => text(Some(&entry.method), line),
        LogField::Host => text(Some(&entry.host), line),
        LogField::Path => text(Some(&entry.path), line),
        LogField::Route => text(entry.route.as_deref(), line),
        LogField::Upstream => text(entry.upstream.as_deref(), line),
        LogField::Backend => text(entry.backend.as_deref(), line),
        LogField::Attempts => write!(line, "{}", entry.attempts.len())?,
        LogField::Status => number(entry.status, line)?,
        LogField::BytesIn => write!(line, "{}", entry.bytes_in)?,
        LogField::BytesOut => write!(line, "{}", entry.bytes_out)?,
        LogField::Total => number(Some(millis(entry.total)), line)?,
        LogField::FirstByte => number(entry.first_byte.map(millis), line)?,
        LogField::Connect => number(entry.connect.map(millis), line)?,
        LogField::Protocol => text(Some(entry.protocol), line),
        LogField::Tls => text(entry.tls, line),
        LogField::Cache => text(entry.cache.as_deref(), line),
        LogField::Encoding => text(entry.encoding.as_ref().map(|recoded| recoded.coding), line),
        LogField::Reason => text(Some(entry.reason), line),
        LogField::Request => request_line(entry, line),
        LogField::Referer => bytes(quoted.and_then(|quoted| quoted.referer.as_deref()), line),
        LogField::UserAgent => bytes(quoted.and_then(|quoted| quoted.user_agent.as_deref()), line),
    }
    Ok(())
}

/// Nothing at all where there was no readable head, as in nginx.
fn request_line(entry: &Entry, line: &mut Vec<u8>) {
    if entry.method.is_empty() {
        return;
    }
    escape(cut(&entry.method).as_bytes(), line);
    line.push(b' ');
    match &entry.quoted {
        Some(quoted) => escape(&quoted.target, line),
        None => escape(cut(&entry.path).as_bytes(), line),
    }
    line.push(b' ');
    let protocol = if entry.protocol == "HTTP/2" { "HTTP/2.0" } else { entry.protocol };
    line.extend_from_slice(protocol.as_bytes());
}

fn stamp<const LENGTH: usize>(stamp: Option<[u8; LENGTH]>, line: &mut Vec<u8>) {
    line.extend_from_slice(stamp.as_ref().map_or(NOTHING, |stamp| stamp));
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn number(number: Option<impl std::fmt::Display>, line: &mut Vec<u8>) -> io::Result<()> {
    match number {
        Some(number) => write!(line, "{number}"),
        None => line.write_all(NOTHING),
    }
}

fn text(text: Option<&str>, line: &mut Vec<u8>) {
    let text = text.map(|text| cut(text).as_bytes()).filter(|text| !text.is_empty());
    bytes(text, line);
}

fn bytes(bytes: Option<&[u8]>, line: &mut Vec<u8>) {
    match bytes {
        Some(bytes) => escape(bytes, line),
        None => line.extend_from_slice(NOTHING),
    }
}

fn escape(bytes: &[u8], line: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            line.push(byte);
        } else {
            let (upper, lower) = (usize::from(byte >> 4), usize::from(byte & 15));
            line.extend_from_slice(&[b'\\', b'x', DIGITS[upper], DIGITS[lower]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::super::Quoted;
    use super::*;

    fn entry() -> Entry {
        let quoted = Quoted { target: b"/a?b=c".to_vec(), referer: None, user_agent: Some(b"curl/8.5.0".to_vec()) };
        Entry {
            // The end of 2026-11-22 20:02:49, with the half second that it took.
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_377_768_700),
            total: Duration::from_millis(500),
            client: Some("203.0.113.7".parse().unwrap()),
            method: "GET".to_owned(),
            status: Some(200),
            bytes_out: 612,
            quoted: Some(Box::new(quoted)),
            ..Entry::default()
        }
    }

    fn written(form: &LogForm, entry: &Entry) -> String {
        let mut line = Vec::new();
        write(form, entry, &mut Stamps::default(), &mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    fn combined_of(change: impl FnOnce(&mut Entry)) -> String {
        let mut entry = entry();
        change(&mut entry);
        written(&LogForm::Combined, &entry)
    }

    #[test]
    fn combined_is_that_of_nginx_byte_for_byte() {
        let line = combined_of(|_| {});
        let expected = r#"203.0.113.7 - - [22/Nov/2026:20:02:49 +0000] "GET /a?b=c HTTP/1.1" 200 612 "-" "curl/8.5.0""#;
        assert_eq!(line, expected);
    }

    #[test]
    fn quotes_backslashes_and_control_bytes_are_escaped_as_nginx_does() {
        let line = combined_of(|entry| {
            entry.identity = Some("ann".into());
            entry.protocol = "HTTP/2";
            entry.quoted = Some(Box::new(Quoted {
                target: b"/\"\\".to_vec(),
                referer: Some(Vec::new()),
                user_agent: Some(b"\t\x00\x7f caf\xc3\xa9 ~\n".to_vec()),
            }));
        });
        let rest = r#""GET /\x22\x5C HTTP/2.0" 200 612 "" "\x09\x00\x7F caf\xC3\xA9 ~\x0A""#;
        assert_eq!(line, format!("203.0.113.7 - ann [22/Nov/2026:20:02:49 +0000] {rest}"));
    }

    #[test]
    fn what_was_no_request_has_an_empty_line_and_who_left_has_499() {
        let line = combined_of(|entry| (entry.method.clear(), entry.status = Some(400)).1);
        assert!(line.contains(r#"] "" 400 612 "#), "{line}");
        let line = combined_of(|entry| (entry.status, entry.reason) = (None, "client_gone"));
        assert!(line.contains(" 499 612 "), "{line}");
        let line = combined_of(|entry| entry.client = None);
        assert!(line.starts_with("unix: - - ["), "{line}");
    }

    #[test]
    fn each_field_of_a_template_says_something() {
        for name in LogField::NAMES {
            let form = LogForm::Template(vec![Piece::Field(LogField::named(name).unwrap())]);
            assert!(!written(&form, &entry()).is_empty(), "{name}");
            // Of no request at all, only its request line is empty.
            assert!(*name == "request" || !written(&form, &Entry::default()).is_empty(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_request_ends_a_line_or_a_quoted_part_of_one(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let quoted = Quoted { target: bytes.clone(), referer: Some(bytes.clone()), user_agent: Some(bytes.clone()) };
            let line = combined_of(|entry| entry.quoted = Some(Box::new(quoted)));
            prop_assert_eq!(line.matches('"').count(), 6);
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let fields = LogField::NAMES.iter().map(|name| Piece::Field(LogField::named(name).unwrap())).collect();
            let entry = Entry { host: text.clone(), path: text.clone(), id: text, ..entry() };
            prop_assert!(!written(&LogForm::Template(fields), &entry).contains(['\n', '\r', '"']));
        }
    }
}
