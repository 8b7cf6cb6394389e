//! Where are answers kept? In memory, bounded by bytes, found by key, forgotten in the order that
//! `cache.eviction` says.
//!
//! The store is cut into shards by address, each under a lock of its own that is held for a few steps and never while
//! anything is freed, copied or awaited. Whoever needs room compares a few shards, and takes out what is to go first
//! there: that is nearly the order of one large shard, without a list that all threads would meet at.

mod body;
mod budget;
mod changed;
mod coded;
mod filling;
mod object;
mod order;
mod purging;
mod recent;
mod segments;
mod shard;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::HeaderName;
use pingora::http::ResponseHeader;

use self::body::{Body, Writer};
use self::budget::{Budget, Charge};
use self::object::compact;
use self::recent::Recent;
use self::shard::{Shard, Sifted};
use super::key::Key;
use crate::config::Eviction;
use crate::count::Count;

pub use self::coded::{Coded, CodedBody, CodedFilling};
pub use self::filling::{BrokenOff, Filling, Reading};
pub use self::object::{Facts, Object};

/// Enough that threads seldom meet at a lock, few enough that eviction finds something old in each.
const SHARDS: usize = 64;

/// How many shards that hold something, drawn by chance, are looked at for what is to go first. Their fill is a matter of
/// chance too, so taking turns would in time take out whatever stands alone in its shard; and so would drawing one twice.
const COMPARED: usize = 8;

/// How often that is done before something in use is passed over for good.
const DRAWS_MAX: usize = 8;

/// The store that all routes share.
pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    budget: Arc<Budget>,
    /// How often something was stored.
    stored: AtomicU64,
    /// How often something left to make room.
    evicted: Count,
    recent: Recent,
}

/// What happens to what a purge means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// It is stale from now on: it may be revalidated, and serve while that is done or when that fails.
    Soft(SystemTime),
    /// It is gone.
    Hard,
}

