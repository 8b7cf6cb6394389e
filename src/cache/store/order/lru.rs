//! What was used longest ago? That goes first (LRU).

use super::queues::{Queues, Slot};
use super::{Name, Newcomer, Order, Turn};

/// One queue, in the order of use.
pub(super) struct Lru {
    queue: Queues<Used, 1>,
}

/// An object, and when it was used last.
struct Used {
    name: Name,
    at: u64,
}

impl Lru {
    pub(super) fn new() -> Self {
        Self { queue: Queues::new() }
    }
}

impl Order for Lru {
    fn add(&mut self, newcomer: Newcomer, now: u64) -> Slot {
        self.queue.add(0, Used { name: newcomer.name, at: now })
    }

    fn touch(&mut self, slot: Slot, now: u64) {
        self.queue.move_to(0, slot);
        if let Some(used) = self.queue.get_mut(slot) {
            used.at = now;
        }
    }

    fn remove(&mut self, slot: Slot) {
        self.queue.remove(slot);
    }

    fn put_off(&mut self, slot: Slot, now: u64) {
        self.touch(slot, now);
    }

    fn turn(&self) -> Option<Turn> {
        self.queue.oldest(0).map(|(_, used)| Turn { is_makeshift: false, since: used.at })
    }

    fn next(&mut self, _now: u64) -> Option<(Slot, Name)> {
        self.queue.oldest(0).map(|(slot, used)| (slot, used.name))
    }

    fn len(&self) -> usize {
        self.queue.len()
    }
}
