//! Makes a body what it was before it was coded, piece by piece.
//!
//! Nobody trusts what comes in here. What comes out is bounded, of a whole body and of each of its pieces
//! ([`MOST_FREE`], [`MOST_GROWTH`], a limit of the caller's), so is the memory that a stream may ask for
//! ([`MOST_MEMORY`]), and a body that is damaged, cut short or longer than its coding says is an error, never a shorter
//! body.
//!
//! A piece has a bound of its own because all that comes out of it is in memory at once, before anybody can send it on:
//! what a body did not use up so far must not be there for one piece of it to use.
//!
//! What is taken though it is not quite right, since browsers and curl take it: `deflate` without the frame of zlib, zeros
//! behind the last member of a gzip file, and a body without a single byte, which is what a backend sends that names a
//! coding on an empty answer. Other bytes behind the end are refused: some readers show them and some do not.

mod br;
mod deflate;
mod gzip;
mod zstd;

#[cfg(test)]
mod tests;

use self::br::BrSource;
use self::deflate::DeflateSource;
use self::gzip::GzipSource;
use self::zstd::ZstdSource;
use super::CodecError;
use crate::config::Coding;

/// So much may come out of a body whatever went in: what a server sends as one answer without a second thought.
pub const MOST_FREE: u64 = 10 << 20;

/// Beyond [`MOST_FREE`] no more than this comes out for each byte that went in, neither of a body nor of any run of its
/// pieces. Real text stays below 30; deflate can do 1,000, the others far more.
pub const MOST_GROWTH: u64 = 100;

/// What a stream may hold: the largest window of brotli is 16 MiB, that of Zstandard is held to 8 MiB (RFC 9659).
pub const MOST_MEMORY: usize = 20 << 20;

/// So much is decoded at a time.
const PIECE: usize = 32 << 10;

/// One body on its way out of a coding. After an error it is of no more use.
///
/// ```
/// use portcullis::compress::decode::Decoder;
/// use portcullis::config::Coding;
///
/// let mut decoder = Decoder::new(Coding::Deflate)?.limited(Some(1 << 20));
/// let mut out = Vec::new();
/// decoder.write(&[0x78, 0x9C, 0xCB, 0x48, 0x04], &mut out)?;
/// decoder.write(&[0x00, 0x01, 0x33, 0x00, 0xCA], &mut out)?;
/// decoder.finish()?;
/// assert_eq!(out, b"ha");
/// # Ok::<(), portcullis::compress::CodecError>(())
/// ```
pub struct Decoder {
    coding: Coding,
    source: Source,
    /// What comes out goes through here, so that `out` never grows beyond what one [`Decoder::write`] may give.
    piece: Box<[u8]>,
    taken: u64,
    given: u64,
    /// What `given` may come to with the pieces so far, as they came.
    bound: u64,
    limit: Option<u64>,
}

enum Source {
    Br(BrSource),
    Deflate(DeflateSource),
    Gzip(GzipSource),
    Zstd(ZstdSource),
}

/// What one step of a source made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    /// So many bytes of the input were taken.
    taken: usize,
    /// So many bytes came out.
    given: usize,
}

/// The bytes are not in the coding that they are said to be in.
struct Malformed;

impl Decoder {
    /// Begins a stream.
    pub fn new(coding: Coding) -> Result<Self, CodecError> {
        let source = match coding {
            Coding::Zstd => Source::Zstd(ZstdSource::new().ok_or(CodecError::Refused(coding))?),
            Coding::Br => Source::Br(BrSource::new()),
            Coding::Gzip => Source::Gzip(GzipSource::new()),
            Coding::Deflate => Source::Deflate(DeflateSource::default()),
        };
        Ok(Self { coding, source, piece: vec![0; PIECE].into(), taken: 0, given: 0, bound: MOST_FREE, limit: None })
    }

    /// No more than this may come out; `None` for what the other bounds allow.
    #[must_use]
    pub fn limited(mut self, limit: Option<u64>) -> Self {
        self.limit = limit;
        self
    }

    /// Takes a piece of the coded body, and appends to `out` all that can be read by now: at most [`MOST_FREE`] and
    /// [`MOST_GROWTH`] times the piece, also over several pieces in a row. If it fails, `out` may have grown by what came
    /// before the fault.
    pub fn write(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        if data.is_empty() {
            return Ok(()); // an HTTP/2 client may send many of these in a row, which libzstd takes for a stream that is stuck
        }
        self.take_note_of(data.len() as u64);
        let most = self.most();
        loop {
            // Room for one byte more than may come: if that is filled there is too much.
            let room = usize::try_from(most - self.given + 1).map_or(PIECE, |room| room.min(PIECE));
            let piece = &mut self.piece[..room];
            let made = self.source.step(data, piece).map_err(|Malformed| CodecError::Malformed(self.coding))?;
            self.given += made.given as u64;
            if self.given > most {
                return Err(self.too_much());
            }
            out.extend_from_slice(&piece[..made.given]);
            data = &data[made.taken..];
            if made.given < room && data.is_empty() {
                return Ok(());
            }
            if made == (Made { taken: 0, given: 0 }) {
                return Err(CodecError::Malformed(self.coding)); // else this would never end
            }
        }
    }

    /// That was all: an error if the coding says that more must come.
    pub fn finish(self) -> Result<(), CodecError> {
        let whole = match &self.source {
            Source::Br(source) => source.is_whole(),
            Source::Deflate(source) => source.is_whole(),
            Source::Gzip(source) => source.is_whole(),
            Source::Zstd(source) => source.is_whole(),
        };
        if whole || self.taken == 0 { Ok(()) } else { Err(CodecError::Truncated(self.coding)) }
    }

    /// Of what could have come out of earlier pieces, no more than [`MOST_FREE`] is left for this one.
    fn take_note_of(&mut self, length: u64) {
        self.taken += length;
        self.bound = self.bound.min(self.given + MOST_FREE).saturating_add(length.saturating_mul(MOST_GROWTH));
    }

    fn most(&self) -> u64 {
        let harmless = self.taken.saturating_mul(MOST_GROWTH).max(MOST_FREE).min(self.bound);
        self.limit.map_or(harmless, |limit| limit.min(harmless))
    }

    fn too_much(&self) -> CodecError {
        match self.limit.filter(|limit| self.given > *limit) {
            Some(limit) => CodecError::TooLarge(self.coding, limit),
            None => CodecError::Bomb(self.coding),
        }
    }
}

impl Source {
    fn step(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        match self {
            Self::Br(source) => source.step(data, piece),
            Self::Deflate(source) => source.step(data, piece),
            Self::Gzip(source) => source.step(data, piece),
            Self::Zstd(source) => source.step(data, piece),
        }
    }
}
