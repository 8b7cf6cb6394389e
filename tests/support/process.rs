//! The real program, in a process and a folder of its own: for flags, exit codes, signals and what it prints.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use super::wait_for;

/// The program, running. It is killed when dropped.
pub struct Portcullis {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Portcullis {
    /// `portcullis run -c portcullis.yaml` in a folder that holds this file.
    pub fn run(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
        Portcullis::start(folder, &["run", "-c", "portcullis.yaml"])
    }

    /// The program with these arguments in this folder, which goes with it.
    pub fn start(folder: TempDir, arguments: &[&str]) -> Self {
        Portcullis::start_with(folder, arguments, |_| {})
    }

    /// The same, with something about the process changed: its environment, or where its output goes.
    pub fn start_with(folder: TempDir, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(arguments);
        command.stdout(Stdio::piped());
        change(&mut command);
        Portcullis::spawn(folder, command)
    }

    fn spawn(folder: TempDir, mut command: Command) -> Self {
        command.current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = Arc::default();
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, &lines);
        }
        collect(child.stderr.take().unwrap(), &lines);
        Portcullis { child, lines, folder }
    }

    /// `portcullis run` with a terminal of this width for its output, in a folder that holds this file.
    pub fn at_terminal(yaml: &str, width: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
        // `script` has the terminal, and hands on what is written to it. The program outlives it, as a hangup means a
        // reload, so its time is limited.
        let program = env!("CARGO_BIN_EXE_portcullis");
        let line = format!("stty cols {width} rows 40 && exec timeout -k 1 30 {program} run");
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).stdout(Stdio::piped());
        Portcullis::spawn(folder, command)
    }

    /// The program run to its end; for commands that end by themselves.
    pub fn output(arguments: &[&str]) -> Output {
        command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// The file that it reads.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("portcullis.yaml")
    }

    /// The lines so far, standard output and standard error together.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line that holds this text, and gives it.
    pub async fn line_with(&self, text: &str) -> String {
        self.lines_with(text, 1).await.remove(0)
    }

    /// Waits for so many lines that hold this text, and gives them all.
    pub async fn lines_with(&self, text: &str, count: usize) -> Vec<String> {
        let seen = || {
            let lines = self.lines().into_iter().filter(|line| line.contains(text)).collect::<Vec<_>>();
            (lines.len() >= count).then_some(lines)
        };
        wait_for(&format!("the program should print {count} line(s) with {text:?}"), seen).await
    }

    /// A figure of its memory in bytes, by the kernel's name for it: `VmRSS` is what it has, `VmHWM` the most it had.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.unwrap_or_else(|| panic!("the kernel knows no {name}: {status}"));
        kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends a signal by its short name: `TERM`, `INT`, `HUP`.
    pub fn signal(&self, name: &str) {
        // By the program `kill`, because the call would need unsafe code.
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success(), "kill -{name} failed");
    }

    /// A command of the same program in the same folder, run to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        command(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// The processes that have taken over from it, one after the other.
    fn successors(&self) -> Vec<String> {
        let told = self.lines().into_iter().filter_map(|line| Some(line.split_once("upgrade: process ")?.1.to_owned()));
        told.filter_map(|rest| Some(rest.strip_suffix(" has taken over")?.to_owned())).collect()
    }

    /// Waits for the end, and gives the exit code; `None` if a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let ended = || self.child.try_wait().unwrap();
        wait_for("the program should end", ended).await.code()
    }
}

impl Drop for Portcullis {
    fn drop(&mut self) {
        // An error means that it ended before, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for successor in self.successors() {
            let _ = Command::new("kill").args(["-KILL", &successor]).stderr(Stdio::null()).status();
        }
        if thread::panicking() {
            let lines = self.lines.lock().map(|lines| lines.join("\n")).unwrap_or_default();
            #[expect(clippy::print_stderr, reason = "the reader of a failed test wants to see what the program said")]
            {
                eprintln!("the program printed:\n{lines}");
            }
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments);
    command
}

fn collect(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}
