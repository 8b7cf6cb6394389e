//! gzip (RFC 1952) and what HTTP calls deflate (RFC 1950): one compressor, two frames.
//!
//! The window is always the whole 32 KiB, also for small bodies: so every state fits every body, and none is made anew.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::pool::{Pool, Pooled};
use super::{CodecError, Step, make_room};
use crate::config::Coding;

/// What a stream holds at every level, as measured: zlib's own sum is 256 KiB (`zconf.h`), zlib-rs takes more.
pub(super) const MEMORY: usize = 560 << 10;

const WINDOW_BITS: u8 = 15;

/// The frame is part of the state, so each has a pool of its own.
static GZIP: Pool<Compress> = Pool::new();
static ZLIB: Pool<Compress> = Pool::new();

/// What is around the compressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate.
    Zlib,
}

impl Frame {
    fn pool(self) -> &'static Pool<Compress> {
        match self {
            Self::Gzip => &GZIP,
            Self::Zlib => &ZLIB,
        }
    }

    fn state(self, level: Compression) -> Compress {
        match self {
            Self::Gzip => Compress::new_gzip(level, WINDOW_BITS),
            Self::Zlib => Compress::new_with_window_bits(level, true, WINDOW_BITS),
        }
    }

    fn refused(self) -> CodecError {
        CodecError::Refused(match self {
            Self::Gzip => Coding::Gzip,
            Self::Zlib => Coding::Deflate,
        })
    }
}

pub(super) struct ZlibStream {
    state: Pooled<Compress>,
    frame: Frame,
}

impl ZlibStream {
    pub(super) fn new(frame: Frame, level: u8) -> Result<Self, CodecError> {
        let level = Compression::new(level.clamp(1, 9).into());
        let mut state = frame.pool().take(MEMORY, || Ok(frame.state(level)), |_| MEMORY)?;
        state.reset();
        state.set_level(level).map_err(|_| frame.refused())?;
        Ok(Self { state, frame })
    }

    pub(super) fn step(&mut self, mut data: &[u8], out: &mut Vec<u8>, step: Step) -> Result<(), CodecError> {
        loop {
            make_room(out, data.len());
            let (taken, length) = (self.state.total_in(), out.len());
            let status = self.state.compress_vec(data, out, step.into()).map_err(|_| self.frame.refused())?;
            let taken = (self.state.total_in() - taken) as usize;
            data = &data[taken..];
            match status {
                Status::StreamEnd => {
                    self.state.end();
                    return Ok(());
                }
                Status::Ok | Status::BufError if step == Step::Finish => {
                    if taken == 0 && out.len() == length {
                        return Err(self.frame.refused()); // else this would never end
                    }
                }
                // With room left there is nothing left that wants out.
                Status::Ok | Status::BufError if data.is_empty() && out.len() < out.capacity() => return Ok(()),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

impl From<Step> for FlushCompress {
    fn from(step: Step) -> Self {
        match step {
            Step::Go => Self::None,
            Step::Flush => Self::Sync,
            Step::Finish => Self::Finish,
        }
    }
}
