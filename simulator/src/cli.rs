//! The command line: a file for each command.

mod compare;
mod cost;
mod new;
mod plan;
mod progress;
mod run;
mod session;
mod swarm;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::scenario::units::Time;

/// The exit code of a command whose question was answered with no: `plan` can, and `swarm` that has found something.
const NO: u8 = 1;

/// The exit code of a command that could not be carried out.
const FAILED: u8 = 2;

/// Fleets of devices and gateways in virtual time, on the gateway's own scheduling code.
#[derive(Debug, Parser)]
#[command(name = "offload-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples, in the order of a tutorial:
  offload-sim new site.toml
  offload-sim run site.toml --html report.html
  offload-sim compare site.toml faster.toml
  offload-sim plan site.toml --p99 250ms --vary workers
  offload-sim session

Exit codes: 0, 1 where the answer is no (`plan` has found nothing that is
enough, `swarm` has found a fault), 2 where a command could not be carried out.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    New(new::New),
    Compare(compare::Compare),
    Plan(plan::Plan),
    Swarm(swarm::Swarm),
    #[command(hide = true)]
    Cost(cost::Cost),
    Session(session::Session),
}

/// Carries out a command line.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(run) => run.carry_out(),
        Command::New(new) => new.carry_out(),
        Command::Compare(compare) => compare.carry_out(),
        Command::Plan(plan) => plan.carry_out(),
        Command::Swarm(swarm) => swarm.carry_out(),
        Command::Cost(cost) => cost.carry_out(),
        Command::Session(session) => session.carry_out(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NO),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// A time of the command line: its refusal says what is accepted.
fn time(text: &str) -> Result<Time, String> {
    Time::parse(text).map_err(|problem| format!("{problem} (accepted: {})", Time::FORM))
}

/// Prints to standard output; whoever has closed it wants no more.
fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
