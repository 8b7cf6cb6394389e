//! Is it still the same file? What the system says of it without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Clocks of file systems are coarse: of two changes within one tick the second would not show. So a file that changed
/// this recently is read again whatever its times say.
const COARSE: Duration = Duration::from_secs(2);

/// Which file it is, and when it was changed: all that the system says for free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Place {
    /// The file behind a path, through symbolic links; `None` when there is none, or none that we may see.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }

    /// How long it is, in bytes.
    pub fn length(self) -> u64 {
        self.length
    }

    /// Whether it changed so recently that another change may not show.
    pub fn is_fresh(self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        // A time in the future, as on a drive with another clock, is fresh too.
        now.saturating_sub(changed) <= COARSE
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
