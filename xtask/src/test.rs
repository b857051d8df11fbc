//! `cargo xtask test`: everything that `cargo test` cannot see to by itself, and then `cargo test`.

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::workspace::Workspace;
use crate::{guests, setup, simulator_page};

/// The tests find the guests and the programs in cargo's target folder, beside their own executables.
pub fn run(rest: &[String]) -> Result<()> {
    let toolchains = setup::run()?;
    guests::run(&toolchains)?;
    simulator_page::run(&toolchains)?;
    let root = Workspace::find()?.root;
    // `cargo test` builds a package's programs for that package's own tests only.
    run_command(cargo(&root).args(["build", "--release", "--workspace", "--all-targets"]))?;
    run_command(cargo(&root).args(["test", "--release", "--workspace"]).args(rest))
}
