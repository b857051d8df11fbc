//! `cargo xtask bench`: builds what the benchmarks run, and runs them.

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::workspace::Workspace;
use crate::{guests, setup};

/// The arguments are the benchmark program's. Its plots go to `docs/plots`.
pub fn run(rest: &[String]) -> Result<()> {
    guests::run(&setup::run()?)?;
    let root = Workspace::find()?.root;
    // Not by `--package`: with the features of the whole workspace nothing heavy is compiled again.
    let mut bench = cargo(&root);
    bench
        .args(["run", "--release", "--bin", "offload-benches", "--", "--plots"])
        .arg(root.join("docs/plots"));
    run_command(bench.args(rest))
}
