//! `offload-rt config`: the effective configuration as commented TOML, or what is wrong with it.

use super::output;
use super::overrides::Overrides;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Which configuration, and what to do with it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PrintConfig {
    #[command(flatten)]
    overrides: Overrides,
    /// Check this file instead, and print all that is wrong with it
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt config > gateway.toml
  offload-rt config --config gateway.toml --listen 0.0.0.0:1883
  offload-rt config --check gateway.toml

A key that is not set is commented out, with its default. Exits 1 when anything
is wrong, and prints all of it.";

pub fn run(command: PrintConfig) -> anyhow::Result<ExitCode> {
    let PrintConfig { mut overrides, check } = command;
    let checked = check.as_ref().map(|file| format!("{}: nothing is wrong", file.display()));
    overrides.config = check.or(overrides.config);
    let finished = overrides.into_draft()?.finish()?;
    for table in finished.ignored_tables() {
        output::complain(&format!("warning: [{table}] is ignored: [broker] replaces the embedded broker"));
    }
    match checked {
        Some(line) => output::print_line(line)?,
        None => output::print(finished.config.to_commented_toml(&finished.given))?,
    }
    Ok(ExitCode::SUCCESS)
}
