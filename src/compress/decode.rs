//! Takes a body out of its coding.

use super::CodecError;
use crate::config::Coding;

/// One body on its way out of a coding.
pub struct Decoder(Coding);

impl Decoder {
    /// Begins a stream.
    pub fn new(coding: Coding, _limit: Option<u64>) -> Result<Self, CodecError> {
        Ok(Self(coding))
    }

    /// Takes a piece.
    pub fn write(&mut self, _data: &[u8], _out: &mut Vec<u8>) -> Result<(), CodecError> {
        Err(CodecError::Refused(self.0))
    }

    /// Ends it.
    pub fn finish(&mut self) -> Result<(), CodecError> {
        Err(CodecError::Refused(self.0))
    }
}
