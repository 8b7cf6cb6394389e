//! Programs that other people wrote, or that stand on what other people wrote: run to their end, or as a backend.
//!
//! `./test` installs them; where one is missing the test fails and says so, it never skips.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a program may take; those that have much to do have it to themselves when every test runs at once.
const PATIENCE: Duration = Duration::from_secs(120);

/// A Python script's backend, on the port that it printed. It is ended when dropped.
pub struct Echo {
    child: Child,
    pub port: u16,
}

impl Echo {
    pub fn start(script: &str) -> Self {
        let mut child = python(script).arg("backend").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{script} should print its port, not {line:?}"));
        Echo { child, port }
    }

    /// As the configuration writes it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // An error means that it ended before, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A script of tests/clients in the Python that has the packages.
pub fn python(script: &str) -> Command {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let python = target.join("test-venv/bin/python");
    assert!(python.exists(), "{} is missing: run ./test once, it installs it", python.display());
    let mut command = Command::new(python);
    command.arg(in_clients(script));
    command
}

/// A file of tests/clients.
pub fn in_clients(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end beside the front door, which lives in this thread's runtime, and gives what it printed.
pub async fn run(command: Command) -> String {
    String::from_utf8_lossy(&run_for_bytes(command).await).into_owned()
}

/// The same for a command that prints more than text.
pub async fn run_for_bytes(mut command: Command) -> Vec<u8> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || command.output())).await;
    let output = output.unwrap_or_else(|_| panic!("gave up after {PATIENCE:?}: {name} should end")).unwrap();
    let output = output.unwrap_or_else(|error| panic!("{name} cannot be run ({error}); ./test installs it"));
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed: {said:.2000}{complained}");
    output.stdout
}
