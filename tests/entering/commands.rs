//! What can be typed: every command, its words and its exit code; and that the files in `conf/` run as they are.

use crate::support;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::tls::{Certificate, Offer};
use support::{Client, Portcullis};
use tempfile::TempDir;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    words(&Portcullis::output(arguments))
}

/// Exit code, standard output and standard error.
fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The program in this folder, run to its end.
fn run_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    words(&command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap())
}

fn folder_with(yaml: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    folder
}

fn address_in(line: &str) -> SocketAddr {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn version_is_the_one_of_the_package() {
    let version = format!("portcullis {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"]), (Some(0), version, String::new()));
}

#[test]
fn help_names_every_command_with_examples_and_exit_codes() {
    let (code, help, complaints) = run(&["--help"]);

    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    for part in
        ["run", "check", "schema", "demo", "Examples:", "portcullis run -c portcullis.yaml", "Exit codes: 0 fine"]
    {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
}

#[test]
fn shells_and_manual_know_every_command() {
    let commands = ["run", "check", "upgrade", "keys", "schema", "demo", "completions", "man"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, Some(0));
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}: {script}");
    }
    let (code, page, _) = run(&["man"]);
    assert_eq!(code, Some(0));
    assert!(page.starts_with(".ie") && page.contains(".TH portcullis 1"), "{page}");
    for command in commands.iter().filter(|&&command| command != "keys").map(|it| it.to_uppercase()) {
        assert!(page.contains(&format!(".SH PORTCULLIS {command}")), "{command}: {page}");
    }
    assert!(page.contains(".SH PORTCULLIS KEYS NEW"), "{page}");
    assert!(!page.contains("successor"), "what one process says to another is not for people");
}

#[test]
fn bad_flags_exit_with_64_and_nothing_on_standard_output() {
    for (arguments, word) in [
        (&[][..], "Usage:"),
        (&["--frobnicate"], "--frobnicate"),
        (&["serve"], "serve"),
        (&["run", "--confg", "x"], "--config"),
        (&["run", "-c"], "<FILE>"),
        (&["check", "one", "two"], "one"),
    ] {
        let (code, out, complaints) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(complaints.contains(word), "{arguments:?}: {complaints}");
    }
}

#[test]
fn check_says_ok_or_every_problem_at_once() {
    let good = folder_with("listeners: [{ address: 127.0.0.1:0 }]\nroutes: [{ respond: { status: 200, body: x } }]\n");
    let ok = (Some(0), "portcullis.yaml: ok\n".to_owned(), String::new());
    assert_eq!(run_in(good.path(), &["check", "-c", "portcullis.yaml"]), ok);
    assert_eq!(run_in(good.path(), &["check"]), ok, "it looks for the file by itself");

    let bad = folder_with(
        "listeners: [{ address: 127.0.0.1:0 }]\nupstreams:\n  checkout: { backends: [127.0.0.1:1] }\n\
         routes:\n  - upstream: checkuot\n    timeout: 3 fortnights\n",
    );
    let (code, out, complaints) = run_in(bad.path(), &["check", "-c", "portcullis.yaml"]);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    let lines = complaints.lines().collect::<Vec<_>>();
    assert_eq!(lines[0], "portcullis.yaml:5:15: routes[0].upstream: no upstream is called `checkuot`");
    assert!(lines[1].starts_with("  help: did you mean `checkout`?"), "{complaints}");
    assert!(lines.iter().any(|line| line.starts_with("portcullis.yaml:6:14: routes[0].timeout: ")), "{complaints}");
}

#[test]
fn run_with_a_bad_file_or_none_exits_with_78() {
    let bad = folder_with("listeners: 7\n");
    let (code, out, complaints) = run_in(bad.path(), &["run"]);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(complaints.starts_with("portcullis.yaml:1:12: listeners: "), "{complaints}");

    let (code, _, complaints) = run_in(bad.path(), &["run", "-c", "missing.yaml"]);
    assert_eq!(code, Some(78));
    assert!(complaints.starts_with("missing.yaml: it cannot be read: No such file"), "{complaints}");

    let empty = tempfile::tempdir().unwrap();
    let (code, _, complaints) = run_in(empty.path(), &["run"]);
    assert_eq!(code, Some(78));
    assert!(complaints.contains("portcullis.yaml and /etc/portcullis/portcullis.yaml do not exist"), "{complaints}");
    assert!(complaints.contains("help: name one with -c FILE"), "{complaints}");
}

