//! Where are the data of a chunked body, and where does it end? (RFC 9112, section 7.1)

use bytes::{Buf, BytesMut};
use httparse::Status;
use pingora::{Error, ErrorType, Result};

/// The line before a chunk, and all that follows the last one: as much as Pingora takes.
pub(super) const LONGEST_LINE: usize = 8 << 10;
pub(super) const LONGEST_TRAILER: usize = 64 << 10;

/// What comes next.
#[derive(Debug, PartialEq)]
pub(super) enum Chunks {
    Size,
    Data(u64),
    DataEnd,
    /// Fields behind the last chunk, so many bytes of which are gone. They are not passed on.
    Trailer(usize),
    Done,
}

impl Chunks {
    pub(super) fn begin() -> Self {
        Self::Size
    }

    pub(super) fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// How many bytes of data come next.
    pub(super) fn left(&self) -> u64 {
        if let Self::Data(left) = self { *left } else { 0 }
    }

    /// So many of them were taken.
    pub(super) fn took(&mut self, bytes: u64) {
        let left = self.left().saturating_sub(bytes);
        *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
    }

    /// Passes over what is no data, as far as it has come.
    pub(super) fn pass_framing(&mut self, input: &mut BytesMut) -> Result<()> {
        while let Some(next) = self.next(input)? {
            *self = next;
        }
        Ok(())
    }

    /// What comes behind the next step of the framing; `None` where that has not come, or data come first.
    fn next(&self, input: &mut BytesMut) -> Result<Option<Self>> {
        match self {
            Self::Data(_) | Self::Done => Ok(None),
            Self::Size => size(input),
            Self::DataEnd => {
                let end = input.get(..2).unwrap_or(input);
                if !b"\r\n".starts_with(end) {
                    return Err(bad_chunk("a chunk does not end where it is to"));
                }
                if end.len() < 2 {
                    return Ok(None);
                }
                input.advance(2);
                Ok(Some(Self::Size))
            }
            Self::Trailer(gone) => trailer(input, *gone),
        }
    }
}

fn size(input: &mut BytesMut) -> Result<Option<Chunks>> {
    // To the parser no digit at all is a size of nothing.
    if input.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
        return Err(bad_chunk("no size of a chunk"));
    }
    let parsed = httparse::parse_chunk_size(input).map_err(|_| bad_chunk("no size of a chunk"))?;
    let Status::Complete((line, size)) = parsed else {
        return within(input.len(), LONGEST_LINE).map(|()| None);
    };
    input.advance(line);
    Ok(Some(if size == 0 { Chunks::Trailer(0) } else { Chunks::Data(size) }))
}

fn trailer(input: &mut BytesMut, gone: usize) -> Result<Option<Chunks>> {
    let Some(feed) = memchr::memchr(b'\n', input) else {
        return within(gone + input.len(), LONGEST_TRAILER).map(|()| None);
    };
    let line = input.split_to(feed + 1);
    let gone = gone + line.len();
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| bad_chunk("a line ends without a return"))?;
    within(gone, LONGEST_TRAILER)?;
    Ok(Some(if line.is_empty() { Chunks::Done } else { Chunks::Trailer(gone) }))
}

fn within(bytes: usize, most: usize) -> Result<()> {
    if bytes <= most { Ok(()) } else { Err(bad_chunk("too much between chunks")) }
}

fn bad_chunk(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::new("InvalidChunk"), what)
}
