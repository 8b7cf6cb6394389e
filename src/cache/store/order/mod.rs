//! What goes first? The order in which a shard gives its objects up, by one of two policies.
//!
//! A shard knows where its objects are; this room knows only their names, and in which order they leave.

mod ghosts;
mod lru;
mod queues;
mod s3_fifo;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::lru::Lru;
pub(super) use self::queues::Slot;
use self::s3_fifo::{Probation, S3Fifo};
use super::budget::Budget;
use crate::config::Eviction;

/// Which object: its page, and which of the variants there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) page: u128,
    pub(super) variance: Option<u128>,
}

/// An object that has just been stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    pub(super) name: Name,
    /// The bytes that it takes.
    pub(super) weight: u64,
    /// Whether it takes the place of another under the same name, so that it has been asked for before.
    pub(super) is_known: bool,
}

/// How soon the next object of a shard should go; compared with other shards, the least goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// Whether the store would rather have given up something of another kind.
    pub(super) is_makeshift: bool,
    /// When it came where it is.
    pub(super) since: u64,
}

/// The order in which the objects of a shard leave. The time is that of the store: it only grows.
pub(super) trait Order: Send {
    /// Takes an object in.
    fn add(&mut self, newcomer: Newcomer, now: u64) -> Slot;

    /// Notes that somebody has asked for an object.
    fn touch(&mut self, slot: Slot, now: u64);

    /// Notes what an object takes that has grown since it came.
    fn reweigh(&mut self, _slot: Slot, _weight: u64) {}

    /// Forgets an object.
    fn remove(&mut self, slot: Slot);

    /// Forgets an object for want of room: it may be back soon.
    fn evict(&mut self, slot: Slot) {
        self.remove(slot);
    }

    /// Puts off an object whose turn it was, for it is in use.
    fn put_off(&mut self, slot: Slot, now: u64);

    /// When it is the turn of this shard.
    fn turn(&self) -> Option<Turn>;

    /// What goes next. `None` if there is nothing, or nothing any more of what the store would give up: asked again, it
    /// gives up something else.
    fn next(&mut self, now: u64) -> Option<(Slot, Name)>;

    /// How many objects there are.
    fn len(&self) -> usize;
}

/// The orders of all shards of a store.
pub(super) fn orders(eviction: Eviction, budget: &Arc<Budget>) -> impl Fn() -> Box<dyn Order> + use<> {
    let probation = Probation::new(budget);
    move || match eviction {
        Eviction::Lru => Box::new(Lru::new()),
        Eviction::S3Fifo => Box::new(S3Fifo::new(&probation)),
    }
}
