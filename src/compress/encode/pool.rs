//! What a stream worked with, kept for the next one: to make it anew costs more than a small body does.
//!
//! Bounded in number and in bytes; what does not fit is freed. Only a state whose stream has ended comes back: zlib-rs
//! 0.6 keeps, through a reset, whether a block was open at level 1. Nothing is reset here: whoever takes does that, since
//! it knows the level. A state never becomes lighter than it was, so who takes one says what it may weigh at most: else
//! a stream that lasts for hours at a low level would hold what a high one has left behind. The lock is held for a push or a pop, never while something is encoded.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most that a pool keeps: as many streams as one process works on at once, if most of them wait for a backend.
const MOST_IDLE: usize = 64;

/// The most bytes that a pool keeps.
pub const MOST_IDLE_BYTES: usize = 32 << 20;

pub(super) struct Pool<T: 'static> {
    idle: Mutex<Idle<T>>,
}

struct Idle<T> {
    states: Vec<(T, usize)>,
    bytes: usize,
}

impl<T> Pool<T> {
    pub(super) const fn new() -> Self {
        Self { idle: Mutex::new(Idle { states: Vec::new(), bytes: 0 }) }
    }

    /// One that was used before and holds at most so many bytes, or a new one.
    pub(super) fn take<E>(
        &'static self,
        most: usize,
        make: impl FnOnce() -> Result<T, E>,
        weigh: Weigh<T>,
    ) -> Result<Pooled<T>, E> {
        let idle = self.pop(most);
        let state = match idle {
            Some((state, bytes)) if bytes <= most => state,
            Some(_) | None => make()?,
        };
        Ok(Pooled { state: Some(state), ended: false, pool: self, weigh })
    }

    /// The last one that is light enough; else the last one, so that those that nobody takes any more make room.
    fn pop(&self, most: usize) -> Option<(T, usize)> {
        let mut idle = self.lock();
        let last = idle.states.len().checked_sub(1)?;
        let at = idle.states.iter().rposition(|(_, bytes)| *bytes <= most).unwrap_or(last);
        let (state, bytes) = idle.states.remove(at);
        idle.bytes -= bytes;
        Some((state, bytes))
    }

    /// Gives it back as its argument if there is no room, so that it is freed after the lock is.
    fn push(&self, state: T, bytes: usize) -> Option<T> {
        let mut idle = self.lock();
        if idle.states.len() >= MOST_IDLE || idle.bytes + bytes > MOST_IDLE_BYTES {
            return Some(state);
        }
        idle.bytes += bytes;
        idle.states.push((state, bytes));
        None
    }

    fn lock(&self) -> MutexGuard<'_, Idle<T>> {
        // A push or a pop is whole or has not happened, so a panic of another thread leaves nothing half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many bytes such a state holds.
pub(super) type Weigh<T> = fn(&T) -> usize;

/// A state that goes back to its pool when it is dropped and its stream has ended.
pub(super) struct Pooled<T: 'static> {
    /// `None` only while it is dropped.
    state: Option<T>,
    ended: bool,
    pool: &'static Pool<T>,
    weigh: Weigh<T>,
}

impl<T> Pooled<T> {
    /// Its stream is whole, so the next one may have it.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.state.as_ref().expect("taken by drop alone")
    }
}

impl<T> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.state.as_mut().expect("taken by drop alone")
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take().filter(|_| self.ended) {
            let bytes = (self.weigh)(&state);
            drop(self.pool.push(state, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Gives a state of this weight back.
    fn end(pool: &'static Pool<usize>, weight: usize) {
        let mut state = pool.take(0, || Ok::<_, Infallible>(weight), |weight| *weight).unwrap();
        state.end();
    }

    fn taken(pool: &'static Pool<usize>, most: usize) -> usize {
        *pool.take(most, || Ok::<_, Infallible>(0), |weight| *weight).unwrap()
    }

    #[test]
    fn a_state_is_taken_only_by_those_for_whom_it_is_light_enough() {
        static POOL: Pool<usize> = Pool::new();
        let held = [3, 9, 5].map(|weight| POOL.take(0, || Ok::<_, Infallible>(weight), |weight| *weight).unwrap());
        held.into_iter().for_each(|mut state| state.end());
        assert_eq!(taken(&POOL, 5), 5, "the last of those");
        assert_eq!(taken(&POOL, 5), 3, "whatever lies on top of it");
        assert_eq!(taken(&POOL, 9), 9);
        assert_eq!(taken(&POOL, 9), 0, "a new one");
    }

    #[test]
    fn states_that_are_too_heavy_for_all_make_room() {
        static POOL: Pool<usize> = Pool::new();
        end(&POOL, MOST_IDLE_BYTES);
        end(&POOL, 1);
        assert_eq!(taken(&POOL, 1), 1, "taking it has made room");
    }

    #[test]
    fn a_state_whose_stream_has_not_ended_does_not_come_back() {
        static POOL: Pool<usize> = Pool::new();
        drop(POOL.take(0, || Ok::<_, Infallible>(1), |weight| *weight).unwrap());
        assert_eq!(taken(&POOL, 1), 0, "a new one");
    }
}
