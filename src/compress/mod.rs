//! Shall it be smaller? Which coding a client can read best, which answers are worth it, and the codings themselves.

mod counts;
pub mod decode;
pub mod encode;
mod error;
mod load;
mod module;
pub mod negotiate;
pub mod rules;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::counts::{Counts, Outcome, Sum, Work};
pub use self::decode::Decoder;
pub use self::encode::Encoder;
pub use self::error::CodecError;
pub use self::load::{Level, Load, fast, level_at};
pub use self::module::{Encoding, Order, Recoder, modules};

/// What all work on bodies shares.
#[derive(Debug)]
pub struct Workshop {
    /// What was done.
    pub counts: Counts,
    /// How busy we are.
    pub load: Load,
    /// Who may work beside the requests: half of the processors, so that these have the other half.
    beside: Arc<Semaphore>,
}

impl Workshop {
    /// For a process that works on so many processors. It is there until the process ends.
    pub fn new(processors: usize) -> &'static Self {
        let beside = Arc::new(Semaphore::new(processors.div_ceil(2)));
        Box::leak(Box::new(Self { counts: Counts::default(), load: Load::new(processors), beside }))
    }

    /// The right to work beside the requests, as long as it is held; `None` if enough others do.
    pub fn try_work(&self) -> Option<OwnedSemaphorePermit> {
        self.beside.clone().try_acquire_owned().ok()
    }
}
