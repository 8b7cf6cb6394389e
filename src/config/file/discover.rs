//! What may be written about the discovery of backends? The shape of `discover`.

use super::leaves::FilePath;
use super::section::section;

section! {
    /// Where backends come from that the file does not name: one of these keys.
    Discover {
        /// A YAML or JSON list in a file of its own, which is watched.
        file: Option<FilePath> = "null",
    }
    later { dns, srv, http, register, interval, server }
}
