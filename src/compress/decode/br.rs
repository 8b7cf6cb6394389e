//! Brotli (RFC 7932), without large windows, which no browser takes either.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};

use super::{Made, Malformed};

pub(super) struct BrSource {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    ended: bool,
}

impl BrSource {
    pub(super) fn new() -> Self {
        let alloc = StandardAlloc::default;
        Self { state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())), ended: false }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.ended
    }

    pub(super) fn step(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        if self.ended {
            return if data.is_empty() { Ok(Made { taken: 0, given: 0 }) } else { Err(Malformed) };
        }
        let (mut in_left, mut taken, mut out_left, mut given) = (data.len(), 0, piece.len(), 0);
        let result = BrotliDecompressStream(
            &mut in_left,
            &mut taken,
            data,
            &mut out_left,
            &mut given,
            piece,
            &mut 0,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => Err(Malformed),
            BrotliResult::ResultSuccess if taken < data.len() => Err(Malformed),
            BrotliResult::ResultSuccess => {
                self.ended = true;
                Ok(Made { taken, given })
            }
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok(Made { taken, given }),
        }
    }
}
