//! What has been in a queue for the longest? A few queues over one memory, in which every step takes constant time, and an
//! item keeps its slot also in another queue.

/// The place of an item in memory.
pub(in crate::cache::store) type Slot = usize;

const NIL: Slot = Slot::MAX;

#[derive(Debug)]
struct Link<T> {
    item: Option<T>,
    queue: usize,
    newer: Slot,
    older: Slot,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    newest: Slot,
    oldest: Slot,
}

/// Items in `N` queues, each in the order in which they came into it.
#[derive(Debug)]
pub(super) struct Queues<T, const N: usize> {
    links: Vec<Link<T>>,
    free: Vec<Slot>,
    ends: [Ends; N],
}

impl<T, const N: usize> Queues<T, N> {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), free: Vec::new(), ends: [Ends { newest: NIL, oldest: NIL }; N] }
    }

    /// Adds an item as the newest of a queue.
    pub(super) fn add(&mut self, queue: usize, item: T) -> Slot {
        let link = Link { item: Some(item), queue, newer: NIL, older: NIL };
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.links.get_mut(slot) {
                    *place = link;
                }
                slot
            }
            None => {
                self.links.push(link);
                self.links.len() - 1
            }
        };
        self.put_first(slot, queue);
        slot
    }

    /// Makes an item the newest of a queue, whichever it was in.
    pub(super) fn move_to(&mut self, queue: usize, slot: Slot) {
        if self.ends[queue].newest != slot && self.queue_of(slot).is_some() {
            self.unlink(slot);
            self.put_first(slot, queue);
        }
    }

    /// Which queue an item is in.
    pub(super) fn queue_of(&self, slot: Slot) -> Option<usize> {
        self.links.get(slot).filter(|link| link.item.is_some()).map(|link| link.queue)
    }

    /// An item, to be changed in its place.
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.links.get_mut(slot)?.item.as_mut()
    }

    /// Takes an item out, and says which queue it was in.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<(usize, T)> {
        let link = self.links.get_mut(slot)?;
        let (item, queue) = (link.item.take()?, link.queue);
        self.unlink(slot);
        self.free.push(slot);
        Some((queue, item))
    }

    /// What has been in a queue for the longest.
    pub(super) fn oldest(&self, queue: usize) -> Option<(Slot, &T)> {
        let oldest = self.ends[queue].oldest;
        Some((oldest, self.links.get(oldest)?.item.as_ref()?))
    }

    /// How many there are in all.
    pub(super) fn len(&self) -> usize {
        self.links.len() - self.free.len()
    }

    fn link(&mut self, slot: Slot) -> Option<&mut Link<T>> {
        self.links.get_mut(slot)
    }

    fn unlink(&mut self, slot: Slot) {
        let Some((newer, older, queue)) = self.link(slot).map(|link| (link.newer, link.older, link.queue)) else {
            return;
        };
        match self.link(newer) {
            Some(link) => link.older = older,
            None => self.ends[queue].newest = older,
        }
        match self.link(older) {
            Some(link) => link.newer = newer,
            None => self.ends[queue].oldest = newer,
        }
    }

    fn put_first(&mut self, slot: Slot, queue: usize) {
        let second = std::mem::replace(&mut self.ends[queue].newest, slot);
        if let Some(link) = self.link(slot) {
            (link.queue, link.newer, link.older) = (queue, NIL, second);
        }
        match self.link(second) {
            Some(link) => link.newer = slot,
            None => self.ends[queue].oldest = slot,
        }
    }
}
