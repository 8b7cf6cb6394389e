//! What goes on the wire? Fields that a proxy adds, keeps and takes away, in both directions.
//!
//! Hop-by-hop fields of a request are taken away by Pingora's policy before this runs, so whatever is added here cannot
//! be named by `Connection` and lost. Sources: RFC 9110, section 7.6; RFC 7239; RFC 9209.

mod plain;
mod words;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::client::Sender;
use super::connection::Connection;
use super::exchange::{Exchange, Request};

pub(crate) use self::words::Words;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is kept: room for a UUID with a prefix, and a bound on what ends up in logs.
const REQUEST_ID_MAX: usize = 128;

/// How many fields we add to a request.
const ADDED: usize = 8;

/// Gives up how the names of a request's fields were written: see [`plain`]. The copies that go to backends then cost
/// half.
pub(super) fn forget_case(head: &mut RequestHeader) {
    if head.raw_path().first() == Some(&b'/') {
        plain::request(head, |_| {});
    }
}

/// Completes a request's head for the backend.
pub(super) fn request(
    head: &mut RequestHeader,
    incoming: &RequestHeader,
    (request, sender): (&Request, Sender),
    connection: Option<&Connection>,
) {
    ask_for_a_path(head);
    plain::request(head, |fields| {
        fields.reserve(ADDED);
        if let (Some(connection), Some(authority)) = (connection, &request.authority) {
            connection.words().tell(fields, authority, sender.trusted);
        }
        words::set(fields, REQUEST_ID, Some(request.id.clone()));
        let via = HeaderValue::from_static(via(incoming.version));
        if fields.contains_key(VIA) {
            fields.append(VIA, via);
        } else {
            words::set(fields, VIA, Some(via));
        }
        join_crumbs(fields);
        // RFC 9110, section 10.1.1: the expectation of an HTTP/1.0 client means nothing, and its interim answer would
        // be taken for the final one.
        if incoming.version < Version::HTTP_11 {
            fields.remove(EXPECT);
        }
        // RFC 9112, section 3.2: our request is one of HTTP/1.1, which has a Host field even where nobody named a host.
        if request.host().is_empty() {
            fields.entry(HOST).or_insert(HeaderValue::from_static(""));
        }
    });
}

/// RFC 9113, section 8.2.3: HTTP/2 may split a cookie into several fields, and nobody else may.
fn join_crumbs(fields: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    // Whatever stands in fields may stand in their list.
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(COOKIE, joined);
    }
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
pub(super) fn response(head: &mut ResponseHeader, received: Version) {
    let tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
    plain::response(head, |fields| {
        if !tunnel {
            strip_hop_by_hop(fields);
        }
        fields.append(VIA, HeaderValue::from_static(via(received)));
    });
}

impl Exchange {
    /// Completes the head that goes to the backend: what is said of the client and of us, then what the route changes.
    pub(super) fn complete(&mut self, session: &Session, head: &mut RequestHeader) -> Result<()> {
        let incoming = session.req_header();
        request(head, incoming, (&self.request, self.sender), self.connection.as_deref());
        self.ask_for_identity(head)?;
        self.decode_request(incoming, head)?;
        self.certify(head);
        self.introduce(head);
        self.tell_trace(head)?;
        self.edit(head)
    }

    /// RFC 9112, section 6.1: a client of HTTP/1.0 knows no chunks. A body without a length ends with its connection.
    pub(super) fn end_with_the_connection(&self, session: &mut Session, head: &mut ResponseHeader) {
        if session.req_header().version < Version::HTTP_11 && head.remove_header(&TRANSFER_ENCODING).is_some() {
            head.remove_header(&TRAILER);
            self.end_connection(session);
        }
    }
}

/// The id of a request: the one that a trusted peer has given it, or a new one.
pub(super) fn request_id(head: &RequestHeader, trusted: bool) -> HeaderValue {
    let kept = head.headers.get(&REQUEST_ID).filter(|id| {
        let is_graphic = || id.as_bytes().iter().all(u8::is_ascii_graphic);
        trusted && !id.is_empty() && id.len() <= REQUEST_ID_MAX && is_graphic()
    });
    kept.cloned().unwrap_or_else(new_id)
}

/// 128 bits of chance, in hexadecimal.
fn new_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let chance = fastrand::u128(..).to_be_bytes();
    let mut id = [0; 32];
    for (digits, byte) in id.chunks_exact_mut(2).zip(chance) {
        digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
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
/// the other describes trailers, which it passes on from HTTP/2 to HTTP/2.
fn strip_hop_by_hop(fields: &mut HeaderMap) {
    // One look at each name: that is less than looking for each of ours, of which there is mostly one.
    let of_this_hop = |name: &&HeaderName| [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, UPGRADE].contains(name);
    while let Some(name) = fields.keys().find(of_this_hop).cloned() {
        if name == CONNECTION {
            named_by_connection(fields).iter().for_each(|name| drop(fields.remove(name)));
        }
        fields.remove(name);
    }
}

/// The fields that `Connection` names; what frames the message is not for it to name.
fn named_by_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    let framing = |name: &HeaderName| [TRANSFER_ENCODING, TRAILER, CONTENT_LENGTH].contains(name);
    let values = fields.get_all(CONNECTION).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    // What nearly every backend says names no field, and parsing it would be a good part of the work on a response.
    let values =
        values.filter(|value| !value.eq_ignore_ascii_case("keep-alive") && !value.eq_ignore_ascii_case("close"));
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    names.filter(|name| !framing(name)).collect()
}

#[cfg(test)]
mod tests;
