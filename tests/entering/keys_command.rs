//! `portcullis keys`: what it prints, what it changes in front doors that run, and its exit codes.

use crate::support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Client, Portcullis, in_time};
use tempfile::TempDir;
use tokio::time::interval;

const KEYS: &str = "keys: { team: { sqlite: keys.db }, old: { file: keys.yaml } }\n";

fn folder_with(more: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: none }}\n{more}\
         routes:\n  - {{ name: api, respond: {{ body: in }}, auth: {{ api_keys: team }} }}\n"
    );
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    std::fs::write(folder.path().join("keys.yaml"), "[]").unwrap();
    folder
}

/// `portcullis keys` with these words: its exit code, standard output and standard error.
fn keys(folder: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = command.arg("keys").args(words).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn good(folder: &Path, words: &[&str]) -> String {
    let (code, out, said) = keys(folder, words);
    assert_eq!(code, Some(0), "{words:?}: {said}");
    out
}

fn listed(folder: &Path) -> Vec<Value> {
    serde_json::from_str(&good(folder, &["list", "--store", "team", "--json"])).unwrap()
}

#[track_caller]
fn refused(folder: &Path, words: &[&str], expected: i32, parts: &[&str]) {
    let (code, out, said) = keys(folder, words);
    assert_eq!((code, out.as_str()), (Some(expected), ""), "{words:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{words:?} should say {part}: {said}");
    }
}

#[test]
fn a_key_is_shown_once_and_listed_without_its_secret() {
    let folder = folder_with(KEYS);
    let words = ["new", "--store", "team", "--name", "ci", "--plan", "gold", "--route", "api", "--method", "get"];
    let more = ["--address", "10.1.2.3/8", "--expires", "2999-01-01T00:00:00Z", "-c", "portcullis.yaml"];
    let key = good(folder.path(), &[&words[..], &more[..]].concat());
    let parts: Vec<_> = key.split('_').collect();
    assert_eq!((parts[0], parts.len()), ("pck", 3));

    let all = listed(folder.path());
    assert_eq!((&all[0]["id"], &all[0]["state"]), (&parts[1].into(), &"good".into()));
    assert_eq!(all[0]["methods"], serde_json::json!(["GET"]));
    assert_eq!(all[0]["addresses"], serde_json::json!(["10.0.0.0/8"]));
    let table = good(folder.path(), &["list", "--store", "team"]);
    for shown in ["ID", "ci", "gold", "2999-01-01T00:00:00Z", "api GET 10.0.0.0/8", parts[1]] {
        assert!(table.contains(shown), "{table}");
    }
    assert!(!format!("{all:?}{table}").contains(parts[2]) && !format!("{all:?}{table}").contains("hash"));
}

#[tokio::test]
async fn a_front_door_that_runs_knows_every_change_without_a_reload() {
    let program = Portcullis::start(folder_with(KEYS), &["run"]);
    let folder = program.file().parent().unwrap().to_owned();
    let address = program.line_with("listening on ").await.rsplit(' ').next().unwrap().parse().unwrap();
    let until = async |key: &str, status: u16| {
        let asking = async {
            let mut tick = interval(Duration::from_millis(20));
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n");
            while Client::tcp(address).await.exchange(&request).await.status != status {
                tick.tick().await;
            }
        };
        in_time(&format!("{key} should get {status}"), asking).await;
    };
    until("whatever it may be", 503).await;
    let key = good(&folder, &["new", "--store", "team", "--name", "ci"]);
    until(&key, 200).await;
    let next = good(&folder, &["rotate", "ci", "--store", "team", "--overlap", "1h"]);
    until(&next, 200).await;
    until(&key, 200).await;
    let last = good(&folder, &["rotate", "ci", "--store", "team", "--overlap", "0s"]);
    until(&last, 200).await;
    until(&key, 401).await;
    until(&next, 401).await;
    let id = last.split('_').nth(1).unwrap();
    assert_eq!(good(&folder, &["revoke", id, "--store", "team"]), format!("revoked {id}"));
    until(&last, 401).await;
    let told = program.lines().into_iter().filter(|line| line.contains("keys.db")).collect::<Vec<_>>();
    assert_eq!(told.len(), 2, "once that it is missing, once that it is there: {told:#?}");
}

