//! Where does an upstream's membership come from, besides the file? The `discover` section, checked.

use std::path::PathBuf;

/// Where backends come from that the file does not name.
#[derive(Clone, Debug, PartialEq)]
pub enum Discover {
    /// From a list in a file, which is watched.
    File(PathBuf),
}
