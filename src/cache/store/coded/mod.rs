//! What is a stored body when it is made smaller? Bytes that hang on it, one set for each coding, made once and for as
//! long as the body is there.
//!
//! One request at a time makes them, from what it sends to its own client anyway; whoever comes meanwhile makes his own
//! and keeps nothing. They belong to the body, so that a new head (a 304, a soft purge) finds them, and they are charged
//! like it. Whether something is worth a coding is remembered too. This file compresses nothing.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::budget::Charge;
use super::segments::Segments;
use super::{Object, Store};
use crate::config::Coding;

/// What the table of a body's codings costs.
const PER_TABLE: u64 = 128;

/// What a coded body costs beside its bytes and [`PER_PIECE`].
const PER_BODY: u64 = 96;

/// What each piece costs beside its bytes: its place, its count of readers, and what the allocator adds to both.
const PER_PIECE: u64 = 96;

/// A coded body must be smaller by this part, or decoding it is not worth the client's while.
const WORTH: u64 = 20;

/// What is known of a stored body in a coding.
#[derive(Clone, Debug)]
pub enum Coded {
    /// All of it.
    Ready(Arc<CodedBody>),
    /// It is hardly smaller than the body itself.
    NotWorthIt,
    /// Nothing: nobody has made it, or somebody is about to.
    Unknown,
}

/// A body in a coding, complete.
#[derive(Debug)]
pub struct CodedBody {
    pieces: Box<[Bytes]>,
    length: u64,
    /// Given back when nobody reads it any more.
    _charge: Charge,
}

impl CodedBody {
    /// Its bytes, in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// How many there are.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// What is known of a body in each coding.
#[derive(Debug)]
pub(super) struct Forms {
    slots: [Slot; Coding::ALL.len()],
    _charge: Charge,
}

#[derive(Debug, Default)]
struct Slot {
    is_claimed: AtomicBool,
    /// Nothing inside is what is not worth it.
    settled: OnceLock<Option<Arc<CodedBody>>>,
}

impl Forms {
    fn new(charge: Charge) -> Self {
        Self { slots: Default::default(), _charge: charge }
    }

    fn slot(&self, coding: Coding) -> &Slot {
        // In bounds: there is a slot for each.
        &self.slots[coding as usize]
    }
}

impl Object {
    /// What is known of its body in a coding.
    pub fn coded(&self, coding: Coding) -> Coded {
        let settled = self.body.codings.get().and_then(|codings| codings.slot(coding).settled.get());
        match settled {
            Some(Some(body)) => Coded::Ready(body.clone()),
            Some(None) => Coded::NotWorthIt,
            None => Coded::Unknown,
        }
    }
}

impl Store {
    /// Begins what an object's body is in a coding. `None` if somebody else does that, if it has been done, if the body is
    /// not complete itself, or if there is no room at all.
    pub fn claim_coding(&'static self, object: &Arc<Object>, coding: Coding) -> Option<CodedFilling> {
        let length = object.length()?;
        if object.body.codings.get().is_none() {
            let mut charge = Charge::none(&self.budget);
            let paid = self.pay(&mut charge, PER_TABLE);
            paid.then(|| object.body.codings.get_or_init(|| Box::new(Forms::new(charge))))?;
        }
        let claim = Claim::new(object.clone(), coding)?;
        Some(CodedFilling {
            store: self,
            claim,
            segments: Some(Segments::default()),
            most: length - length.div_ceil(WORTH),
            charge: Charge::none(&self.budget),
        })
    }
}

/// The right to be the only one who makes a coded body. It is given back where that comes to nothing.
#[derive(Debug)]
struct Claim {
    /// All of it, not its body alone: room for the one is never made by taking out the other.
    object: Arc<Object>,
    coding: Coding,
}

impl Claim {
    fn new(object: Arc<Object>, coding: Coding) -> Option<Self> {
        let is_free = !object.body.codings.get()?.slot(coding).is_claimed.swap(true, Relaxed);
        // Made only now: one that is dropped gives the claim back.
        is_free.then(|| Self { object, coding })
    }

    fn slot(&self) -> Option<&Slot> {
        Some(self.object.body.codings.get()?.slot(self.coding))
    }

    fn settle(&self, body: Option<Arc<CodedBody>>) -> bool {
        self.slot().is_some_and(|slot| slot.settled.set(body).is_ok())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What is settled stays claimed, so that nobody makes it twice.
        if let Some(slot) = self.slot().filter(|slot| slot.settled.get().is_none()) {
            slot.is_claimed.store(false, Relaxed);
        }
    }
}

/// A coded body that is being written. Dropped before [`CodedFilling::finish`], it is forgotten, and another may begin.
pub struct CodedFilling {
    store: &'static Store,
    claim: Claim,
    /// What there is; nothing once it cannot be kept.
    segments: Option<Segments>,
    /// What it may have and still be worth it.
    most: u64,
    charge: Charge,
}

impl CodedFilling {
    /// Adds bytes. `false` if they cannot be kept, because there is no room for them, or because they are so many that
    /// the coding is not worth it, which is noted at once; and then nothing that follows can be.
    pub fn write(&mut self, data: &[u8]) -> bool {
        let Some(segments) = &mut self.segments else { return false };
        let length = segments.len() + data.len() as u64;
        let is_worth_it = length <= self.most;
        if is_worth_it && self.store.pay(&mut self.charge, Segments::taken(length, Some(self.most)) + overhead(length))
        {
            segments.extend(data, Some(self.most));
            return true;
        }
        if !is_worth_it {
            self.claim.settle(None);
        }
        self.segments = None;
        self.charge.resize(0);
        false
    }

    /// Completes it: others find it from now on. `false` if a [`CodedFilling::write`] was.
    pub fn finish(self) -> bool {
        let Self { claim, segments, mut charge, .. } = self;
        let Some(segments) = segments else { return false };
        let length = segments.len();
        let pieces = segments.into_pieces().into_boxed_slice();
        charge.resize(length + overhead(length));
        claim.settle(Some(Arc::new(CodedBody { pieces, length, _charge: charge })))
    }
}

/// What so many bytes cost beside themselves.
fn overhead(length: u64) -> u64 {
    PER_BODY + PER_PIECE * length.div_ceil(super::segments::SEGMENT as u64)
}

#[cfg(test)]
mod tests;
