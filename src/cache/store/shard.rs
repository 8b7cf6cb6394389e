//! Where in the store? One part of it, under one lock: all that is stored for its addresses, and the order in which it leaves.

use std::sync::Arc;

use http::HeaderName;

use super::changed::Changed;
use super::object::Object;
use super::order::{Name, Newcomer, Order, Slot, Turn};
use crate::cache::key::Key;
use crate::hashed::HashedMap;

/// Answers that are kept for one key, told apart by `Vary`. An attacker makes as many as he likes; people have a few
/// languages and codings.
const VARIANTS_MAX: usize = 64;

type Map<T> = HashedMap<u128, T>;

/// All that is stored for one key.
struct Page {
    key: Box<[u8]>,
    url: u128,
    variants: Vec<Variant>,
}

struct Variant {
    object: Arc<Object>,
    slot: Slot,
}

/// One part of the store.
pub(super) struct Shard {
    pages: Map<Page>,
    /// The pages of an address that has more than one, or one under a key that says more than the address.
    of_url: Map<Vec<u128>>,
    order: Box<dyn Order>,
    pub(super) changed: Changed,
}

impl Shard {
    pub(super) fn new(order: Box<dyn Order>) -> Self {
        Self { pages: Map::default(), of_url: Map::default(), order, changed: Changed::default() }
    }

    fn page(&self, key: &Key) -> Option<&Page> {
        self.pages.get(&key.page).filter(|page| *page.key == *key.encoded())
    }

    /// What is stored for a key: that variant, or the last that was stored.
    pub(super) fn find(&mut self, key: &Key, variance: Option<u128>, now: u64) -> Option<Arc<Object>> {
        let Variant { object, slot } = self.variant(key, variance)?;
        let (object, slot) = (object.clone(), *slot);
        self.order.touch(slot, now);
        Some(object)
    }

    /// The same, for one who does not serve it to anybody.
    pub(super) fn peek(&self, key: &Key, variance: Option<u128>) -> Option<Arc<Object>> {
        self.variant(key, variance).map(|variant| variant.object.clone())
    }

    fn variant(&self, key: &Key, variance: Option<u128>) -> Option<&Variant> {
        let variants = &self.page(key)?.variants;
        match variance {
            Some(_) => variants.iter().find(|variant| variant.object.facts.variance == variance),
            None => variants.last(),
        }
    }

    /// When it is its turn to give something up.
    pub(super) fn turn(&self) -> Option<Turn> {
        self.order.turn()
    }

    /// The request fields that tell the answers to a key apart.
    pub(super) fn vary(&self, key: &Key) -> Option<Arc<[HeaderName]>> {
        Some(self.page(key)?.variants.last()?.object.facts.vary.clone())
    }

    /// Stores an object. What goes for it is returned, to be dropped without the lock.
    pub(super) fn put(&mut self, key: &Key, object: Arc<Object>, weight: u64, now: u64) -> Vec<Arc<Object>> {
        let mut gone = Vec::new();
        // A collision: the newer one stays.
        if self.pages.get(&key.page).is_some_and(|page| *page.key != *key.encoded()) {
            self.remove_page(key.page, &mut gone);
        }
        let variance = object.facts.variance;
        let name = Name { page: key.page, variance };
        let known = self.remove(name);
        let newcomer = Newcomer { name, weight, is_known: known.is_some() };
        gone.extend(known);
        let page = self.pages.entry(key.page).or_insert_with(|| {
            // Most have one: no room for more.
            self.of_url.entry(key.url).or_insert_with(|| Vec::with_capacity(1)).push(key.page);
            Page { key: key.encoded().into(), url: key.url, variants: Vec::with_capacity(1) }
        });
        // Where the answers are told apart by other fields now, the old ones would never be found again.
        let outdated = |variant: &Variant| variant.object.facts.vary != object.facts.vary;
        let names = page.variants.iter().filter(|variant| outdated(variant)).map(|old| old.object.facts.variance);
        let mut outdated: Vec<_> = names.collect();
        if outdated.is_empty() && page.variants.len() >= VARIANTS_MAX {
            outdated.extend(page.variants.first().map(|oldest| oldest.object.facts.variance));
        }
        page.variants.push(Variant { object, slot: self.order.add(newcomer, now) });
        for variance in outdated {
            gone.extend(self.remove(Name { page: key.page, variance }));
        }
        gone
    }

