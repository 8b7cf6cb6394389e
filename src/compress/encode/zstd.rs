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
        0..=6 => 5 << 20,
        7..=12 => 14 << 20,
        _ => 24 << 20,
    }
}

/// What the library takes at each level for long bodies: powers of two of its tables of chains and of hashes, which hold
/// four bytes a place.
const TABLES: [(u32, u32); 19] = [
    (13, 14),
    (15, 16),
    (16, 17),
    (18, 18),
    (18, 19),
    (18, 19),
    (19, 20),
    (19, 20),
    (20, 21),
    (21, 22),
    (21, 22),
    (22, 23),
    (22, 22),
    (22, 23),
    (23, 23),
    (22, 22),
    (23, 22),
    (23, 22),
    (24, 22),
];

/// The same, but no larger than a window has use for. From level 13 on the chains are trees, with two links a place.
fn tables(level: u8, window: u32) -> (u32, u32) {
    let level = level.clamp(1, 19);
    let (chain, hash) = TABLES[usize::from(level - 1)];
    (chain.min(window + u32::from(level >= 13)), hash.min(window + 1))
}

pub(super) struct ZstdStream {
    state: Pooled<CCtx<'static>>,
}

impl ZstdStream {
    pub(super) fn new(level: u8, length: Length) -> Result<Self, CodecError> {
        let mut state = POOL.take(most_memory(level), || CCtx::try_create().ok_or(REFUSED), CCtx::sizeof)?;
        state.reset(ResetDirective::SessionAndParameters).map_err(refused)?;
        // Not level 0: that one means "the default".
        state.set_parameter(CParameter::CompressionLevel(level.clamp(1, 19).into())).map_err(refused)?;
        let window = length.log2(WINDOWS, WINDOW_IF_UNKNOWN);
        state.set_parameter(CParameter::WindowLog(window)).map_err(refused)?;
        if let Length::Certain(length) = length {
            state.set_pledged_src_size(Some(length)).map_err(refused)?;
        } else {
            // An announced length is not pledged: the library fails if it turns out wrong. Without a pledge it does not
            // make its tables fit the window, so that is done here.
            let (chain, hash) = tables(level, window);
            state.set_parameter(CParameter::ChainLog(chain)).map_err(refused)?;
            state.set_parameter(CParameter::HashLog(hash)).map_err(refused)?;
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
                self.state.end();
                return Ok(());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How much memory a stream has taken once something was written, and the stream.
    fn begun(level: u8, length: Length) -> (usize, ZstdStream) {
        let mut stream = ZstdStream::new(level, length).unwrap();
        stream.step(b"all tables and buffers are there from the first byte on", &mut Vec::new(), Step::Go).unwrap();
        (stream.state.sizeof(), stream)
    }

    #[test]
    fn a_stream_at_a_low_level_does_not_hold_what_a_high_one_has_left_behind() {
        for high in [19, 12, 9] {
            for (level, length) in
                [(3, Length::Unknown), (1, Length::Announced(2000)), (6, Length::Announced(u64::MAX))]
            {
                let (left, mut stream) = begun(high, Length::Announced(u64::MAX));
                assert!(left > most_memory(level), "else this proves nothing");
                stream.step(&[], &mut Vec::new(), Step::Finish).unwrap();
                drop(stream);
                let (held, _stream) = begun(level, length);
                assert!(held <= most_memory(level), "{held} bytes at {level} after {high}, {length:?}");
            }
        }
    }

    /// Else each stream at this level would make its tables anew.
    #[test]
    fn what_a_level_leaves_behind_is_light_enough_for_that_level() {
        for level in 0..=20 {
            for length in
                [Length::Unknown, Length::Announced(2000), Length::Announced(u64::MAX), Length::Certain(9 << 20)]
            {
                let (held, _stream) = begun(level, length);
                assert!(held <= most_memory(level), "{held} bytes at {level}, {length:?}");
            }
        }
    }
}
