//! What can be typed? Every command and flag, with its help, and the exit codes.

mod explain;
mod keys;
mod manual;
mod upgrade;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{self, Checked, Problem};
use crate::custom::Additions;
use crate::demo;
use crate::server::{self, Heritage, Source};

use self::explain::Explain;
use self::keys::Keys;
use self::manual::Shell;

/// Bad flags (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// A front door that could not open (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// A bad configuration (`EX_CONFIG`).
const CONFIG: u8 = 78;

/// Where `run` looks when no file is named.
const DEFAULT_FILES: [&str; 2] = ["portcullis.yaml", "/etc/portcullis/portcullis.yaml"];

const EXAMPLES: &str = "Examples:
  portcullis demo                         a front door with sample backends, to look around
  portcullis run -c portcullis.yaml       the real thing
  portcullis check -c portcullis.yaml     all problems of a file at once; exits 78 if there are any
  portcullis explain GET https://a.example/   where a request would go, and why
  portcullis keys new --name ci           an API key, where a store for them is configured
  portcullis schema > schema.json         for editors that complete and check YAML
  portcullis upgrade -c portcullis.yaml   let this program take over from the one that runs
  kill -HUP PID                           reload the file, or change nothing if it is bad
  kill -USR1 PID                          open the log files anew, once they have been moved
  kill -TERM PID                          finish what is in flight, then leave

Exit codes: 0 fine, 64 bad flags, 69 could not start, 78 bad configuration";

/// A load balancer and TLS front door: one binary, one YAML file.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; reload on SIGHUP and when the file changes, drain on SIGTERM
    Run {
        /// The configuration [default: ./portcullis.yaml, then /etc/portcullis/portcullis.yaml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Take over from the process that has started this one, and says so on standard input
        #[arg(long, hide = true)]
        successor: bool,
    },
    /// Have a running front door replaced by this program, without a refused connection
    ///
    /// Asks the process behind `server.upgrade_socket` of the configuration to start this program in its place. Listening
    /// sockets are handed over; requests in flight are finished by the old process within its grace period.
    Upgrade {
        /// The configuration [default: ./portcullis.yaml, then /etc/portcullis/portcullis.yaml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a configuration and report all of its problems at once
    Check {
        /// The configuration [default: ./portcullis.yaml, then /etc/portcullis/portcullis.yaml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say what would happen to a request, and why
    Explain(Explain),
    /// Make, list, revoke and rotate API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Serve sample backends on https://localhost:8443 and http://localhost:8080
    Demo,
    /// Print what a shell needs to complete these commands
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, for `man`
    Man,
}

impl Cli {
    /// Reads the command line; on `--help`, `--version` or a mistake, says so and gives the exit code.
    pub fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            // Whoever closed the pipe does not want to read it.
            let _ = error.print();
            let was_asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            if was_asked_for { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
        })
    }

    /// Does what was asked, with what the program brings.
    pub fn run(self, additions: &Arc<Additions>) -> ExitCode {
        match self.command {
            Command::Run { config, successor } => run(config, successor, additions),
            Command::Upgrade { config } => upgrade::upgrade(config, additions),
            Command::Check { config } => check(config, additions),
            Command::Explain(explain) => explain.run(additions),
            Command::Keys(keys) => keys.run(additions),
            Command::Schema => say(config::schema()),
            Command::Demo => match demo::run() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(UNAVAILABLE, error),
            },
            Command::Completions { shell } => manual::completions(shell),
            Command::Man => manual::page(),
        }
    }
}

fn run(file: Option<PathBuf>, successor: bool, additions: &Arc<Additions>) -> ExitCode {
    let heritage = match successor.then(Heritage::receive).transpose() {
        Ok(heritage) => heritage.unwrap_or_default(),
        Err(error) => return fail(UNAVAILABLE, format_args!("there is nobody to take over from: {error}")),
    };
    let (file, checked) = match find_and_read(file, additions) {
        Ok(found) => found,
        Err(code) => return code,
    };
    for warning in &checked.warnings {
        log::warn!("{warning}");
    }
    let source = Source { path: file, outline: checked.outline, additions: additions.clone() };
    match server::run(checked.config, Some(source), heritage, |_| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(UNAVAILABLE, error),
    }
}

fn check(file: Option<PathBuf>, additions: &Arc<Additions>) -> ExitCode {
    let (file, checked) = match find_and_read(file, additions) {
        Ok(found) => found,
        Err(code) => return code,
    };
    report(&checked.warnings);
    let count = match checked.warnings.len() {
        0 => "ok".to_owned(),
        1 => "ok, with 1 warning".to_owned(),
        count => format!("ok, with {count} warnings"),
    };
    say(format_args!("{}: {count}", file.display()))
}

fn find(file: Option<PathBuf>) -> Result<PathBuf, ExitCode> {
    let default = || DEFAULT_FILES.iter().map(PathBuf::from).find(|file| file.exists());
    file.or_else(default).ok_or_else(|| {
        let looked = DEFAULT_FILES.join(" and ");
        fail(CONFIG, format_args!("there is no configuration: {looked} do not exist\n  help: name one with -c FILE"))
    })
}

fn find_and_read(file: Option<PathBuf>, additions: &Arc<Additions>) -> Result<(PathBuf, Checked), ExitCode> {
    let file = find(file)?;
    read(&file, additions).map(|checked| (file, checked))
}

fn read(file: &Path, additions: &Arc<Additions>) -> Result<Checked, ExitCode> {
    config::load(file, additions).map_err(|problems| {
        report(&problems);
        ExitCode::from(CONFIG)
    })
}

fn report(problems: &[Problem]) {
    let mut stderr = io::stderr().lock();
    for problem in problems {
        // With no one to read it, there is nothing left to do about a problem.
        let _ = writeln!(stderr, "{problem}");
    }
}

fn say(text: impl Display) -> ExitCode {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, error: impl Display) -> ExitCode {
    // The exit code says it too.
    let _ = writeln!(io::stderr().lock(), "portcullis: {error}");
    ExitCode::from(code)
}
