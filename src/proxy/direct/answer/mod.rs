//! What does a backend say on HTTP/1, and where does it end? (RFC 9112)
//!
//! Bytes go in as they come, cut anywhere; heads and pieces of bodies come out. Nothing here reads a socket.

mod chunks;

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderName, StatusCode, Version};
use httparse::Status;
use pingora::http::{ResponseHeader, header_value_from_raw};
use pingora::{Error, ErrorType, OrErr, Result};

use self::chunks::Chunks;
use super::head::members;
use crate::proxy::reply::never_has_a_body;

/// Fields of a head, and bytes: as many as Pingora takes.
const MOST_FIELDS: usize = 256;
const LONGEST_HEAD: usize = 1 << 20;

/// How many fields we add to an answer.
const ADDED: usize = 8;

/// Room for a head that comes, and for a body.
const ROOM_FOR_HEAD: usize = 4 << 10;
const ROOM_FOR_BODY: usize = 64 << 10;

/// One answer, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    input: BytesMut,
    /// Bytes of empty lines that were dropped before the head.
    dropped: usize,
    /// So much of the input has no head in it, as far as was looked.
    seen: usize,
    /// From so many bytes on it is parsed whether or not the end of a head has come.
    parse_at: usize,
    body: Body,
    /// It has no body whatever its head says, because `HEAD` was asked.
    is_to_head: bool,
    /// Its connection cannot be used again behind it.
    is_last: bool,
}

/// How much of the body is still to come (RFC 9112, section 6.3).
#[derive(Debug, Default, PartialEq)]
enum Body {
    /// The head is not there.
    #[default]
    Unknown,
    Length(u64),
    Chunks(Chunks),
    UntilClose,
    Over,
}

impl Answer {
    /// The answer to a request that is sent now.
    pub(super) fn to(is_to_head: bool) -> Self {
        Self { is_to_head, ..Self::default() }
    }

    /// Whether nothing of the body is to come.
    pub(super) fn is_over(&self) -> bool {
        self.body == Body::Over
    }

