//! What goes on the wire? Fields that a proxy adds, keeps and takes away, in both directions.
//!
//! Hop-by-hop fields of a request are taken away by Pingora's policy before this runs, so whatever is added here cannot
//! be named by `Connection` and lost. Sources: RFC 9110, section 7.6; RFC 7239; RFC 9209.

mod words;

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::client::Sender;
use super::connection::Connection;
use super::exchange::Request;

pub(crate) use self::words::Words;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is kept: room for a UUID with a prefix, and a bound on what ends up in logs.
const REQUEST_ID_MAX: usize = 128;

/// Completes a request's head for the backend.
pub(super) fn request(
    head: &mut RequestHeader,
    incoming: &RequestHeader,
    (request, sender): (&Request, Sender),
    connection: Option<&Connection>,
) -> Result<()> {
    let unknown = Words::default();
    let words = connection.map_or(&unknown, Connection::words);
    words.tell(head, &request.authority, sender.trusted)?;
    head.insert_header("X-Request-Id", request.id.as_str())?;
    head.append_header("Via", HeaderValue::from_static(via(incoming.version)))?;
    join_crumbs(head)?;
    ask_for_a_path(head);
    // RFC 9110, section 10.1.1: the expectation of an HTTP/1.0 client means nothing, and its interim answer would
    // be taken for the final one.
    if incoming.version < Version::HTTP_11 {
        head.remove_header(&EXPECT);
    }
    // RFC 9112, section 3.2: our request is one of HTTP/1.1, which has a Host field even where nobody named a host.
    if request.authority.is_empty() && !head.headers.contains_key(HOST) {
        head.insert_header(HOST, "")?;
    }
    Ok(())
}

/// RFC 9113, section 8.2.3: HTTP/2 may split a cookie into several fields, and nobody else may.
fn join_crumbs(head: &mut RequestHeader) -> Result<()> {
    let crumbs = head.headers.get_all(COOKIE);
    if crumbs.iter().count() < 2 {
        return Ok(());
    }
    let joined = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    head.insert_header(COOKIE, joined)
}

/// RFC 9112, section 3.2.1: a backend is asked for a path, however the client wrote its target. The Host field names
/// the same host: Pingora refuses requests in which the two differ.
fn ask_for_a_path(head: &mut RequestHeader) {
    if !matches!(head.raw_path().first(), Some(b'/' | b'*')) {
        // Of such a target the URI holds the path alone; setting it anew drops the rest.
        head.set_uri(head.uri.clone());
    }
}

/// Completes a response's head for the client.
pub(super) fn response(head: &mut ResponseHeader, received: Version) -> Result<()> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        strip_hop_by_hop(head);
    }
    head.append_header("Via", HeaderValue::from_static(via(received)))?;
    Ok(())
}

/// RFC 9112, section 6.1: a client of HTTP/1.0 knows no chunks. A body without a length ends with its connection.
pub(super) fn end_with_the_connection(session: &mut Session, head: &mut ResponseHeader) {
    if head.remove_header(&TRANSFER_ENCODING).is_some() {
        head.remove_header(&TRAILER);
        session.set_keepalive(None);
    }
}

/// The id of a request: the one that a trusted peer has given it, or a new one.
pub(super) fn request_id(head: &RequestHeader, trusted: bool) -> String {
    let given = head.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let kept = given.filter(|id| {
        trusted && !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    kept.map_or_else(new_id, str::to_owned)
}

/// 128 bits of chance, in hexadecimal.
fn new_id() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut id = String::with_capacity(32);
    for byte in fastrand::u128(..).to_be_bytes() {
        id.push(char::from(DIGITS[usize::from(byte >> 4)]));
        id.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    id
}

fn via(version: Version) -> &'static str {
    if version == Version::HTTP_10 {
        "1.0 portcullis"
    } else if version == Version::HTTP_2 {
        "2.0 portcullis"
    } else {
        "1.1 portcullis"
    }
}

/// RFC 9110, section 7.6.1. `Transfer-Encoding` and `Trailer` stay: Pingora reads the one to frame the body anew, and
/// the other describes trailers that are passed on.
fn strip_hop_by_hop(head: &mut ResponseHeader) {
    for name in named_by_connection(head) {
        head.remove_header(&name);
    }
    for name in [&CONNECTION, &KEEP_ALIVE, &PROXY_CONNECTION, &UPGRADE] {
        head.remove_header(name);
    }
}

/// The fields that `Connection` names; what frames the message is not for it to name.
fn named_by_connection(head: &ResponseHeader) -> Vec<HeaderName> {
    let framing = |name: &HeaderName| *name == TRANSFER_ENCODING || *name == TRAILER || *name == "content-length";
    let values = head.headers.get_all(CONNECTION).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    // What nearly every backend says names no field, and parsing it would be a good part of the work on a response.
    let values =
        values.filter(|value| !value.eq_ignore_ascii_case("keep-alive") && !value.eq_ignore_ascii_case("close"));
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    names.filter(|name| !framing(name)).collect()
}

#[cfg(test)]
mod tests;
