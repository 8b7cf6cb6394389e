//! A body in the pieces that it lies in in memory, so that nothing is copied before it is written.

use std::sync::Arc;

use bytes::Bytes;

/// A body.
#[derive(Clone, Debug)]
pub struct Pieces(Arc<[Bytes]>);

impl Pieces {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter()
    }
}

impl From<Arc<[Bytes]>> for Pieces {
    fn from(pieces: Arc<[Bytes]>) -> Self {
        Self(pieces)
    }
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Self {
        Self(Arc::new([whole]))
    }
}

/// However it is cut.
impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().flatten().eq(other.iter().flatten())
    }
}

impl Eq for Pieces {}
