//! What do the policies do when backends misbehave? A simulation in virtual time, which writes `docs/balancing.md`.
//!
//! Run with `cargo run --example simulate`. It drives the real policies, in-flight counts, estimates, slow start and
//! the rule of who may be chosen; clients, networks and backends are made up. The same seed gives the same pages.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example prints, and may stop at once")]

mod pages;
mod scene;
mod world;

use portcullis::config::{Balance, HashKey};

use self::scene::scenes;
use self::world::{Run, World};

/// The policies, by the words of the configuration.
fn policies() -> [(&'static str, Balance); 6] {
    [
        ("round_robin", Balance::RoundRobin),
        ("least_connections", Balance::LeastConnections),
        ("random", Balance::Random),
        ("two_choices", Balance::TwoChoices),
        ("peak_ewma", Balance::PeakEwma),
        ("consistent_hash", Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 }),
    ]
}

fn main() {
    let mut told = Vec::new();
    for scene in scenes() {
        let mut runs: Vec<(&str, Run)> = Vec::new();
        for (name, balance) in policies() {
            runs.push((name, World::new(&scene, &balance).run()));
        }
        println!("{}: {} requests for each policy", scene.title, runs[0].1.answers.len());
        told.push((scene, runs));
    }
    pages::write(&told).unwrap();
}
