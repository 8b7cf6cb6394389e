//! The public cache test suite (http-tests/cache-tests, the copy on npm) through the front door, case by case.
//!
//! `./test` installs node and the suite; where they are missing the test fails and says so, it never skips. Which
//! cases may fail, and why, is in tests/clients/cache_suite_known.txt: one that fails and is not there fails this test,
//! and so does one that is there and passes. The table in docs/caching.md is kept true too; BLESS=1 writes it anew.

use crate::support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::Lb;

const MISSING: &str = "run ./test once, it installs Debian's nodejs and npm and what tests/clients/package.json names";

/// What is between the two halves of the page that the table is written into.
const TABLE: [&str; 2] = ["<!-- the score: BLESS=1 ./test cache_suite -->\n", "<!-- the end of the score -->"];

/// What was asked of the cache, and how it did.
#[derive(Clone, Debug)]
struct Case {
    group: String,
    id: String,
    kind: String,
    verdict: String,
    said: String,
}

impl Case {
    fn in_words(&self) -> String {
        let Case { id, kind, verdict, said, .. } = self;
        format!("{id} ({kind}): {verdict}: {said}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_cache_suite_fails_where_it_is_known_to_and_nowhere_else() {
    let origin = Origin::start();
    let url = format!("http://127.0.0.1:{}", origin.port);
    let lb = Lb::with_urls([url]).yaml_route("cache: {}").start().await;
    let base = format!("http://{}", lb.address(0));
    let known = known();

    let mut cases = play(&base, &[]).await;
    // The suite counts in whole seconds, so a busy machine can fail a case that is well. Whatever surprises is played
    // again, without the crowd.
    for _ in 0..2 {
        let surprising = surprises(&cases, &known);
        if surprising.is_empty() {
            break;
        }
        let again = play(&base, &surprising).await;
        for case in cases.iter_mut().filter(|case| surprising.contains(&case.id)) {
            *case = again.iter().find(|other| other.id == case.id).unwrap().clone();
        }
    }

    let table = table(&cases);
    report(&table);
    let surprising = surprises(&cases, &known);
    let surprising = cases.iter().filter(|case| surprising.contains(&case.id)).map(Case::in_words).collect::<Vec<_>>();
    let surprising = surprising.join("\n");
    assert!(surprising.is_empty(), "neither passed nor known to fail, or known to fail and passed:\n{surprising}");
    let judged = |id: &str| cases.iter().any(|case| case.id == id && case.kind != "check");
    let idle = known.keys().filter(|id| !judged(id)).collect::<Vec<_>>();
    assert!(idle.is_empty(), "known to fail, and no case that is judged: {idle:?}");
    compare_with_the_manual(&table);
}

/// The cases that fail and should not, and those that pass and should not. A `check` is a question without a right
/// answer.
fn surprises(cases: &[Case], known: &BTreeMap<String, String>) -> Vec<String> {
    let judged = cases.iter().filter(|case| case.kind != "check");
    let surprising = judged.filter(|case| (case.verdict == "pass") == known.contains_key(&case.id));
    surprising.map(|case| case.id.clone()).collect()
}

/// The cases that may fail, and why: `ID: REASON` on each line.
fn known() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(in_tests("cache_suite_known.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (id, reason) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} gives no reason"));
        (id.to_owned(), reason.to_owned())
    };
    lines.map(pair).collect()
}

/// The score by category, as the manual shows it.
fn table(cases: &[Case]) -> String {
    let mut groups: Vec<&str> = cases.iter().map(|case| case.group.as_str()).collect();
    groups.dedup();
    let mut text = "| Category | Required | Optimal | Asked only: yes |\n| --- | --- | --- | --- |\n".to_owned();
    for group in groups {
        let own = cases.iter().filter(|case| case.group == group).collect::<Vec<_>>();
        let _ = writeln!(text, "| {group} | {} |", score(&own));
    }
    let all = cases.iter().collect::<Vec<_>>();
    let _ = writeln!(text, "| **All** | {} |", score(&all));
    text
}

fn score(cases: &[&Case]) -> String {
    let of = |kind: &str| {
        let asked = cases.iter().filter(|case| case.kind == kind);
        let passed = asked.clone().filter(|case| case.verdict == "pass");
        match asked.count() {
            0 => String::new(),
            count => format!("{} of {count}", passed.count()),
        }
    };
    ["required", "optimal", "check"].map(of).join(" | ")
}

/// The two columns that are judged must be those in the manual; how the cache answers the mere questions may change.
fn compare_with_the_manual(table: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/caching.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(TABLE[0]).unwrap();
    let (written, after) = rest.split_once(TABLE[1]).unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file, [before, TABLE[0], table, TABLE[1], after].concat()).unwrap();
        return;
    }
    let judged = |table: &str| -> Vec<String> {
        table.lines().map(|line| line.split(" | ").take(3).collect::<Vec<_>>().join(" | ")).collect()
    };
    assert_eq!(judged(written), judged(table), "BLESS=1 writes docs/caching.md anew");
}

#[expect(clippy::print_stderr, reason = "whoever runs this test wants to see the score")]
fn report(table: &str) {
    eprintln!("{table}");
}

/// Plays all cases, or these and what they stand on, and gives how each ended. The script ends by itself in any case.
async fn play(base: &str, ids: &[String]) -> Vec<Case> {
    let mut player = node();
    player.args(["run", base]).args(ids);
    let output = tokio::task::spawn_blocking(move || player.output()).await.unwrap().unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the suite could not be played: {complained}");
    let field = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let case = |line: &str| {
        let line = serde_json::from_str::<Value>(line).unwrap();
        let [group, id, kind, verdict, said] =
            ["group", "id", "kind", "verdict", "said"].map(|name| field(&line, name));
        Case { group, id, kind, verdict, said }
    };
    String::from_utf8_lossy(&output.stdout).lines().map(case).collect()
}

/// The suite's own origin, which knows what each case wants. It is ended when dropped, or when this process ends.
struct Origin {
    child: Child,
    port: u16,
}

impl Origin {
    fn start() -> Self {
        let mut command = node();
        command.arg("origin").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("node cannot be run ({error}): {MISSING}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the origin should print its port, not {line:?}"));
        Origin { child, port }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // An error means that it ended before, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Node with our script and the folder that npm has filled.
fn node() -> Command {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let folder = target.join("cache-suite");
    let installed = folder.join("node_modules/http-cache-tests/package.json");
    assert!(installed.exists(), "{} is missing: {MISSING}", installed.display());
    let mut command = Command::new("node");
    command.arg("--no-warnings").arg(in_tests("cache_suite.mjs")).arg(folder);
    command
}

fn in_tests(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}
