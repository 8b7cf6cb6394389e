//! Who took how much? One number for each key that took something lately, in shards with a lock each.
//!
//! A request that several limits count is checked by all before any is charged: the shards of its keys are locked
//! together, always in the same order, so that nobody comes between. Only a key that has all it may have again is
//! forgotten, and never one that is being counted: whoever has a million addresses resets nobody, and himself neither.
//! Where there is no room for a new key it shares a number with others of its part of the world (see [`shared_key`]).
//! And a limit gets no more room than a few times of what is left, so that a flood of keys of one (anybody can make
//! them up in a header field) leaves some for the others.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::gcra::{Due, Left, Rate};
use super::shared_key;
use crate::hashed::HashedMap;

/// What stands for a key: a keyed hash, so that nobody can make two that are the same.
pub(super) type Key = u128;

/// The most limits that one request is counted by: their locks stand on the stack.
pub const AT_ONCE: usize = 16;

const SHARDS_MAX: usize = 64;

/// Fewer in a shard, and one would be full long before another.
const SHARD_LEAST: usize = 256;

/// A limit may have so many times the room that is left: three quarters of all if it is alone in being flooded.
const TIMES_OF_WHAT_IS_LEFT: usize = 3;

/// What is looked at to make room for one key. More than one, so that the table shrinks again after a flood.
const LOOKED_AT: usize = 8;

/// What one limit is asked about one request, and what it says.
pub(super) struct Ask<'a> {
    pub(super) rate: &'a Rate,
    /// Which limit it is.
    pub(super) limit: u64,
    pub(super) key: Key,
    /// The wide network that it is in, if that is known.
    pub(super) network: Option<[u8; 4]>,
    /// What keys are hashed with.
    pub(super) seed: &'a RandomState,
    pub(super) shares: bool,
    pub(super) cost: u32,
    /// Whether its word counts; in a dry run it does not.
    pub(super) binds: bool,
    pub(super) due: Due,
    pub(super) left: Left,
    /// How long to wait, where it does not let it pass.
    pub(super) wait: Option<Duration>,
}

/// Whether what is allowed is also taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Take,
    Look,
}

/// The numbers of all limits.
pub(super) struct Numbers {
    shards: Box<[Mutex<Shard>]>,
    /// Keys that a shard has room for.
    room: AtomicUsize,
}

impl Numbers {
    /// Room for so many keys.
    pub(super) fn new(entries: usize) -> Self {
        let shards = (entries / SHARD_LEAST).clamp(1, SHARDS_MAX);
        let numbers = Self { shards: (0..shards).map(|_| Mutex::default()).collect(), room: AtomicUsize::new(0) };
        numbers.resize(entries);
        numbers
    }

    /// Gives it another size. Nothing is forgotten: where it is too full, it takes nobody new.
    pub(super) fn resize(&self, entries: usize) {
        self.room.store(entries.div_ceil(self.shards.len()), Relaxed);
    }

