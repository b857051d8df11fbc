//! The command line: one file a command.

mod compile;
mod config;
mod demo;
mod doctor;
mod jobs;
mod journal;
mod keygen;
mod keys;
mod master;
mod output;
mod overrides;
mod passwd;
mod routers;
mod serve;
mod state;

use crate::compiler::{self, child};
use clap::{Parser, Subcommand};
use overrides::Overrides;
use std::process::ExitCode;

/// Runs what small devices hand over by MQTT: wasm modules, sandboxed and metered.
#[derive(Parser)]
#[command(name = "offload-rt", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the gateway
    #[command(after_help = serve::EXAMPLES)]
    Serve(Overrides),
    /// Print the effective configuration as commented TOML
    Config(config::PrintConfig),
    /// Check what this machine offers a gateway, and what it lacks
    Doctor(doctor::Doctor),
    /// Compile modules before the gateway starts
    Compile(compile::Compile),
    /// Start a gateway, play a device, and show what comes back
    #[command(after_help = "Examples:\n  offload-rt demo")]
    Demo,
    /// List, show, run again or drop requests that have crashed the gateway
    Jobs(jobs::Jobs),
    /// Add, change or remove a user of a password file
    Passwd(passwd::Passwd),
    /// Check, show or salvage the journal of a gateway that does not run
    Journal(journal::JournalCommand),
    /// List or renew the keys that requests are sealed to
    Keys(keys::KeysCommand),
    /// Make certificates for a gateway and its devices
    Keygen(keygen::Keygen),
    /// Join the routers of sites, so that clients of one can ask the others
    Master(master::MasterCommand),
    /// List the sites that a master or a gateway knows
    Routers(routers::Routers),
    /// Compile standard input (started by the gateway itself)
    #[command(name = compiler::CHILD_ROLE, hide = true)]
    CompileChild(child::ChildLimits),
}

const EXAMPLES: &str = "\
Examples:
  offload-rt demo
  offload-rt serve
  offload-rt serve --broker mqtt://plant-broker
  offload-rt serve --config gateway.toml
  offload-rt config > gateway.toml
  offload-rt config --check gateway.toml
  offload-rt jobs list
  offload-rt keys list
  offload-rt passwd passwords dev1
  offload-rt keygen keys --host gateway.local --device dev2
  offload-rt master
  offload-rt routers

Logs go to standard error; OFFLOAD_LOG=debug adds a line for each request.";

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help and the version are output, as that of any command.
        Err(message) if !message.use_stderr() => return ended(print(&message)),
        Err(message) => message.exit(),
    };
    let outcome = match command {
        // Before anything else: this process is to hold nothing.
        Command::CompileChild(limits) => return child::run(limits),
        Command::Serve(overrides) => serve::run(overrides),
        Command::Config(command) => config::run(command),
        Command::Doctor(command) => doctor::run(command),
        Command::Compile(command) => compile::run(command),
        Command::Demo => demo::run(),
        Command::Jobs(command) => jobs::run(command),
        Command::Passwd(command) => passwd::run(command),
        Command::Journal(command) => journal::run(command),
        Command::Keys(command) => keys::run(command),
        Command::Keygen(command) => keygen::run(command),
        Command::Master(command) => master::run(command),
        Command::Routers(command) => routers::run(command),
    };
    ended(outcome)
}

fn print(message: &clap::Error) -> anyhow::Result<ExitCode> {
    message.print().map_err(output::Unprintable::from)?;
    Ok(ExitCode::SUCCESS)
}

fn ended(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<output::Unprintable>() {
            Some(unprintable) => unprintable.exit_code(),
            None => {
                // A configuration may have many.
                told(&error).lines().for_each(|line| output::complain(&format!("error: {line}")));
                ExitCode::FAILURE
            }
        },
    }
}

/// An error and its causes, but for those that it has told already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match () {
        () if text.is_empty() => cause,
        () if text.contains(&cause) => text,
        () => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("state: {source}; make room")]
    struct Full {
        source: io::Error,
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// A line that is broken cannot be pasted.
    #[test]
    fn examples_fit_a_narrow_terminal() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        cli.build();
        let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
        for command in shown.chain([&cli]).filter(|command| command.get_name() != "help") {
            let help = command.get_after_help().expect("every command has examples").to_string();
            assert!(help.contains("Examples:\n  offload-rt "), "{help}");
            let examples = help.lines().filter(|line| line.starts_with("  "));
            assert!(examples.clone().count() > 0 && examples.clone().all(|line| line.len() <= 80), "{help}");
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        let full = || Full { source: io::Error::other("disk full") };
        assert_eq!(told(&anyhow::Error::new(full())), "state: disk full; make room");
        let outer = Err::<(), _>(full()).context("cannot start").unwrap_err();
        assert_eq!(told(&outer), "cannot start: state: disk full; make room");
    }
}
