//! What may a program's filter see and do? The heads of requests and responses, in words of HTTP alone.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

/// Fields that concern one connection only or frame the message (RFC 9110, section 7.6.1): what they say must be what is
/// done, so they are Portcullis's to write, and neither a filter's nor a route's.
pub(crate) const OF_THE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A step that a program adds to a route; each call does nothing unless it is overridden.
///
/// Calls must be quick and must not block: they run between a client's request and its answer. A panic fails the one
/// request that caused it.
pub trait Filter: Send + Sync {
    /// The head of a request that has been let in, before a backend is chosen. What is changed here is what the cache, the
    /// balancing and the backend see.
    fn on_request(&self, _request: &mut Request<'_>) -> Verdict {
        Verdict::GoOn
    }

    /// The head that goes to a backend, at each attempt; nothing that a client sends can take away what is set here.
    fn on_forward(&self, _request: &mut Request<'_>) {}

    /// The head of an answer on its way to the client, whoever gave it, and the request as filters left it.
    fn on_response(&self, _response: &mut Response<'_>, _request: &Request<'_>) {}
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// It goes on to the next filter, and to a backend in the end.
    GoOn,
    /// It is answered at once, and no backend hears of it.
    Answer(Reply),
}

/// An answer that a filter gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The status: 200 to 599; any other is answered 500 instead.
    pub status: StatusCode,
    /// Fields beside the length and the date; those of the connection are left out, as [`Filter`] says.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; 204, 205 and 304 have none.
    pub body: Bytes,
}

impl Reply {
    /// An answer in plain text.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        let kind = (http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        Self { status, headers: vec![kind], body: text.into() }
    }
}

/// The head of a request.
#[derive(Debug)]
pub struct Request<'a> {
    head: Head<'a>,
    client: Option<IpAddr>,
    tls: bool,
}

#[derive(Debug)]
enum Head<'a> {
    Open(&'a mut RequestHeader),
    Sealed(&'a RequestHeader),
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &'a mut RequestHeader, client: Option<IpAddr>, tls: bool) -> Self {
        Self { head: Head::Open(head), client, tls }
    }

    /// One that has been sent and can only be read; of its client nothing is known any more.
    pub(crate) fn sent(head: &'a RequestHeader) -> Self {
        Self { head: Head::Sealed(head), client: None, tls: false }
    }

    fn head(&self) -> &RequestHeader {
        match &self.head {
            Head::Open(head) => head,
            Head::Sealed(head) => head,
        }
    }

    fn open(&mut self) -> Option<&mut RequestHeader> {
        match &mut self.head {
            Head::Open(head) => Some(head),
            Head::Sealed(_) => None,
        }
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> &str {
        self.head().method.as_str()
    }

    /// The path as it was sent, without the query.
    pub fn path(&self) -> &str {
        self.head().uri.path()
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.head().uri.query()
    }

    /// The client's address, behind trusted proxies; `None` on a unix socket, and when the answer is there.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Whether it came over TLS.
    pub fn is_over_tls(&self) -> bool {
        self.tls
    }

    /// The first value of a field; `None` also where it is no visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head().headers.get(name)?.to_str().ok()
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let fields = self.head().headers.get_all(http::header::COOKIE).into_iter();
        let pairs = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(';'));
        pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(it, _)| *it == name).map(|(_, value)| value)
    }

    /// Sets a field, in the place of all of its name; not one of the connection, as [`Filter`] says, nor in
    /// [`Filter::on_response`].
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        if OF_THE_CONNECTION.contains(&name) {
            return;
        }
        // A name and a value that are valid cannot be refused.
        let _ = self.open().map(|head| head.insert_header(name, value));
    }

    /// Takes all fields of a name away; not `Host`, nor one of the connection, as [`Filter`] says, nor in
    /// [`Filter::on_response`].
    pub fn remove(&mut self, name: &HeaderName) {
        if *name == HOST || OF_THE_CONNECTION.contains(name) {
            return;
        }
        let _ = self.open().map(|head| head.remove_header(name));
    }
}

/// The head of a response.
#[derive(Debug)]
pub struct Response<'a>(&'a mut ResponseHeader);

impl<'a> Response<'a> {
    pub(crate) fn new(head: &'a mut ResponseHeader) -> Self {
        Self(head)
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The first value of a field; `None` also where it is no visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.get(name)?.to_str().ok()
    }

    /// Sets a field, in the place of all of its name; not one of the connection, as [`Filter`] says.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        if OF_THE_CONNECTION.contains(&name) {
            return;
        }
        // A name and a value that are valid cannot be refused.
        let _ = self.0.insert_header(name, value);
    }

    /// Adds a field beside those of its name, as `Set-Cookie` needs it; not one of the connection, as [`Filter`] says.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        if OF_THE_CONNECTION.contains(&name) {
            return;
        }
        let _ = self.0.append_header(name, value);
    }

    /// Takes all fields of a name away; not one of the connection, as [`Filter`] says.
    pub fn remove(&mut self, name: &HeaderName) {
        if OF_THE_CONNECTION.contains(name) {
            return;
        }
        let _ = self.0.remove_header(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_wherever_they_stand() {
        let mut head = RequestHeader::build("GET", b"/a?b=c", None).unwrap();
        head.append_header("cookie", "one=1; two=2").unwrap();
        head.append_header("cookie", "three=a=b").unwrap();
        let request = Request::new(&mut head, None, true);
        let found = ["one", "two", "three", "four", "on"].map(|name| request.cookie(name));
        assert_eq!(found, [Some("1"), Some("2"), Some("a=b"), None, None]);
        assert_eq!((request.path(), request.query(), request.method()), ("/a", Some("b=c"), "GET"));
    }

    #[test]
    fn what_has_been_sent_can_only_be_read() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        head.insert_header("x-a", "1").unwrap();
        let mut sent = Request::sent(&head);
        sent.set(HeaderName::from_static("x-a"), HeaderValue::from_static("2"));
        sent.remove(&HeaderName::from_static("x-a"));
        assert_eq!(sent.header("X-A"), Some("1"));
    }

    /// The fields of a head, one a line.
    fn lines(fields: &http::HeaderMap) -> Vec<String> {
        fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn what_frames_a_message_and_what_is_of_its_connection_cannot_be_changed() {
        let other = || HeaderValue::from_static("other");
        let (mut request, mut response) =
            (RequestHeader::build("GET", b"/", None).unwrap(), ResponseHeader::build(200, None).unwrap());
        request.insert_header(HOST, "a").unwrap();
        for name in OF_THE_CONNECTION {
            request.insert_header(name.clone(), "ours").unwrap();
            response.insert_header(name, "ours").unwrap();
        }
        let before = (lines(&request.headers), lines(&response.headers));
        for name in OF_THE_CONNECTION {
            let (mut request, mut response) = (Request::new(&mut request, None, true), Response::new(&mut response));
            request.set(name.clone(), other());
            request.remove(&name);
            response.set(name.clone(), other());
            response.append(name.clone(), other());
            response.remove(&name);
        }
        Request::new(&mut request, None, true).remove(&HOST);
        assert_eq!((lines(&request.headers), lines(&response.headers)), before);
        Request::new(&mut request, None, true).set(HOST, other());
        assert_eq!(request.headers[HOST], "other");
    }
}
