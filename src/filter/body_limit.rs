//! Is the body too large? Refuses by its announced length before it is sent, else as soon as the count is over.

use std::ops::ControlFlow;

use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use pingora::http::RequestHeader;

use super::{Answer, Client, Filter};
use crate::answer::Refusal;

/// Refuses bodies over a number of bytes.
pub(super) struct BodyLimit {
    max: u64,
}

impl BodyLimit {
    pub(super) fn new(max: u64) -> Self {
        Self { max }
    }
}

/// The length in bytes that a head announces for its body, if it is a number that anybody could mean.
pub fn announced_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Filter for BodyLimit {
    fn on_request(&self, head: &mut RequestHeader, _client: &Client) -> ControlFlow<Answer> {
        // A length that is no number is refused by Pingora before any filter runs.
        match announced_length(&head.headers) {
            Some(length) if length > self.max => ControlFlow::Break(Answer::Refuse(Refusal::BodyTooLarge)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn on_body(&self, seen: u64) -> ControlFlow<Refusal> {
        if seen > self.max { ControlFlow::Break(Refusal::BodyTooLarge) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_just_the_limit_passes_and_one_byte_more_does_not() {
        let limit = BodyLimit::new(10);
        let client = Client { address: None, tls: false };
        for (length, refused) in [("10", false), ("11", true), ("99999999999999999999", false)] {
            let mut head = RequestHeader::build("POST", b"/", None).unwrap();
            head.insert_header(CONTENT_LENGTH, length).unwrap();
            assert_eq!(limit.on_request(&mut head, &client).is_break(), refused, "{length}");
        }
        assert!(limit.on_body(10).is_continue());
        assert_eq!(limit.on_body(11), ControlFlow::Break(Refusal::BodyTooLarge));
    }
}
