//! What is told below the tables? The cache, and what was made smaller.

use std::time::Duration;

/// The cache at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheLine {
    /// What was answered from it. In a print, since the print before.
    pub hits: u64,
    /// What it was asked for and a backend answered. In a print, since the print before.
    pub misses: u64,
    /// What is stored.
    pub objects: usize,
    /// The bytes that this takes.
    pub bytes: u64,
    /// The most that it may take.
    pub size: u64,
}

impl CacheLine {
    /// Leaves hits and misses since those that are given, and returns all there have been.
    pub(super) fn count_from(&mut self, (hits, misses): (u64, u64)) -> (u64, u64) {
        let all = (self.hits, self.misses);
        (self.hits, self.misses) = (self.hits - hits, self.misses - misses);
        all
    }
}

/// What became of the answers in one coding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodingLine {
    /// The coding, as in `zstd`.
    pub coding: &'static str,
    /// Whether they came in this coding and left without it.
    pub decoded: bool,
    /// How many there were.
    pub answers: u64,
    /// The bytes of their bodies as they came.
    pub before: u64,
    /// The bytes that were sent in their place.
    pub after: u64,
    /// The time that it took.
    pub took: Duration,
}

impl CodingLine {
    /// Leaves what has been added to the lines that are given, without lines that have nothing new, and returns all there
    /// has been.
    pub(super) fn count_from(lines: &mut Vec<Self>, before: &[Self]) -> Vec<Self> {
        let all = lines.clone();
        for line in lines.iter_mut() {
            if let Some(old) = before.iter().find(|old| (old.coding, old.decoded) == (line.coding, line.decoded)) {
                line.answers = line.answers.saturating_sub(old.answers);
                line.before = line.before.saturating_sub(old.before);
                line.after = line.after.saturating_sub(old.after);
                line.took = line.took.saturating_sub(old.took);
            }
        }
        lines.retain(|line| line.answers > 0);
        all
    }
}
