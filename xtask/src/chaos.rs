//! `cargo xtask chaos`: the broker under abuse, for as long as one likes.

use anyhow::Result;
use clap::Args;

use crate::process::{cargo, run as run_command};
use crate::time::Span;
use crate::workspace::Workspace;

/// For how long.
#[derive(Args)]
pub struct Arguments {
    /// A minute of it is among the tests
    #[arg(long, default_value = "1h")]
    time: Span,
}

/// Fails when an honest client is disturbed, memory grows, or the broker ends.
pub fn run(arguments: &Arguments) -> Result<()> {
    let seconds = arguments.time.seconds().to_string();
    let root = Workspace::find()?.root;
    // Not by `--package`: with the features of the whole workspace nothing heavy is compiled again.
    run_command(cargo(&root).args(["test", "--release", "--test", "chaos", "--", "--seconds", &seconds]))
}
