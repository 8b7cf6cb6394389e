//! What does a purge do in the store? It goes through what is there, and holds for what is on its way.

use std::sync::Arc;
use std::time::SystemTime;

use super::budget::Charge;
use super::recent::Verdict;
use super::shard::Sifted;
use super::{Depth, Object, Store};
use crate::cache::key::{self, Key};
use crate::cache::purge::{Purge, What};

impl Store {
    /// Obeys a purge, for what is stored and for what is on its way. Returns how many objects were there.
    pub fn obey(&self, purge: &Purge) -> usize {
        self.recent.add(purge);
        match &purge.what {
            What::Url(urls) if !purge.soft => {
                urls.iter().map(|url| self.forget_all_of(Key::hash_url(url.as_bytes()))).sum()
            }
            What::Everything | What::Url(_) | What::Prefix(_) | What::Host(_) | What::Tag(_) => {
                self.purge(purge.depth(), |url, tags| purge.matches(url, tags))
            }
        }
    }

    /// Purges every object that is meant, by its address and tags. Returns how many there were. It looks at all there
    /// are, a page at a time, so that requests wait for one page at most.
    pub fn purge(&self, depth: Depth, is_meant: impl Fn(&[u8], &[Box<str>]) -> bool) -> usize {
        let change = |key: &[u8], object: &Arc<Object>| {
            if !is_meant(key::url_of(key), &object.facts.tags) {
                return Sifted::Stays;
            }
            match depth {
                Depth::Hard => Sifted::Goes,
                Depth::Soft(now) => self.expired(key.len(), object, now).map_or(Sifted::Goes, Sifted::Becomes),
            }
        };
        let mut count = 0;
        for index in 0..self.shards.len() {
            let pages = self.lock(index).pages();
            for page in pages {
                let gone = self.lock(index).sift(page, &change);
                count += gone.len();
            }
        }
        count
    }

    /// The same object, stale from now on. It costs what the old one did, which goes: so there is no need to make room.
    fn expired(&self, key: usize, old: &Object, now: SystemTime) -> Option<Arc<Object>> {
        let mut facts = old.facts.clone();
        facts.expire(now);
        let mut charge = Charge::none(&self.budget);
        let paid = charge.resize(Object::cost(&old.head, &facts, key));
        paid.then(|| {
            Arc::new(Object {
                head: old.head.clone(),
                facts,
                answered_at: old.answered_at,
                body: old.body.clone(),
                charge,
            })
        })
    }

    /// Makes an object that nobody else has stale if a soft purge means it; `false` if it may not be stored.
    pub(super) fn heeds_purges(&self, key: &Key, object: &mut Arc<Object>) -> bool {
        let facts = &object.facts;
        match self.recent.verdict(key::url_of(key.encoded()), &facts.tags, facts.asked_at) {
            Verdict::Untouched => true,
            Verdict::Stale(since) => Arc::get_mut(object).map(|object| object.facts.expire(since)).is_some(),
            Verdict::Gone => false,
        }
    }

    /// Whether a purge means this object since it was asked for, so that it may not be served at all.
    pub(super) fn is_purged(&self, key: &Key, object: &Object) -> bool {
        let facts = &object.facts;
        self.recent.verdict(key::url_of(key.encoded()), &facts.tags, facts.asked_at) == Verdict::Gone
    }
}
