//! What developers run, as `cargo xtask <command>`: one place for how this project is set up, tested and measured.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod bench_sim;
mod chaos;
mod fuzz;
mod guests;
mod node;
mod process;
mod python;
mod setup;
mod simulator_page;
mod test;
mod tidy;
mod time;
mod toolchain;
mod validate_sim;
mod workspace;

/// What developers of offload-rt run.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds the programs that guests and tests need, and installs what is missing where it can
    ///
    /// As root on Debian or Ubuntu by apt-get; elsewhere it prints what to run, and fails.
    Setup,
    /// Builds all guest examples to <target directory>/guests/<name>.wasm
    Guests,
    /// Sets up, builds the guests and the workspace, and runs all tests
    Test {
        /// Handed on to `cargo test`
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Runs the simulator beside the real system, and writes how far apart they are
    ValidateSim(validate_sim::Arguments),
    /// Builds the simulator as a page for browsers, to <target directory>/simulator-page/index.html
    SimulatorPage,
    /// Checks the house rules that a machine can check: words, width, purposes, circles, links, scripts
    Tidy,
    /// Fuzzes the broker
    Fuzz(fuzz::Arguments),
    /// Abuses the broker alone in every way at once, then the whole gateway by one attack after the other; or kills it
    /// again and again (--crash)
    Chaos(chaos::Arguments),
    /// Builds what benchmarks need and runs them
    Bench {
        /// Handed on to the benchmark program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Measures the simulator: beside simpy, and in worlds of growing size
    BenchSim,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that anyhow adds where RUST_BACKTRACE is set: the line to run is the last one.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::run().map(drop),
        Command::Guests => guests::run(&setup::run()?),
        Command::Test { rest } => test::run(&rest),
        Command::ValidateSim(arguments) => validate_sim::run(&arguments),
        Command::SimulatorPage => simulator_page::run(&setup::run()?).map(drop),
        Command::Tidy => tidy::run(),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Bench { rest } => bench::run(&rest),
        Command::BenchSim => bench_sim::run(),
    }
}
