//! Does any reader of foreign bytes break its promise? Each of `portcullis::fuzzing`, over its seeds and a bounded number
//! of inputs that are made of them. `PORTCULLIS_FUZZ_SEED` repeats a run; `PORTCULLIS_FUZZ_SECONDS` gives each reader so long, and any
//! number of inputs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use portcullis::fuzzing::{TARGETS, Target};

/// As many for each target, unless its time is over before.
const INPUTS: usize = 20_000;
const TIME: Duration = Duration::from_secs(1);

/// Longer ones find nothing that these do not, and take their time.
const LONGEST: usize = 4096;

/// What the grammars are made of; a byte of chance hits them too seldom.
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    ",",
    ";",
    ":",
    "=",
    "\"",
    "\\",
    "/",
    "//",
    "/../",
    "%2e",
    "%2f",
    "%5c",
    "%00",
    "%",
    "*",
    "?",
    "#",
    "@",
    "[",
    "]",
    "{",
    "}",
    "- ",
    "&a ",
    "*a",
    "!!x ",
    "|",
    "${SET}",
    "q=",
    "q=0",
    "max-age=",
    "no-store",
    "for=",
    "0",
    "-1",
    "1.5",
    "255",
    "256",
    "65536",
    "4294967296",
    "18446744073709551616",
    "99999999999999999999",
    "10.0.0.1",
    "::1",
    "\u{e9}",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "TCP4 ",
    "UNKNOWN",
    "portcullis=",
    ";w=",
    ";t=",
    ";r=",
];

#[test]
fn no_reader_breaks_its_promise() {
    let seed =
        std::env::var("PORTCULLIS_FUZZ_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    let seconds = std::env::var("PORTCULLIS_FUZZ_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    let (inputs, time) = seconds.map_or((INPUTS, TIME), |seconds| (usize::MAX, Duration::from_secs(seconds)));
    for target in TARGETS {
        let seeds = seeds_of(target);
        for input in &seeds {
            read(target, input, seed);
        }
        let mut chance = Rng::with_seed(seed);
        let end = Instant::now() + time;
        for _ in 0..inputs {
            if Instant::now() > end {
                break;
            }
            read(target, &another(&seeds, &mut chance), seed);
        }
    }
}

#[test]
fn every_reader_has_a_fuzzer_and_seeds() {
    let names = TARGETS.iter().map(|target| target.name.to_owned()).collect::<Vec<_>>();
    let stems = |folder: &str| {
        let paths = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut stems: Vec<String> = paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        stems.sort();
        stems
    };
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!((stems("corpus"), stems("fuzz_targets")), (sorted.clone(), sorted));
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (name, target) in names.iter().zip(TARGETS) {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not name {name}");
        let fuzzer = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(fuzzer.contains(&format!("fuzzing::{name}(")), "the fuzzer of {name} calls something else");
        let seeds = seeds_of(target);
        assert!(!seeds.is_empty() && seeds.iter().all(|seed| seed.len() <= LONGEST), "the seeds of {name}");
    }
}

fn read(target: &Target, input: &[u8], seed: u64) {
    let run = target.run;
    if catch_unwind(|| run(input)).is_err() {
        panic!("{} breaks its promise (PORTCULLIS_FUZZ_SEED={seed}) on b\"{}\"", target.name, input.escape_ascii());
    }
}

/// One of the seeds, changed in a few places.
fn another(seeds: &[Vec<u8>], chance: &mut Rng) -> Vec<u8> {
    let mut input = seeds[chance.usize(..seeds.len())].clone();
    for _ in 0..chance.usize(1..8) {
        change(&mut input, seeds, chance);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], chance: &mut Rng) {
    let at = chance.usize(..=input.len());
    let end = (at + chance.usize(..16)).min(input.len());
    match chance.u8(..7) {
        0 if at < input.len() => input[at] ^= 1 << chance.u8(..8),
        1 => drop(input.drain(at..end)),
        2 => {
            let part = input[at..end].to_vec();
            input.splice(at..at, part.repeat(chance.usize(1..4)));
        }
        3 => input.insert(at, chance.u8(..)),
        4 => {
            let other = &seeds[chance.usize(..seeds.len())];
            let from = chance.usize(..=other.len());
            input.splice(at.., other[from..].iter().copied());
        }
        5 => input.truncate(at),
        _ => drop(input.splice(at..end.min(at + chance.usize(..4)), WORDS[chance.usize(..WORDS.len())].bytes())),
    }
}

fn seeds_of(target: &Target) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("corpus").join(target.name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}