    /// Asks all limits, and charges all or none. Whether the request may pass.
    pub(super) fn admit(&self, asks: &mut [Ask<'_>], now: Duration, mode: Mode) -> bool {
        let mut held = self.hold_with_room(asks, now);
        let mut passes = true;
        for ask in &mut *asks {
            let shard = held.shard(ask.key);
            let due = shard.entries.get(&ask.key).map_or(0, |entry| entry.due);
            match ask.rate.take(due, shard.latest, ask.cost) {
                Ok(next) => (ask.due, ask.wait) = (next, None),
                Err(wait) => (ask.due, ask.wait) = (due, Some(wait)),
            }
            passes &= ask.wait.is_none() || !ask.binds;
        }
        for ask in asks {
            let shard = held.shard(ask.key);
            if !passes {
                ask.due = shard.entries.get(&ask.key).map_or(0, |entry| entry.due);
            } else if mode == Mode::Take && ask.wait.is_none() && ask.cost > 0 {
                shard.put(ask);
            }
            ask.left = ask.rate.left(ask.due, shard.latest);
        }
        passes
    }

    /// How many keys it holds.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// How many have room.
    pub(super) fn most(&self) -> usize {
        self.room.load(Relaxed) * self.shards.len()
    }

    /// The shards of all keys, locked. A key for which there is no room shares another's, which may be in another shard:
    /// then all is let go and locked anew. Each time one ask more shares, so it ends.
    fn hold_with_room(&self, asks: &mut [Ask<'_>], now: Duration) -> Held<'_> {
        let room = self.room.load(Relaxed);
        loop {
            let mut held = self.hold(asks);
            let mut crowded = false;
            for ask in &mut *asks {
                let shard = held.shard(ask.key);
                shard.latest = shard.latest.max(now);
                if !ask.shares && !shard.has_room(ask, room) {
                    (ask.key, ask.shares, crowded) = (shared_key(ask), true, true);
                    break;
                }
            }
            if !crowded {
                return held;
            }
        }
    }

    fn hold(&self, asks: &[Ask<'_>]) -> Held<'_> {
        let mut wanted = [usize::MAX; AT_ONCE];
        for (place, ask) in wanted.iter_mut().zip(asks) {
            *place = self.shard_of(ask.key);
        }
        // In one order for all, or two requests could wait for each other.
        wanted[..asks.len().min(AT_ONCE)].sort_unstable();
        let mut held = Held { shards: [const { None }; AT_ONCE], of: self.shards.len() };
        let mut last = usize::MAX;
        for (place, &number) in held.shards.iter_mut().zip(&wanted).take(asks.len()) {
            if let Some(shard) = self.shards.get(number).filter(|_| number != last) {
                *place = Some((number, lock(shard)));
                last = number;
            }
        }
        held
    }

    fn shard_of(&self, key: Key) -> usize {
        shard_of(key, self.shards.len())
    }
}

/// By the upper half: the lower one is what the map of a shard goes by.
fn shard_of(key: Key, shards: usize) -> usize {
    ((key >> 64) as u64 % shards as u64) as usize
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // What a panic leaves is a number that was charged or not; both are whole.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shards that are locked.
struct Held<'a> {
    shards: [Option<(usize, MutexGuard<'a, Shard>)>; AT_ONCE],
    of: usize,
}

impl Held<'_> {
    fn shard(&mut self, key: Key) -> &mut Shard {
        let number = shard_of(key, self.of);
        let found = self.shards.iter_mut().flatten().find(|(held, _)| *held == number);
        let (_, shard) = found.expect("the shard of each key that is asked about was locked");
        shard
    }
}

/// What one key has taken.
struct Entry {
    due: Due,
    /// When it may be forgotten, in nanoseconds.
    until: u64,
    /// The limit that it counts for; none where it is shared, since room is kept for those.
    of: Option<u64>,
}

/// A part of the keys.
#[derive(Default)]
struct Shard {
    entries: HashedMap<Key, Entry>,
    /// Each key once, with a time before which it cannot be forgotten: it may have taken more since.
    order: BinaryHeap<Reverse<(u64, Key)>>,
    /// How many keys each limit has here, without those that are shared, and all together.
    by_limit: HashMap<u64, usize>,
    counted: usize,
    /// The latest time that it was asked at. Threads come in another order than they looked at the clock; whoever comes
    /// late must not find a key forgotten that in his time was not.
    latest: Duration,
}

impl Shard {
    /// Whether the key is here, or may come.
    fn has_room(&mut self, ask: &Ask<'_>, room: usize) -> bool {
        if self.entries.contains_key(&ask.key) {
            return true;
        }
        self.forget();
        let left = room.saturating_sub(self.counted);
        self.by_limit.get(&ask.limit).copied().unwrap_or(0) < TIMES_OF_WHAT_IS_LEFT * left
    }

    /// Forgets a few of those that have all they may have. One that has taken more since it was put in order is put in
    /// order anew, so each look is paid for by a request.
    fn forget(&mut self) {
        let now = nanos(self.latest);
        for _ in 0..LOOKED_AT {
            let Some(&Reverse((_, key))) = self.order.peek().filter(|Reverse((at, _))| *at <= now) else { return };
            self.order.pop();
            match self.entries.get(&key).map(|entry| entry.until) {
                Some(until) if until > now => self.order.push(Reverse((until, key))),
                Some(_) | None => self.remove(key),
            }
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(limit) = self.entries.remove(&key).and_then(|entry| entry.of) else { return };
        self.counted -= 1;
        if let Some(count) = self.by_limit.get_mut(&limit) {
            *count -= 1;
            if *count == 0 {
                self.by_limit.remove(&limit);
            }
        }
    }

    fn put(&mut self, ask: &Ask<'_>) {
        let (due, until) = (ask.due, ask.rate.forgettable(ask.due));
        if let Some(entry) = self.entries.get_mut(&ask.key) {
            (entry.due, entry.until) = (due, until);
            return;
        }
        let of = (!ask.shares).then_some(ask.limit);
        if of.is_some() {
            self.counted += 1;
            *self.by_limit.entry(ask.limit).or_default() += 1;
        }
        self.entries.insert(ask.key, Entry { due, until, of });
        self.order.push(Reverse((until, ask.key)));
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