#[test]
fn many_who_change_a_store_at_once_wait_for_each_other() {
    let folder = folder_with(KEYS);
    std::thread::scope(|scope| {
        for owner in 0..8 {
            let folder = folder.path();
            scope.spawn(move || good(folder, &["new", "--store", "team", "--name", &format!("n{owner}")]));
        }
    });
    assert_eq!(listed(folder.path()).len(), 8);
}

#[test]
fn what_cannot_be_done_is_said_in_clear_words() {
    let folder = folder_with(KEYS);
    let at = folder.path();
    let team = |words: &[&'static str]| [words, &["--store", "team"]].concat();
    refused(at, &team(&["list"]), 69, &["keys.db: there is no such file", "help: `portcullis keys new` makes it"]);
    good(at, &team(&["new", "--name", "ci"]));
    refused(at, &["new", "--name", "x"], 64, &["several stores", "team, old"]);
    refused(at, &["new", "--name", "x", "--store", "nope"], 64, &["no store of keys is called `nope`", "team, old"]);
    refused(at, &["list", "--store", "old"], 64, &["changed by hand", "keys new --hash-only --name NAME >> keys.yaml"]);
    refused(at, &team(&["new", "--name", "x", "--route", "web"]), 64, &["no route is called `web`", "api"]);
    refused(at, &team(&["new", "--name", "pck_a_b"]), 64, &["must not be a key"]);
    refused(at, &team(&["new", "--name", "x", "--expires", "soon"]), 64, &["a time with its zone"]);
    refused(at, &team(&["new", "--name", "x", "--expires", "2020-01-01T00:00:00Z"]), 64, &["a time that is over"]);
    refused(at, &team(&["new", "--name", "x", "--expires", "1d", "--not-before", "2d"]), 64, &["not after"]);
    refused(at, &team(&["new"]), 64, &["--name"]);
    refused(at, &team(&["revoke", "nobody"]), 64, &["no good key of `nobody`", "keys list"]);
    refused(at, &team(&["rotate", "nobody"]), 64, &["no good key of `nobody`"]);
    refused(at, &team(&["rotate", "ci", "--overlap", "2"]), 64, &["--overlap"]);
    refused(at, &["list", "-c", "nowhere.yaml"], 78, &["nowhere.yaml"]);
    let (_, _, said) = keys(at, &team(&["revoke", "pck_Zk3uT9aB_hunter2"]));
    assert!(!said.contains("hunter2"), "{said}");
    assert!(good(at, &team(&["revoke", "ci"])).starts_with("revoked "));
    assert_eq!(good(at, &team(&["revoke", "ci"])), "ci was revoked before");
    refused(at, &team(&["rotate", "ci"]), 64, &["no good key"]);
}

#[test]
fn a_store_that_is_locked_damaged_or_read_only_is_said_to_be() {
    let folder = folder_with(KEYS);
    let (at, path) = (folder.path(), folder.path().join("keys.db"));
    let new = ["new", "--store", "team", "--name", "ci"];
    good(at, &new);
    let holder = rusqlite::Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    refused(at, &new, 69, &["another program has it locked", "fuser"]);
    drop(holder);
    std::fs::write(
        &path,
        "no database, but long enough to be taken for the head of one, which has a hundred bytes.....",
    )
    .unwrap();
    refused(at, &new, 69, &["no store of keys, or it is damaged"]);
    std::fs::remove_file(&path).unwrap();
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Whoever is root may write anywhere.
    if std::fs::write(at.join("probe"), "").is_err() {
        refused(at, &new, 69, &["cannot be opened", "run this as the user"]);
    }
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn without_a_store_it_says_how_to_have_one() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "listeners: [{ address: 127.0.0.1:0 }]\nroutes: [{ respond: {} }]\n";
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    refused(
        folder.path(),
        &["new", "--name", "ci"],
        64,
        &["has no store of keys", "keys: { team: { sqlite: keys.db } }"],
    );
}
