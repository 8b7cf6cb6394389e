//! Backends near by serve until they have enough to do, then all of them: a way to balance of one's own.
//!
//! `cargo run --example nearest -- run -c FILE`, with an upstream that has
//! `balance: { nearest: { zone: eu-1, enough: 50 } }` and backends with names such as `eu-1/app-3`.

use std::process::ExitCode;

use portcullis::Program;
use portcullis::custom::{Candidate, Policy, Settings};
use serde::Deserialize;

/// Where we are, and how many requests in flight are enough for a backend of weight 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nearest {
    zone: String,
    enough: u32,
}

impl Nearest {
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        settings.read()
    }

    fn is_near(&self, candidate: &Candidate<'_>) -> bool {
        candidate.name.strip_prefix(&*self.zone).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Policy for Nearest {
    fn choose(&self, candidates: &[Candidate<'_>], random: u64) -> usize {
        let load = |candidate: &Candidate<'_>| f64::from(candidate.in_flight) / f64::from(candidate.weight);
        // Whoever is idle takes turns by chance: each look begins elsewhere.
        let start = usize::try_from(random).unwrap_or(0) % candidates.len();
        let places = (start..candidates.len()).chain(0..start);
        let all = places.filter_map(|place| Some((place, candidates.get(place)?)));
        let near = all.clone().filter(|(_, it)| self.is_near(it) && load(it) < f64::from(self.enough));
        let least = |(_, one): &(usize, &Candidate<'_>), (_, other): &(usize, &Candidate<'_>)| {
            load(one).total_cmp(&load(other))
        };
        near.min_by(least).or_else(|| all.min_by(least)).map_or(0, |(place, _)| place)
    }
}

pub(crate) fn main() -> ExitCode {
    Program::new().policy("nearest", Nearest::new).main()
}
