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
        keeps_files: Box::new(|path| match path.starts_with("/var/cache") {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "permission denied")),
        }),
        now: NOW,
        additions: std::sync::Arc::default(),
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
    let mut put = |name: &str, text: &str| files.insert(Path::new("/etc/portcullis").join(name), text.into());
    put("/run/secrets/billing", "a-token-of-enough-bytes");
    put("users", "ann:$2y$04$abcdefghijklmnopqrstuuFuhxWRTXIsURoluSTZ1N4tYaWGn9oOi\n");
    put("plain-users", "# staff\nann:opensesame\n");
    put("empty-users", "");
    let ed25519 =
        r#"{ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] }"#;
    put("jwks.json", ed25519);
    let hash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    put("keys.yaml", &format!("- {{ name: ci, hash: {hash}, routes: [ap] }}\n"));
    put(
        "bad-keys.yaml",
        &format!(
            "- name: pck_Zk3uT9aB_hunter2\n  hash: {hash}\n  expires: tomorrow\n- pck_Zk3uT9aB_hunter2\n- name: ci\n  \
             hash: pck_Zk3uT9aB_hunter2\n- {{ name: ci, hash: {hash}, methods: [get], plann: gold }}\n"
        ),
    );
    for name in ["404.html", "5xx.html", "5xx.json"] {
        put(&format!("errors/{name}"), "sorry\n");
    }
    put("errors/empty.html", "");
    put("networks", "# offices\n10.0.0.0/8\n2001:db8::/32\n");
    put("bad-networks", "10.0.0.0/8\n\n10.0.0.0/33 # too long\n");
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
    // They say it in other words, which the outline shows.
    let minimal = read(&minimal, "minimal.yaml").unwrap().config;
    assert_eq!(written, config::Config { outline: written.outline.clone(), ..minimal });
    for key in config::known_keys() {
        let last = key.rsplit(['.', ']']).next().unwrap();
        assert!(full.contains(&format!("{last}:")), "conf/full.yaml shows no {key}");
    }
}

#[test]
fn the_schema_that_editors_read_is_up_to_date() {
    golden(Path::new("conf/portcullis.schema.json"), &config::schema());
}

#[test]
fn a_world_without_enough_open_files_is_told_even_at_the_default() {
    let minimal = std::fs::read_to_string("conf/minimal.yaml").unwrap();
    let warnings = |open_files| {
        let around = Surroundings { open_files, ..world() };
        config::parse(&minimal, "minimal.yaml", &around).unwrap().warnings.len()
    };
    assert_eq!([warnings(Some(1_048_576)), warnings(Some(65_536)), warnings(None), warnings(Some(1024))], [0, 0, 0, 1]);
}

#[test]
fn a_file_on_disk_is_read_with_its_own_folder_for_relative_paths() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap();
    std::fs::write(folder.path().join("a.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("a.key"), made.signing_key.serialize_pem()).unwrap();
    let file = folder.path().join("edge.yaml");
    let tls = "tls: { certificates: [{ cert: a.pem, key: a.key }] }";
    let text = format!("listeners: [{{ address: 127.0.0.1:0, {tls} }}]\nroutes: [{{ respond: {{}} }}]\n");
    std::fs::write(&file, text).unwrap();
    let listener = &config::load(&file, &Default::default()).unwrap().config.listeners[0];
    assert_eq!(listener.tls.as_ref().unwrap().certificates[0].cert, folder.path().join("a.pem"));

    let missing = config::load(&folder.path().join("none.yaml"), &Default::default()).unwrap_err();
    assert!(missing[0].what.contains("cannot be read"), "{missing:?}");
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(config::load(&file, &Default::default()).unwrap_err()[0].what.contains("UTF-8"));
}

#[test]
fn files_are_kept_where_a_folder_is_or_can_be_made_and_a_check_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let around = Surroundings::of_process(folder.path().into());
    let kept = |name: &str| (around.keeps_files)(&folder.path().join(name)).map_err(|error| error.kind());
    assert_eq!((kept(""), kept("tier")), (Ok(()), Ok(())));
    assert_eq!(kept("file"), Err(io::ErrorKind::NotADirectory));
    assert_eq!(kept("file/tier"), Err(io::ErrorKind::NotADirectory));
    assert_eq!(kept("no/tier"), Err(io::ErrorKind::NotFound));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // A file beside the program may be named without any folder.
    assert!((around.keeps_files)(Path::new("tier")).is_ok());
}

