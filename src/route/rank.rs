//! Which of two matching routes is the more specific? The order in which a table prefers its routes.
//!
//! This is the definition; the table reaches the same order by the way it looks things up, and a test compares the two.

use std::cmp::Reverse;

use super::conditions::Conditions;
use super::paths;
use crate::config::{HostPattern, Match, PathPattern};

/// How specific a route is; the greatest of those that match wins.
///
/// Fields are compared from first to last: host, path, further conditions, and the place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    host: HostRank,
    path: PathRank,
    conditions: usize,
    place: Reverse<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Any,
    /// Any host below a domain of this many bytes: of two that hold one host, the longer is the nearer.
    Below(usize),
    Exact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    /// Any path below a prefix of this many bytes; every path is below the empty prefix.
    Below(usize),
    Exact,
}

impl Rank {
    /// The rank of the route at a place in the file, by one of its hosts or `None` if it asks for none.
    pub fn new(matches: &Match, host: Option<&HostPattern>, place: usize) -> Self {
        let host = match host {
            None => HostRank::Any,
            Some(HostPattern::Wildcard(parent)) => HostRank::Below(parent.len()),
            Some(HostPattern::Exact(_)) => HostRank::Exact,
        };
        let path = match &matches.path {
            PathPattern::Any => PathRank::Below(0),
            PathPattern::Prefix(prefix) => PathRank::Below(paths::prefix(prefix).len()),
            PathPattern::Exact(_) => PathRank::Exact,
        };
        Self { host, path, conditions: Conditions::new(matches).count(), place: Reverse(place) }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn rank(host: &str, path: PathPattern, conditions: usize, place: usize) -> Rank {
        let hosts: Vec<_> = match host.strip_prefix("*.") {
            _ if host.is_empty() => vec![],
            Some(parent) => vec![HostPattern::Wildcard(parent.into())],
            None => vec![HostPattern::Exact(host.into())],
        };
        let query = (0..conditions).map(|n| (n.to_string(), String::new())).collect();
        let matches = Match { hosts, path, query, ..Match::default() };
        Rank::new(&matches, matches.hosts.first(), place)
    }

    #[test]
    fn host_then_path_then_conditions_then_place() {
        let exact = || PathPattern::Exact("/a/b".into());
        let prefix = |prefix: &str| PathPattern::Prefix(prefix.into());
        let descending = [
            rank("a.b.c", exact(), 0, 9),
            rank("a.b.c", prefix("/a/b"), 2, 9),
            rank("a.b.c", prefix("/a/b"), 1, 9),
            rank("a.b.c", prefix("/a"), 5, 0),
            rank("a.b.c", PathPattern::Any, 1, 0),
            rank("*.b.c", exact(), 5, 0),
            rank("*.c", exact(), 5, 0),
            rank("", exact(), 1, 3),
            rank("", exact(), 1, 4),
            rank("", PathPattern::Any, 0, 0),
        ];
        assert!(descending.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn every_path_is_as_specific_as_below_the_root() {
        let root = PathPattern::Prefix("/".into());
        assert_eq!(rank("", root, 0, 0), rank("", PathPattern::Any, 0, 0));
    }

    #[test]
    fn many_methods_are_one_condition() {
        let methods = vec![Method::GET, Method::POST];
        let matches = Match { methods, ..Match::default() };
        assert!(Rank::new(&matches, None, 0) < rank("", PathPattern::Any, 2, 0));
    }
}
