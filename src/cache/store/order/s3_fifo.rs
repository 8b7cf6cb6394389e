//! What has not proved itself? That goes first (S3-FIFO: Yang et al., "FIFO queues are all you need for cache eviction",
//! SOSP 2023).
//!
//! Who comes is on probation in a small queue. Who is asked for again there goes on to the main queue, in which everybody
//! who was asked for gets another round; the others leave, and only their names are remembered for a while: who comes
//! back in that time goes to the main queue at once. So what is asked for once passes through a tenth of the room, and
//! the rest is left in peace. A use is a number that grows, not a place in a list that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::ghosts::Ghosts;
use super::queues::{Queues, Slot};
use super::{Name, Newcomer, Order, Turn};
use crate::cache::store::budget::Budget;

const SMALL: usize = 0;
const MAIN: usize = 1;

/// The part of the store that is for probation: one in so many bytes.
const SMALL_PART: u64 = 10;

/// Uses on probation that are enough for the main queue.
const PROVED: u8 = 2;

/// Uses are counted so far: they are worth as many rounds in the main queue.
const USES_MAX: u8 = 3;

/// So many get another round before one must go whatever its uses: the lock of a shard is held for a few microseconds at
/// most, also when everything in it is in demand.
const ROUNDS_MAX: usize = 64;

/// How much is on probation, in all shards of a store.
pub(super) struct Probation {
    bytes: AtomicU64,
    budget: Arc<Budget>,
}

impl Probation {
    pub(super) fn new(budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), budget: budget.clone() })
    }

    /// The queue that should give something up.
    fn queue(&self) -> usize {
        let is_full = self.bytes.load(Relaxed) > self.budget.limit() / SMALL_PART;
        if is_full { SMALL } else { MAIN }
    }
}

/// The two queues of a shard, and who has left.
pub(super) struct S3Fifo {
    queues: Queues<Item, 2>,
    ghosts: Ghosts,
    probation: Arc<Probation>,
}

/// An object, and how it does.
struct Item {
    name: Name,
    weight: u64,
    /// When it came into its queue, or got another round there.
    since: u64,
    uses: u8,
}

impl S3Fifo {
    pub(super) fn new(probation: &Arc<Probation>) -> Self {
        Self { queues: Queues::new(), ghosts: Ghosts::default(), probation: probation.clone() }
    }

    /// The queue that gives something up: that of which the store has too much, but for want of it the other.
    fn queue(&self) -> usize {
        let wanted = self.probation.queue();
        if self.queues.oldest(wanted).is_some() { wanted } else { SMALL + MAIN - wanted }
    }

    fn requeue(&mut self, slot: Slot, queue: usize, now: u64) {
        self.queues.move_to(queue, slot);
        if let Some(item) = self.queues.get_mut(slot) {
            item.since = now;
        }
    }

    /// Gives an object that has earned it another round. Says whether it has.
    fn goes_on(&mut self, slot: Slot, queue: usize, now: u64) -> bool {
        let Some(item) = self.queues.get_mut(slot) else { return false };
        let is_new = queue == SMALL;
        if item.uses < if is_new { PROVED } else { 1 } {
            return false;
        }
        item.uses = if is_new { 0 } else { item.uses - 1 };
        if is_new {
            self.probation.bytes.fetch_sub(item.weight, Relaxed);
        }
        self.requeue(slot, MAIN, now);
        true
    }

    fn take(&mut self, slot: Slot) -> Option<(usize, Name)> {
        let (queue, item) = self.queues.remove(slot)?;
        if queue == SMALL {
            self.probation.bytes.fetch_sub(item.weight, Relaxed);
        }
        self.ghosts.shrink(self.queues.len());
        Some((queue, item.name))
    }
}

impl Order for S3Fifo {
    fn add(&mut self, newcomer: Newcomer, now: u64) -> Slot {
        let Newcomer { name, weight, is_known } = newcomer;
        let was_here = self.ghosts.take(name, self.queues.len());
        let queue = if is_known || was_here { MAIN } else { SMALL };
        if queue == SMALL {
            self.probation.bytes.fetch_add(weight, Relaxed);
        }
        self.queues.add(queue, Item { name, weight, since: now, uses: 0 })
    }

    fn touch(&mut self, slot: Slot, _now: u64) {
        if let Some(item) = self.queues.get_mut(slot) {
            item.uses = USES_MAX.min(item.uses + 1);
        }
    }

    fn reweigh(&mut self, slot: Slot, weight: u64) {
        let is_new = self.queues.queue_of(slot) == Some(SMALL);
        if let Some(item) = self.queues.get_mut(slot) {
            let old = std::mem::replace(&mut item.weight, weight);
            if is_new {
                self.probation.bytes.fetch_add(weight, Relaxed);
                self.probation.bytes.fetch_sub(old, Relaxed);
            }
        }
    }

    fn remove(&mut self, slot: Slot) {
        self.take(slot);
    }

    fn evict(&mut self, slot: Slot) {
        if let Some((SMALL, name)) = self.take(slot) {
            self.ghosts.add(name, self.queues.len());
        }
    }

    fn put_off(&mut self, slot: Slot, now: u64) {
        if let Some(queue) = self.queues.queue_of(slot) {
            self.requeue(slot, queue, now);
        }
    }

    fn turn(&self) -> Option<Turn> {
        let queue = self.queue();
        let (_, item) = self.queues.oldest(queue)?;
        Some(Turn { is_makeshift: queue != self.probation.queue(), since: item.since })
    }

    fn next(&mut self, now: u64) -> Option<(Slot, Name)> {
        let is_makeshift = self.turn()?.is_makeshift;
        for _ in 0..ROUNDS_MAX {
            let queue = self.queue();
            if !is_makeshift && queue != self.probation.queue() {
                // All of it went on. Another shard has what the store has too much of; this one is asked again if not.
                return None;
            }
            let (slot, name) = self.queues.oldest(queue).map(|(slot, item)| (slot, item.name))?;
            if !self.goes_on(slot, queue, now) {
                return Some((slot, name));
            }
        }
        self.queues.oldest(self.queue()).map(|(slot, item)| (slot, item.name))
    }

    fn len(&self) -> usize {
        self.queues.len()
    }
}

#[cfg(test)]
impl S3Fifo {
    /// Bytes that the names of those take that have left.
    pub(super) fn ghost_bytes(&self) -> usize {
        self.ghosts.bytes()
    }

    /// How much is on probation.
    pub(super) fn on_probation(&self) -> u64 {
        self.probation.bytes.load(Relaxed)
    }
}
