//! How is a running front door replaced? It is asked to start this very program in its place.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::{CONFIG, UNAVAILABLE, fail, find_and_read, report, say};
use crate::custom::Additions;
use crate::server::{Successor, ask_for_handover};

/// Has the running front door replaced, once the configuration is known to be good.
pub(super) fn upgrade(file: Option<PathBuf>, additions: &Arc<Additions>) -> ExitCode {
    let (file, checked) = match find_and_read(file, additions) {
        Ok(found) => found,
        Err(code) => return code,
    };
    report(&checked.warnings);
    let Some(socket) = checked.config.server.upgrade_socket else {
        let help = "set server.upgrade_socket, and restart once";
        return fail(CONFIG, format_args!("{}: there is no upgrade socket\n  help: {help}", file.display()));
    };
    match replace(&socket, &file) {
        Ok(Successor { pid, ready: true }) => say(format_args!("process {pid} has taken over")),
        Ok(Successor { pid, ready: false }) => {
            say(format_args!("process {pid} has taken over, but is not ready yet: /readyz says why"))
        }
        Err(why) => fail(UNAVAILABLE, why),
    }
}

fn replace(socket: &Path, file: &Path) -> Result<Successor, String> {
    // The running process may have been started elsewhere, so both paths are whole.
    let program =
        std::env::current_exe().map_err(|error| format!("this program does not know where it is: {error}"))?;
    let file = std::path::absolute(file).map_err(|error| format!("{}: {error}", file.display()))?;
    ask_for_handover(socket, program, file).map_err(|error| error.to_string())
}
