//! `offload-rt config`: the effective configuration as commented TOML.

use super::{Overrides, output};
use std::process::ExitCode;

pub fn run(overrides: Overrides) -> anyhow::Result<ExitCode> {
    let config = overrides.into_config()?;
    output::print(config.to_commented_toml())?;
    Ok(ExitCode::SUCCESS)
}
