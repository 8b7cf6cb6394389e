//! What makes browsers careful? A set of fields that most sites want, each only where the backend says nothing of its own.

use http::header::STRICT_TRANSPORT_SECURITY;
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::config::SecurityHeaders;

/// Adds what the answer does not say by itself. Who came without TLS is told nothing of it: RFC 6797, section 7.2.
pub fn secure(headers: &SecurityHeaders, head: &mut ResponseHeader, tls: bool) -> Result<()> {
    let transport = headers.transport.iter().filter(|_| tls).map(|value| (&STRICT_TRANSPORT_SECURITY, value));
    for (name, value) in headers.others.iter().map(|(name, value)| (name, value)).chain(transport) {
        if !head.headers.contains_key(name) {
            head.insert_header(name, value)?;
        }
    }
    Ok(())
}
