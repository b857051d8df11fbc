//! `cargo xtask validate-sim`: the simulator beside the real system, by the benchmarks' loads.

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::setup;
use crate::workspace::Workspace;

/// What is run, and how thoroughly.
#[derive(clap::Args)]
pub struct Arguments {
    /// Each case once, and briefly; nothing is written
    #[arg(long)]
    quick: bool,
    /// Only cases whose name has this in it; nothing is written
    #[arg(long)]
    only: Option<String>,
}

/// Builds both sides, runs them, and writes the outcome to `docs/simulator.md` and into the simulator's next build.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let Workspace { root, target } = Workspace::find()?;
    run_command(cargo(&root).args(["build", "--release", "--workspace", "--bins"]))?;
    let mut validate = cargo(&root);
    validate.args(["run", "--release", "--bin", "offload-benches", "--", "validate-sim", "--scenarios"]);
    validate.arg(target.join("validation"));
    if arguments.quick {
        validate.arg("--quick");
    }
    if let Some(only) = &arguments.only {
        validate.args(["--only", only]);
    }
    if !arguments.quick && arguments.only.is_none() {
        validate.arg("--json").arg(root.join("simulator/validation.json"));
        validate.arg("--page").arg(root.join("docs/simulator.md"));
    }
    run_command(&mut validate)
}
