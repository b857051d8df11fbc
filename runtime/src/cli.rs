//! The command line: one file a command.

mod compile;
mod config;
mod demo;
mod doctor;
mod keygen;
mod output;
mod passwd;
mod serve;

use crate::compiler::{self, child};
use crate::config::{BrokerUrl, Config, ConfigError, Draft, HostPort, NativeMode};
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsStr;
use std::path::PathBuf;
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
    /// Show what this machine gives a gateway, and what it lacks
    Doctor(doctor::Doctor),
    /// Make modules ready before the gateway starts
    Compile(compile::Compile),
    /// Start a gateway, play a device, and show what comes back
    #[command(after_help = "Examples:\n  offload-rt demo")]
    Demo,
    /// Add, change or remove a user of a password file
    Passwd(passwd::Passwd),
    /// Make certificates for a gateway and its devices
    Keygen(keygen::Keygen),
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
  offload-rt passwd passwords dev1
  offload-rt keygen keys --host gateway.local --device dev2

Logs go to standard error; OFFLOAD_LOG=debug adds a line for each request.";

/// The configuration file, and flags that go before it.
#[derive(Args)]
struct Overrides {
    /// Read this TOML file (`offload-rt config` prints one to start from)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take MQTT connections here; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "broker")]
    listen: Option<HostPort>,
    /// Join this MQTT broker instead of starting one: mqtt://HOST[:PORT], or mqtts:// with TLS
    #[arg(long, value_name = "URL", value_parser = BrokerParser)]
    broker: Option<BrokerUrl>,
    /// Number of worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Keep state in this folder
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Let clients in that do not say who they are, from wherever they can reach the gateway
    #[arg(long)]
    allow_anonymous: bool,
    /// Build and run source natively, whoever may send it (by default only where this machine alone can)
    #[arg(long)]
    allow_native: bool,
}

/// Reads a broker's URL. clap's own parsers repeat what they refuse, and that may hold a password.
#[derive(Clone)]
struct BrokerParser;

impl TypedValueParser for BrokerParser {
    type Value = BrokerUrl;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<BrokerUrl, clap::Error> {
        value.to_string_lossy().parse().map_err(|problem: String| {
            let message = format!("invalid value for '--broker <URL>': {problem}\n");
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

impl Overrides {
    fn into_config(self) -> Result<Config, ConfigError> {
        Ok(self.into_draft()?.finish()?.config)
    }

    fn into_draft(self) -> Result<Draft, ConfigError> {
        let mut draft = match &self.config {
            Some(file) => Draft::read(file)?,
            None => Draft::default(),
        };
        if let Some(address) = self.listen {
            draft.set("listen.address", |config| {
                config.listen.address = address;
                config.broker = None;
            });
        }
        if let Some(url) = self.broker {
            draft.set("broker.url", |config| config.broker.get_or_insert_default().url = url);
        }
        if let Some(count) = self.workers {
            draft.set("workers.count", |config| config.workers.count = count);
        }
        if let Some(folder) = self.data_dir {
            draft.set("data_dir", |config| config.data_dir = folder);
        }
        if self.allow_anonymous {
            draft.set("access.anonymous", |config| config.access.anonymous = Some(true));
        }
        if self.allow_native {
            draft.set("native", |config| config.native = NativeMode::Native);
        }
        Ok(draft)
    }
}

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        // Before anything else: this process is to hold nothing.
        Command::CompileChild(limits) => return child::run(limits),
        Command::Serve(overrides) => serve::run(overrides),
        Command::Config(command) => config::run(command),
        Command::Doctor(command) => doctor::run(command),
        Command::Compile(command) => compile::run(command),
        Command::Demo => demo::run(),
        Command::Passwd(command) => passwd::run(command),
        Command::Keygen(command) => keygen::run(command),
    };
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
