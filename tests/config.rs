//! The configuration language through its public door: every mistake with our exact words, and every file we ship.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use portcullis::config::{self, Checked, Problem, Surroundings};
use proptest::prelude::*;

/// 2026-01-01: the certificates made below are good for centuries, apart from one that ends ten days after it.
const NOW: i64 = 1_767_225_600;

/// A world with some certificates and the environment variable `PORT`.
fn world() -> Surroundings {
    thread_local! { static FILES: HashMap<PathBuf, Vec<u8>> = files(); }
    Surroundings {
        folder: PathBuf::from("/etc/portcullis"),
        environment: Box::new(|name| (name == "PORT").then(|| "8000".to_owned())),
        read_file: Box::new(|path| {
            let found = FILES.with(|files| files.get(path).cloned());
            found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
        }),
        has_directory: Box::new(|path| path == Path::new("/var/lib/acme")),
        now: NOW,
        open_files: Some(1_048_576),
    }
}

fn files() -> HashMap<PathBuf, Vec<u8>> {
    let mut files = HashMap::new();
    let mut put = |name: &str, text: String| files.insert(Path::new("/etc/portcullis/certs").join(name), text.into());
    for name in ["example", "other", "client"] {
        let made = rcgen::generate_simple_self_signed([format!("{name}.com")]).unwrap();
        put(&format!("{name}.pem"), made.cert.pem());
        put(&format!("{name}.key"), made.signing_key.serialize_pem());
    }
    let mut params = rcgen::CertificateParams::new(["old.com".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2026, 1, 11);
    let key = rcgen::KeyPair::generate().unwrap();
    put("old.pem", params.self_signed(&key).unwrap().pem());
    put("old.key", key.serialize_pem());
    put("empty.pem", "nothing here\n".into());
    files
}

fn read(text: &str, name: &str) -> Result<Checked, Vec<Problem>> {
    config::parse(text, name, &world())
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(yaml_files(path.to_str().unwrap()));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Compares with a file that `BLESS=1` rewrites.
fn golden(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, wanted, "{}: BLESS=1 rewrites it", path.display());
}

#[test]
fn every_mistake_is_told_in_our_exact_words() {
    let files = yaml_files("tests/config");
    assert!(files.len() >= 25, "there are {} mistakes", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let problems = match read(&text, path.file_name().unwrap().to_str().unwrap()) {
            Ok(checked) => checked.warnings,
            Err(errors) => errors,
        };
        assert!(!problems.is_empty(), "{} is a mistake", path.display());
        assert!(problems.iter().all(|problem| !problem.help.is_empty() && !problem.key.is_empty()));
        let shown: Vec<String> = problems.iter().map(|problem| format!("{problem}\n")).collect();
        golden(&path.with_extension("txt"), &shown.concat());
    }
}

#[test]
fn every_file_we_ship_is_good_and_gives_no_warning() {
    let files = yaml_files("conf");
    assert!(files.len() >= 9);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        match read(&text, path.to_str().unwrap()) {
            Ok(checked) => assert_eq!(checked.warnings, [], "{}", path.display()),
            Err(errors) => panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>()),
        }
    }
}

#[test]
fn the_full_file_shows_every_key_at_its_default() {
    let full = std::fs::read_to_string("conf/full.yaml").unwrap();
    let written = read(&full, "full.yaml").unwrap().config;
    let minimal = std::fs::read_to_string("conf/minimal.yaml").unwrap();
    assert_eq!(written, read(&minimal, "minimal.yaml").unwrap().config);
    for key in config::known_keys() {
        let last = key.rsplit(['.', ']']).next().unwrap();
        assert!(full.contains(&format!("{last}:")), "conf/full.yaml shows no {key}");
    }
}

#[test]
fn the_schema_that_editors_read_is_up_to_date() {
    golden(Path::new("conf/portcullis.schema.json"), &config::schema());
}
