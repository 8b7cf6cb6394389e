//! Why was there no handshake? One of a few words, for whoever counts.
//!
//! rustls says it in many words, so this reads them. What they do not tell is `protocol`.

/// How each reason is said; what a peer's alert is about stands behind it, so that comes first.
const SAID: [(&str, &str); 8] = [
    ("fatal alert", "alert"),
    ("incompatible", "incompatible"),
    ("certificate", "client_certificate"),
    ("InvalidContentType", "not_tls"),
    ("handshake eof", "closed"),
    ("os error 104", "closed"),
    ("os error 32", "closed"),
    ("corrupt message", "not_tls"),
];

/// It took too long.
pub(in crate::server) const TIMEOUT: &str = "timeout";

/// The client speaks no HTTP/2, and the listener nothing else.
pub(in crate::server) const NO_HTTP2: &str = "no_http2";

/// The reason of what was said.
pub(in crate::server) fn reason(said: &str) -> &'static str {
    SAID.iter().find(|(words, _)| said.contains(words)).map_or("protocol", |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

    use super::*;

    #[test]
    fn what_rustls_says_is_understood() {
        for (error, expected) in [
            (Error::AlertReceived(AlertDescription::CertificateUnknown), "alert"),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "incompatible"),
            (Error::NoCertificatesPresented, "client_certificate"),
            (Error::InvalidCertificate(rustls::CertificateError::Expired), "client_certificate"),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "not_tls"),
            (Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived), "protocol"),
        ] {
            assert_eq!(reason(&error.to_string()), expected, "{error}");
        }
        assert_eq!(reason("tls handshake eof"), "closed");
    }
}
