//! Once more? Whether a failed attempt is followed by another, and where.
//!
//! Pure: it decides from what is told. Nothing is sent twice here that may have been acted upon once.

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection, so nothing was sent.
    Connect,
    /// A pooled connection turned out to be closed before it gave a byte.
    StaleConnection,
    /// The backend said that it did not take the request: HTTP/2's REFUSED_STREAM, GOAWAY or HTTP_1_1_REQUIRED.
    NotTaken,
    /// Anything later.
    Later,
}

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The attempts so far.
    pub attempts: usize,
    /// Whether sending the request twice does what sending it once does (RFC 9110, section 9.2.2).
    pub idempotent: bool,
    /// Whether all that was read of the body is still at hand.
    pub replayable: bool,
    /// Whether this request has had its free try already.
    pub had_free_try: bool,
    /// Whether the client has seen part of a response.
    pub response_begun: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An attempt at a backend that has not been tried.
    Elsewhere,
    /// An attempt at the same backend on another connection, which does not count as a second one.
    SameAgain,
    /// No more.
    GiveUp,
}

/// The attempts of one request, in all: enough for any pool that people look after by hand, and a bound for the rest.
pub const ATTEMPTS_MAX: usize = 16;

/// Decides what follows a failed attempt.
pub fn decide(failure: Failure, now: Circumstances) -> Verdict {
    if now.attempts >= ATTEMPTS_MAX || now.response_begun || !now.replayable {
        return Verdict::GiveUp;
    }
    match failure {
        Failure::Connect => Verdict::Elsewhere,
        // The backend closed the connection while it was idle, most likely; but it may also have read the request
        // and died of it, so only a request that may arrive twice is sent again.
        // A GOAWAY leaves the same doubt: the last stream that it names is not known here.
        Failure::StaleConnection | Failure::NotTaken if now.idempotent && !now.had_free_try => Verdict::SameAgain,
        Failure::StaleConnection | Failure::NotTaken | Failure::Later => Verdict::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Circumstances =
        Circumstances { attempts: 1, idempotent: true, replayable: true, had_free_try: false, response_begun: false };

    #[test]
    fn a_refused_connection_moves_on_whatever_the_method() {
        assert_eq!(decide(Failure::Connect, FIRST), Verdict::Elsewhere);
        assert_eq!(decide(Failure::Connect, Circumstances { idempotent: false, ..FIRST }), Verdict::Elsewhere);
    }

    #[test]
    fn a_stale_connection_gets_one_free_try_if_the_request_may_arrive_twice() {
        assert_eq!(decide(Failure::StaleConnection, FIRST), Verdict::SameAgain);
        assert_eq!(decide(Failure::NotTaken, FIRST), Verdict::SameAgain);
        for once_is_enough in [
            Circumstances { idempotent: false, ..FIRST },
            Circumstances { had_free_try: true, ..FIRST },
            Circumstances { replayable: false, ..FIRST },
        ] {
            assert_eq!(decide(Failure::StaleConnection, once_is_enough), Verdict::GiveUp);
        }
    }

    #[test]
    fn nothing_is_tried_again_once_the_client_has_seen_a_response() {
        for failure in [Failure::Connect, Failure::StaleConnection, Failure::Later] {
            assert_eq!(decide(failure, Circumstances { response_begun: true, ..FIRST }), Verdict::GiveUp);
            assert_eq!(decide(failure, Circumstances { attempts: ATTEMPTS_MAX, ..FIRST }), Verdict::GiveUp);
        }
    }
}
