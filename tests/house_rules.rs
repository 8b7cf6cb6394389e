//! The house rules that a machine can check: who may know whom, which rooms touch no clock and no socket, what each
//! file begins with. It reads the sources as text, so it can be led astray by a determined reader of this line; it is
//! meant for mistakes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up. A room may use those below it and none on its own level.
const LEVELS: &[&[&str]] = &[
    &["path", "files", "proxy_protocol", "count", "custom", "hashed"],
    &["config", "answer"],
    &["backend", "fetch"],
    &["observe"],
    &["balance", "health", "limit", "route", "retry", "cache", "compress", "filter", "auth"],
    &["upstream"],
    &["proxy"],
    &["server"],
    &["demo", "fuzzing"],
    &["cli"],
    &["program"],
];

/// Rooms that are arithmetic or data: what they know comes in as an argument.
const PURE: &[&str] = &["balance", "config", "count", "limit", "retry", "route"];

/// The one file of a pure room that asks the outside world, so that the others need not.
const EXEMPT_FROM_PURITY: &[&str] = &["src/config/surroundings.rs"];

const IMPURE: &[&str] = &["tokio", "Instant::now", "SystemTime", "pingora", "rand", "fastrand"];

const MOST_LINES: usize = 400;

#[test]
fn every_room_has_its_level() {
    let entries = fs::read_dir(root().join("src")).unwrap().map(Result::unwrap);
    let rooms = entries.map(|entry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned());
    let unlisted = rooms.filter(|room| !matches!(room.as_str(), "lib" | "main") && level(room).is_none());
    assert_eq!(unlisted.collect::<Vec<_>>(), [""; 0], "rooms in src/ that LEVELS does not name");
}

