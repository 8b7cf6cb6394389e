//! What has each server in hand? In-flight counts, and the leases that change them.
//!
//! The counts of one upstream lie side by side in [`Block`]s, because a policy reads many of them for one choice. A
//! [`Lease`] is the only way to change one, so a count can never leak.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::estimate::Estimates;

/// Seats in one block: one word of ready bits, and four cache lines of counts.
pub const SEATS_PER_BLOCK: usize = 64;

/// A backend's fixed place among the numbers of its upstream; it keeps it across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat(pub u32);

impl Seat {
    /// The block in which its count is.
    pub(crate) fn block(self) -> usize {
        self.0 as usize / SEATS_PER_BLOCK
    }

    /// The place of its count in the block.
    pub(crate) fn offset(self) -> usize {
        self.0 as usize % SEATS_PER_BLOCK
    }
}

/// The in-flight counts of 64 seats, side by side.
#[derive(Debug)]
pub struct Block {
    in_flight: [AtomicU32; SEATS_PER_BLOCK],
}

impl Default for Block {
    fn default() -> Self {
        Self { in_flight: [const { AtomicU32::new(0) }; SEATS_PER_BLOCK] }
    }
}

/// The in-flight counts of an upstream, by seat; and its estimates, if its policy asks for them.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    blocks: Box<[Arc<Block>]>,
    estimates: Option<Estimates>,
}

impl Loads {
    /// Counts for at least `seats` seats, all 0.
    pub fn with_seats(seats: usize) -> Self {
        Self::default().grown(seats)
    }

    /// The same counts, with room for at least `seats` seats.
    #[must_use]
    pub fn grown(&self, seats: usize) -> Self {
        let mut blocks = self.blocks.to_vec();
        blocks.resize_with(seats.div_ceil(SEATS_PER_BLOCK).max(blocks.len()), Arc::default);
        let estimates = self.estimates.as_ref().map(|estimates| estimates.grown(seats));
        Self { blocks: blocks.into(), estimates }
    }

    /// The same counts, with estimates beside them: those that there are, or unknown ones.
    #[must_use]
    pub fn with_estimates(self) -> Self {
        let seats = self.blocks.len() * SEATS_PER_BLOCK;
        Self { estimates: Some(self.estimates.unwrap_or_default().grown(seats)), ..self }
    }

    /// The estimates, if there are any.
    pub fn estimates(&self) -> Option<&Estimates> {
        self.estimates.as_ref()
    }

    /// Requests in flight on a seat; 0 for a seat beyond the last.
    pub fn in_flight(&self, seat: Seat) -> u32 {
        self.count(seat).map_or(0, |count| count.load(Relaxed))
    }

    /// Takes one in-flight request on a seat, until the lease is dropped.
    pub fn lease(&self, seat: Seat) -> Lease {
        let block = self.blocks.get(seat.block()).cloned();
        let lease = Lease { block, seat };
        if let Some(count) = lease.count() {
            count.fetch_add(1, Relaxed);
        }
        lease
    }

    /// Takes one in-flight request on a seat if there are fewer than `most`. One try is one step: of two threads, only
    /// one gets the last place, and nobody sees more than there are.
    pub fn try_lease(&self, seat: Seat, most: u32) -> Option<Lease> {
        let one_more = |count: u32| (count < most).then_some(count + 1);
        self.count(seat)?.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Lease { block: self.blocks.get(seat.block()).cloned(), seat })
    }

    /// The counts of `len` seats from `first` on, as far as they lie in the same block; fewer beyond the last seat.
    pub(crate) fn side_by_side(&self, first: Seat, len: usize) -> &[AtomicU32] {
        let counts = self.block(first.block()).and_then(|counts| counts.get(first.offset()..)).unwrap_or_default();
        counts.get(..len).unwrap_or(counts)
    }

    /// The counts of a block.
    pub(crate) fn block(&self, block: usize) -> Option<&[AtomicU32; SEATS_PER_BLOCK]> {
        self.blocks.get(block).map(|block| &block.in_flight)
    }

    fn count(&self, seat: Seat) -> Option<&AtomicU32> {
        self.block(seat.block())?.get(seat.offset())
    }
}

/// The right to one in-flight request on a backend, given back when it is dropped.
#[derive(Debug)]
pub struct Lease {
    block: Option<Arc<Block>>,
    seat: Seat,
}

impl Lease {
    fn count(&self) -> Option<&AtomicU32> {
        self.block.as_ref()?.in_flight.get(self.seat.offset())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(count) = self.count() {
            count.fetch_sub(1, Relaxed);
        }
    }
}
