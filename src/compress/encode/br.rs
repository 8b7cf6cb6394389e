//! Brotli (RFC 7932), without large windows.
//!
//! Its library cannot reset a state, and makes its tables with the first piece. To keep their memory would take an
//! allocator of our own below it; each stream is made anew instead, which is part of the 50 us that 2 KiB take at level 4.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderCompressStream, BrotliEncoderCreateInstance, BrotliEncoderHasMoreOutput, BrotliEncoderIsFinished,
    BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderSetParameter, BrotliEncoderStateStruct,
    BrotliEncoderTakeOutput,
};

use super::{CodecError, Length, Step};
use crate::config::Coding;

/// 512 KiB at most: beyond that text gains little, and each stream of each client would hold it. At 16 and less the library
/// means to take tables that it does not have, and takes larger ones instead.
const WINDOWS: std::ops::RangeInclusive<u32> = 17..=19;
const WINDOW_IF_UNKNOWN: u32 = 18;

/// From 1 MiB on the library takes tables of 4 MiB at level 4. It is told less than that.
const MOST_SIZE_HINT: u32 = (1 << 20) - 1;

pub(super) fn most_memory(level: u8) -> usize {
    match level {
        0..=6 => 10 << 20,
        7..=8 => 18 << 20,
        // Tables of 32 MiB at 9, trees over the window above.
        _ => 42 << 20,
    }
}

pub(super) struct BrStream {
    state: Box<BrotliEncoderStateStruct<StandardAlloc>>,
}

impl BrStream {
    pub(super) fn new(level: u8, length: Length) -> Self {
        let mut state = Box::new(BrotliEncoderCreateInstance(StandardAlloc::default()));
        let hint = match length {
            Length::Unknown => 1 << WINDOW_IF_UNKNOWN,
            Length::Announced(length) | Length::Certain(length) => u32::try_from(length).unwrap_or(u32::MAX),
        };
        for (parameter, value) in [
            (BrotliEncoderParameter::BROTLI_PARAM_QUALITY, u32::from(level.min(11))),
            (BrotliEncoderParameter::BROTLI_PARAM_LGWIN, length.log2(WINDOWS, WINDOW_IF_UNKNOWN)),
            (BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, hint.clamp(1, MOST_SIZE_HINT)),
        ] {
            // It refuses parameters once it has begun, and none of these before.
            BrotliEncoderSetParameter(&mut state, parameter, value);
        }
        Self { state }
    }

    pub(super) fn step(&mut self, data: &[u8], out: &mut Vec<u8>, step: Step) -> Result<(), CodecError> {
        let (mut left, mut at) = (data.len(), 0);
        loop {
            let before = (left, out.len());
            // Without room for it the output stays with the state, and is taken from there without another copy.
            let went_on = BrotliEncoderCompressStream(
                &mut self.state,
                step.into(),
                &mut left,
                data,
                &mut at,
                &mut 0,
                &mut [],
                &mut 0,
                &mut None,
                &mut |_, _, _, _| (),
            );
            if went_on == 0 {
                return Err(CodecError::Refused(Coding::Br));
            }
            self.bring_out(out);
            if left == 0 && (step != Step::Finish || BrotliEncoderIsFinished(&self.state) != 0) {
                return Ok(());
            }
            if before == (left, out.len()) {
                return Err(CodecError::Refused(Coding::Br)); // else this would never end
            }
        }
    }

    fn bring_out(&mut self, out: &mut Vec<u8>) {
        while BrotliEncoderHasMoreOutput(&self.state) != 0 {
            // None asked for is all of it; the slice goes on behind that.
            let mut length = 0;
            let taken = BrotliEncoderTakeOutput(&mut self.state, &mut length);
            out.extend_from_slice(&taken[..length]);
        }
    }
}

impl From<Step> for BrotliEncoderOperation {
    fn from(step: Step) -> Self {
        match step {
            Step::Go => Self::BROTLI_OPERATION_PROCESS,
            Step::Flush => Self::BROTLI_OPERATION_FLUSH,
            Step::Finish => Self::BROTLI_OPERATION_FINISH,
        }
    }
}
