//! The program: all of Portcullis, and nothing added.

use std::process::ExitCode;

use portcullis::Program;

/// glibc's allocator costs a proxy 10 to 15% of its time, and keeps what it has freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Program::new().main()
}
