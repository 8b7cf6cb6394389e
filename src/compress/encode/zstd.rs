//! Zstandard (RFC 8878), with windows that every client must take (RFC 9659: at most 8 MiB; here far less).
//!
//! No checksum: gzip and TLS have one, and this one would cost a client as much again as decoding does.

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::pool::{Pool, Pooled};
use super::{CodecError, Length, Step, make_room};
use crate::config::Coding;

/// A window is also a buffer of its size in each stream. 1 KiB is the least that there is.
const WINDOWS: std::ops::RangeInclusive<u32> = 10..=20;
const WINDOW_IF_UNKNOWN: u32 = 19;

static POOL: Pool<CCtx<'static>> = Pool::new();

pub(super) fn most_memory(level: u8) -> usize {
    match level {
        0..=6 => 6 << 20,
        7..=12 => 14 << 20,
        _ => 40 << 20,
    }
}

pub(super) struct ZstdStream {
    state: Pooled<CCtx<'static>>,
}

impl ZstdStream {
    pub(super) fn new(level: u8, length: Length) -> Result<Self, CodecError> {
        let mut state = POOL.take(|| CCtx::try_create().ok_or(REFUSED), CCtx::sizeof)?;
        state.reset(ResetDirective::SessionAndParameters).map_err(refused)?;
        // Not level 0: that one means "the default".
        state.set_parameter(CParameter::CompressionLevel(level.clamp(1, 19).into())).map_err(refused)?;
        let window = length.log2(WINDOWS, WINDOW_IF_UNKNOWN);
        state.set_parameter(CParameter::WindowLog(window)).map_err(refused)?;
        // An announced length is not pledged: the library fails if it turns out wrong.
        if let Length::Certain(length) = length {
            state.set_pledged_src_size(Some(length)).map_err(refused)?;
        }
        Ok(Self { state })
    }

    pub(super) fn step(&mut self, data: &[u8], out: &mut Vec<u8>, step: Step) -> Result<(), CodecError> {
        let mut input = InBuffer::around(data);
        loop {
            make_room(out, data.len() - input.pos());
            let length = out.len();
            let mut output = OutBuffer::around_pos(out, length);
            let left = self.state.compress_stream2(&mut output, &mut input, step.into()).map_err(refused)?;
            let all_in = input.pos() == data.len();
            if all_in && left == 0 && step == Step::Finish {
                return Ok(self.state.end());
            }
            if all_in && (left == 0 || step == Step::Go) {
                return Ok(());
            }
        }
    }
}

impl From<Step> for ZSTD_EndDirective {
    fn from(step: Step) -> Self {
        match step {
            Step::Go => Self::ZSTD_e_continue,
            Step::Flush => Self::ZSTD_e_flush,
            Step::Finish => Self::ZSTD_e_end,
        }
    }
}

const REFUSED: CodecError = CodecError::Refused(Coding::Zstd);

fn refused(_code: usize) -> CodecError {
    REFUSED
}
