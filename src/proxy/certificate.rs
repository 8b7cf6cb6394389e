//! Whose certificate was shown? What the backend is told of it, which nobody else may say.
//!
//! It is told twice: in the head of the session, so that routes, limits and the cache see what the backend sees, and once
//! more in the head that goes to the backend, after the fields that `Connection` names have been taken away.

use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::exchange::Exchange;
use crate::auth;

impl Exchange {
    /// Puts what is known of the client's certificate in the place of what anybody says.
    pub(super) fn tell_certificate(&mut self, session: &mut Session) {
        if self.snapshot.certificate_fields.is_empty() {
            return;
        }
        if !self.snapshot.stored_queries.is_empty() {
            self.note_head(session);
        }
        self.certify(session.req_header_mut());
    }

    /// The same in the head that goes to the backend.
    pub(super) fn certify(&self, head: &mut RequestHeader) {
        if self.snapshot.certificate_fields.is_empty() {
            return;
        }
        auth::forget(self.snapshot.certificate_fields.iter(), head);
        for (name, value) in self.certified() {
            // Fails only when there are more fields than a head can hold.
            let _ = head.insert_header(name, value);
        }
    }

    /// Whether the backend is told of a certificate.
    pub(super) fn is_certified(&self) -> bool {
        self.certified().next().is_some()
    }

    fn certified(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let told = self.listener().map_or(&[][..], |listener| &listener.certificate);
        let tls = self.connection.as_ref().and_then(|connection| connection.tls.as_ref());
        let certificate = tls.and_then(|tls| tls.certificate.as_deref());
        told.iter().filter_map(move |(name, part)| Some((name.clone(), certificate?.value(*part)?)))
    }
}
