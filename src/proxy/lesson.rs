//! What does an exchange teach about how quick its backend is? For the policies that look at latencies.

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use pingora::http::ResponseHeader;

use super::exchange::{Exchange, Phase};
use crate::health::obey;
use crate::upstream::Lesson;

/// There was no answer, through the backend's fault.
pub(super) const FAILED: Lesson = Lesson::Failed { retry_after: None };

/// An answer that the backend cannot serve is a failure, however quick it was.
pub(super) fn of_answer(head: &ResponseHeader, latency: Duration) -> Lesson {
    if !head.status.is_server_error() && head.status != StatusCode::TOO_MANY_REQUESTS {
        return Lesson::Answered(latency);
    }
    Lesson::Failed { retry_after: obey::retry_after(&head.headers, &SystemTime::now) }
}

impl Exchange {
    /// The client has gone: how long it had waited for an answer is what we know.
    pub(super) fn learn_of_the_wait(&self) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.phase == Phase::Waiting) else { return };
        if self.request_ended.is_some() {
            let now = Instant::now();
            attempt.pick.learn(Lesson::Waited(now.saturating_duration_since(attempt.sent)), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::RETRY_AFTER;

    fn check(status: u16, retry_after: Option<&str>, expected: Lesson) {
        let mut head = ResponseHeader::build(status, None).unwrap();
        if let Some(text) = retry_after {
            head.insert_header(RETRY_AFTER, text).unwrap();
        }
        assert_eq!(of_answer(&head, Duration::from_millis(3)), expected, "{status} {retry_after:?}");
    }

    #[test]
    fn what_a_backend_cannot_serve_is_a_failure() {
        let answered = Lesson::Answered(Duration::from_millis(3));
        for status in [200, 204, 301, 404, 101] {
            check(status, None, answered);
        }
        for status in [429, 500, 502, 503] {
            check(status, None, FAILED);
        }
        check(503, Some("120"), Lesson::Failed { retry_after: Some(Duration::from_secs(120)) });
        check(503, Some("soon"), FAILED);
        check(200, Some("120"), answered);
    }
}
