//! `offload-sim`: fleets of devices, links and gateways in virtual time.

use std::process::ExitCode;

fn main() -> ExitCode {
    offload_simulator::cli::main()
}