#[tokio::test]
async fn run_finds_the_file_of_its_folder() {
    let yaml = "listeners: [{ address: 127.0.0.1:0 }]\nroutes: [{ respond: { status: 200, body: here } }]\n\
                admin: { address: none }\n";
    let program = Portcullis::start(folder_with(yaml), &["run"]);

    let address = address_in(&program.line_with("listening on ").await);

    assert_eq!(Client::tcp(address).await.exchange(GET).await.body, "here");
}

#[test]
fn every_address_that_cannot_be_listened_on_is_said_in_plain_words() {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [address, admin] = [0, 1].map(|place: usize| taken[place].local_addr().unwrap());
    let folder = folder_with(&format!(
        "listeners:\n  - {{ address: \"unix:edge.sock\" }}\n  - {{ address: {address} }}\n  - {{ address: 192.0.2.1:8080 }}\n\
         admin: {{ address: {admin} }}\nroutes: [{{ respond: {{ status: 200, body: x }} }}]\n"
    ));

    let (code, out, complaints) = run_in(folder.path(), &["run"]);

    assert_eq!((code, out.as_str()), (Some(69), ""));
    let in_use = "is in use by another process\n  help: `ss -ltnp` shows by which; stop it, or choose another port\n";
    let not_ours = "192.0.2.1:8080 is not an address of this machine\n  help: `ip address` shows this machine's; 0.0.0.0 \
                    and [::] mean all of them\n";
    let all = format!(
        "portcullis: listeners[1].address: {address} {in_use}listeners[2].address: {not_ours}admin.address: {admin} {in_use}"
    );
    assert_eq!(complaints, all);
    assert!(!folder.path().join("edge.sock").exists(), "what was opened is closed again");
}

#[test]
fn schema_is_the_one_in_the_repository() {
    let (code, schema, _) = run(&["schema"]);

    assert_eq!(code, Some(0));
    let kept = std::fs::read_to_string(root().join("conf/portcullis.schema.json")).unwrap();
    assert_eq!(schema.trim_end(), kept.trim_end(), "portcullis schema > conf/portcullis.schema.json");
}

#[test]
fn a_closed_standard_output_is_no_panic() {
    for arguments in [&["schema"][..], &["--help"], &["--version"], &["check", "-c", "conf/minimal.yaml"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        let output =
            command.args(arguments).current_dir(root()).stdout(writer).stderr(Stdio::piped()).output().unwrap();

        let (code, _, complaints) = words(&output);
        assert!(matches!(code, Some(0 | 1)), "{arguments:?}: {code:?}");
        assert!(!complaints.contains("panicked"), "{complaints}");
    }
}

#[tokio::test]
async fn the_access_log_may_lose_its_reader() {
    let yaml = "listeners: [{ address: 127.0.0.1:0 }]\nroutes: [{ respond: { status: 200, body: here } }]\n\
                admin: { address: none }\n";
    let folder = folder_with(yaml);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let program = Portcullis::start_with(folder, &["run"], |command| {
        command.stdout(writer);
    });
    let address = address_in(&program.line_with("listening on ").await);

    for _ in 0..20 {
        assert_eq!(Client::tcp(address).await.exchange(GET).await.status, 200);
    }

    assert!(!program.lines().iter().any(|line| line.contains("panicked")), "{:?}", program.lines());
}

#[tokio::test]
async fn the_demonstration_serves_where_it_says() {
    let zero = |command: &mut Command| {
        command.envs([("DEMO_TLS_PORT", "0"), ("DEMO_PORT", "0"), ("DEMO_ADMIN_PORT", "0")]);
    };
    let mut program = Portcullis::start_with(tempfile::tempdir().unwrap(), &["demo"], zero);
    let lines = program.lines_with("listening on ", 2).await;
    let (tls, plain) = (address_in(&lines[0]), address_in(&lines[1]));

    let answer = Client::tls(tls, "localhost").await.exchange(GET).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("/, answered by the "), "{answer:?}");
    assert!(["steady", "slow", "flaky"].contains(&answer.field("x-backend-server").unwrap()));
    let teapot = Client::tcp(plain).await.exchange(GET.replace("/ ", "/teapot ")).await;
    assert_eq!((teapot.status, teapot.text().as_str()), (418, "short and stout\n"));

    program.line_with(&format!("curl -k https://localhost:{}/", tls.port())).await;
    program.line_with(&format!("curl -ki https://localhost:{}/hello", tls.port())).await;
    program.line_with(&format!("curl -i http://localhost:{}/teapot", plain.port())).await;
    program.line_with("steady").await;
    program.signal("TERM");
    assert_eq!(program.exit_code().await, Some(0));
}

