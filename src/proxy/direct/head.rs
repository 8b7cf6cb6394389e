//! What does a backend get that is asked on a connection of our own? The same head as on Pingora's.
//!
//! Only requests come here whose `Connection` names no fields, so what goes away is a fixed list.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, OrErr, Result};

/// Of this hop alone (RFC 9110, section 7.6.1), as Pingora has it; and an expectation, which nobody has here who sends a
/// body.
const STRIPPED: [HeaderName; 11] = [
    CONNECTION,
    EXPECT,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether `Connection` names nothing but what becomes of the connection.
pub(in crate::proxy) fn names_no_fields(head: &RequestHeader) -> bool {
    members(&head.headers, &CONNECTION)
        .all(|option| [&b""[..], b"close", b"keep-alive"].iter().any(|it| option.eq_ignore_ascii_case(it)))
}

/// The members of a field that is a list, on however many lines, and the empty ones too: where bodies are framed, an empty
/// one is a fault.
pub(in crate::proxy) fn members<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// The head before the rooms have added their fields, for HTTP/1.1.
pub(in crate::proxy) fn of_request(head: &RequestHeader) -> Result<RequestHeader> {
    let mut head = head.clone();
    head.set_version(Version::HTTP_11);
    let found: Vec<HeaderName> = head.headers.keys().filter(|name| STRIPPED.contains(name)).cloned().collect();
    for name in &found {
        head.remove_header(name);
    }
    if let Some(authority) = head.uri.authority().filter(|_| !head.headers.contains_key(HOST)) {
        let host = HeaderValue::from_str(authority.as_str()).or_err(ErrorType::InvalidHTTPHeader, "no host")?;
        head.insert_header(HOST, host)?;
    }
    Ok(head)
}

/// A body whose length is not said any more, as when it is decoded, comes in chunks (RFC 9112, section 6.1).
pub(in crate::proxy) fn frame_request(head: &mut RequestHeader) -> Result<()> {
    if head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
}

/// RFC 9113, section 8.3.1: on HTTP/2 the host is part of the target.
pub(in crate::proxy) fn for_http2(mut head: RequestHeader, tls: bool) -> Result<RequestHeader> {
    const WHAT: &str = "no target of HTTP/2";
    let host = head.remove_header(&HOST);
    let host = host.ok_or_else(|| Error::explain(ErrorType::InvalidHTTPHeader, WHAT))?;
    let authority = Authority::try_from(host.as_bytes()).or_err(ErrorType::InvalidHTTPHeader, WHAT)?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
    let target = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    head.set_uri(target.or_err(ErrorType::InvalidHTTPHeader, WHAT)?);
    head.set_version(Version::HTTP_2);
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", b"/a?b", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn a_connection_that_names_fields_is_told_from_one_that_does_not() {
        for (value, none) in [("close", true), ("Keep-Alive, ", true), ("x-a", false), ("close, x-a", false)] {
            assert_eq!(names_no_fields(&head(&[("connection", value)])), none, "{value}");
        }
        assert!(names_no_fields(&head(&[])));
    }

    #[test]
    fn what_is_of_this_hop_stays_here() {
        let head = head(&[("host", "a"), ("connection", "close"), ("te", "trailers"), ("x-a", "1")]);
        let names: Vec<_> = of_request(&head).unwrap().headers.keys().map(|name| name.to_string()).collect();
        assert_eq!(names, ["host", "x-a"]);
    }

    #[test]
    fn the_host_goes_where_each_version_has_it() {
        let mut head = head(&[]);
        head.set_uri(Uri::from_static("https://a.example/a?b"));
        let head = of_request(&head).unwrap();
        assert_eq!(head.headers[HOST], "a.example");
        let head = for_http2(head, false).unwrap();
        assert_eq!((head.uri.to_string().as_str(), head.headers.len()), ("http://a.example/a?b", 0));
    }
}
