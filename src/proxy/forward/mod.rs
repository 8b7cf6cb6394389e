//! What goes on the wire? Fields that a proxy adds, keeps and takes away, in both directions.
//!
//! Hop-by-hop fields of a request are taken away by Pingora's policy before this runs, so whatever is added here cannot
//! be named by `Connection` and lost. Sources: RFC 9110, section 7.6; RFC 7239; RFC 9209.

use std::net::IpAddr;

use http::header::{CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderName, HeaderValue, StatusCode, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::client::Sender;
use super::connection::Connection;
use super::exchange::Request;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The request id, towards backends.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is kept: room for a UUID with a prefix, and a bound on what ends up in logs.
const REQUEST_ID_MAX: usize = 128;

/// Completes a request's head for the backend.
pub(super) fn request(
    head: &mut RequestHeader,
    incoming: &RequestHeader,
    (request, sender): (&Request, Sender),
    connection: Option<&Connection>,
) -> Result<()> {
    let tls = connection.is_some_and(|connection| connection.tls.is_some());
    let scheme = if tls { "https" } else { "http" };
    let peer = connection.and_then(|connection| connection.peer).map(|peer| peer.ip().to_canonical());
    append_forwarded_for(head, peer, sender.trusted)?;
    append_forwarded(head, peer, (&request.authority, scheme), sender.trusted)?;
    set_unless_trusted(head, FORWARDED_PROTO, scheme, sender.trusted)?;
    set_unless_trusted(head, FORWARDED_HOST, &request.authority, sender.trusted)?;
    let port = connection.and_then(|connection| connection.local_port);
    match port {
        Some(port) => set_unless_trusted(head, FORWARDED_PORT, &port.to_string(), sender.trusted)?,
        None if !sender.trusted => drop(head.remove_header(&FORWARDED_PORT)),
        None => {}
    }
    head.insert_header(REQUEST_ID, request.id.as_str())?;
    head.append_header(VIA, via(incoming.version))?;
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
    head.append_header(VIA, via(received))?;
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
    kept.map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned)
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

/// A list that an untrusted peer sent is worth nothing, so it is replaced; a trusted one grows by the peer.
fn append_forwarded_for(head: &mut RequestHeader, peer: Option<IpAddr>, trusted: bool) -> Result<()> {
    if !trusted {
        head.remove_header(&FORWARDED_FOR);
    }
    let Some(peer) = peer else { return Ok(()) };
    let mut list: Vec<&str> =
        head.headers.get_all(&FORWARDED_FOR).iter().filter_map(|field| field.to_str().ok()).collect();
    let peer = peer.to_string();
    list.push(&peer);
    let list = list.join(", ");
    head.insert_header(FORWARDED_FOR, list)
}

/// RFC 7239, section 4: an IPv6 address stands in brackets and quotes, and so does a host with a port.
fn append_forwarded(
    head: &mut RequestHeader,
    peer: Option<IpAddr>,
    (host, scheme): (&str, &str),
    trusted: bool,
) -> Result<()> {
    if !trusted {
        head.remove_header(&FORWARDED);
    }
    let from = match peer {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    };
    // A host may hold `;` and `=`, which would begin a parameter of its own. It never holds a quote.
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let quoted = if plain { host.to_owned() } else { format!("\"{host}\"") };
    let host = if host.is_empty() { String::new() } else { format!(";host={quoted}") };
    let mut list: Vec<&str> = head.headers.get_all(&FORWARDED).iter().filter_map(|field| field.to_str().ok()).collect();
    let element = format!("for={from}{host};proto={scheme}");
    list.push(&element);
    let list = list.join(", ");
    head.insert_header(FORWARDED, list)
}

fn set_unless_trusted(head: &mut RequestHeader, name: HeaderName, value: &str, trusted: bool) -> Result<()> {
    if trusted && head.headers.contains_key(&name) {
        return Ok(());
    }
    // HTTP/1.0 requests may have no host.
    if value.is_empty() {
        head.remove_header(&name);
        return Ok(());
    }
    head.insert_header(name, value)
}

/// RFC 9110, section 7.6.1. `Transfer-Encoding` and `Trailer` stay: Pingora reads the one to frame the body anew, and
/// the other describes trailers that are passed on.
fn strip_hop_by_hop(head: &mut ResponseHeader) {
    if let Some(named) = named_by_connection(head) {
        for name in named {
            head.remove_header(&name);
        }
    }
    for name in ["keep-alive", "proxy-connection"] {
        head.remove_header(name);
    }
    head.remove_header(&UPGRADE);
    head.remove_header(&TE);
    head.remove_header(&CONNECTION);
}

/// The fields that `Connection` names; what frames the message is not for it to name.
fn named_by_connection(head: &ResponseHeader) -> Option<Vec<HeaderName>> {
    if !head.headers.contains_key(CONNECTION) {
        return None;
    }
    let framing = |name: &HeaderName| *name == TRANSFER_ENCODING || *name == TRAILER || *name == "content-length";
    let values = head.headers.get_all(CONNECTION).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    Some(names.filter(|name| !framing(name)).collect())
}

#[cfg(test)]
mod tests;
