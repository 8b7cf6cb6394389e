//! How has its state changed lately? A few notes, for whoever shows them.
//!
//! A change of state is rare, so a lock is fine here; no request takes it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::State;

/// Notes that wait for a reader: he comes once a second, and nobody changes his state more often than so.
const MOST: usize = 16;

/// One change of a backend's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub at: SystemTime,
    /// What it was.
    pub from: State,
    /// What it is since then; the same, when single requests try it from now on.
    pub to: State,
    /// Why, in a few words.
    pub why: String,
}

/// The notes that nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<VecDeque<Note>>);

impl Notes {
    pub(super) fn add(&self, note: Note) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() == MOST {
            notes.pop_front();
        }
        notes.push_back(note);
    }

    pub(super) fn take(&self) -> Vec<Note> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_notes_are_kept_for_one_reader() {
        let notes = Notes::default();
        for turn in 0..MOST + 3 {
            let at = SystemTime::UNIX_EPOCH;
            notes.add(Note { at, from: State::Pending, to: State::Healthy, why: turn.to_string() });
        }
        let taken = notes.take();
        assert_eq!((taken.len(), taken[0].why.as_str()), (MOST, "3"));
        assert_eq!(notes.take(), []);
    }
}
