//! Where did this request come from? `X-Forwarded-*` and `Forwarded` (RFC 7239), for the backend.
//!
//! What they say of a connection is put into words once, for all of its requests. What an untrusted peer says in these
//! fields is worth nothing, so it is replaced; what a trusted one says is kept, and its lists grow by the peer.

use std::net::{IpAddr, SocketAddr};

use http::header::{Entry, FORWARDED};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::REQUEST_ID;
use crate::proxy::authority::Authority;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// What is told about a connection in each of its requests.
#[derive(Debug, Default)]
pub(crate) struct Words {
    /// The peer's address; none on a unix socket.
    address: Option<HeaderValue>,
    /// The same as an element of `Forwarded` begins.
    node: String,
    port: Option<HeaderValue>,
    scheme: &'static str,
}

impl Words {
    /// Puts a connection into words.
    pub(crate) fn of(peer: Option<SocketAddr>, local_port: Option<u16>, tls: bool) -> Self {
        let peer = peer.map(|peer| peer.ip().to_canonical());
        Self {
            address: peer.and_then(|peer| HeaderValue::try_from(peer.to_string()).ok()),
            // RFC 7239, section 6: an IPv6 address stands in brackets, and therefore in quotes.
            node: match peer {
                Some(IpAddr::V4(address)) => format!("for={address}"),
                Some(IpAddr::V6(address)) => format!("for=\"[{address}]\""),
                None => "for=unknown".to_owned(),
            },
            port: local_port.map(HeaderValue::from),
            scheme: if tls { "https" } else { "http" },
        }
    }

    /// Tells a backend, in the fields of a request.
    pub(super) fn tell(&self, fields: &mut HeaderMap, authority: &Authority, trusted: bool) {
        let host = Some(&authority.written).filter(|host| !host.is_empty()).cloned();
        let scheme = Some(HeaderValue::from_static(self.scheme)).filter(|scheme| !scheme.is_empty());
        let settings = [(PROTO, scheme), (HOST, host), (PORT, self.port.clone())];
        if trusted {
            grow(fields, FOR, self.address.as_ref());
            grow(fields, FORWARDED, Some(&authority.forwarded));
            for (name, value) in settings {
                if let (Entry::Vacant(unsaid), Some(value)) = (fields.entry(name), value) {
                    unsaid.insert(value);
                }
            }
            return;
        }
        drop_lookalikes(fields);
        let claims = [(FOR, self.address.clone()), (FORWARDED, Some(authority.forwarded.clone()))];
        for (name, value) in claims.into_iter().chain(settings) {
            set(fields, name, value);
        }
    }

    /// The element of `Forwarded` for requests that name this host and port.
    pub(crate) fn element(&self, host: &str) -> HeaderValue {
        let mut element = String::with_capacity(self.node.len() + host.len() + 24);
        element.push_str(&self.node);
        if !host.is_empty() {
            // A host may hold `;` and `=`, which would begin a parameter of its own. It never holds a quote.
            let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
            let quote = if plain { "" } else { "\"" };
            element.extend([";host=", quote, host, quote]);
        }
        element.extend([";proto=", self.scheme]);
        // All of it is visible ASCII, which is what a field may hold.
        HeaderValue::try_from(element).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
    }
}

/// Takes away what CGI and its heirs would read as one of our fields: they make one variable of `X_Forwarded_For` and
/// `X-Forwarded-For`.
fn drop_lookalikes(fields: &mut HeaderMap) {
    let ours = |name: String| [FOR, PROTO, HOST, PORT, REQUEST_ID].iter().any(|our| *our == *name);
    let lookalike = |name: &&HeaderName| name.as_str().contains('_') && ours(name.as_str().replace('_', "-"));
    let found: Vec<HeaderName> = fields.keys().filter(lookalike).cloned().collect();
    for name in found {
        fields.remove(name);
    }
}

/// Sets a field, or takes it away where there is nothing to say.
///
/// Never inlined: a request comes by once, so what counts is how much code it touches.
#[inline(never)]
pub(super) fn set(fields: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => fields.insert(name, value),
        None => fields.remove(name),
    };
}

/// Adds to a list that may be spread over several fields, and makes it one.
fn grow(fields: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    let Some(value) = value else { return };
    let mut list: Vec<&[u8]> = fields.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    list.push(value.as_bytes());
    // Whatever stands in fields may stand in their list.
    if let Ok(list) = HeaderValue::from_bytes(&list.join(&b", "[..])) {
        fields.insert(name, list);
    }
}
