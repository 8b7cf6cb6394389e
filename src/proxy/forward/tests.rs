//! Tests of the fields that a proxy adds, keeps and takes away.

use super::*;
use std::net::SocketAddr;

fn forwarded(peer: &str, trusted: bool, fields: &[(&'static str, &'static str)]) -> RequestHeader {
    let mut incoming = RequestHeader::build("GET", b"/", None).unwrap();
    for (name, value) in fields {
        incoming.append_header(*name, *value).unwrap();
    }
    let connection = Connection::example(SocketAddr::new(peer.parse().unwrap(), 1234), 8443);
    let authority = connection.authority("app.example:8443").ok();
    let request = Request { id: HeaderValue::from_static("1"), authority, ..Request::default() };
    let mut head = incoming.clone();
    let sender = Sender { client: None, trusted };
    super::request(&mut head, &incoming, (&request, sender), Some(&connection));
    head
}

fn field(head: &RequestHeader, name: &str) -> Vec<String> {
    head.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[test]
fn what_an_untrusted_peer_claims_is_replaced() {
    let head = forwarded(
        "192.0.2.1",
        false,
        &[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
        ],
    );
    assert_eq!(field(&head, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(field(&head, "x_forwarded_for"), [""; 0], "some backends take it for the same field");
    assert_eq!(field(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(field(&head, "x-forwarded-host"), ["app.example:8443"]);
    assert_eq!(field(&head, "x-forwarded-port"), ["8443"]);
    assert_eq!(field(&head, "forwarded"), ["for=192.0.2.1;host=\"app.example:8443\";proto=http"]);
}

#[test]
fn what_a_trusted_peer_says_is_kept_and_grows() {
    let head = forwarded(
        "2001:db8::1",
        true,
        &[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=192.0.2.7"),
        ],
    );
    assert_eq!(field(&head, "x-forwarded-for"), ["192.0.2.7, 10.0.0.1, 2001:db8::1"]);
    assert_eq!(field(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(
        field(&head, "forwarded"),
        ["for=192.0.2.7, for=\"[2001:db8::1]\";host=\"app.example:8443\";proto=http"]
    );
}

#[test]
fn via_grows_and_a_request_id_is_set() {
    let head = forwarded("192.0.2.1", false, &[("via", "1.1 before"), ("x-request-id", "theirs")]);
    assert_eq!(field(&head, "via"), ["1.1 before", "1.1 portcullis"]);
    assert_eq!(field(&head, "x-request-id"), ["1"]);
}

#[test]
fn a_request_id_is_kept_from_trusted_peers_only() {
    let mut head = RequestHeader::build("GET", b"/", None).unwrap();
    head.insert_header(REQUEST_ID, "abc-1").unwrap();
    assert_eq!(request_id(&head, true), "abc-1");
    assert_eq!(request_id(&head, false).len(), 32);
    head.insert_header(REQUEST_ID, "x".repeat(REQUEST_ID_MAX + 1)).unwrap();
    assert_eq!(request_id(&head, true).len(), 32);
}

#[test]
fn hop_by_hop_fields_of_a_response_end_here_and_framing_stays() {
    let mut head = ResponseHeader::build(200, None).unwrap();
    for (name, value) in [
        ("connection", "close, X-Private, Transfer-Encoding"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("x-public", "1"),
    ] {
        head.append_header(name, value).unwrap();
    }
    super::response(&mut head, Version::HTTP_11);
    let mut names: Vec<_> = head.headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["transfer-encoding", "via", "x-public"]);
}
