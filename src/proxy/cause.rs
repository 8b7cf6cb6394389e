//! Whose fault is an error of Pingora's, and what do we call it?
//!
//! Pingora's errors carry their source: downstream, upstream, or itself. What they are called differs from place to
//! place, so this is the only file that knows their names.
#![expect(clippy::wildcard_enum_match_arm, reason = "the list of Pingora's errors is long, open, and not ours")]

use std::sync::atomic::Ordering::Relaxed;

use pingora::{Error, ErrorSource, ErrorType, RetryType};

use super::exchange::{Exchange, Phase};
use super::watch::Late;
use crate::answer::Refusal;
use crate::retry::Failure;

/// Why there was no connection to a backend.
pub(super) fn of_no_connection(error: &Error) -> Refusal {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Refusal::ConnectTimeout,
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => Refusal::BackendTls,
        _ => Refusal::ConnectRefused,
    }
}

/// Whether the backend said that it did not take the request. Pingora marks what HTTP/2 allows to be sent again.
pub(super) fn says_not_taken(error: &Error) -> bool {
    let of_http2 = matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade);
    of_http2 && matches!(error.retry, RetryType::Decided(true))
}

/// Whether the backend said that it did nothing with the request. Pingora gives the cause of it only as a text.
pub(super) fn says_refused_stream(error: &Error) -> bool {
    const SAYS: &str = "stream error received: refused stream";
    says_not_taken(error) && error.cause.as_ref().is_some_and(|cause| cause.to_string().starts_with(SAYS))
}

/// We cut the connection to a backend that was too slow.
pub(super) fn of_a_cut() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "the response stalled").into_up()
}

/// A backend switched protocols on a client that had not asked for it.
pub(super) fn of_an_unasked_upgrade() -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, "101 without having been asked for it").into_up()
}

/// What kind of failure this is, before an answer: what may follow depends on it.
pub(super) fn failure(refusal: Refusal, error: &Error, reused: bool) -> Failure {
    match refusal {
        _ if says_refused_stream(error) => Failure::RefusedStream,
        _ if says_not_taken(error) => Failure::NotTaken,
        Refusal::BackendClosed if reused => Failure::StaleConnection,
        Refusal::BackendClosed => Failure::Reset,
        Refusal::FirstByteTimeout | Refusal::AttemptTimeout | Refusal::StalledRequest => Failure::Timeout,
        _ => Failure::Other,
    }
}

impl Exchange {
    /// Why an exchange failed; `None` when the client has gone away.
    pub(super) fn cause(&self, error: &Error) -> Option<Refusal> {
        if let Some(late) = self.watch.take_late() {
            return Some(late.refusal());
        }
        match error.esource() {
            ErrorSource::Upstream => Some(self.upstream_cause(error.etype())),
            ErrorSource::Downstream => self.downstream_cause(error.etype()),
            ErrorSource::Internal | ErrorSource::Unset => Some(self.refusal.unwrap_or(Refusal::Internal)),
        }
    }

    /// Whether nothing is wrong but that the client has not sent all of a body that was answered before its end.
    pub(super) fn only_the_upload_broke_off(&self, error: &Error) -> bool {
        let reading =
            matches!(error.etype(), ErrorType::ReadError | ErrorType::ReadTimedout | ErrorType::ConnectionClosed);
        self.response_read && reading && *error.esource() == ErrorSource::Downstream
    }

    /// Why we cut a tunnel, if we did: to Pingora it then just ended.
    pub(super) fn cause_of_cut(&self) -> Option<Refusal> {
        let in_tunnel = self.attempt.as_ref().is_some_and(|attempt| attempt.phase == Phase::Tunnel);
        self.watch.take_late().filter(|_| in_tunnel).map(Late::refusal)
    }

    fn upstream_cause(&self, kind: &ErrorType) -> Refusal {
        let waiting = self.attempt.as_ref().is_some_and(|attempt| attempt.phase == Phase::Waiting);
        match kind {
            ErrorType::ReadTimedout if waiting => Refusal::FirstByteTimeout,
            ErrorType::ReadTimedout => Refusal::StalledResponse,
            ErrorType::WriteTimedout => Refusal::StalledRequest,
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => Refusal::BackendClosed,
            _ => Refusal::BackendProtocol,
        }
    }

    fn downstream_cause(&self, kind: &ErrorType) -> Option<Refusal> {
        if self.connection.as_ref().is_some_and(|connection| connection.body_is_malformed()) {
            return Some(Refusal::MalformedBody);
        }
        if self.connection.as_ref().is_some_and(|connection| connection.turn.reads_slowly.load(Relaxed)) {
            return Some(Refusal::SlowReader);
        }
        match kind {
            ErrorType::ReadTimedout => Some(Refusal::BodyTimeout),
            ErrorType::WriteTimedout => Some(Refusal::SlowReader),
            ErrorType::HTTPStatus(_) => Some(self.refusal.unwrap_or(Refusal::MalformedRequest)),
            ErrorType::InvalidHTTPHeader => Some(Refusal::MalformedRequest),
            _ => None,
        }
    }
}
