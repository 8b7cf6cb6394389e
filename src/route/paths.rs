//! Which routes of one host could a path belong to? Most specific first, without looking at the others.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::config::PathPattern;
use crate::path;

/// The routes of one host, by path.
#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: HashMap<String, Vec<Candidate>>,
    below: HashMap<String, Vec<Candidate>>,
    /// The lengths of all prefixes: a path is cut at these only, not at each of its segments, whose number is up to
    /// the client.
    lengths: BTreeSet<usize>,
}

/// A route among others with the same host and path: more conditions first, then in the order of the file.
type Candidate = (Reverse<usize>, usize);

impl Paths {
    pub(super) fn add(&mut self, pattern: &PathPattern, index: usize, conditions: usize) {
        let candidates = match pattern {
            PathPattern::Any => self.below(""),
            PathPattern::Prefix(pattern) => self.below(&prefix(pattern)),
            PathPattern::Exact(path) => self.exact.entry(normalised(path)).or_default(),
        };
        candidates.push((Reverse(conditions), index));
    }

    /// Brings the candidates into their order, after the last has been added.
    pub(super) fn sort(&mut self) {
        for candidates in self.exact.values_mut().chain(self.below.values_mut()) {
            candidates.sort_unstable();
            candidates.dedup();
        }
    }

    /// The routes whose path pattern holds a path, most specific first.
    pub(super) fn candidates(&self, path: &str) -> impl Iterator<Item = usize> {
        let prefixes = self.lengths.range(..=path.len()).rev().filter_map(move |&length| {
            let (prefix, rest) = path.split_at_checked(length)?;
            // The empty prefix holds everything, also the `*` of OPTIONS.
            let at_border = prefix.is_empty() || rest.is_empty() || rest.starts_with('/');
            at_border.then(|| self.below.get(prefix)).flatten()
        });
        let lists = self.exact.get(path).into_iter().chain(prefixes);
        lists.flatten().map(|&(_, index)| index)
    }

    fn below(&mut self, prefix: &str) -> &mut Vec<Candidate> {
        self.lengths.insert(prefix.len());
        self.below.entry(prefix.to_owned()).or_default()
    }
}

/// What the paths below a prefix begin with, up to the segment border; empty for the root.
pub(super) fn prefix(pattern: &str) -> String {
    normalised(pattern).trim_end_matches('/').to_owned()
}

/// A pattern in the spelling in which paths are looked up; as it is if it is no path, and then nothing matches it.
fn normalised(pattern: &str) -> String {
    path::normalise(pattern).map_or_else(|_| pattern.to_owned(), Into::into)
}