#[test]
fn ten_thousand_routes_are_not_too_many() {
    let mut text = std::fs::read_to_string("conf/minimal.yaml").unwrap();
    for index in 0..10_000 {
        text.push_str(&format!("  - {{ match: {{ path: /part/{index}/* }}, upstream: app }}\n"));
    }
    assert_eq!(read(&text, "large.yaml").unwrap().config.routes.len(), 10_001);
}

#[test]
fn every_key_is_in_the_manual() {
    let manual = std::fs::read_to_string("docs/configuration.md").unwrap();
    for key in config::known_keys() {
        assert!(manual.contains(&format!("`{key}`")), "docs/configuration.md does not explain `{key}`");
    }
}

/// An example with what it leaves out of a file.
fn completed(example: &str) -> String {
    let rest = ["listeners: [{ address: 127.0.0.1:8080 }]", "upstreams: { app: { backends: [127.0.0.1:8000] } }"];
    let mut whole = example.to_owned();
    for section in rest.iter().chain(&["routes: [{ upstream: app }]"]) {
        let name = section.split(':').next().unwrap();
        if !example.lines().any(|line| line.starts_with(&format!("{name}:"))) {
            whole.push_str(&format!("{section}\n"));
        }
    }
    whole
}

#[test]
fn every_example_in_the_manuals_is_good() {
    let mut examples = 0;
    let mut bad = Vec::new();
    for page in std::fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(&page) else { continue };
        for block in text.split("```yaml\n").skip(1) {
            let example = block.split("```").next().unwrap();
            // What Prometheus reads is not ours to check, and a list of keys is a file of its own.
            if example.contains("scrape_configs:") || example.starts_with("- ") {
                continue;
            }
            let whole = completed(example);
            match read(&whole, &page.display().to_string()) {
                Ok(checked) if checked.warnings.is_empty() => examples += 1,
                Ok(checked) => bad.push(format!("{whole}{:#?}", checked.warnings)),
                Err(errors) => bad.push(format!("{whole}{errors:#?}")),
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
    assert!(examples >= 35, "there are {examples} examples");
}

#[test]
fn every_page_of_the_manual_is_in_its_table_of_contents() {
    let contents = std::fs::read_to_string("docs/SUMMARY.md").unwrap();
    for page in std::fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        if page.ends_with(".md") && page != "SUMMARY.md" {
            assert!(contents.contains(&format!("({page})")), "docs/SUMMARY.md does not name {page}");
        }
    }
}

/// One change of a text: letters taken out, put in, or doubled.
fn mutated(text: &str, changes: &[(usize, usize, String)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, length, insert) in changes {
        let start = at % (chars.len() + 1);
        let end = (start + length).min(chars.len());
        chars.splice(start..end, insert.chars());
    }
    chars.into_iter().collect()
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*|[\\[\\]{}:,&*!|>'\"%@`#\\- \n\t$a-z0-9]{0,200}") {
        let _ = read(&text, "any");
    }

    #[test]
    fn no_change_of_a_good_file_makes_it_panic(
        changes in proptest::collection::vec((any::<usize>(), 0..40_usize, "[\\[\\]{}:,&*!|>'\" #\\-\n\ta-z0-9%$]{0,6}"), 1..6),
    ) {
        let full = std::fs::read_to_string("conf/full.yaml").unwrap();
        if let Err(problems) = read(&mutated(&full, &changes), "mutated") {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| !problem.what.is_empty() && !problem.help.is_empty()));
        }
    }

    #[test]
    fn nesting_without_end_is_refused(depth in 30..5_000_usize, open in "[\\[{]") {
        prop_assert!(read(&open.repeat(depth), "deep").is_err());
        let lines: String = (0..depth.min(300)).map(|indent| format!("{}a:\n", " ".repeat(indent))).collect();
        prop_assert!(read(&lines, "deep").is_err());
    }
}
