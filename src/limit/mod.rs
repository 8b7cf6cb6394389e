//! How much may it have? What one backend may have in hand and within a time, and who waits for it in which order.
//!
//! Pure: nothing here reads a clock, waits or takes a lock. Who acts on it is `upstream`.

mod adaptive;
mod line;
mod pace;
mod quota;

use std::time::Duration;

pub use self::adaptive::Adaptive;
pub use self::line::{Line, Place};
pub use self::pace::Pace;
pub use self::quota::Log;

/// A point in time, as the age of whoever keeps what it is about.
pub type Age = Duration;
