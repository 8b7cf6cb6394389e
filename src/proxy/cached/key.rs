//! Under which key? What makes two requests different ones, put together from the request and the route.
//!
//! Whatever of a request reaches the backend in a field that we vouch for is part of the key; so is the route, because
//! another one may lead elsewhere.

use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, FORWARDED, HOST};
use http::{HeaderName, Method};
use pingora::http::RequestHeader;

use super::doubt;
use crate::cache::Key;
use crate::cache::key::Writing;
use crate::config::{Part, QueryParts};
use crate::proxy::exchange::Exchange;

/// Fields of a trusted proxy in front of us that a backend makes addresses of.
const OF_TRUSTED: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
];

/// What says how the bytes of a body are to be read.
const OF_A_BODY: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE];

/// Whether a request has this part, or something that a backend may take for it.
pub(super) fn has(head: &RequestHeader, part: &Part) -> bool {
    match part {
        Part::Header(name) => head.headers.contains_key(name),
        Part::Cookie(name) => doubt::cookies(&head.headers, name).next().is_some(),
        Part::Query(name) => head.uri.query().is_some_and(|query| doubt::parameters(query, name).next().is_some()),
    }
}

/// Writes the path, and what of the query tells requests apart.
fn write_target(text: &mut Vec<u8>, target: &str, query: &QueryParts) {
    let (path, whole) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    text.extend_from_slice(path.as_bytes());
    let Some(whole) = whole else { return };
    match query {
        QueryParts::None => {}
        QueryParts::All => {
            text.push(b'?');
            text.extend_from_slice(whole.as_bytes());
        }
        QueryParts::Only(names) => {
            let mut before = b'?';
            // In their own order: to a backend the first or the last of two may count.
            let is_named = |part: &&str| names.iter().any(|name| doubt::parameters(part, name).next().is_some());
            for part in whole.split('&').filter(is_named) {
                text.push(before);
                text.extend_from_slice(part.as_bytes());
                before = b'&';
            }
        }
    }
}

/// Adds a line of `Forwarded` (RFC 7239) without its `for` and `by`. A line that is not written as everybody writes it,
/// where it ends or with quotes in it, counts whole: others may read it otherwise.
fn put_forwarded(key: &mut Writing, line: &[u8]) {
    let is_of_a_sender = |pair: &&[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")
    };
    let plain = !line.iter().any(|byte| matches!(byte, b'\\' | b'"'));
    for element in line.split(|byte| *byte == b',') {
        key.part("forwarded", None);
        let pairs = element.split(|byte| *byte == b';').filter(|pair| !plain || !is_of_a_sender(pair));
        pairs.for_each(|pair| key.part("forwarded", Some(pair)));
    }
}

impl Exchange {
    /// The key of this request, whose body has this digest; `None` if its route does not cache.
    pub(super) fn key(&self, head: &RequestHeader, body: Option<u128>) -> Option<Key> {
        let plan = self.plan.as_ref()?;
        let parts = &plan.cache.as_ref()?.key;
        let method = if head.method == Method::HEAD { Method::GET.as_str() } else { head.method.as_str() };
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut key = Writing::begin(method, |text| self.write_url(text, head, target, &parts.query));
        key.part("route", Some(plan.name.as_bytes()));
        key.part("upstream", plan.upstream.as_ref().map(|upstream| upstream.name().as_bytes()));
        let port = self.connection.as_ref().and_then(|connection| connection.local_port);
        key.part("port", port.map(u16::to_be_bytes).as_ref().map(|port| &port[..]));
        if self.sender.trusted {
            for name in &OF_TRUSTED {
                self.put_field(&mut key, head, name);
            }
            // What is said of who asks and who passes it on tells nothing apart.
            head.headers.get_all(FORWARDED).iter().for_each(|line| put_forwarded(&mut key, line.as_bytes()));
        }
        for name in &parts.headers {
            self.put_field(&mut key, head, name);
        }
        for name in &parts.cookies {
            key.part(name, None);
            doubt::cookies(&head.headers, name).for_each(|pair| key.part(name, Some(pair)));
        }
        for (name, value) in doubt::lines(&head.headers) {
            key.part(name.as_str(), Some(value.as_bytes()));
        }
        if let Some(body) = body {
            key.part("body", Some(&body.to_be_bytes()));
            // The same bytes of another kind are another body.
            for name in &OF_A_BODY {
                self.put_field(&mut key, head, name);
            }
        }
        Some(key.end())
    }

    /// All lines of a field, each as a part, so that two lines differ from one with a comma.
    fn put_field(&self, key: &mut Writing, head: &RequestHeader, name: &HeaderName) {
        let lines = head.headers.get_all(name);
        if lines.iter().next().is_none() {
            key.part(name.as_str(), None);
        }
        for line in lines {
            key.part(name.as_str(), Some(line.as_bytes()));
        }
    }

    /// The address: scheme, host, port unless it is the usual one, path, and what of the query tells requests apart.
    pub(super) fn write_url(&self, text: &mut Vec<u8>, head: &RequestHeader, target: &str, query: &QueryParts) {
        self.write_origin(text, head);
        write_target(text, target, query);
    }

    fn write_origin(&self, text: &mut Vec<u8>, head: &RequestHeader) {
        let scheme = self.scheme(head);
        text.extend_from_slice(scheme.as_bytes());
        text.extend_from_slice(b"://");
        let start = text.len();
        text.extend_from_slice(self.bare_authority(head, scheme).as_bytes());
        text[start..].make_ascii_lowercase();
    }

    /// The scheme that the backend is told of.
    pub(super) fn scheme(&self, head: &RequestHeader) -> &'static str {
        let tls = self.connection.as_ref().is_some_and(|connection| connection.tls.is_some());
        let told = head.headers.get(&OF_TRUSTED[0]).filter(|_| self.sender.trusted);
        let https = told.map_or(tls, |told| told.as_bytes().eq_ignore_ascii_case(b"https"));
        if https { "https" } else { "http" }
    }

    /// Host and port as one form for all: in lower case, without the usual port.
    pub(super) fn authority(&self, head: &RequestHeader, scheme: &str) -> String {
        self.bare_authority(head, scheme).to_ascii_lowercase()
    }

    fn bare_authority<'a>(&'a self, head: &'a RequestHeader, scheme: &str) -> &'a str {
        let written = self.request.authority.as_ref().map(|authority| &authority.written);
        let written = written.or(head.headers.get(HOST)).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let usual = if scheme == "https" { ":443" } else { ":80" };
        written.strip_suffix(usual).unwrap_or(written)
    }
}
