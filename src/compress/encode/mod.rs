//! Makes a body smaller, piece by piece or at once.
//!
//! Whatever borders the pieces have, the stream that comes out is one valid stream of its coding, and after a flush all
//! that was written can be read from what is out. A stream takes at most [`most_memory`] of memory, whatever is written.
//! Nothing here decides what is worth it.

mod br;
mod pool;
mod zlib;
mod zstd;

#[cfg(test)]
pub(super) mod tests;

use bytes::Bytes;

use self::br::BrStream;
pub use self::pool::MOST_IDLE_BYTES;
use self::zlib::{Frame, ZlibStream};
use self::zstd::ZstdStream;
use super::CodecError;
use crate::config::Coding;

/// One body on its way into a coding. What it works with is kept for the next one once it has ended.
///
/// ```
/// use portcullis::compress::encode::Encoder;
/// use portcullis::config::Coding;
///
/// let (mut encoder, mut out) = (Encoder::new(Coding::Gzip, 5, None)?, Vec::new());
/// encoder.write(b"what the client waits for", &mut out)?;
/// encoder.flush(&mut out)?; // it can read that now
/// encoder.write(b", and the rest", &mut out)?;
/// encoder.finish(&mut out)?;
/// # Ok::<(), portcullis::compress::CodecError>(())
/// ```
pub struct Encoder {
    stream: Stream,
    /// Whether something was written that no flush has brought out yet.
    pending: bool,
}

enum Stream {
    Br(BrStream),
    Zlib(ZlibStream),
    Zstd(ZstdStream),
}

/// How far what was written shall come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// As it is best for the size.
    Go,
    /// All of it.
    Flush,
    /// All of it, and the end of the stream.
    Finish,
}

/// How much is known of a body's length before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Unknown,
    /// What its sender said: sizes memory, and may be wrong.
    Announced(u64),
    /// What it is.
    Certain(u64),
}

impl Length {
    /// The power of two that this length fits into, within bounds; `unknown` if there is none.
    fn log2(self, bounds: std::ops::RangeInclusive<u32>, unknown: u32) -> u32 {
        match self {
            Self::Unknown => unknown,
            Self::Announced(length) | Self::Certain(length) => {
                length.saturating_sub(1).checked_ilog2().map_or(0, |log| log + 1).clamp(*bounds.start(), *bounds.end())
            }
        }
    }
}

impl Encoder {
    /// Begins a stream. `length` is what the body's sender announced; a body may be longer or shorter, and is then made
    /// smaller a little worse. A level that the coding does not have counts as the nearest that it has.
    pub fn new(coding: Coding, level: u8, length: Option<u64>) -> Result<Self, CodecError> {
        Self::with(coding, level, length.map_or(Length::Unknown, Length::Announced))
    }

    fn with(coding: Coding, level: u8, length: Length) -> Result<Self, CodecError> {
        let stream = match coding {
            Coding::Zstd => Stream::Zstd(ZstdStream::new(level, length)?),
            Coding::Br => Stream::Br(BrStream::new(level, length)),
            Coding::Gzip => Stream::Zlib(ZlibStream::new(Frame::Gzip, level)?),
            Coding::Deflate => Stream::Zlib(ZlibStream::new(Frame::Zlib, level)?),
        };
        Ok(Self { stream, pending: false })
    }

    /// Takes a piece of the body; what is ready by now is appended to `out`, which may be nothing.
    pub fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        if data.is_empty() {
            return Ok(());
        }
        self.pending = true;
        self.step(data, out, Step::Go)
    }

    /// Appends what it takes to read all that was written; nothing, if nothing was written since the last time.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        if !std::mem::take(&mut self.pending) {
            return Ok(());
        }
        self.step(&[], out, Step::Flush)
    }

    /// Ends the stream; the last of it is appended to `out`. A body without a byte is a stream, too.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.step(&[], out, Step::Finish)
    }

    fn step(&mut self, data: &[u8], out: &mut Vec<u8>, step: Step) -> Result<(), CodecError> {
        match &mut self.stream {
            Stream::Br(stream) => stream.step(data, out, step),
            Stream::Zlib(stream) => stream.step(data, out, step),
            Stream::Zstd(stream) => stream.step(data, out, step),
        }
    }
}

/// A whole body at once: a little smaller and faster than [`Encoder`], since its length is certain.
pub fn encode_all(coding: Coding, level: u8, pieces: &[impl AsRef<[u8]>]) -> Result<Bytes, CodecError> {
    let length = pieces.iter().map(|piece| piece.as_ref().len()).sum::<usize>();
    let mut encoder = Encoder::with(coding, level, Length::Certain(length as u64))?;
    let mut out = Vec::with_capacity(length / LIKELY_RATIO + LEAST_ROOM);
    let (last, others) = pieces.split_last().map_or((&[][..], &[][..]), |(last, others)| (last.as_ref(), others));
    for piece in others {
        encoder.write(piece.as_ref(), &mut out)?;
    }
    encoder.step(last, &mut out, Step::Finish)?;
    out.shrink_to_fit();
    Ok(out.into())
}

/// What text becomes smaller by, at least.
const LIKELY_RATIO: usize = 3;

/// Room enough for the head, the trailer and any marker of any coding.
const LEAST_ROOM: usize = 512;

/// At once no more room than this is made in an output.
const MOST_ROOM: usize = 64 << 10;

/// Makes room for what so much input is likely to become.
fn make_room(out: &mut Vec<u8>, input: usize) {
    if out.capacity() - out.len() < LEAST_ROOM {
        out.reserve((input / LIKELY_RATIO).clamp(LEAST_ROOM, MOST_ROOM));
    }
}

/// The most memory that a stream holds at this level, in bytes: window, tables and buffers. What is idle in the pools
/// comes on top, at most [`MOST_IDLE_BYTES`] a coding.
pub fn most_memory(coding: Coding, level: u8) -> usize {
    match coding {
        Coding::Zstd => zstd::most_memory(level),
        Coding::Br => br::most_memory(level),
        Coding::Gzip | Coding::Deflate => zlib::MEMORY,
    }
}
