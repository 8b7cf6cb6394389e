//! Are the manuals true? Every command in them runs, every link leads somewhere, every recipe is a file that we ship.
//!
//! A page's commands run one after the other beside a front door of their own, whose ports stand in for those of the
//! manual. What a test machine cannot do (build, start services) is done by stand-ins, which refuse what they do not
//! know. The YAML of the manuals is read by `tests/config.rs`.

use crate::support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser;
use clap::error::ErrorKind;
use portcullis::cli::Cli;
use support::Portcullis;

/// What the pages ask: an upstream with backends as in the examples, keys, a cache and logs.
const WORLD: &str = "
server: { upgrade_socket: upgrade.sock, grace_period: 1s }
listeners:
  - { address: 127.0.0.1:0, tls: { self_signed: [localhost, shop.example] } }
  - { address: 127.0.0.1:0 }
upstreams:
  app:
    backends:
      - { url: 127.0.0.1:1, name: \"10.0.0.1:8000\" }
      - { url: 127.0.0.1:2, name: \"10.0.0.2:8000\" }
    health_check: none
    DISCOVER
keys: { team: { sqlite: keys.db } }
log: { access: access.log }
admin: { address: 127.0.0.1:0, token: \"file:etc/admin.token\" }
routes:
  - { name: rest, respond: { body: here } }
  - { name: app, match: { path: /app/* }, upstream: app, cache: {} }
  - { name: api, match: { path: /v1/* }, upstream: app, auth: { api_keys: team } }
";

/// Programs in the place of the real ones, found first. They get `ROOT`, `REAL` and the ports from the test.
const STAND_INS: &[(&str, &str)] = &[
    // What would serve for ever is only read.
    (
        "portcullis",
        "case $1 in run) shift; set -- check \"$@\";; demo) set -- \"$@\" --help;; esac\nexec \"$REAL\" \"$@\"",
    ),
    // The ports of the manual lead to ours, and who leaves the token out has one.
    (
        "curl",
        "case $* in *Authorization*) ;; *) set -- -H \"Authorization: Bearer $TOKEN\" \"$@\";; esac\nexec \"$CURL\" -sSk --fail-with-body --noproxy '*' --max-time 20 --connect-to \":9901:127.0.0.1:$ADMIN_PORT\" \
         --connect-to \":8080:127.0.0.1:$PLAIN_PORT\" --connect-to \":8443:127.0.0.1:$TLS_PORT\" \
         --connect-to \":443:127.0.0.1:$TLS_PORT\" \"$@\"",
    ),
    // The youngest that runs in this folder: other tests run the same program.
    (
        "pidof",
        "for it in /proc/[0-9]*; do\n  [ \"$(readlink \"$it/cwd\")\" = \"$PWD\" ] && read -r name <\"$it/comm\" && \
         [ \"$name\" = \"$1\" ] && cut -d' ' -f1,22 \"$it/stat\"\ndone 2>/dev/null | sort -nk2 | tail -1 | cut -d' ' -f1 | grep .",
    ),
    (
        "systemctl",
        "case $1 in kill) kill \"-${2#--signal=}\" \"$(pidof \"$3\")\";; *) echo \"systemctl $*?\"; exit 1;; esac",
    ),
    (
        "cargo",
        "case $* in\n  'build --release') ;;\n  'run --release -- '*) shift 3; exec portcullis \"$@\" ;;\n  \
         'test --test '*) test -f \"$ROOT/tests/$3.rs\" ;;\n  '+nightly fuzz list') test -d \"$ROOT/fuzz/fuzz_targets\" ;;\n  \
         '+nightly fuzz run '*) test -f \"$ROOT/fuzz/fuzz_targets/$4.rs\" ;;\n  *) echo \"cargo $*?\"; exit 1 ;;\nesac",
    ),
    ("python3", "[ \"$1 $2\" = '-m http.server' ]"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// README and manuals, by their paths below the project.
fn pages() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned()];
    let docs =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.extend(docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    names.sort();
    names.into_iter().map(|name| (fs::read_to_string(root().join(&name)).unwrap(), name)).map(|(a, b)| (b, a)).collect()
}

/// The language and the text of each block between fences.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, text))) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    found
}

/// What is typed: all of a block in `sh`, and what stands behind a prompt in `console`.
fn typed(page: &str) -> Vec<String> {
    let prompted = |text: &str| text.lines().filter_map(|line| line.strip_prefix("$ ")).collect::<Vec<_>>().join("\n");
    let typed = blocks(page).into_iter().filter_map(|(language, text)| match language.as_str() {
        "sh" => Some(text),
        "console" => Some(prompted(&text)),
        _ => None,
    });
    typed.collect()
}

#[test]
fn a_block_says_what_it_is_and_hides_no_command() {
    for (name, page) in pages() {
        for (language, text) in blocks(&page) {
            let known = ["sh", "console", "yaml", "json", "text", "rust,no_run"].contains(&language.as_str());
            assert!(known, "{name}: a block of {language:?}:\n{text}");
            let commands = ["$ ", "portcullis ", "curl ", "cargo "];
            let hidden = language == "text" && text.lines().any(|line| commands.iter().any(|it| line.starts_with(it)));
            assert!(!hidden, "{name}: commands belong in sh or console:\n{text}");
            if language == "json" {
                let whole = serde_json::from_str::<serde_json::Value>(&text).is_ok();
                let lines = text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
                assert!(whole || lines, "{name}: no JSON:\n{text}");
            }
        }
    }
}

#[tokio::test]
async fn every_command_in_the_manuals_runs() {
    let mut count = 0;
    for (name, page) in pages() {
        let scripts = typed(&page);
        if scripts.is_empty() {
            continue;
        }
        count += scripts.len();
        let scene = Scene::for_page(&page).await;
        for script in scripts {
            scene.run(&name, &script);
        }
    }
    assert!(count >= 15, "there are {count} snippets");
}

/// A folder with the stand-ins, and a front door that runs in it.
struct Scene {
    program: Portcullis,
    ports: [(&'static str, String); 3],
}

impl Scene {
    async fn for_page(page: &str) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        for below in ["bin", "etc", "target", "target/release"] {
            fs::create_dir(folder.path().join(below)).unwrap();
        }
        put("etc/admin.token", "a-token-of-the-manual\n");
        // Whoever waits for members is not ready before the first has come.
        let registers = if page.contains("register: {") { "discover: { register: { ttl: 1h } }" } else { "" };
        put("portcullis.yaml", &WORLD.replace("DISCOVER", registers));
        for (name, script) in STAND_INS {
            put(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        }
        put("test", "#!/bin/sh\n[ -x \"$ROOT/test\" ]\n");
        let made = Command::new("chmod").args(["-R", "+x", "bin", "test"]).current_dir(folder.path()).status().unwrap();
        assert!(made.success());
        let link = |to: PathBuf, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        link(folder.path().join("bin/portcullis"), "target/release/portcullis");
        link(root().join("conf"), "conf");

        let program = Portcullis::start(folder, &["run"]);
        let port = |line: &str| line.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
        let listening = program.lines_with("listening on ", 2).await;
        let admin = program.line_with("/readyz on ").await;
        let ports =
            [("TLS_PORT", port(&listening[0])), ("PLAIN_PORT", port(&listening[1])), ("ADMIN_PORT", port(&admin))];
        Scene { program, ports }
    }

    fn run(&self, page: &str, script: &str) {
        let file = self.program.file();
        let folder = file.parent().unwrap();
        let script = script.replace("/etc/portcullis/", "etc/");
        let mut command = Command::new("bash");
        command.args(["-euxo", "pipefail", "-c", &script]).current_dir(folder).stdin(Stdio::null());
        command.env("PATH", format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap()));
        command.env("REAL", env!("CARGO_BIN_EXE_portcullis")).env("ROOT", root()).env("CURL", found("curl"));
        command.env("TOKEN", "a-token-of-the-manual").env("KEY", "a-key-of-somebody").envs(self.ports.clone());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{page}: {:?}:\n{script}\n{said}", output.status.code());
    }
}

/// Where this program is; the stand-in with its name must not find itself.
fn found(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap();
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|it| it.is_file()).unwrap()
}

#[test]
fn what_the_text_calls_a_command_is_one() {
    let mut count = 0;
    for (name, page) in pages() {
        for code in page.split('`').skip(1).step_by(2).filter(|code| code.starts_with("portcullis ")) {
            let words = code.split(['>', '|']).next().unwrap().split_whitespace();
            let error = Cli::try_parse_from(words).err();
            // Half a command names it; what is missing is said elsewhere.
            let half = |kind| {
                matches!(
                    kind,
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::DisplayHelp
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                )
            };
            let wrong = error.filter(|error| !half(error.kind()));
            assert!(wrong.is_none(), "{name}: `{code}`: {}", wrong.unwrap());
            count += 1;
        }
    }
    assert!(count >= 10, "there are {count} commands");
}

/// A heading as GitHub and mdBook call it in an address.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

/// The text without its blocks, in which a `#` is no heading.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

fn anchors(page: &str) -> Vec<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
    let mut found: Vec<String> = Vec::new();
    let mut times = HashMap::new();
    for heading in headings {
        let time = times.entry(heading.clone()).or_insert(0);
        found.push(if *time == 0 { heading } else { format!("{heading}-{time}") });
        *time += 1;
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    let mut count = 0;
    for (name, page) in pages() {
        let prose = prose(&page);
        let links = prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links.filter(|link| !link.contains("://")) {
            count += 1;
            let (path, place) = link.split_once('#').map_or((link, None), |(path, place)| (path, Some(place)));
            let here = root().join(&name);
            let target = if path.is_empty() { here.clone() } else { here.parent().unwrap().join(path) };
            let inside = !name.starts_with("docs/") || !path.starts_with("..");
            let leads = target.exists() && inside;
            let named = place.is_none_or(|place| {
                fs::read_to_string(&target).is_ok_and(|text| anchors(&text).iter().any(|it| it == place))
            });
            if !(leads && named) {
                dead.push(format!("{name}: {link}"));
            }
        }
    }
    assert_eq!(dead, [""; 0], "links to nowhere, or out of the book");
    assert!(count >= 60, "there are {count} links");
}

#[test]
fn every_recipe_is_a_file_that_we_ship() {
    let page = fs::read_to_string(root().join("docs/recipes.md")).unwrap();
    let mut shipped = Vec::new();
    for entry in fs::read_dir(root().join("conf/recipes")).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap();
        let named = format!("`conf/recipes/{}`:\n", entry.file_name().into_string().unwrap());
        assert!(page.contains(&named), "docs/recipes.md does not show {named}");
        // What the file says of itself first is the text above it on the page.
        let lines = text.lines().skip_while(|line| line.starts_with('#') || line.is_empty());
        shipped.push(lines.map(|line| format!("{line}\n")).collect::<String>());
    }
    let shown: Vec<_> =
        blocks(&page).into_iter().filter(|(language, _)| language == "yaml").map(|(_, text)| text).collect();
    let strange: Vec<_> = shown.iter().filter(|text| !shipped.contains(text)).collect();
    assert_eq!(strange, [""; 0], "blocks of docs/recipes.md that are no file in conf/recipes");
    assert_eq!(shown.len(), shipped.len());
}
