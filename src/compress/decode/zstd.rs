//! Zstandard (RFC 8878): one frame or several, some of which may be there to be skipped; windows of at most 8 MiB
//! (RFC 9659, section 3).
//!
//! The magic number of each frame is looked at here, because the library is built with decoders for the formats of its
//! years before 1.0: no server sends those, and nothing but an attacker would want them read.

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Made, Malformed};

const MOST_WINDOW_LOG: u32 = 23;
const FRAME: u32 = 0xFD2F_B528;
/// The last four bits are anything.
const SKIPPED_FRAME: u32 = 0x184D_2A50;

pub(super) struct ZstdSource {
    state: DCtx<'static>,
    /// The magic number as far as it has come; whole inside a frame.
    magic: [u8; 4],
    have: usize,
    begun: bool,
}

impl ZstdSource {
    pub(super) fn new() -> Option<Self> {
        let mut state = DCtx::try_create()?;
        state.set_parameter(DParameter::WindowLogMax(MOST_WINDOW_LOG)).ok()?;
        Some(Self { state, magic: [0; 4], have: 0, begun: false })
    }

    pub(super) fn is_whole(&self) -> bool {
        self.begun && self.have == 0
    }

    pub(super) fn step(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        if self.have == self.magic.len() {
            return self.decompress(data, piece);
        }
        let taken = data.len().min(self.magic.len() - self.have);
        self.magic[self.have..self.have + taken].copy_from_slice(&data[..taken]);
        self.have += taken;
        if self.have == self.magic.len() {
            let magic = u32::from_le_bytes(self.magic);
            if magic != FRAME && magic & !0xF != SKIPPED_FRAME {
                return Err(Malformed);
            }
            self.begun = true;
            let begin = self.magic;
            self.decompress(&begin, piece)?;
        }
        Ok(Made { taken, given: 0 })
    }

    fn decompress(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        let (mut input, mut output) = (InBuffer::around(data), OutBuffer::around(piece));
        let left = self.state.decompress_stream(&mut output, &mut input).map_err(|_| Malformed)?;
        if left == 0 {
            self.have = 0;
        }
        Ok(Made { taken: input.pos(), given: output.pos() })
    }
}
