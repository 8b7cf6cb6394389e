//! How are the fields of a head changed? Without Pingora's second map.
//!
//! Pingora keeps how each name was written beside the fields, in a map of its own, so that each change parses a name and
//! is made twice; the seven fields that we add cost as much as the rest of a small request. Names have no case (RFC
//! 9110, section 5.1), clients of HTTP/2 send them in lower case anyway, and so do Envoy and HAProxy to every backend.
//! So the first change gives the second map up.

use http::{HeaderMap, request};
use pingora::http::{RequestHeader, ResponseHeader};

/// Changes the fields of a request, whose target must be a path.
pub(super) fn request(head: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap)) {
    let blank = http::Request::new(()).into_parts().0;
    let mut parts: request::Parts = std::mem::replace(head, blank.into()).into();
    change(&mut parts.headers);
    *head = parts.into();
}

/// Changes the fields of a response. An unusual reason phrase stays.
pub(super) fn response(head: &mut ResponseHeader, change: impl FnOnce(&mut HeaderMap)) {
    let unusual = head.get_reason_phrase().filter(|reason| head.status.canonical_reason() != Some(reason));
    let unusual = unusual.map(str::to_owned);
    let blank = http::Response::new(()).into_parts().0;
    let mut parts: http::response::Parts = std::mem::replace(head, blank.into()).into();
    change(&mut parts.headers);
    *head = parts.into();
    if unusual.is_some() {
        // It came out of a head a moment ago.
        let _ = head.set_reason_phrase(unusual.as_deref());
    }
}
