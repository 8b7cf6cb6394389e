//! Where did this request come from? `X-Forwarded-*` and `Forwarded` (RFC 7239), for the backend.
//!
//! What they say of a connection is put into words once, for all of its requests. What an untrusted peer says in these
//! fields is worth nothing, so it is replaced; what a trusted one says is kept, and its lists grow by the peer.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::RequestHeader;

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";
const PORT: &str = "X-Forwarded-Port";

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

    /// Tells a backend, in the head of a request.
    pub(super) fn tell(&self, head: &mut RequestHeader, authority: &HeaderValue, trusted: bool) -> Result<()> {
        let host = Some(authority).filter(|host| !host.is_empty()).cloned();
        let scheme = Some(HeaderValue::from_static(self.scheme)).filter(|scheme| !scheme.is_empty());
        let element = self.element(authority);
        if trusted {
            grow(head, FOR, self.address.as_ref())?;
            grow(head, FORWARDED.as_str(), Some(&element))?;
            let unsaid = |head: &RequestHeader, name| !head.headers.contains_key(name);
            for (name, value) in [(PROTO, scheme), (HOST, host), (PORT, self.port.clone())] {
                if unsaid(head, name) {
                    set(head, name, value)?;
                }
            }
            return Ok(());
        }
        drop_lookalikes(head);
        set(head, FOR, self.address.clone())?;
        set(head, PROTO, scheme)?;
        set(head, HOST, host)?;
        set(head, PORT, self.port.clone())?;
        head.insert_header("Forwarded", element)
    }

    /// The element of `Forwarded` for this request.
    fn element(&self, authority: &HeaderValue) -> HeaderValue {
        let mut element = String::with_capacity(self.node.len() + authority.len() + 24);
        element.push_str(&self.node);
        let host = authority.to_str().unwrap_or("");
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
fn drop_lookalikes(head: &mut RequestHeader) {
    let ours = |name: &str| [FOR, PROTO, HOST, PORT, "X-Request-Id"].iter().any(|our| name.eq_ignore_ascii_case(our));
    let lookalike = |name: &&HeaderName| name.as_str().contains('_') && ours(&name.as_str().replace('_', "-"));
    let found: Vec<HeaderName> = head.headers.keys().filter(lookalike).cloned().collect();
    for name in found {
        head.remove_header(&name);
    }
}

/// Sets a field, or takes it away where there is nothing to say.
fn set(head: &mut RequestHeader, name: &'static str, value: Option<HeaderValue>) -> Result<()> {
    match value {
        Some(value) => head.insert_header(name, value),
        None => {
            head.remove_header(name);
            Ok(())
        }
    }
}

/// Adds to a list that may be spread over several fields, and makes it one.
fn grow(head: &mut RequestHeader, name: &'static str, value: Option<&HeaderValue>) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    let mut list: Vec<&[u8]> = head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    list.push(value.as_bytes());
    let list = list.join(&b", "[..]);
    head.insert_header(name, list)
}
