//! Who is alive? Probes, and how many of them must agree before a backend's state changes.

mod ladder;
mod probe;
mod watch;

pub use self::ladder::Ladder;
pub use self::probe::Probe;
pub use self::watch::{OnChange, watch};
