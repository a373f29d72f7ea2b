//! The binary: arguments in, exit code out.

use std::process::ExitCode;

/// Steadier than the system's under many small allocations, and small at rest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(hammerd::cli::main(std::env::args_os()))
}
