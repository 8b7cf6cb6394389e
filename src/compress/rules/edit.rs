//! What becomes of the head of an answer whose body is coded, decoded, or could be?
//!
//! How the end of the body is told is the caller's: without a Content-Length, HTTP/1.1 wants `Transfer-Encoding`.

use http::HeaderName;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderValue, VARY};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::members;
use crate::config::Coding;

/// True of the body only as it was: its length, its parts, and what it adds up to (RFC 9530 and its elders).
const OF_THE_OLD_BODY: [HeaderName; 6] = [
    CONTENT_LENGTH,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

// Names are written as text where one is set: of its own accord Pingora knows the usual case of only some of them.
const ACCEPT_ENCODING: &str = "Accept-Encoding";

/// The body will be in this coding.
pub fn code(head: &mut ResponseHeader, coding: Coding) -> Result<()> {
    head.insert_header("Content-Encoding", coding.name())?;
    forget_the_old_body(head)?;
    vary(head)
}

/// The body will be in no coding any more.
pub fn decode(head: &mut ResponseHeader) -> Result<()> {
    head.remove_header(&CONTENT_ENCODING);
    forget_the_old_body(head)?;
    vary(head)
}

/// The body of this request will be in no coding any more. How it is sent, and its new length if that is known, is the
/// caller's.
pub fn decode_request(head: &mut RequestHeader) {
    head.remove_header(&CONTENT_ENCODING);
    for name in &OF_THE_OLD_BODY {
        head.remove_header(name);
    }
}

/// Another client might get another form of it: `Vary` names Accept-Encoding, once, on one line with what it names
/// already, since not every cache on the way reads more than one. `*` says more and is left.
pub fn vary(head: &mut ResponseHeader) -> Result<()> {
    let covers = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_bytes());
    if members(&head.headers, &VARY).any(covers) {
        return Ok(());
    }
    let mut names: Vec<&[u8]> = members(&head.headers, &VARY).collect();
    names.push(ACCEPT_ENCODING.as_bytes());
    // Joined from values that were legal; bytes beyond ASCII may stand in one.
    let joined = HeaderValue::from_bytes(&names.join(b", ".as_slice()));
    head.insert_header("Vary", joined.unwrap_or_else(|_| HeaderValue::from_static(ACCEPT_ENCODING)))
}

/// A 304 for an answer that would be coded or decoded. It gets the `Vary` of that answer, and if `weak` its tag, see
/// [`super::Verdict::NotModified`]; whatever else it says of the body would be written over what the client has stored
/// (RFC 9111, section 3.2).
pub fn not_modified(head: &mut ResponseHeader, weak: bool) -> Result<()> {
    if weak {
        forget_the_old_body(head)?;
    }
    vary(head)
}

fn forget_the_old_body(head: &mut ResponseHeader) -> Result<()> {
    for name in &OF_THE_OLD_BODY {
        head.remove_header(name);
    }
    weaken(head)
}

