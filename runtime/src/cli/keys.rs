//! `offload-rt keys`: the keys that requests are sealed to.

use super::output;
use super::state::StateFlags;
use crate::keys::{self, Key, now_ms};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::json;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;

/// What to do with them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct KeysCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the keys, the newest first
    #[command(after_help = EXAMPLES)]
    List(Which),
    /// Make new keys; those before them open requests for the grace time
    #[command(after_help = EXAMPLES)]
    Rotate(Which),
}

/// Whose keys, and how to print.
#[derive(Args)]
struct Which {
    #[command(flatten)]
    state: StateFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt keys list
  offload-rt keys list --data-dir /var/lib/offload-rt --json
  offload-rt keys rotate --config gateway.toml

A gateway that runs takes new keys over within seconds, or at once on SIGHUP.";

pub fn run(command: KeysCommand) -> anyhow::Result<ExitCode> {
    let (which, keys, config) = match command.action {
        Action::List(which) => {
            let config = which.state.configuration()?;
            (which, keys::list(&keys::path(&config))?, config)
        }
        Action::Rotate(which) => {
            let config = which.state.configuration()?;
            DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir)?;
            (which, keys::rotate(&keys::path(&config))?, config)
        }
    };
    for key in &keys {
        which.print(key, config.keys.grace.duration().as_secs())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Which {
    fn print(&self, key: &Key, grace: u64) -> Result<(), output::Unprintable> {
        let public = key.secret.public();
        let (suite, fingerprint) = (public.suite(), public.fingerprint().to_string());
        let retired = key.replaced.map(|replaced| replaced.saturating_add(grace));
        let left = retired.map(|retired| retired.saturating_sub(now_ms() / 1000));
        let state = match left {
            None => "current",
            Some(0) => "retired",
            Some(_) => "replaced",
        };
        if self.json {
            let line = json!({
                "suite": suite.as_str(), "fingerprint": fingerprint, "state": state, "created": key.created,
                "retired": retired, "public": STANDARD.encode(public.as_bytes()),
            });
            return output::print_line(line.to_string());
        }
        let until = left.filter(|left| *left > 0).map(|left| format!(", opens for {left} s more"));
        output::print_line(format!("{fingerprint} {suite} {state}{}", until.unwrap_or_default()))
    }
}
