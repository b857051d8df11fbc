//! `cargo xtask bench`: builds what the benchmarks run, and runs them.

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::workspace::Workspace;
use crate::{guests, setup};

/// The arguments are the benchmark program's.
pub fn run(rest: &[String]) -> Result<()> {
    guests::run(&setup::run()?)?;
    let root = Workspace::find()?.root;
    run_command(cargo(&root).args(["build", "--release", "--workspace", "--bins"]))?;
    run_command(cargo(&root).args(["run", "--release", "--package", "offload-benches", "--"]).args(rest))
}
