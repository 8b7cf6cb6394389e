//! Where does it belong? A [`Table`] finds the most specific of many matches for a request.
//!
//! A table does not care what its routes lead to. It holds the routes by host and by path, so a request looks at a few
//! of them however many there are. Only routes with the same host and the same path stand in one list, and are tried
//! one after another by their other conditions.
//!
//! Hosts and paths must be normalised ([`host::normalise`], [`crate::path::normalise`]) before they are looked up.

mod conditions;
pub mod explain;
pub mod host;
mod paths;
mod rank;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use http::{HeaderMap, Method};

use self::conditions::Conditions;
use self::paths::Paths;
pub use self::rank::Rank;
use crate::config::{HostPattern, Match};

/// What a route may ask about a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The name of the listener it came in by.
    pub listener: Option<&'a str>,
    /// Its host, normalised; empty if there is none.
    pub host: &'a str,
    /// Its path, normalised.
    pub path: &'a str,
    /// Its method.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Its query, as it was sent.
    pub query: Option<&'a str>,
}

/// Routes, and what each leads to.
#[derive(Debug)]
pub struct Table<T> {
    exact: HashMap<String, Paths>,
    below: HashMap<String, Paths>,
    any: Paths,
    routes: Vec<(Conditions, T)>,
}

impl<T> Table<T> {
    /// Takes the routes in the order of the file, which decides between equals.
    pub fn new(routes: Vec<(Match, T)>) -> Self {
        let mut table = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            any: Paths::default(),
            routes: Vec::with_capacity(routes.len()),
        };
        for (matches, target) in routes {
            table.add(matches, target);
        }
        let hosts = table.exact.values_mut().chain(table.below.values_mut());
        for paths in hosts.chain([&mut table.any]) {
            paths.sort();
        }
        table
    }

    /// What the most specific matching route leads to.
    pub fn find(&self, head: &RequestView<'_>) -> Option<&T> {
        let exact = self.exact.get(head.host);
        // A host of many labels is only taken apart where that can find something.
        let parents = (!self.below.is_empty()).then(|| parents(head.host)).into_iter().flatten();
        let below = parents.filter_map(|parent| self.below.get(parent));
        let mut hosts = exact.into_iter().chain(below).chain([&self.any]);
        hosts.find_map(|paths| {
            let mut routes = paths.candidates(head.path).filter_map(|index| self.routes.get(index));
            routes.find(|(conditions, _)| conditions.hold(head)).map(|(_, target)| target)
        })
    }

    fn add(&mut self, matches: Match, target: T) {
        let index = self.routes.len();
        let conditions = Conditions::new(&matches);
        let into = |paths: &mut Paths| paths.add(&matches.path, index, conditions.count());
        if matches.hosts.is_empty() {
            into(&mut self.any);
        }
        for host in &matches.hosts {
            into(match host {
                HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
                HostPattern::Wildcard(parent) => self.below.entry(parent.clone()).or_default(),
            });
        }
        self.routes.push((conditions, target));
    }
}

/// The domains above a host, nearest first: `b.c` and `c` for `a.b.c`.
fn parents(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..))
}
