//! Where do bytes lie that grow? In segments of one size, so that a position tells its segment and nothing is ever moved.

use bytes::Bytes;

/// Bytes in a segment: enough for a system call to be worth its price, and few to hold for one that grows.
pub(super) const SEGMENT: usize = 64 << 10;

/// Bytes that are being written, in full segments and one that grows.
#[derive(Debug, Default)]
pub(super) struct Segments {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Segments {
    pub(super) fn len(&self) -> u64 {
        (self.full.len() * SEGMENT + self.last.len()) as u64
    }

    /// What so many bytes take while they grow, of which there will be no more than `most`.
    pub(super) fn taken(len: u64, most: Option<u64>) -> u64 {
        let whole = len.next_multiple_of(SEGMENT as u64);
        most.map_or(whole, |most| whole.min(most))
    }

    /// Adds bytes, of which there will be no more than `most` in all.
    pub(super) fn extend(&mut self, mut data: &[u8], most: Option<u64>) {
        while !data.is_empty() {
            if self.last.capacity() == 0 {
                let left = most.map_or(SEGMENT as u64, |most| most - (self.full.len() * SEGMENT) as u64);
                self.last.reserve_exact(SEGMENT.min(usize::try_from(left).unwrap_or(SEGMENT)));
            }
            let (now, later) = data.split_at(data.len().min(SEGMENT - self.last.len()));
            self.last.extend_from_slice(now);
            data = later;
            if self.last.len() == SEGMENT {
                self.full.push(std::mem::take(&mut self.last).into());
            }
        }
    }

    /// A segment, if it is full.
    pub(super) fn full(&self, segment: usize) -> Option<&Bytes> {
        self.full.get(segment)
    }

    /// What there is of the last segment, if this is it.
    pub(super) fn last(&self, segment: usize) -> Option<&[u8]> {
        (segment == self.full.len()).then_some(&self.last)
    }

    /// All of them, each exactly as long as it is.
    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        let mut pieces = self.full;
        if !self.last.is_empty() {
            pieces.push(self.last.into_boxed_slice().into());
        }
        pieces
    }
}
