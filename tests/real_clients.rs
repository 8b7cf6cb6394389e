//! Clients that other people wrote, through the front door: curl, a WebSocket library, gRPC.
//!
//! `./test` installs what they need; where something is missing the test fails and says so, it never skips.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use support::tls::Certificate;
use support::{Backend, Lb, in_time};

#[tokio::test]
async fn curl_speaks_http1_and_http2_to_the_front_door() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let (plain, secure) = (lb.address(0), lb.address(1));

    for (arguments, wanted) in [
        (vec!["--http1.1".to_owned(), format!("http://{plain}/")], "hello 1.1"),
        (vec!["-k".to_owned(), "--http1.1".to_owned(), format!("https://{secure}/")], "hello 1.1"),
        (vec!["-k".to_owned(), "--http2".to_owned(), format!("https://{secure}/")], "hello 2"),
    ] {
        let mut curl = Command::new("curl");
        // A proxy that the environment names is not the one under test.
        curl.args(["-sS", "--noproxy", "*", "--max-time", "10", "-w", " %{http_version}"]).args(&arguments);
        assert_eq!(run(curl).await, wanted, "curl {arguments:?}");
    }
}

#[tokio::test]
async fn websockets_pass_through_with_and_without_tls() {
    let echo = Echo::start("websocket_echo.py");
    let lb = Lb::with_urls([format!("http://127.0.0.1:{}", echo.port)]).start().await;

    for url in [format!("ws://{}/chat", lb.address(0)), format!("wss://{}/chat", lb.address(1))] {
        let mut client = python("websocket_echo.py");
        client.args(["client", &url]);
        assert_eq!(run(client).await.trim(), "every message came back");
    }
}

#[tokio::test]
async fn grpc_passes_from_end_to_end_with_its_trailers() {
    let echo = Echo::start("grpc_echo.py");
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Certificate::for_names(&["localhost"]).save(folder.path(), "grpc");
    let tls = format!("{{ certificates: [{{ cert: {cert:?}, key: {key:?} }}] }}");
    let listeners = format!("listeners:\n  - {{ address: 127.0.0.1:0, tls: {tls} }}");
    let urls = [format!("http://127.0.0.1:{}", echo.port)];
    let lb = Lb::with_urls(urls).yaml_upstream("protocol: http2").yaml_section(&listeners).start().await;

    let mut client = python("grpc_echo.py");
    client.args(["client", &format!("localhost:{}", lb.address(0).port())]).arg(cert);
    assert_eq!(run(client).await.trim(), "every call went as it should");
}

/// A Python script's backend, on the port that it printed. It is ended when dropped.
struct Echo {
    child: Child,
    port: u16,
}

impl Echo {
    fn start(script: &str) -> Self {
        let mut child = python(script).arg("backend").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{script} should print its port, not {line:?}"));
        Echo { child, port }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // An error means that it ended before, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python(script: &str) -> Command {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let python = target.join("test-venv/bin/python");
    assert!(python.exists(), "{} is missing: run ./test once, it installs it", python.display());
    let mut command = Command::new(python);
    command.arg(format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR")));
    command
}

/// Runs a command to its end beside the front door, which lives in this thread's runtime, and gives what it printed.
async fn run(mut command: Command) -> String {
    let output = in_time("a client", tokio::task::spawn_blocking(move || command.output())).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("a client cannot be run ({error}); ./test installs it"));
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "a client failed: {said}{complained}");
    said.into_owned()
}
