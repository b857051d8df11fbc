//! `offload-sim new`: a scenario to start from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

/// The scenario that is written: the one that ships, with its comments.
pub const TEMPLATE: &str = include_str!("../../scenarios/one-site.toml");

/// Writes a commented scenario to start from.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  offload-sim new site.toml\n  offload-sim new | less")]
pub struct New {
    /// The file, which must not be there; standard output without one.
    #[arg(value_name = "SCENARIO.toml")]
    file: Option<PathBuf>,
}

impl New {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let Some(path) = self.file else {
            super::print(TEMPLATE)?;
            return Ok(true);
        };
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let cannot = || match path.exists() {
            true => format!("cannot make {}, which is there already: name another file", path.display()),
            false => format!("cannot make {}", path.display()),
        };
        file.with_context(cannot)?.write_all(TEMPLATE.as_bytes()).with_context(cannot)?;
        eprintln!("{} is written; `offload-sim run {}` simulates it", path.display(), path.display());
        Ok(true)
    }
}
