//! What comes in with Portcullis: every licence is one that we may pass on, nothing that we chose is unmaintained, and
//! the list stays short enough to be read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be passed on with the program.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that nobody maintains any more, and what to take instead. Pingora and foyer bring some of them; we do not.
const UNMAINTAINED: &[(&str, &str)] = &[
    ("ansi_term", "anstyle"),
    ("atty", "std::io::IsTerminal"),
    ("backoff", "a loop of our own"),
    ("derivative", "a derive of the standard library"),
    ("dotenv", "nothing: the configuration reads the environment itself"),
    ("failure", "thiserror"),
    ("instant", "std::time"),
    ("paste", "a macro without it"),
    ("proc-macro-error", "syn's own errors"),
    ("rustls-pemfile", "rustls::pki_types::pem"),
    ("serde_yaml", "saphyr-parser"),
    ("structopt", "clap"),
    ("trust-dns-resolver", "hickory-resolver"),
    ("yaml-rust", "saphyr-parser"),
];

/// Those of them that are in the lock file because Pingora asks for them, or foyer. One that leaves must leave this list
/// too.
const UNMAINTAINED_BY_WAY_OF_OTHERS: &[&str] = &["derivative", "paste", "rustls-pemfile", "serde_yaml"];

const MOST_PACKAGES: usize = 360;

#[test]
fn every_licence_may_be_passed_on() {
    let packages = packages();
    let refused = packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap(), package["license"].as_str().unwrap_or("none named")))
        .filter(|(_, licence)| !satisfied(licence))
        .collect::<Vec<_>>();
    assert!(refused.is_empty(), "licences that are not on the list: {refused:#?}");
}

#[test]
fn a_licence_expression_is_read_as_a_whole() {
    for (expression, fine) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("GPL-2.0 AND MIT OR ISC", true),
        ("GPL-2.0 AND (MIT OR ISC)", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
        ("GPL-2.0 WITH Classpath-exception-2.0", false),
        ("", false),
    ] {
        assert_eq!(satisfied(expression), fine, "{expression}");
    }
}

#[test]
fn nothing_that_we_chose_is_unmaintained() {
    let ours = packages().into_iter().find(|package| package["name"] == "portcullis").unwrap();
    for dependency in ours["dependencies"].as_array().unwrap() {
        let name = dependency["name"].as_str().unwrap();
        let instead = UNMAINTAINED.iter().find(|(unmaintained, _)| *unmaintained == name);
        assert_eq!(instead, None, "{name} is not maintained any more; the second word says what to take");
    }
}

#[test]
fn what_is_unmaintained_comes_by_way_of_others_alone_and_is_named() {
    let locked = locked();
    let found = UNMAINTAINED.iter().map(|(name, _)| *name).filter(|name| locked.iter().any(|have| have == name));
    assert_eq!(
        found.collect::<BTreeSet<_>>(),
        UNMAINTAINED_BY_WAY_OF_OTHERS.iter().copied().collect::<BTreeSet<_>>(),
        "the crates on the left are in Cargo.lock, those on the right are listed as known"
    );
}

#[test]
fn the_lock_file_stays_short() {
    let count = locked().len();
    assert!(count < MOST_PACKAGES, "{count} packages in Cargo.lock, {MOST_PACKAGES} is the limit");
}

/// The packages that a build on this machine takes in; those of other systems need not be downloaded.
fn packages() -> Vec<Value> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(rustc.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The names in `Cargo.lock`.
fn locked() -> Vec<String> {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let name = |line: &str| Some(line.strip_prefix("name = \"")?.strip_suffix('"')?.to_owned());
    lock.lines().filter_map(name).collect()
}

/// Whether an SPDX expression (or the older `A/B`) can be satisfied by allowed licences; `AND` binds before `OR`.
fn satisfied(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>) -> bool {
    let mut fine = all(words);
    while words.next_if_eq(&"OR").is_some() {
        fine |= all(words);
    }
    fine
}

fn all(words: &mut Words<'_>) -> bool {
    let mut fine = one(words);
    while words.next_if_eq(&"AND").is_some() {
        fine &= one(words);
    }
    fine
}

fn one(words: &mut Words<'_>) -> bool {
    let Some(first) = words.next() else { return false };
    if first == "(" {
        let fine = any(words);
        return words.next() == Some(")") && fine;
    }
    match words.next_if_eq(&"WITH") {
        Some(_) => ALLOWED.contains(&format!("{first} WITH {}", words.next().unwrap_or_default()).as_str()),
        None => ALLOWED.contains(&first),
    }
}
