//! How much may it have? What one backend may have in hand and within a time, and who waits for it in which order.
//!
//! Pure: nothing here reads a clock, waits or takes a lock. Who acts on it is `upstream`.

mod line;
mod quota;

pub use self::line::{Line, Place};
pub use self::quota::{Age, Log};