#[test]
fn the_demonstration_says_when_its_port_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("demo").envs([("DEMO_TLS_PORT", "0"), ("DEMO_PORT", &port), ("DEMO_ADMIN_PORT", "0")]);

    let (code, _, complaints) = words(&command.stdin(Stdio::null()).output().unwrap());

    assert_eq!(code, Some(69));
    assert!(complaints.contains(&format!("127.0.0.1:{port} is in use by another process")), "{complaints}");
    assert!(!complaints.contains("Portcullis is up"), "{complaints}");
}

#[tokio::test]
async fn every_shipped_configuration_starts_and_answers() {
    let recipes = std::fs::read_dir(root().join("conf/recipes")).unwrap().map(|entry| entry.unwrap().path());
    let files = ["conf/minimal.yaml", "conf/full.yaml"].map(|file| root().join(file)).into_iter().chain(recipes);
    let mut count = 0;
    for file in files {
        let (folder, other) = folder_as_for(&file);
        let program = Portcullis::start(folder, &["run"]);
        let address = address_in(&program.line_with("listening on ").await);

        // One recipe asks clients for a certificate of this authority; the others do not mind.
        let offer = Offer { certificate: Some(&other), ..Offer::default() };
        let mut client = Client::tls_with(address, "example.com", &offer).await.unwrap();
        let answer = client.exchange("GET /shop/ HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
        // No backend is there; but one recipe has closed its shop.
        assert!(matches!(answer.status, 502 | 503), "{}: {answer:?}", file.display());
        count += 1;
    }
    assert!(count >= 10, "minimal, full and the recipes, not {count}");
}

#[tokio::test]
async fn the_recipe_for_redirects_redirects_and_serves_challenges() {
    let (folder, _) = folder_as_for(&root().join("conf/recipes/http-redirect.yaml"));
    std::fs::write(folder.path().join("certs/token"), "token.thumbprint").unwrap();
    let program = Portcullis::start(folder, &["run"]);
    let plain = address_in(&program.lines_with("listening on ", 2).await[1]);
    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
        Client::tcp(plain).await.exchange(request).await
    };

    let redirect = get("/a?b").await;
    assert_eq!((redirect.status, redirect.field("location")), (308, Some("https://example.com/a?b")));
    assert_eq!(get("/.well-known/acme-challenge/token").await.body, "token.thumbprint");
    assert_eq!(get("/.well-known/acme-challenge/other").await.status, 404);
}

/// A folder in which this file can run: on free ports, with certificates; and the one that stands for an authority.
fn folder_as_for(file: &Path) -> (TempDir, Certificate) {
    let folder = folder_with(&with_free_ports(&std::fs::read_to_string(file).unwrap()));
    let certs = folder.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    Certificate::for_names(&["example.com"]).save(&certs, "example");
    Certificate::for_names(&["client"]).save(&certs, "client");
    let other = Certificate::for_names(&["other.com"]);
    other.save(&certs, "other");
    (folder, other)
}

/// The same file where every address that is listened on has a port of the system's choosing, and no address is asked
/// for that could answer.
fn with_free_ports(yaml: &str) -> String {
    let port = |line: &str| {
        let listens = line.trim_start().trim_start_matches("- ").starts_with("address: ");
        match line.rsplit_once(':') {
            Some((start, port)) if listens && port.trim().parse::<u16>().is_ok() => format!("{start}:0"),
            _ => line.replace("127.0.0.1:8", "127.0.0.1:1"),
        }
    };
    let text = yaml.lines().map(port).collect::<Vec<_>>().join("\n");
    let text = text.replace("0.0.0.0:", "127.0.0.1:").replace("/var/lib/acme", "certs");
    let text = text.replace("/var/cache/portcullis", "certs").replace("eu.api.example.com", "localhost:1");
    let text = text.replace("us.api.example.com", "localhost:2");
    // Addresses of the documents' networks must neither be reached nor waited for.
    let text = text.replace("10.9.", "127.9.").replace("10.0.", "127.8.");
    if text.contains("\nadmin:") { text } else { format!("{text}\nadmin: {{ address: 127.0.0.1:0 }}\n") }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
