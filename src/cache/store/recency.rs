//! What was used longest ago? A list in the order of use, in which every step takes constant time.

/// The place of an item in the list.
pub(super) type Slot = usize;

const NIL: Slot = Slot::MAX;

#[derive(Debug)]
struct Link<T> {
    item: Option<T>,
    newer: Slot,
    older: Slot,
}

/// Items in the order in which they were used last.
#[derive(Debug)]
pub(super) struct Recency<T> {
    links: Vec<Link<T>>,
    free: Vec<Slot>,
    newest: Slot,
    oldest: Slot,
}

impl<T> Recency<T> {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), free: Vec::new(), newest: NIL, oldest: NIL }
    }

    /// Adds an item as the newest.
    pub(super) fn add(&mut self, item: T) -> Slot {
        let link = Link { item: Some(item), newer: NIL, older: NIL };
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
        self.put_first(slot);
        slot
    }

    /// Notes that an item has been used.
    pub(super) fn touch(&mut self, slot: Slot) {
        if self.newest != slot {
            self.unlink(slot);
            self.put_first(slot);
        }
    }

    /// An item, to be changed in its place.
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.links.get_mut(slot)?.item.as_mut()
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        let item = self.links.get_mut(slot)?.item.take()?;
        self.unlink(slot);
        self.free.push(slot);
        Some(item)
    }

    /// What was used longest ago.
    pub(super) fn oldest(&self) -> Option<(Slot, &T)> {
        Some((self.oldest, self.links.get(self.oldest)?.item.as_ref()?))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.links.len() - self.free.len()
    }

    fn link(&mut self, slot: Slot) -> Option<&mut Link<T>> {
        self.links.get_mut(slot)
    }

    fn unlink(&mut self, slot: Slot) {
        let Some((newer, older)) = self.link(slot).map(|link| (link.newer, link.older)) else { return };
        match self.link(newer) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
        match self.link(older) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn put_first(&mut self, slot: Slot) {
        let second = std::mem::replace(&mut self.newest, slot);
        if let Some(link) = self.link(slot) {
            (link.newer, link.older) = (NIL, second);
        }
        match self.link(second) {
            Some(link) => link.newer = slot,
            None => self.oldest = slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_keeps_the_order_that_a_plain_list_keeps(steps in prop::collection::vec((0..3_u8, 0..8_usize), 0..200)) {
            let mut list: Vec<(Slot, usize)> = Vec::new();
            let mut recency = Recency::new();
            for (index, (step, which)) in steps.into_iter().enumerate() {
                match step {
                    0 => list.push((recency.add(index), index)),
                    1 if which < list.len() => {
                        let used = list.remove(which);
                        recency.touch(used.0);
                        list.push(used);
                    }
                    2 if which < list.len() => {
                        let gone = list.remove(which);
                        prop_assert_eq!(recency.remove(gone.0), Some(gone.1));
                        prop_assert_eq!(recency.remove(gone.0), None);
                    }
                    _ => {}
                }
                prop_assert_eq!(recency.len(), list.len());
                prop_assert_eq!(recency.oldest().map(|(slot, item)| (slot, *item)), list.first().copied());
            }
        }
    }
}