#[test]
fn a_room_knows_only_the_rooms_below_it() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let Some(own) = level(&source.room()) else { continue };
        for named in LEVELS.iter().flat_map(|level| *level).filter(|named| **named != source.room()) {
            let higher = level(named).unwrap() >= own;
            if higher && source.mentions(&format!("crate::{named}")) {
                broken.push(format!("{}: {} may not know {named}", source.path, source.room()));
            }
        }
        if source.code.contains("use crate::{") {
            broken.push(format!("{}: write one `use crate::ROOM` a line, so that the layers can be read", source.path));
        }
    }
    assert_eq!(broken, [""; 0]);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent = |source: &Source| !source.text.starts_with("//!");
    let silent = ["src", "tests"].iter().flat_map(|folder| sources(folder)).filter(silent);
    assert_eq!(silent.map(|source| source.path).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn only_the_proxy_stands_in_the_corridor() {
    let outside = sources("src").into_iter().filter(|source| source.room() != "proxy");
    let outside = outside.filter(|source| source.code.contains("ProxyHttp for"));
    assert_eq!(outside.map(|source| source.path).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_pure_room_asks_no_clock_no_chance_and_no_socket() {
    let mut broken = Vec::new();
    for source in sources("src").iter().filter(|source| PURE.contains(&source.room().as_str())) {
        if EXEMPT_FROM_PURITY.contains(&source.path.as_str()) {
            continue;
        }
        let impure = IMPURE.iter().filter(|word| source.mentions(word));
        broken.extend(impure.map(|word| format!("{}: {word}", source.path)));
    }
    assert_eq!(broken, [""; 0]);
}

/// What it is now comes in as an argument there, so the type may be named, and the clock may not.
#[test]
fn the_rules_of_caching_ask_no_clock() {
    let impure = ["tokio", "Instant", "SystemTime::now", "pingora", "fastrand"];
    let rules = sources("src").into_iter().filter(|source| source.path.starts_with("src/cache/rules/"));
    let broken = rules.filter(|source| impure.iter().any(|word| source.mentions(word)));
    assert_eq!(broken.map(|source| source.path).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn no_file_is_too_long_to_read() {
    let long = sources("src").into_iter().filter(|source| !source.is_test && source.code.lines().count() > MOST_LINES);
    assert_eq!(long.map(|source| source.path).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_configuration_key_is_in_the_manual() {
    let manual = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let missing = portcullis::config::known_keys().into_iter().filter(|key| !manual.contains(&format!("`{key}`")));
    assert_eq!(missing.collect::<Vec<_>>(), [""; 0], "keys that docs/configuration.md does not name in backticks");
}

#[test]
fn no_test_waits_for_a_fixed_time() {
    // Put together here, so that this file does not find itself.
    let sleep = concat!("sleep", "(");
    let sleeping = sources("tests").into_iter().filter(|source| source.text.contains(sleep));
    assert_eq!(sleeping.map(|source| source.path).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn no_test_is_switched_off_without_a_reason() {
    let off = concat!("#[ig", "nore]");
    let off = ["src", "tests"].iter().flat_map(|folder| sources(folder)).filter(|source| source.text.contains(off));
    assert_eq!(off.map(|source| source.path).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn no_text_speaks_of_the_place_it_was_written_in() {
    let foreign = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("issue", " #")];
    let mut found = Vec::new();
    for path in files(root(), &|path| TEXT.contains(&path.extension().and_then(|e| e.to_str()).unwrap_or_default())) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let named = foreign.iter().filter(|word| text.contains(**word));
        found.extend(named.map(|word| format!("{}: {word}", path.display())));
    }
    assert_eq!(found, [""; 0]);
}

/// Endings of the files that people read; the empty one is that of `test`, `LICENSE-MIT` and their like.
const TEXT: &[&str] = &["", "md", "py", "rs", "sh", "toml", "txt", "yaml", "yml"];

/// Labels that Prometheus adds, and the one of a histogram's bounds.
const ADDED_LABELS: [&str; 3] = ["instance", "job", "le"];

#[test]
fn dashboards_alerts_and_manuals_ask_for_metrics_that_exist() {
    let catalogue = portcullis::observe::metrics::catalogue::CATALOGUE;
    let families: Vec<_> = catalogue.iter().flat_map(|section| section.families).collect();
    let asks = |path: &Path| path.extension().is_some_and(|it| it == "yml" || it == "json" || it == "md");
    let (mut wrong, mut found) = (Vec::new(), 0);
    for path in [root().join("deploy"), root().join("docs")].iter().flat_map(|folder| files(folder, &asks)) {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("portcullis_") {
            let name = text[at..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let Some(family) = families.iter().find(|it| it.name == name || Some(it.name) == plain) else {
                wrong.push(format!("{}: {name}", path.display()));
                continue;
            };
            let selectors = text[at + name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let labels = selectors.iter().flat_map(|(inside, _)| inside.split(',')).filter_map(|it| it.split_once('='));
            let known = |label: &str| family.labels.contains(&label) || ADDED_LABELS.contains(&label);
            let unknown = labels.map(|(label, _)| label.trim().trim_end_matches('!')).filter(|label| !known(label));
            wrong.extend(unknown.map(|label| format!("{}: {name} has no {label}", path.display())));
            found += 1;
        }
    }
    assert_eq!(wrong, [""; 0], "src/observe/metrics/catalogue.rs has none of these");
    assert!(found > 100, "{found} metrics are asked for");
}

struct Source {
    path: String,
    text: String,
    /// The text without comments and without what comes after the first `#[cfg(test)] mod`.
    code: String,
    is_test: bool,
}

impl Source {
    fn room(&self) -> String {
        let below = self.path.trim_start_matches("src/");
        below.split(['/', '.']).next().unwrap().to_owned()
    }

    /// Whether the code names this word, as a whole word.
    fn mentions(&self, word: &str) -> bool {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        self.code
            .match_indices(word)
            .any(|(at, _)| !self.code[..at].ends_with(part) && !self.code[at + word.len()..].starts_with(part))
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let rust = |path: &Path| path.extension().is_some_and(|ending| ending == "rs");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let is_test = path.ends_with("tests.rs") || path.contains("/tests/");
        let product = if is_test { "" } else { text.split("#[cfg(test)]\nmod ").next().unwrap() };
        let code = product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        Source { path, text, code, is_test }
    };
    files(&root().join(folder), &rust).into_iter().map(read).collect()
}

/// The files below a folder that `wanted` takes, without hidden folders and what a build leaves behind.
fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true if name == "target" || name == "vendor" || name == ".git" => {}
            true => found.extend(files(&path, wanted)),
            false if name != ".git" && wanted(&path) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

fn level(room: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&room))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
