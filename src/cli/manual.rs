//! What do shells and `man` want to know of the command line? The same that `--help` says, in their forms.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use super::Cli;

pub(super) use clap_complete::Shell;

/// Prints a script that completes commands and flags.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut script);
    print(&script)
}

/// Prints the manual page, with the flags of every command.
pub(super) fn page() -> ExitCode {
    match rendered() {
        Ok(page) => print(&page),
        Err(_) => ExitCode::FAILURE,
    }
}

/// One page for all commands: whoever looks for a flag shall not have to know where it is.
fn rendered() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let command = Cli::command();
    let manual = clap_mangen::Man::new(command.clone());
    manual.render_title(&mut page)?;
    manual.render_name_section(&mut page)?;
    manual.render_synopsis_section(&mut page)?;
    manual.render_description_section(&mut page)?;
    manual.render_subcommands_section(&mut page)?;
    of_each_command(&command, "portcullis", &mut page)?;
    manual.render_extra_section(&mut page)?;
    Ok(page)
}

fn of_each_command(command: &clap::Command, path: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for command in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            of_each_command(command, &path, page)?;
            continue;
        }
        writeln!(page, ".SH {}", path.to_uppercase())?;
        let manual = clap_mangen::Man::new(command.clone().bin_name(&path).display_name(&path));
        for section in [render_synopsis, render_description, render_options] {
            let mut text = Vec::new();
            section(&manual, &mut text)?;
            // Sections of the page become parts of the command's.
            page.write_all(&String::from_utf8_lossy(&text).replace(".SH ", ".SS ").into_bytes())?;
        }
    }
    Ok(())
}

fn render_synopsis(manual: &clap_mangen::Man, page: &mut Vec<u8>) -> io::Result<()> {
    manual.render_synopsis_section(page)
}

fn render_description(manual: &clap_mangen::Man, page: &mut Vec<u8>) -> io::Result<()> {
    manual.render_description_section(page)
}

fn render_options(manual: &clap_mangen::Man, page: &mut Vec<u8>) -> io::Result<()> {
    manual.render_options_section(page)
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().lock().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
