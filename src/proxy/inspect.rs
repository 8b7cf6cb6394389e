//! May this head pass? What RFC 9110 and RFC 9112 forbid and Pingora lets through.
//!
//! Framing (lengths, transfer codings, folded lines) is Pingora's, which is strict about it; so are the fields of
//! HTTP/2 that may not appear. This file looks, and changes nothing.

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{Method, StatusCode, Version};
use pingora::Error;
use pingora::http::{RequestHeader, ResponseHeader};

use super::cause;
use crate::answer::Refusal;

/// The longest method that we pass on; the longest registered one has 17 bytes.
const METHOD_MAX: usize = 32;

/// The longest target (RFC 9112, section 3, asks for at least 8000 bytes of request line).
const TARGET_MAX: usize = 16 * 1024;

/// Refuses a head that may not pass; else gives its host as the client wrote it, without a port or in upper case as it
/// may be.
pub(super) fn inspect(head: &RequestHeader) -> Result<&str, Refusal> {
    method(&head.method)?;
    target(head)?;
    expectation(head)?;
    length(head)?;
    host(head)
}

/// Refuses an upgrade that the client has not asked for: it would take what the backend says next for an answer.
pub(super) fn response(head: &ResponseHeader, asked_for_upgrade: bool) -> Result<(), Box<Error>> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !asked_for_upgrade {
        return Err(cause::of_an_unasked_upgrade());
    }
    Ok(())
}

fn method(method: &Method) -> Result<(), Refusal> {
    if *method == Method::CONNECT || method.as_str().len() > METHOD_MAX {
        return Err(Refusal::MethodNotSupported);
    }
    Ok(())
}

/// The bytes that may stand in a URI (RFC 3986, appendix A); `*` for OPTIONS alone (RFC 9112, section 3.2.4).
///
/// Browsers leave a few more as they are in a query (WHATWG URL, query percent-encode set), so those pass there.
fn target(head: &RequestHeader) -> Result<(), Refusal> {
    let target = head.raw_path();
    if target.len() > TARGET_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let never = |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'<' | b'>' | b'#');
    let never_in_a_path = |byte: &u8| matches!(byte, b'\\' | b'^' | b'`');
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let asterisk = target == b"*" && head.method != Method::OPTIONS;
    // Over HTTP/2 a query without a path comes this far, and would be the whole target of a request line.
    let is_query = target.first() == Some(&b'?');
    if target.is_empty() || is_query || asterisk || target.iter().any(never) || path.iter().any(never_in_a_path) {
        return Err(Refusal::BadTarget);
    }
    Ok(())
}

fn expectation(head: &RequestHeader) -> Result<(), Refusal> {
    let known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    // RFC 9110, section 10.1.1: a recipient of HTTP/1.0 ignores the field.
    if head.version >= Version::HTTP_11 && !head.headers.get_all(EXPECT).iter().all(known) {
        return Err(Refusal::UnknownExpectation);
    }
    Ok(())
}

/// The guard refuses a length that is said twice, and HTTP/2 takes it if both say the same. It would be said twice to the
/// backend as well (RFC 9110, section 8.6).
fn length(head: &RequestHeader) -> Result<(), Refusal> {
    match head.headers.get_all(CONTENT_LENGTH).iter().nth(1) {
        Some(_) => Err(Refusal::MalformedRequest),
        None => Ok(()),
    }
}

/// The one host of the request: HTTP/1.1 needs just one Host field (RFC 9112, section 3.2), HTTP/2 may leave it to
/// `:authority` (RFC 9113, section 8.3.1), HTTP/1.0 may leave it out.
fn host(head: &RequestHeader) -> Result<&str, Refusal> {
    let mut fields = head.headers.get_all(HOST).iter();
    let (first, second) = (fields.next(), fields.next());
    if second.is_some() {
        return Err(Refusal::BadHost);
    }
    let host = match (head.uri.authority(), first) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(field)) => field.to_str().map_err(|_| Refusal::BadHost)?,
        (None, None) if head.version < Version::HTTP_11 => return Ok(""),
        (None, None) => return Err(Refusal::BadHost),
    };
    if host.is_empty() { Err(Refusal::BadHost) } else { Ok(host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &[u8], fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build(method, target, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn just_one_host_is_needed() {
        let check = |fields: &[(&'static str, &str)]| inspect(&head("GET", b"/", fields)).map(str::to_owned);
        assert_eq!(check(&[("host", "a.example")]), Ok("a.example".to_owned()));
        assert_eq!(check(&[]), Err(Refusal::BadHost));
        assert_eq!(check(&[("host", "")]), Err(Refusal::BadHost));
        assert_eq!(check(&[("host", "a"), ("host", "a")]), Err(Refusal::BadHost));
    }

    #[test]
    fn a_length_is_said_once() {
        let check = |fields: &[(&'static str, &str)]| inspect(&head("POST", b"/", fields)).err();
        assert_eq!(check(&[("host", "a"), ("content-length", "5")]), None);
        let twice = [("host", "a"), ("content-length", "5"), ("content-length", "5")];
        assert_eq!(check(&twice), Some(Refusal::MalformedRequest));
    }

    #[test]
    fn a_target_holds_only_what_a_uri_may_hold() {
        let check = |method: &str, target: &[u8]| inspect(&head(method, target, &[("host", "a")])).err();
        assert_eq!(check("GET", b"/a%20b?c=d;e"), None);
        assert_eq!(check("GET", b"/a?b=`{c|d}^"), None);
        assert_eq!(check("OPTIONS", b"*"), None);
        for target in [&b"*"[..], b"/a\\b", b"/a^"] {
            assert_eq!(check("GET", target), Some(Refusal::BadTarget), "{target:?}");
        }
        // Pingora's own parser takes no head with these, and answers it before we see it.
        for target in [&b"/a<b"[..], b"/?a<b", b"/a b"] {
            assert!(RequestHeader::build("GET", target, None).is_err(), "{target:?}");
        }
        assert_eq!(check("GET", &[&b"/"[..], &[b'a'; TARGET_MAX]].concat()), Some(Refusal::TargetTooLong));
    }

    #[test]
    fn methods_and_expectations_that_we_do_not_know_are_refused() {
        let long = "A".repeat(METHOD_MAX + 1);
        assert_eq!(inspect(&head(&long, b"/", &[("host", "a")])), Err(Refusal::MethodNotSupported));
        let expecting = |what| inspect(&head("PUT", b"/", &[("host", "a"), ("expect", what)])).err();
        assert_eq!(expecting("100-Continue"), None);
        assert_eq!(expecting("200-ok"), Some(Refusal::UnknownExpectation));
    }
}
