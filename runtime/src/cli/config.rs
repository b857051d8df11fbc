//! `offload-rt config`: the effective configuration as commented TOML.

use super::Overrides;
use std::io::{self, Write};
use std::process::ExitCode;

pub fn run(overrides: Overrides) -> anyhow::Result<ExitCode> {
    let config = overrides.into_config()?;
    match io::stdout().write_all(config.to_commented_toml().as_bytes()) {
        // The reader has seen enough: `offload-rt config | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => Ok(written.map(|()| ExitCode::SUCCESS)?),
    }
}
