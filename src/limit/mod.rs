//! How much may it have? What one backend may have in hand and within a time, who waits for it in which order, and how
//! many requests each client may make.
//!
//! Pure: nothing here reads a clock or waits, and nothing takes a lock but the table of `rate`, for as long as it takes to
//! compare a few numbers. Who acts on it is `upstream` for backends and `proxy` for clients.

mod adaptive;
mod line;
mod pace;
mod quota;
pub mod rate;

use std::time::Duration;

pub use self::adaptive::Adaptive;
pub use self::line::{Line, Place};
pub use self::pace::Pace;
pub use self::quota::Log;

/// A point in time, as the age of whoever keeps what it is about.
pub type Age = Duration;
