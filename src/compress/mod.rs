//! Shall it be smaller? Which coding a client can read best, which answers are worth it, and the codings themselves.

mod counts;
pub mod decode;
pub mod encode;
mod error;
mod load;
mod module;
pub mod negotiate;
pub mod rules;

pub use self::counts::{Counts, Outcome, Sum, Work};
pub use self::decode::Decoder;
pub use self::encode::Encoder;
pub use self::error::CodecError;
pub use self::load::{Load, level_at};
pub use self::module::{Copy, Encoding, Order, Recoder, modules};

/// What is known of all bodies and of the work on them.
#[derive(Debug)]
pub struct Codings {
    /// What was done.
    pub counts: Counts,
    /// How busy we are.
    pub load: Load,
}

impl Codings {
    /// For a process that works on so many processors. It is there until the process ends.
    pub fn new(processors: usize) -> &'static Self {
        Box::leak(Box::new(Self { counts: Counts::default(), load: Load::new(processors) }))
    }
}
