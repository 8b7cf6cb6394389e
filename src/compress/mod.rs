//! Shall it be smaller? Which coding a client can read best, which answers are worth it, and the codings themselves.

mod counts;
mod load;
pub mod negotiate;
pub mod rules;

pub use self::counts::{Counts, Outcome, Sum, Work};
pub use self::load::{Load, level_at};
