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
use crate::config::BrokerUrl;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs what small devices hand over by MQTT: wasm modules, sandboxed and metered.
#[derive(Parser)]
#[command(name = "offload-rt", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Logs go to standard error; OFFLOAD_LOG=debug shows more of them, a line for each request among them."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the gateway
    Serve(Overrides),
    /// Print the effective configuration as commented TOML
    Config(Overrides),
    /// Show what this machine gives a gateway, and what it lacks
    Doctor(doctor::Doctor),
    /// Make modules ready before the gateway starts
    Compile(compile::Compile),
    /// Start a gateway, play a device, and show what comes back
    Demo,
    /// Add, change or remove a user of a password file
    Passwd(passwd::Passwd),
    /// Make certificates for a gateway and its devices
    Keygen(keygen::Keygen),
    /// Compile standard input (started by the gateway itself)
    #[command(name = compiler::CHILD_ROLE, hide = true)]
    CompileChild(child::ChildLimits),
}

/// The configuration file, and flags that go before it.
#[derive(Args)]
struct Overrides {
    /// Read this TOML file (`offload-rt config` prints one to start from)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take MQTT connections here; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "broker")]
    listen: Option<crate::config::HostPort>,
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
    fn into_config(self) -> anyhow::Result<crate::config::Config> {
        let mut config = match &self.config {
            Some(file) => crate::config::Config::load(file)?,
            None => crate::config::Config::default(),
        };
        if let Some(address) = self.listen {
            config.listen.address = address;
            config.broker = None;
        }
        if let Some(url) = self.broker {
            config.broker.get_or_insert_default().url = url;
        }
        if let Some(count) = self.workers {
            config.workers.count = count;
        }
        if let Some(folder) = self.data_dir {
            config.data_dir = folder;
        }
        if self.allow_anonymous {
            config.access.anonymous = Some(true);
        }
        if self.allow_native {
            config.native = crate::config::Native::Native;
        }
        config.validate()?;
        Ok(config)
    }
}

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        // Before anything else: this process is to hold nothing.
        Command::CompileChild(limits) => return child::run(limits),
        Command::Serve(overrides) => serve::run(overrides),
        Command::Config(overrides) => config::run(overrides),
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
                output::complain(&format!("error: {error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}
