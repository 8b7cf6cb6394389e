//! What is a program that is built on Portcullis? All that ours is, and what it adds.
//!
//! ```no_run
//! use portcullis::custom::{Filter, Reply, Request, Verdict};
//! use portcullis::{Program, StatusCode};
//!
//! struct NoRobots;
//!
//! impl Filter for NoRobots {
//!     fn on_request(&self, request: &mut Request<'_>) -> Verdict {
//!         match request.header("user-agent") {
//!             Some(agent) if agent.contains("bot") => Verdict::Answer(Reply::text(StatusCode::FORBIDDEN, "no robots\n")),
//!             _ => Verdict::GoOn,
//!         }
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Program::new().filter("no_robots", |_| Ok(NoRobots)).main()
//! }
//! ```
//!
//! A route that names it (`filters: [no_robots]`) has it from then on, also after a reload. The program takes the same
//! commands as `portcullis`: `run`, `check`, `upgrade` and the others.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use env_logger::{Builder, Env};

use crate::cli::Cli;
use crate::config::{self, Checked, Problem};
use crate::custom::{Additions, Filter, Policy, Settings};

/// A front door with a program's own filters and ways to balance.
#[derive(Debug, Default)]
pub struct Program {
    additions: Additions,
}

impl Program {
    /// One that adds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a filter under the name that routes call it by in `filters`. `make` is called for each place in the file
    /// that names it, and again at each reload; its error is shown to the operator, at that place.
    #[must_use]
    pub fn filter<F, M>(mut self, name: &str, make: M) -> Self
    where
        F: Filter + 'static,
        M: Fn(&Settings) -> Result<F, String> + Send + Sync + 'static,
    {
        self.additions.add_filter(name, Arc::new(move |settings| Ok(Arc::new(make(settings)?))));
        self
    }

    /// Registers a way to balance under the name that upstreams call it by in `balance`; the rest is as for filters.
    #[must_use]
    pub fn policy<P, M>(mut self, name: &str, make: M) -> Self
    where
        P: Policy + 'static,
        M: Fn(&Settings) -> Result<P, String> + Send + Sync + 'static,
    {
        self.additions.add_policy(name, Arc::new(move |settings| Ok(Arc::new(make(settings)?))));
        self
    }

    /// Hooks into the heads of requests and responses of every route, whatever the file says.
    #[must_use]
    pub fn everywhere(mut self, filter: impl Filter + 'static) -> Self {
        self.additions.add_everywhere(Arc::new(filter));
        self
    }

    /// Reads and checks a file, which may name what was registered. `FrontDoor::start` takes the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with the file, with its place and what to do about it.
    pub fn load(self, file: &Path) -> Result<Checked, Vec<Problem>> {
        config::load(file, &Arc::new(self.additions))
    }

    /// Does what the command line says, from logging to the exit code.
    pub fn main(self) -> ExitCode {
        start_logging();
        match Cli::read() {
            Ok(cli) => cli.run(&Arc::new(self.additions)),
            Err(code) => code,
        }
    }
}

/// Logs to standard error. What is logged at all is decided by `log.level`, which a reload may change; `RUST_LOG` can
/// only take away from it. Pingora reports every client that goes away as an error of its own, so it is silent unless
/// `RUST_LOG` asks for it: each request has its line in the access log.
fn start_logging() {
    Builder::from_env(Env::default().default_filter_or("trace,pingora=off,rustls=off,h2=off,hyper=off,mio=off"))
        .format_target(false)
        .init();
    log::set_max_level(log::LevelFilter::Info);
}