    /// Whether the connection can be used again (RFC 9112, section 9.3). What came behind the answer nobody has asked for.
    pub(super) fn leaves_the_connection(&self) -> bool {
        self.is_over() && !self.is_last && self.input.is_empty()
    }

    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let wanted = if self.body == Body::Unknown { ROOM_FOR_HEAD } else { ROOM_FOR_BODY };
        if self.input.capacity() - self.input.len() < wanted / 2 {
            self.input.reserve(wanted);
        }
        &mut self.input
    }

    /// No more bytes come.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.body {
            Body::Over => Ok(()),
            Body::UntilClose => {
                self.body = Body::Over;
                Ok(())
            }
            Body::Unknown => {
                // What has come may be no head at all.
                self.parse_at = 0;
                self.head()?;
                Error::e_explain(ErrorType::ConnectionClosed, "no head came")
            }
            Body::Length(_) | Body::Chunks(_) => {
                Error::e_explain(ErrorType::ConnectionClosed, "the body is not all there")
            }
        }
    }

    /// The next head, as soon as it is there. Behind that of an interim answer comes another.
    pub(super) fn head(&mut self) -> Result<Option<Box<ResponseHeader>>> {
        self.drop_empty_lines()?;
        if !self.is_worth_parsing() {
            return Ok(None);
        }
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let mut parser = httparse::ParserConfig::default();
        // Either is forgiven by most (RFC 9112, sections 5.1 and 5.2).
        parser.allow_spaces_after_header_name_in_responses(true);
        parser.allow_obsolete_multiline_headers_in_responses(true);
        let status = parser.parse_response_with_uninit_headers(&mut parsed, &self.input, &mut fields);
        let Status::Complete(length) = status.or_err(ErrorType::InvalidHTTPHeader, "no head of an answer")? else {
            return at_most(self.input.len()).map(|()| None);
        };
        let fields = parsed.headers.iter().map(|field| {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            Ok((name.or_err(ErrorType::InvalidHTTPHeader, "no name of a field")?, place_of(field.value, &self.input)))
        });
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or_else(|| Error::explain(ErrorType::InvalidHTTPHeader, "no status of an answer"))?;
        let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let unusual = parsed.reason.filter(|reason| status.canonical_reason() != Some(reason)).map(str::to_owned);
        // The values share what they came in.
        let raw = self.input.split_to(length).freeze();
        (self.dropped, self.seen, self.parse_at) = (0, 0, 0);
        let mut parts = http::Response::new(()).into_parts().0;
        (parts.status, parts.version) = (status, version);
        parts.headers.reserve(fields.len() + ADDED);
        for (name, place) in fields {
            let value = header_value_from_raw(raw.slice(place));
            parts.headers.try_append(name, value).or_err(ErrorType::InvalidHTTPHeader, "too many fields")?;
        }
        self.begin_body(&mut parts)?;
        let mut head = Box::new(ResponseHeader::from(parts));
        if unusual.is_some() {
            head.set_reason_phrase(unusual.as_deref())?;
        }
        Ok(Some(head))
    }

    /// Empty lines before a head are forgiven (RFC 9112, section 2.2, has that for requests). They are no head, so that what
    /// is nothing else must not be looked at again and again.
    fn drop_empty_lines(&mut self) -> Result<()> {
        loop {
            let empty = match &*self.input {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => return at_most(self.dropped),
            };
            self.input.advance(empty);
            self.dropped += empty;
            self.seen = self.seen.saturating_sub(empty);
        }
    }

    /// What comes in many small pieces is not parsed with each of them: as soon as there is an empty line, and at each
    /// doubling, so that what is no head at all is found out.
    fn is_worth_parsing(&mut self) -> bool {
        let bytes = self.input.len();
        let new = self.input.get(self.seen.saturating_sub(2)..).unwrap_or_default();
        let is_worth = bytes > 0 && (bytes >= self.parse_at || has_an_empty_line(new));
        if is_worth {
            self.parse_at = (bytes * 2).min(LONGEST_HEAD + 1);
        }
        self.seen = bytes;
        is_worth
    }

    /// What the head says of the body, and of the connection behind it. A length beside chunks goes (RFC 9112, section 6.3).
    fn begin_body(&mut self, head: &mut Parts) -> Result<()> {
        let is_coded = head.headers.contains_key(TRANSFER_ENCODING);
        if is_coded {
            head.headers.remove(CONTENT_LENGTH);
        }
        let length = length(&head.headers)?;
        if head.status.is_informational() {
            return Ok(());
        }
        self.body = match length {
            _ if self.is_to_head || never_has_a_body(head.status) => Body::Over,
            _ if is_coded && is_chunked(&head.headers) => Body::Chunks(Chunks::begin()),
            Some(0) => Body::Over,
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        let says = |word: &[u8]| members(&head.headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case(word));
        self.is_last = self.body == Body::UntilClose
            || says(b"close")
            // Section 6.1: whoever speaks HTTP/1.0 does not know where chunks end.
            || (head.version == Version::HTTP_10 && (is_coded || !says(b"keep-alive")));
        Ok(())
    }

    /// The next piece of the body, as soon as there is one; an empty one where it has ended.
    pub(super) fn part(&mut self) -> Result<Option<Bytes>> {
        let piece = self.piece()?;
        Ok(piece.or_else(|| self.is_over().then(Bytes::new)))
    }

    /// What has come of the body and was not taken yet; `None` where that is nothing.
    fn piece(&mut self) -> Result<Option<Bytes>> {
        self.pass_framing()?;
        let left = match &self.body {
            Body::Unknown | Body::Over => 0,
            Body::Length(left) => *left,
            Body::Chunks(chunks) => chunks.left(),
            Body::UntilClose => u64::MAX,
        };
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
        if bytes == 0 {
            return Ok(None);
        }
        let piece = self.input.split_to(bytes).freeze();
        match &mut self.body {
            Body::Length(left) if *left > bytes as u64 => *left -= bytes as u64,
            Body::Length(_) => self.body = Body::Over,
            Body::Chunks(chunks) => chunks.took(bytes as u64),
            Body::Unknown | Body::UntilClose | Body::Over => {}
        }
        // So that the last piece is known to be the last.
        self.pass_framing()?;
        Ok(Some(piece))
    }

    /// Passes over what stands between two pieces of a body in chunks, as far as it has come.
    fn pass_framing(&mut self) -> Result<()> {
        if let Body::Chunks(chunks) = &mut self.body {
            chunks.pass_framing(&mut self.input)?;
            if chunks.is_done() {
                self.body = Body::Over;
            }
        }
        Ok(())
    }
}

fn at_most(bytes: usize) -> Result<()> {
    match bytes > LONGEST_HEAD {
        true => Error::e_explain(ErrorType::InvalidHTTPHeader, "the head of the answer is too long"),
        false => Ok(()),
    }
}

/// Lines may end with a line feed alone.
fn has_an_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|feed| {
        let next = bytes.get(feed + 1..).unwrap_or_default();
        next.starts_with(b"\n") || next.starts_with(b"\r\n")
    })
}

/// Where a part is in the whole that it is taken from.
fn place_of(part: &[u8], whole: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

/// What all fields agree on (RFC 9110, section 8.6); an error where they do not.
fn length(fields: &HeaderMap) -> Result<Option<u64>> {
    let mut length = None;
    for value in members(fields, &CONTENT_LENGTH) {
        let digits = str::from_utf8(value).ok().filter(|_| !value.is_empty() && value.iter().all(u8::is_ascii_digit));
        let said: Option<u64> = digits.and_then(|digits| digits.parse().ok());
        if said.is_none() || length.is_some_and(|length| Some(length) != said) {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "no length of a body");
        }
        length = said;
    }
    Ok(length)
}

/// Whether the last coding is that of chunks (RFC 9112, section 6.3).
fn is_chunked(fields: &HeaderMap) -> bool {
    members(fields, &TRANSFER_ENCODING).last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
}

#[cfg(test)]
mod tests;
