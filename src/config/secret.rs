//! What must nobody see? A value that signs, and shows itself to no log.

use std::fmt;
use std::sync::Arc;

/// Bytes that no log, table or message ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The fewest bytes that nobody guesses, if they are chosen by chance.
    pub const LEAST: usize = 16;

    /// Takes bytes for a secret.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for whoever signs.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new(b"open sesame")), "Secret(..)");
    }
}
