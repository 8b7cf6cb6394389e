//! What is said to the client with every answer? Fields that belong to this one request, on their way out.
//!
//! They come last, to answers of our own as to those of backends and of the store; so none of them is ever stored, and none
//! is said to somebody else.

use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::exchange::Exchange;
use crate::filter::security_headers::secure;

impl Exchange {
    /// Adds what the route says with every answer.
    pub(super) fn part(&self, request: &RequestHeader, head: &mut ResponseHeader) -> Result<()> {
        let Some(admission) = self.plan.as_ref().and_then(|plan| plan.admission.as_ref()) else { return Ok(()) };
        self.tell_rates(head)?;
        if let Some(cors) = &admission.cors {
            cors.tell(&request.headers, head)?;
        }
        match &admission.security_headers {
            Some(headers) => secure(headers, head, self.connection.as_ref().is_some_and(|it| it.tls.is_some())),
            None => Ok(()),
        }
    }
}
