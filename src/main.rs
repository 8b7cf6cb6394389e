//! The whole start and stop of the program: logging, the command line, the command, the exit code.

use std::process::ExitCode;

use env_logger::{Builder, Env};
use portcullis::cli::Cli;

/// glibc's allocator costs a proxy 10 to 15% of its time, and keeps what it has freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    start_logging();
    match Cli::read() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}

/// Logs to standard error. What is logged at all is decided by `log.level`, which a reload may change; `RUST_LOG` can
/// only take away from it. Pingora reports every client that goes away as an error of its own, so it is silent unless
/// `RUST_LOG` asks for it: each request has its line in the access log.
fn start_logging() {
    Builder::from_env(Env::default().default_filter_or("trace,pingora=off,rustls=off,h2=off,hyper=off,mio=off"))
        .format_target(false)
        // Tables fill the width of the terminal, and indented they would be wider.
        .format_indent(None)
        .init();
    log::set_max_level(log::LevelFilter::Info);
}
