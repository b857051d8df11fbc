//! `cargo xtask bench`: builds what the benchmarks run, and runs them.

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::setup;
use crate::workspace::Workspace;

/// The arguments are the benchmark program's.
pub fn run(rest: &[String]) -> Result<()> {
    setup::run()?;
    let root = Workspace::find()?.root;
    // Not by `--package`: with the features of the whole workspace nothing heavy is compiled again.
    run_command(cargo(&root).args(["run", "--release", "--bin", "offload-benches", "--"]).args(rest))
}
