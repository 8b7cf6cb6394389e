//! Which `Date` does the client read? The one that belongs to the response, where Pingora writes the present.
//!
//! Pingora gives every response on HTTP/1 the date of the moment in which it is written. That of an answer that was
//! stored, or took its time on the way, is another one (RFC 9110, section 6.6.1). The two are equally long, so the head
//! keeps its length and only these bytes are others.

use std::io::IoSlice;

use crate::proxy::DATE_LENGTH;

const NAME: &[u8] = b"date: ";

/// How the heads begin that others follow.
const INTERIM: &[u8] = b"HTTP/1.1 1";

/// A date that is written in the place of another one.
pub(super) struct Redating {
    /// Bytes that come before it.
    ahead: usize,
    date: [u8; DATE_LENGTH],
    written: usize,
}

/// Whether these bytes begin with the head of a final response.
pub(super) fn is_final_head(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/") && !bytes.starts_with(INTERIM)
}

impl Redating {
    /// For a response that begins with these bytes; `None` if there is no date in its head that can be replaced.
    pub(super) fn of(head: &[u8], date: [u8; DATE_LENGTH]) -> Option<Self> {
        let mut at = memchr::memchr(b'\n', head)? + 1;
        loop {
            let rest = head.get(at..)?;
            let line = rest.get(..memchr::memchr(b'\n', rest)?)?;
            if line == b"\r" {
                return None;
            }
            let is_it = line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
            if is_it {
                let fits = line.len() == NAME.len() + DATE_LENGTH + 1;
                return fits.then_some(Self { ahead: at + NAME.len(), date, written: 0 });
            }
            at += line.len() + 1;
        }
    }

    /// What is written for the next bytes of the response.
    pub(super) fn parts<'a>(&'a self, bytes: &'a [u8]) -> [IoSlice<'a>; 3] {
        let (before, rest) = bytes.split_at(self.ahead.min(bytes.len()));
        let date = &self.date[self.written..];
        let (date, after) = (&date[..date.len().min(rest.len())], rest.get(date.len()..).unwrap_or_default());
        [before, date, after].map(IoSlice::new)
    }

    /// So many of them have been written; says whether the date has.
    pub(super) fn advance(&mut self, count: usize) -> bool {
        let before = count.min(self.ahead);
        self.ahead -= before;
        self.written += (count - before).min(DATE_LENGTH - self.written);
        self.written == DATE_LENGTH
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &[u8; DATE_LENGTH] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const NOW: &[u8; DATE_LENGTH] = b"Sun, 22 Nov 2026 11:17:31 GMT";

    /// What the stream below gets when it takes so many bytes at a time, and what is given at a time is bounded too.
    fn written(bytes: &[u8], takes: &[usize], gives: &[usize]) -> Vec<u8> {
        let mut redating = Redating::of(bytes, *OLD);
        let (mut out, mut at) = (Vec::new(), 0);
        let (mut takes, mut gives) = (takes.iter().cycle(), gives.iter().cycle());
        while at < bytes.len() {
            let given = &bytes[at..bytes.len().min(at + gives.next().unwrap())];
            let take = *takes.next().unwrap();
            let count = take.min(given.len());
            match &mut redating {
                Some(active) => {
                    let parts: Vec<u8> = active.parts(given).iter().flat_map(|part| part.iter().copied()).collect();
                    assert_eq!(parts.len(), given.len());
                    out.extend_from_slice(&parts[..count]);
                    if active.advance(count) {
                        redating = None;
                    }
                }
                None => out.extend_from_slice(&given[..count]),
            }
            at += count;
        }
        out
    }

    fn response(before: &str, name: &str, after: &str, date: &[u8]) -> Vec<u8> {
        let date = String::from_utf8_lossy(date);
        format!("HTTP/1.1 200 OK\r\n{before}{name}: {date}\r\n{after}\r\nDate: {date}\r\n\r\n").into_bytes()
    }

    proptest! {
        #[test]
        fn the_date_of_the_head_is_replaced_and_no_other_byte(
            before in "(X-A: [a-z]{0,9}\r\n){0,3}",
            name in "[Dd]ate",
            after in "(X-B: [a-z]{0,9}\r\n){0,2}",
            takes in prop::collection::vec(1..60_usize, 1..5),
            gives in prop::collection::vec(1..60_usize, 1..5),
        ) {
            let bytes = response(&before, &name, &after, NOW);
            let mut expected = bytes.clone();
            let at = before.len() + "HTTP/1.1 200 OK\r\nDate: ".len();
            expected[at..at + DATE_LENGTH].copy_from_slice(OLD);
            prop_assert_eq!(written(&bytes, &takes, &gives), expected);
        }
    }

    #[test]
    fn a_head_without_a_date_of_that_length_stays_as_it_is() {
        for head in ["\r\n", "Age: 1\r\n\r\nDate: ", "Date: now\r\n\r\n", "X-Date: ", "Date: Sun, 06 Nov"] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{head}{}", String::from_utf8_lossy(NOW));
            assert_eq!(written(bytes.as_bytes(), &[7], &[11]), bytes.as_bytes(), "{head:?}");
        }
    }

    #[test]
    fn an_interim_head_is_not_a_final_one() {
        assert!(is_final_head(b"HTTP/1.1 200 OK") && is_final_head(b"HTTP/1.0 304 "));
        assert!(!is_final_head(b"HTTP/1.1 103 Early Hints") && !is_final_head(b"Date: "));
    }
}
