//! `cargo xtask bench-sim`: how fast the simulator is, beside simpy and in worlds of growing size.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cargo, run as run_command};
use crate::python;
use crate::workspace::Workspace;

/// The simulator that it is measured beside.
const SIMPY: &str = "simpy==4.1.2";

/// The plot of what events cost goes to `docs/plots`.
pub fn run() -> Result<()> {
    let workspace = Workspace::find()?;
    let root = &workspace.root;
    // Not by `--package`: with the features of the whole workspace nothing heavy is compiled again.
    run_command(cargo(root).args(["build", "--release", "--bin", "offload-sim"]))?;
    let simulator = workspace.target.join("release/offload-sim");
    let folder = workspace.target.join("simpy");
    let python = folder.join("bin/python");
    let interpreter = python::fastest().context("no Python that can make virtual environments")?;
    run_command(Command::new(interpreter).args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut install = Command::new(&python);
    run_command(install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SIMPY]))?;
    run_command(Command::new(&python).arg(root.join("simulator/beside_simpy.py")).arg(&simulator))?;
    let plot = root.join("docs/plots/simulator-cost.svg");
    run_command(Command::new(&simulator).args(["cost", "--svg"]).arg(plot))
}
