//! When was this response made? Its own `Date`, told to the guard below Pingora, which would write the present.
//!
//! HTTP/1 only: on HTTP/2 a head is compressed, and encrypted by a stream that others share, before we see it again.

use http::header::DATE;
use http::{HeaderValue, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;
use pingora::proxy::Session;

use super::exchange::Exchange;

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub(crate) const DATE_LENGTH: usize = 29;

impl Exchange {
    /// The head of a response is about to be written.
    pub(super) fn note_date(&self, session: &Session, head: &ResponseHeader) {
        // What runs in the background must not speak for its client.
        if self.in_background || session.req_header().version == Version::HTTP_2 {
            return;
        }
        if let Some(connection) = &self.connection {
            let date = head.headers.get(DATE).filter(|date| **date != get_cached_date()).and_then(fixdate);
            connection.turn.set_date(date);
        }
    }

    /// It is not written after all.
    pub(super) fn forget_date(&self) {
        if let Some(connection) = self.connection.as_ref().filter(|_| !self.in_background) {
            connection.turn.set_date(None);
        }
    }
}

/// A date in the one form that is sent (RFC 9110, section 5.6.7); an older form is not passed on.
fn fixdate(value: &HeaderValue) -> Option<[u8; DATE_LENGTH]> {
    const FORM: &[u8; DATE_LENGTH] = b"aaa, 00 aaa 0000 00:00:00 GMT";
    let date: [u8; DATE_LENGTH] = value.as_bytes().try_into().ok()?;
    let fits = date.iter().zip(FORM).all(|(byte, form)| match form {
        b'a' => byte.is_ascii_alphabetic(),
        b'0' => byte.is_ascii_digit(),
        same => byte == same,
    });
    fits.then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_that_is_sent_is_taken_over() {
        let is_taken = |text| fixdate(&HeaderValue::from_static(text)).is_some();
        assert!(is_taken("Sun, 06 Nov 1994 08:49:37 GMT"));
        for other in [
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 EST",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 6 Nov 1994 008:49:37 GMT",
            "0",
            "",
        ] {
            assert!(!is_taken(other), "{other}");
        }
    }
}
