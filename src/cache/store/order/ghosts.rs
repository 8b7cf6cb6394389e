//! What was here a short while ago? Marks of names, in a table where each has few places to be: who finds them all taken
//! takes the place of the one that left first.
//!
//! The table follows the number of objects, also downwards, so it takes no more than they have paid for, whoever comes and
//! goes. A mark is a part of a hash with a secret seed. Two names with the same one are taken for each other, which only
//! puts an object into another queue.

use super::Name;

/// Places that a mark may have: a cache line of them.
const PLACES: usize = 8;

/// The table is never smaller once something has left, for a shard may hold very few objects for a while: half a kilobyte.
const BUCKETS_MIN: usize = 8;

/// So many are always remembered, however few objects there are.
const AT_LEAST: usize = 16;

#[derive(Clone, Copy, Default)]
struct Ghost {
    mark: u32,
    /// How many had left then; 0 is nobody.
    left: u32,
}

/// Who has left.
#[derive(Default)]
pub(super) struct Ghosts {
    buckets: Vec<[Ghost; PLACES]>,
    left: u32,
}

fn mark(name: Name) -> u32 {
    // Both are hashes already; a variance of 0 and none need not be told apart.
    (name.page ^ name.variance.unwrap_or(0).rotate_left(1)) as u32
}

impl Ghosts {
    /// Remembers a name, in a shard of so many objects.
    pub(super) fn add(&mut self, name: Name, objects: usize) {
        if self.buckets.len() < buckets(objects) {
            self.resize(buckets(objects));
        }
        self.left = self.left.wrapping_add(1).max(1);
        self.put(Ghost { mark: mark(name), left: self.left });
    }

    /// Whether it was among those that left last, as many as there are objects. It is forgotten, for now it is back.
    pub(super) fn take(&mut self, name: Name, objects: usize) -> bool {
        let (mark, now) = (mark(name), self.left);
        let places = self.bucket(mark).into_iter().flatten();
        let found = places.into_iter().find(|ghost| ghost.mark == mark && ghost.left != 0).map(std::mem::take);
        found.is_some_and(|ghost| (now.wrapping_sub(ghost.left) as usize) < objects.max(AT_LEAST))
    }

    /// Gives memory back when there are far fewer objects than there were.
    pub(super) fn shrink(&mut self, objects: usize) {
        if self.buckets.len() > 2 * buckets(objects) {
            self.resize(buckets(objects));
        }
    }

    fn bucket(&mut self, mark: u32) -> Option<&mut [Ghost; PLACES]> {
        // The number of buckets is a power of two.
        let index = mark as usize & self.buckets.len().saturating_sub(1);
        self.buckets.get_mut(index)
    }

    /// In its own place, or in an empty one, or in that of the one which left first.
    fn put(&mut self, ghost: Ghost) {
        let now = self.left;
        let Some(bucket) = self.bucket(ghost.mark) else { return };
        let age = |other: &&mut Ghost| match other {
            other if other.mark == ghost.mark => u64::MAX,
            other if other.left == 0 => u64::from(u32::MAX) + 1,
            other => u64::from(now.wrapping_sub(other.left)),
        };
        if let Some(place) = bucket.iter_mut().max_by_key(age) {
            *place = ghost;
        }
    }

    fn resize(&mut self, buckets: usize) {
        let old = std::mem::replace(&mut self.buckets, vec![[Ghost::default(); PLACES]; buckets]);
        old.into_iter().flatten().filter(|ghost| ghost.left != 0).for_each(|ghost| self.put(ghost));
    }

    /// Bytes that the table takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<[Ghost; PLACES]>()
    }
}

/// Enough buckets for a mark for each object.
fn buckets(objects: usize) -> usize {
    objects.div_ceil(PLACES).next_power_of_two().max(BUCKETS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u128) -> Name {
        // Spread as a hash is.
        Name { page: number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) >> 64, variance: None }
    }

    #[test]
    fn who_left_lately_is_known_once() {
        let mut ghosts = Ghosts::default();
        assert!(!ghosts.take(name(1), 100));
        ghosts.add(name(1), 100);
        assert_eq!([ghosts.take(name(1), 100), ghosts.take(name(1), 100)], [true, false]);
    }

    #[test]
    fn who_left_before_as_many_as_there_are_objects_is_forgotten() {
        let mut ghosts = Ghosts::default();
        (0..=100).for_each(|number| ghosts.add(name(number), 100));
        assert_eq!([1, 0].map(|number| ghosts.take(name(number), 100)), [true, false]);
    }

    #[test]
    fn most_of_them_find_a_place() {
        let mut ghosts = Ghosts::default();
        (0..10_000).for_each(|number| ghosts.add(name(number), 1000));
        let known = (9000..10_000).filter(|number| ghosts.take(name(*number), 1000)).count();
        assert!(known > 900, "{known}");
    }

    #[test]
    fn the_table_grows_and_shrinks_with_the_objects_and_keeps_the_latest() {
        let mut ghosts = Ghosts::default();
        (0..100_000).for_each(|number| ghosts.add(name(number), 5000));
        assert!(ghosts.bytes() <= 5000 * 2 * size_of::<Ghost>(), "{}", ghosts.bytes());
        ghosts.shrink(3);
        assert_eq!(ghosts.bytes(), BUCKETS_MIN * PLACES * size_of::<Ghost>());
        assert!(ghosts.take(name(99_999), 3));
    }
}