impl Store {
    /// A store of at most so many bytes, that gives up objects in this order.
    pub fn new(size: u64, eviction: Eviction) -> Self {
        let budget = Budget::new(size);
        let order = order::orders(eviction, &budget);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(order()))).collect(),
            budget,
            stored: AtomicU64::new(0),
            evicted: Count::default(),
            recent: Recent::default(),
        }
    }

    fn shard(&self, url: u128) -> MutexGuard<'_, Shard> {
        // The map in the shard uses the lower half of the hash.
        self.lock((url >> 64) as usize)
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[index % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is stored for a key; without a variance, the last that was stored of those there are.
    pub fn find(&self, key: &Key, variance: Option<u128>) -> Option<Arc<Object>> {
        let now = self.now();
        self.shard(key.url).find(key, variance, now)
    }

    /// The same, for one who does not serve it to anybody: it does not count as a use.
    pub fn peek(&self, key: &Key, variance: Option<u128>) -> Option<Arc<Object>> {
        self.shard(key.url).peek(key, variance)
    }

    /// The request fields that tell the answers to a key apart; `None` where nothing is stored.
    pub fn vary(&self, key: &Key) -> Option<Arc<[HeaderName]>> {
        self.shard(key.url).vary(key)
    }

    /// Begins an object of a body that has this length, if one was announced; `None` if there is no room for it.
    pub fn begin(&'static self, key: Key, head: &ResponseHeader, facts: Facts, length: Option<u64>) -> Option<Filling> {
        let head = compact(head).ok()?;
        let mut charge = Charge::none(&self.budget);
        let mut body = Charge::none(&self.budget);
        if !self.pay(&mut charge, Object::cost_with_length(&head, &facts, key.encoded().len()))
            || !self.pay(&mut body, length.unwrap_or(0))
        {
            return None;
        }
        let body = Body::new(body);
        let writer = Writer::new(body.clone(), length);
        Some(Filling {
            store: self,
            key,
            object: Arc::new(Object { head, facts, answered_at: SystemTime::now(), body, charge }),
            writer,
            is_found: false,
        })
    }

    /// Stores an object, unless a purge has meant it since it was asked for. Says whether it did.
    fn put(&self, key: &Key, mut object: Arc<Object>) -> bool {
        let weight = object.weight();
        loop {
            let purges = self.recent.count();
            if !self.heeds_purges(key, &mut object) {
                return false;
            }
            let mut shard = self.shard(key.url);
            if shard.changed.outdates(key.url, object.facts.asked_at) {
                return false;
            }
            // A purge is counted before it searches the shards: what it does not know of knows of it.
            if self.recent.count() == purges {
                let gone = shard.put(key, object, weight, self.stored.fetch_add(1, Relaxed));
                drop(shard);
                // Freed here, without the lock.
                drop(gone);
                return true;
            }
        }
    }

    /// Puts what was learned of an object in its place: the same body with another head. `false` if it is gone.
    pub fn renew(&self, key: &Key, old: &Arc<Object>, head: &ResponseHeader, facts: Facts) -> bool {
        let Ok(head) = compact(head) else { return false };
        let Some(mut new) = self.revised(key.encoded().len(), old, head, facts) else { return false };
        // What a purge means that comes later than this is not `old` any more, and stays as the purge has left it.
        self.heeds_purges(key, &mut new) && self.shard(key.url).replace(key, old, new)
    }

    fn revised(&self, key: usize, old: &Object, head: ResponseHeader, facts: Facts) -> Option<Arc<Object>> {
        let mut charge = Charge::none(&self.budget);
        let paid = self.pay(&mut charge, Object::cost(&head, &facts, key));
        paid.then(|| Arc::new(Object { head, facts, answered_at: SystemTime::now(), body: old.body.clone(), charge }))
    }

    /// Forgets just this object.
    pub fn forget(&self, key: &Key, object: &Arc<Object>) -> bool {
        self.shard(key.url).take_out(key, object)
    }

    /// Forgets all that is stored for an address, whatever else its keys say, and what is on its way there. Returns how
    /// many objects went.
    pub fn invalidate(&self, url: u128) -> usize {
        self.shard(url).changed.note(url, SystemTime::now());
        self.forget_all_of(url)
    }

    fn forget_all_of(&self, url: u128) -> usize {
        let gone: Vec<_> = {
            let mut shard = self.shard(url);
            let pages = shard.pages_of(url);
            pages.into_iter().flat_map(|page| shard.sift(page, &|_, _| Sifted::Goes)).collect()
        };
        gone.len()
    }

    /// Makes a charge larger, and room for it.
    fn pay(&self, charge: &mut Charge, bytes: u64) -> bool {
        if bytes > self.budget.limit() {
            return false;
        }
        while !charge.resize(bytes) {
            if !self.evict_one() {
                return false;
            }
        }
        true
    }

    /// Takes one object out; `false` if there is none that could go.
    fn evict_one(&self) -> bool {
        for _ in 0..DRAWS_MAX {
            // Any odd step meets every shard once, for their number is a power of two.
            let (start, step) = (fastrand::usize(..SHARDS), 2 * fastrand::usize(..SHARDS) + 1);
            let drawn = (0..SHARDS).map(|turn| (start + turn * step) % SHARDS);
            let filled = drawn.filter_map(|index| Some((self.lock(index).turn()?, index)));
            let first = filled.take(COMPARED).min();
            if first.is_some_and(|(turn, index)| !turn.is_makeshift && self.evict_from(index)) {
                return true;
            }
        }
        // There is little left of what should go, or all of it is in use: then every shard has its turn, from any on, and
        // after that whatever there is.
        let start = fastrand::usize(..SHARDS);
        let mut all = start..start + SHARDS;
        all.clone().any(|index| self.has_what_should_go(index) && self.evict_from(index))
            || all.any(|index| self.evict_from(index))
    }

    fn has_what_should_go(&self, index: usize) -> bool {
        self.lock(index).turn().is_some_and(|turn| !turn.is_makeshift)
    }

    fn evict_from(&self, index: usize) -> bool {
        let now = self.now();
        let evicted = self.lock(index).evict(now);
        self.evicted.add(evicted.is_some().into());
        // Freed here, without the lock.
        evicted.is_some()
    }

    /// The time of the store: how often something was stored.
    fn now(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// Changes how much it may hold; what is too much goes at once, but for what is in use.
    pub fn set_size(&self, size: u64) {
        self.budget.set_limit(size);
        while self.budget.is_exceeded() && self.evict_one() {}
    }

    /// How often something was stored, and how often something left to make room.
    pub fn turnover(&self) -> (u64, u64) {
        (self.now(), self.evicted.get())
    }

    /// Bytes that are in use: bodies, heads, keys, and what keeps them in order.
    pub fn bytes(&self) -> u64 {
        self.budget.used()
    }

    /// The most there may be.
    pub fn size(&self) -> u64 {
        self.budget.limit()
    }

    /// Objects that can be found.
    pub fn len(&self) -> usize {
        (0..self.shards.len()).map(|index| self.lock(index).len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
