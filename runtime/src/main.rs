//! The `offload-rt` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    offload_rt::cli::run()
}
