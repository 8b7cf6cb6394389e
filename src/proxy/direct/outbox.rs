//! What does a backend get on HTTP/1, and in which frames? (RFC 9112)
//!
//! Bytes come out as they are to be sent. Nothing here writes to a socket.

use bytes::{Buf, Bytes, BytesMut};
use http::header::TRANSFER_ENCODING;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::http_req_header_to_wire;
use pingora::{Error, ErrorType, Result};

use crate::filter::announced_length;

/// A piece of a body that is smaller than this is copied behind what waits: that costs less than another call.
const SMALL: usize = 16 << 10;

/// What is on its way to a backend.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What waits, in this order.
    first: BytesMut,
    large: Bytes,
    /// Behind what is large, if there is such.
    last: &'static [u8],
    /// How much of the head waits.
    head: usize,
    framing: Framing,
}

/// How the body is framed.
#[derive(Debug, Default)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunks,
    #[default]
    Ended,
}

impl Outbox {
    /// Takes the head of a request.
    pub(super) fn put_head(&mut self, head: &RequestHeader) -> Result<()> {
        let wire = http_req_header_to_wire(head);
        self.first = wire.ok_or_else(|| Error::explain(ErrorType::InvalidHTTPHeader, "no line of a request"))?;
        self.head = self.first.len();
        self.framing = match head.headers.contains_key(TRANSFER_ENCODING) {
            true => Framing::Chunks,
            false => Framing::Length(announced_length(&head.headers).unwrap_or(0)),
        };
        Ok(())
    }

    /// Whether there is room for another piece.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.first.len() < SMALL
    }

    /// Takes a piece of the body; only where none that is large waits. Of one that is too long the rest is left out, as its
    /// length says.
    pub(super) fn put(&mut self, mut piece: Bytes) {
        match &mut self.framing {
            Framing::Ended => return,
            Framing::Length(left) => {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
            }
            // An empty one would be the last.
            Framing::Chunks if piece.is_empty() => return,
            Framing::Chunks => self.first.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes()),
        }
        let end: &'static [u8] = if matches!(self.framing, Framing::Chunks) { b"\r\n" } else { b"" };
        if piece.len() < SMALL {
            self.first.extend_from_slice(&piece);
            self.first.extend_from_slice(end);
        } else {
            debug_assert!(self.large.is_empty(), "what waits would be lost");
            (self.large, self.last) = (piece, end);
        }
    }

    /// The body has ended; an error says that it is not as long as it was to be.
    pub(super) fn end(&mut self) -> Result<()> {
        match std::mem::take(&mut self.framing) {
            Framing::Length(1..) => {
                Error::e_explain(ErrorType::new("ShortBody"), "the body is shorter than its length")
            }
            Framing::Length(0) | Framing::Ended => Ok(()),
            Framing::Chunks if self.large.is_empty() => {
                self.first.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
            Framing::Chunks => {
                self.last = b"\r\n0\r\n\r\n";
                Ok(())
            }
        }
    }

    /// What is to be written next; nothing where all is.
    pub(super) fn next(&self) -> &[u8] {
        if self.first.is_empty() { &self.large } else { &self.first }
    }

    /// So much of it has been written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.head = self.head.saturating_sub(bytes);
        if !self.first.is_empty() {
            return self.first.advance(bytes);
        }
        self.large.advance(bytes);
        if self.large.is_empty() {
            self.first.extend_from_slice(std::mem::take(&mut self.last));
        }
    }

    /// Whether the backend has not even got the whole head.
    pub(super) fn owes_the_head(&self) -> bool {
        self.head > 0
    }

    /// Nothing more can be sent.
    pub(super) fn give_up(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(fields: &[(&'static str, &str)]) -> Outbox {
        let mut head = RequestHeader::build("POST", b"/a?b", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        let mut outbox = Outbox::default();
        outbox.put_head(&head).unwrap();
        outbox
    }

    /// All that waits, as it leaves in writes of so many bytes.
    fn drain(outbox: &mut Outbox, most: usize) -> String {
        let mut sent = Vec::new();
        while !outbox.next().is_empty() {
            let bytes = outbox.next().len().min(most);
            sent.extend_from_slice(&outbox.next()[..bytes]);
            outbox.wrote(bytes);
        }
        String::from_utf8(sent).unwrap()
    }

    #[test]
    fn a_body_of_a_length_follows_its_head_and_is_never_longer() {
        let mut outbox = outbox(&[("Content-Length", "5")]);
        assert!(outbox.owes_the_head());
        outbox.put("hel".into());
        outbox.put("lo!".into());
        outbox.put("?".into());
        outbox.end().unwrap();
        outbox.put("behind its end".into());
        assert_eq!(drain(&mut outbox, 7), "POST /a?b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
        assert!(!outbox.owes_the_head());
    }

    #[test]
    fn a_body_that_is_too_short_is_an_error() {
        let mut outbox = outbox(&[("Content-Length", "5")]);
        outbox.put("hell".into());
        assert!(outbox.end().is_err());
        assert!(self::outbox(&[]).end().is_ok());
    }

    #[test]
    fn chunks_have_a_last_one_and_no_empty_one_before_it() {
        let large = "x".repeat(SMALL);
        for (pieces, body) in [
            (vec![], "0\r\n\r\n".to_owned()),
            (vec!["", "hello", ""], "5\r\nhello\r\n0\r\n\r\n".to_owned()),
            (vec!["hello", &large], format!("5\r\nhello\r\n4000\r\n{large}\r\n0\r\n\r\n")),
        ] {
            let mut outbox = outbox(&[("transfer-encoding", "chunked")]);
            pieces.into_iter().for_each(|piece| outbox.put(Bytes::copy_from_slice(piece.as_bytes())));
            outbox.end().unwrap();
            let sent = drain(&mut outbox, 1000);
            assert_eq!(sent.split_once("\r\n\r\n").unwrap().1, body);
        }
    }

    #[test]
    fn what_is_large_goes_alone_and_what_follows_stays_behind_it() {
        let large = "x".repeat(SMALL);
        let mut outbox = outbox(&[("transfer-encoding", "chunked")]);
        assert!(outbox.has_room());
        outbox.put(large.clone().into());
        assert!(!outbox.has_room());
        let head = drain_first(&mut outbox);
        assert!(head.ends_with("4000\r\n"), "{head}");
        // All but the end of the line behind the chunk, which the next one must not overtake.
        outbox.wrote(SMALL);
        outbox.put("hello".into());
        outbox.end().unwrap();
        assert_eq!(drain(&mut outbox, 1), "\r\n5\r\nhello\r\n0\r\n\r\n");
    }

    fn drain_first(outbox: &mut Outbox) -> String {
        let first = String::from_utf8(outbox.next().to_vec()).unwrap();
        outbox.wrote(first.len());
        first
    }
}
