//! What became of the requests of a route? Its counts, found once for each snapshot and then only added to.
//!
//! A [`Ledger`] knows the counts of each route by its name, weakly: a route that is in the next snapshot too goes on
//! counting, and one that is gone is forgotten with the last request that it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use http::{StatusCode, Version};

use crate::count::{Count, Durations, Words};

/// Statuses that are counted side by side.
const OF_A_CLASS: usize = 100;

/// The word of the access log for each protocol, in the order of their counts.
const PROTOCOLS: [&str; 3] = ["HTTP/1.0", "HTTP/1.1", "HTTP/2"];

/// What is counted of a route.
#[derive(Debug, Default)]
pub struct RouteCounts {
    statuses: [Statuses; PROTOCOLS.len()],
    /// How long until the head of an answer was there.
    pub first_byte: Durations,
    /// How long until its end.
    pub total: Durations,
    /// Bytes of the requests' bodies.
    pub bytes_in: Count,
    /// Bytes of the answers' bodies.
    pub bytes_out: Count,
    /// Why requests did not end well.
    pub failures: Words,
    /// Attempts after one that failed.
    pub retries: Count,
    /// Attempts beside one that was late.
    pub hedges: Count,
    /// Why there was no retry.
    pub no_retries: Words,
    /// How the cache served.
    pub cache: Words,
    /// Who was admitted, and why others were not.
    pub auth: Words,
}

/// The answers over one protocol, by their status. A class has its counts when it is first needed: most have two.
#[derive(Debug, Default)]
struct Statuses {
    none: Count,
    classes: [OnceLock<Box<[Count]>>; 10],
}

impl Statuses {
    fn count(&self, status: Option<StatusCode>) {
        let Some(code) = status.map(|status| usize::from(status.as_u16())) else { return self.none.one() };
        let class = self.classes.get(code / OF_A_CLASS);
        let counts = class.map(|class| class.get_or_init(|| (0..OF_A_CLASS).map(|_| Count::default()).collect()));
        counts.and_then(|counts| counts.get(code % OF_A_CLASS)).unwrap_or(&self.none).one();
    }

    /// The statuses that there were, and how often.
    fn get(&self) -> impl Iterator<Item = (usize, u64)> {
        let classes = self.classes.iter().enumerate().filter_map(|(class, counts)| Some((class, counts.get()?)));
        let all = classes.flat_map(|(class, counts)| {
            counts.iter().enumerate().map(move |(rest, count)| (class * OF_A_CLASS + rest, count.get()))
        });
        all.filter(|(_, count)| *count > 0)
    }
}

impl RouteCounts {
    /// Counts an answer, or that there was none.
    pub fn answered(&self, status: Option<StatusCode>, version: Version) {
        let place = match version {
            Version::HTTP_2 => 2,
            Version::HTTP_10 => 0,
            _ => 1,
        };
        self.statuses[place].count(status);
    }

    /// How many answers there were, with their status and the word for their protocol.
    pub fn answers(&self) -> Vec<(String, &'static str, u64)> {
        let mut all = Vec::new();
        for (statuses, protocol) in self.statuses.iter().zip(PROTOCOLS) {
            all.extend(statuses.get().map(|(status, count)| (status.to_string(), protocol, count)));
            let none = statuses.none.get();
            all.extend((none > 0).then(|| ("none".to_owned(), protocol, none)));
        }
        all
    }
}

/// The word for a protocol, as in the access log.
pub fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => PROTOCOLS[2],
        Version::HTTP_10 => PROTOCOLS[0],
        _ => PROTOCOLS[1],
    }
}

/// The counts of all routes, by name.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<Arc<str>, Weak<RouteCounts>>>);

impl Ledger {
    /// The counts of a route: those that it had, if somebody still has them.
    pub fn route(&self, name: &Arc<str>) -> Arc<RouteCounts> {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(RouteCounts::default());
        routes.retain(|_, counts| counts.strong_count() > 0);
        routes.insert(name.clone(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_and_protocol() {
        let counts = RouteCounts::default();
        let status = |code| Some(StatusCode::from_u16(code).unwrap());
        counts.answered(status(200), Version::HTTP_11);
        counts.answered(status(200), Version::HTTP_11);
        counts.answered(status(999), Version::HTTP_2);
        counts.answered(None, Version::HTTP_10);
        let expected = [("none", "HTTP/1.0", 1), ("200", "HTTP/1.1", 2), ("999", "HTTP/2", 1)];
        assert_eq!(counts.answers(), expected.map(|(status, protocol, count)| (status.to_owned(), protocol, count)));
    }

    #[test]
    fn a_route_that_stays_keeps_its_counts_and_one_that_is_gone_begins_anew() {
        let (ledger, name) = (Ledger::default(), Arc::from("shop"));
        let before = ledger.route(&name);
        before.retries.one();
        let after = ledger.route(&name);
        assert_eq!(after.retries.get(), 1);
        drop((before, after));
        assert_eq!(ledger.route(&name).retries.get(), 0);
        assert_eq!(ledger.0.lock().unwrap().len(), 1);
    }
}
