//! Is the body too large? Refuses by its announced length before it is sent, else as soon as the count is over.

use std::ops::ControlFlow;

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

impl Filter for BodyLimit {
    fn on_request(&self, head: &mut RequestHeader, _client: &Client) -> ControlFlow<Answer> {
        // A length that is no number is refused by Pingora before any filter runs.
        let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match announced {
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
