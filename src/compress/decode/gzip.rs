//! gzip (RFC 1952): one member or several, each with its checksum and its length, which are checked.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Made, Malformed};

const WINDOW_BITS: u8 = 15;

pub(super) struct GzipSource {
    state: Decompress,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a member or in it.
    Member,
    /// Behind one; there may be another.
    Behind,
    /// In zeros, which tools write to fill up a block, and which gzip itself passes over.
    Padding,
}

impl GzipSource {
    pub(super) fn new() -> Self {
        Self { state: Decompress::new_gzip(WINDOW_BITS), place: Place::Member }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.place != Place::Member
    }

    pub(super) fn step(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        match (self.place, data.first()) {
            (Place::Member, _) => self.inflate(data, piece),
            (Place::Behind | Place::Padding, None) => Ok(Made { taken: 0, given: 0 }),
            (Place::Behind | Place::Padding, Some(0)) => {
                self.place = Place::Padding;
                let taken = data.iter().position(|byte| *byte != 0).unwrap_or(data.len());
                Ok(Made { taken, given: 0 })
            }
            (Place::Behind, Some(_)) => {
                self.state.reset(true); // as it was made: for gzip
                self.place = Place::Member;
                self.inflate(data, piece)
            }
            (Place::Padding, Some(_)) => Err(Malformed),
        }
    }

    fn inflate(&mut self, data: &[u8], piece: &mut [u8]) -> Result<Made, Malformed> {
        let (made, ended) = inflate(&mut self.state, data, piece)?;
        if ended {
            self.place = Place::Behind;
        }
        Ok(made)
    }
}

/// One step of zlib's, and whether it came to the end.
pub(super) fn inflate(state: &mut Decompress, data: &[u8], piece: &mut [u8]) -> Result<(Made, bool), Malformed> {
    let (taken, given) = (state.total_in(), state.total_out());
    let status = state.decompress(data, piece, FlushDecompress::None).map_err(|_| Malformed)?;
    let (taken, given) = ((state.total_in() - taken) as usize, (state.total_out() - given) as usize);
    Ok((Made { taken, given }, status == Status::StreamEnd))
}
