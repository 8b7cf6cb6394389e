//! Under which key? What makes two requests different ones, put together from the request and the route.
//!
//! Whatever of a request reaches the backend in a field that we vouch for is part of the key; so is the route, because
//! another one may lead elsewhere.

use http::header::HOST;
use http::{HeaderName, Method};
use pingora::http::RequestHeader;

use crate::cache::Key;
use crate::cache::key::Writing;
use crate::config::{Part, QueryParts};
use crate::proxy::attempt::cookie;
use crate::proxy::exchange::Exchange;

/// Fields of a trusted proxy in front of us that a backend makes addresses of.
const OF_TRUSTED: [&str; 3] = ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"];

/// The value of a part of a request, if it has it.
pub(super) fn part<'a>(head: &'a RequestHeader, part: &Part) -> Option<&'a [u8]> {
    match part {
        Part::Header(name) => head.headers.get(name).map(|value| value.as_bytes()),
        Part::Cookie(name) => cookie(head, name).map(str::as_bytes),
        Part::Query(name) => pairs(head).find(|pair| name_of(pair) == name).map(str::as_bytes),
    }
}

fn pairs(head: &RequestHeader) -> impl Iterator<Item = &str> {
    head.uri.query().into_iter().flat_map(|query| query.split('&'))
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

impl Exchange {
    /// The key of this request, whose body has this digest; `None` if its route does not cache.
    pub(super) fn key(&self, head: &RequestHeader, body: Option<u128>) -> Option<Key> {
        let plan = self.plan.as_ref()?;
        let parts = &plan.cache.as_ref()?.key;
        let method = if head.method == Method::HEAD { Method::GET.as_str() } else { head.method.as_str() };
        let mut key = Writing::begin(method, |text| self.write_url(text, head, &parts.query));
        key.part("route", Some(plan.name.as_bytes()));
        key.part("upstream", plan.upstream.as_ref().map(|upstream| upstream.name().as_bytes()));
        let port = self.connection.as_ref().and_then(|connection| connection.local_port);
        key.part("port", port.map(u16::to_be_bytes).as_ref().map(|port| &port[..]));
        if self.sender.trusted {
            for name in OF_TRUSTED {
                key.part(name, head.headers.get(name).map(|value| value.as_bytes()));
            }
        }
        for name in &parts.headers {
            self.put_field(&mut key, head, name);
        }
        for name in &parts.cookies {
            key.part(name, cookie(head, name).map(str::as_bytes));
        }
        if let Some(body) = body {
            key.part("body", Some(&body.to_be_bytes()));
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
    fn write_url(&self, text: &mut Vec<u8>, head: &RequestHeader, query: &QueryParts) {
        self.write_origin(text, head);
        text.extend_from_slice(head.uri.path().as_bytes());
        match query {
            QueryParts::None => {}
            QueryParts::All => {
                if let Some(query) = head.uri.query() {
                    text.push(b'?');
                    text.extend_from_slice(query.as_bytes());
                }
            }
            QueryParts::Only(names) => {
                let mut before = b'?';
                for name in names {
                    for pair in pairs(head).filter(|pair| name_of(pair) == name) {
                        text.push(before);
                        text.extend_from_slice(pair.as_bytes());
                        before = b'&';
                    }
                }
            }
        }
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
        let told = head.headers.get(OF_TRUSTED[0]).filter(|_| self.sender.trusted);
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