    /// Notes what an object takes, now that it is complete.
    pub(super) fn reweigh(&mut self, key: &Key, object: &Arc<Object>, weight: u64) {
        let variants = self.page(key).map(|page| page.variants.iter()).into_iter().flatten();
        // A soft purge has put another object with the same body in its place.
        let found = variants.into_iter().find(|variant| Arc::ptr_eq(&variant.object.body, &object.body));
        if let Some(slot) = found.map(|variant| variant.slot) {
            self.order.reweigh(slot, weight);
        }
    }

    /// Puts one object in the place of another that is still there; its use stays as it was.
    pub(super) fn replace(&mut self, key: &Key, old: &Arc<Object>, new: Arc<Object>) -> bool {
        let page = self.pages.get_mut(&key.page).filter(|page| *page.key == *key.encoded());
        let found = page.and_then(|page| page.variants.iter_mut().find(|variant| Arc::ptr_eq(&variant.object, old)));
        found.map(|variant| variant.object = new).is_some()
    }

    fn remove(&mut self, name: Name) -> Option<Arc<Object>> {
        let page = self.pages.get_mut(&name.page)?;
        let at = page.variants.iter().position(|variant| variant.object.facts.variance == name.variance)?;
        let Variant { object, slot } = page.variants.remove(at);
        self.order.remove(slot);
        if page.variants.is_empty() {
            self.forget_page(name.page);
        }
        Some(object)
    }

    fn remove_page(&mut self, page: u128, gone: &mut Vec<Arc<Object>>) {
        if let Some(page) = self.forget_page(page) {
            for Variant { object, slot } in page.variants {
                self.order.remove(slot);
                gone.push(object);
            }
        }
    }

    fn forget_page(&mut self, page: u128) -> Option<Page> {
        let gone = self.pages.remove(&page)?;
        if let Some(pages) = self.of_url.get_mut(&gone.url) {
            pages.retain(|other| *other != page);
            if pages.is_empty() {
                self.of_url.remove(&gone.url);
            }
        }
        Some(gone)
    }

    /// Takes out what has the body of this object, if it is still there.
    pub(super) fn take_out(&mut self, key: &Key, object: &Arc<Object>) -> bool {
        let name = Name { page: key.page, variance: object.facts.variance };
        // A soft purge has put another object with the same body in its place.
        let is_it = |variant: &Variant| Arc::ptr_eq(&variant.object.body, &object.body);
        let is_there = self.page(key).is_some_and(|page| page.variants.iter().any(is_it));
        is_there && self.remove(name).is_some()
    }

    /// Takes out what is to go first, unless somebody is reading or writing it: then its turn comes later.
    pub(super) fn evict(&mut self, now: u64) -> Option<Arc<Object>> {
        let (slot, name) = self.order.next(now)?;
        let variants = self.pages.get(&name.page).map(|page| &page.variants);
        let found = variants.and_then(|all| all.iter().find(|one| one.object.facts.variance == name.variance));
        if found.is_some_and(|variant| Arc::strong_count(&variant.object) > 1) {
            self.order.put_off(slot, now);
            return None;
        }
        self.order.evict(slot);
        self.remove(name)
    }

    /// The keys of all that is stored for an address.
    pub(super) fn pages_of(&self, url: u128) -> Vec<u128> {
        self.of_url.get(&url).cloned().unwrap_or_default()
    }

    /// All pages.
    pub(super) fn pages(&self) -> Vec<u128> {
        self.pages.keys().copied().collect()
    }

    /// Takes out what is meant of a page, or puts what `change` makes of it in its place. Returns what went.
    pub(super) fn sift(&mut self, page: u128, change: &dyn Fn(&[u8], &Arc<Object>) -> Sifted) -> Vec<Arc<Object>> {
        let Some(Page { key, variants, .. }) = self.pages.get_mut(&page) else { return Vec::new() };
        let (mut gone, mut names) = (Vec::new(), Vec::new());
        for variant in variants {
            match change(key, &variant.object) {
                Sifted::Stays => {}
                Sifted::Becomes(new) => gone.push(std::mem::replace(&mut variant.object, new)),
                Sifted::Goes => names.push(variant.object.facts.variance),
            }
        }
        gone.extend(names.into_iter().filter_map(|variance| self.remove(Name { page, variance })));
        gone
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

/// What becomes of an object.
pub(super) enum Sifted {
    /// Nothing.
    Stays,
    /// This.
    Becomes(Arc<Object>),
    /// It is taken out.
    Goes,
}
