//! What do the policies do when backends misbehave? A simulation in virtual time, which writes `docs/balancing.md`.
//!
//! Run with `cargo run --release --example simulate`. It drives the real code of whatever decides: policies, in-flight counts,
//! estimates, the state machine with its probes, ejections and trials, tiers, slow start, retries and their budget, with
//! the configuration's own defaults. Clients, networks and backends are made up. The same seed gives the same pages.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example prints, and may stop at once")]

mod pages;
mod pool;
mod scene;
mod world;

use portcullis::config::{Balance, HashKey};

use self::scene::{Scene, scenes};
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

/// The policies beside each other, since each is a world of its own.
fn play(scene: &Scene) -> Vec<(&'static str, Run)> {
    std::thread::scope(|scope| {
        let policies = policies().into_iter();
        let started: Vec<_> =
            policies.map(|(name, balance)| (name, scope.spawn(move || World::new(scene, &balance).run()))).collect();
        started.into_iter().map(|(name, run)| (name, run.join().unwrap())).collect()
    })
}

fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let mut told = Vec::new();
    for scene in scenes().into_iter().filter(|scene| wanted.is_empty() || wanted.iter().any(|name| name == scene.file))
    {
        let runs = play(&scene);
        println!("{}: {} requests for each policy", scene.title, runs[0].1.answers.len());
        told.push((scene, runs));
    }
    match wanted.is_empty() {
        true => pages::write(&told).unwrap(),
        false => told.iter().for_each(|(scene, runs)| println!("{}", pages::table(scene, runs))),
    }
}
