//! Which site is asked for? The authority of a request, worked out once for all requests of a connection that name it.

use http::HeaderValue;

use super::forward::Words;
use crate::route::host::{self, HostError};

/// The host and port that a request names (RFC 9110, section 7.2), and what follows from them.
#[derive(Debug)]
pub(crate) struct Authority {
    /// As the client wrote it; empty where it named none, as HTTP/1.0 may.
    pub(super) written: HeaderValue,
    /// In lower case, without a port.
    pub(super) host: String,
    /// The element of `Forwarded` that tells a backend of it (RFC 7239).
    pub(super) forwarded: HeaderValue,
}

impl Authority {
    pub(super) fn new(written: &str, words: &Words) -> Result<Self, HostError> {
        let host = if written.is_empty() { String::new() } else { host::normalise(written)?.into_owned() };
        Ok(Self {
            written: HeaderValue::from_str(written).map_err(|_| HostError::BadByte)?,
            host,
            forwarded: words.element(written),
        })
    }
}