/// Two forms of one thing are not the same byte for byte, which is what a strong tag says (RFC 9110, section 8.8.3.3).
/// A tag without quotes is none, and it cannot be said of it that it is weak.
fn weaken(head: &mut ResponseHeader) -> Result<()> {
    let Some(tag) = head.headers.get(ETAG).map(|tag| tag.as_bytes()) else { return Ok(()) };
    if tag.starts_with(b"W/\"") {
        return Ok(());
    }
    let weak = HeaderValue::from_bytes(&[b"W/", tag].concat()).ok().filter(|_| tag.starts_with(b"\""));
    match weak {
        Some(weak) => head.insert_header("ETag", weak),
        None => {
            head.remove_header(&ETAG);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn head(fields: Fields<'_>) -> ResponseHeader {
        let mut head = ResponseHeader::build(200, None).unwrap();
        for (name, value) in fields {
            head.append_header((*name).to_owned(), *value).unwrap();
        }
        head
    }

    fn fields(head: &ResponseHeader) -> Vec<(String, String)> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut lines: Vec<_> = head.headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[track_caller]
    fn check(edit: impl Fn(&mut ResponseHeader) -> Result<()>, before: Fields<'_>, after: Fields<'_>) {
        let (mut edited, mut expected) = (head(before), head(after));
        edit(&mut edited).unwrap();
        assert_eq!(fields(&edited), fields(&expected), "{before:?}");
        // Once more changes nothing: a stored answer may come by again.
        edit(&mut expected).unwrap();
        assert_eq!(fields(&edited), fields(&expected), "{before:?}");
    }

    #[test]
    fn vary_is_merged_and_never_says_a_thing_twice() {
        let cases: [(Fields<'_>, Fields<'_>); 9] = [
            (&[], &[("vary", "Accept-Encoding")]),
            (&[("vary", "")], &[("vary", "Accept-Encoding")]),
            (&[("vary", "Origin")], &[("vary", "Origin, Accept-Encoding")]),
            (&[("vary", "Origin,Cookie,")], &[("vary", "Origin, Cookie, Accept-Encoding")]),
            (&[("vary", "Origin"), ("vary", "Cookie")], &[("vary", "Origin, Cookie, Accept-Encoding")]),
            (&[("vary", "accept-encoding")], &[("vary", "accept-encoding")]),
            (
                &[("vary", "Origin"), ("vary", "X, ACCEPT-ENCODING")],
                &[("vary", "Origin"), ("vary", "X, ACCEPT-ENCODING")],
            ),
            (&[("vary", "*")], &[("vary", "*")]),
            (&[("vary", "x-accept-encoding")], &[("vary", "x-accept-encoding, Accept-Encoding")]),
        ];
        cases.into_iter().for_each(|(before, after)| check(vary, before, after));
    }

    #[test]
    fn a_coded_answer_says_so_and_nothing_of_the_body_it_was() {
        let before: Fields<'_> = &[
            ("content-type", "text/html"),
            ("content-length", "5000"),
            ("content-encoding", "identity"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("digest", "sha-256=x"),
            ("content-digest", "sha-256=:x:"),
            ("repr-digest", "sha-256=:x:"),
            ("etag", "\"a\""),
            ("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ];
        let after: Fields<'_> = &[
            ("content-type", "text/html"),
            ("content-encoding", "br"),
            ("etag", "W/\"a\""),
            ("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT"),
            ("vary", "Accept-Encoding"),
        ];
        check(|head| code(head, Coding::Br), before, after);
    }

    #[test]
    fn a_decoded_answer_is_in_no_coding() {
        let before: Fields<'_> = &[
            ("content-encoding", "x-gzip"),
            ("content-encoding", "identity"),
            ("content-length", "50"),
            ("etag", "\"a\""),
            ("vary", "Origin"),
        ];
        check(decode, before, &[("etag", "W/\"a\""), ("vary", "Origin, Accept-Encoding")]);
    }

    #[test]
    fn a_decoded_request_is_in_no_coding() {
        let mut head = RequestHeader::build("POST", b"/", None).unwrap();
        let fields = [("content-type", "a/b"), ("content-encoding", "gzip"), ("content-length", "5"), ("digest", "x")];
        fields.into_iter().for_each(|(name, value)| head.insert_header(name, value).unwrap());
        decode_request(&mut head);
        assert_eq!(head.headers.keys().collect::<Vec<_>>(), ["content-type"]);
    }

    #[test]
    fn a_strong_tag_becomes_weak_and_one_that_is_none_goes() {
        let cases = [
            ("\"a\"", Some("W/\"a\"")),
            ("\"\"", Some("W/\"\"")),
            ("W/\"a\"", Some("W/\"a\"")),
            ("a", None),
            ("w/\"a\"", None),
            ("W/a", None),
            ("", None),
        ];
        for (tag, expected) in cases {
            let mut head = head(&[("etag", tag)]);
            weaken(&mut head).unwrap();
            assert_eq!(head.headers.get(ETAG).map(|tag| tag.to_str().unwrap()), expected, "{tag:?}");
        }
    }

    #[test]
    fn a_304_tells_what_the_answer_would_tell() {
        let before: Fields<'_> = &[("etag", "\"a\""), ("vary", "Origin"), ("content-length", "5")];
        let varied = ("vary", "Origin, Accept-Encoding");
        check(|head| not_modified(head, true), before, &[("etag", "W/\"a\""), varied]);
        check(|head| not_modified(head, false), before, &[("etag", "\"a\""), varied, ("content-length", "5")]);
    }

    #[test]
    fn names_that_are_new_are_written_as_names_usually_are() {
        let mut head = head(&[("Content-Type", "text/html"), ("ETag", "\"a\"")]);
        code(&mut head, Coding::Zstd).unwrap();
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        let wire = String::from_utf8(wire).unwrap();
        assert_eq!(
            wire,
            "Content-Type: text/html\r\nETag: W/\"a\"\r\nContent-Encoding: zstd\r\nVary: Accept-Encoding\r\n"
        );
    }
}
