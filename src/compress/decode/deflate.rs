//! What HTTP calls deflate: the frame of zlib (RFC 1950), or the bare format (RFC 1951), which some servers send under
//! this name and all browsers take. The first two bytes tell them apart: a bare stream that began like a frame would
//! begin with a stored block with garbage in its padding, which no encoder writes.

use flate2::Decompress;

use super::gzip::inflate;
use super::{Made, Malformed};

#[derive(Default)]
pub(super) struct DeflateSource {
    /// The first byte, while the second has not come.
    first: Option<u8>,
    state: Option<Decompress>,
    ended: bool,
}

impl DeflateSource {
    pub(super) fn is_whole(&self) -> bool {
        self.ended
    }

    pub(super) fn step(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        let Some(next) = data.first() else { return self.inflate(data, piece) };
        if self.ended {
            return Err(Malformed);
        }
        if self.state.is_some() {
            return self.inflate(data, piece);
        }
        let Some(first) = self.first else {
            self.first = Some(*next);
            return Ok(Made { taken: 1, given: 0 });
        };
        self.state = Some(Decompress::new(is_frame(first, *next)));
        // Two bytes are the head of a frame, or a block with one byte of text at most, for which there is always room:
        // nothing of them is left over.
        let made = self.inflate(&[first, *next], piece)?;
        if made.taken == 2 { Ok(Made { taken: 1, ..made }) } else { Err(Malformed) }
    }

    fn inflate(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        let Some(state) = self.state.as_mut().filter(|_| !self.ended) else {
            return Ok(Made { taken: 0, given: 0 });
        };
        let (made, ended) = inflate(state, data, piece)?;
        self.ended = ended;
        Ok(made)
    }
}

/// RFC 1950, section 2.2: the method is 8, the window at most 32 KiB, and both bytes together a multiple of 31.
fn is_frame(first: u8, second: u8) -> bool {
    first & 0x0F == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}
