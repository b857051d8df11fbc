//! `offload-client man`: its manual, made of what `--help` says.

use std::fs;
use std::io::stdout;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::Cli;
use crate::failure::Failure;
use crate::report::{print, unless_unprintable};

/// Print the manual page, or write those of all commands to a folder
///
/// A package writes them to its `share/man/man1`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Manual {
    /// Folder for offload-client.1 and a page for each command; it is made if need be
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  offload-client man | man -l -
  offload-client man ~/.local/share/man/man1
  man offload-client-send";

impl Manual {
    /// Runs the command; returns its exit code.
    pub fn run(self) -> u8 {
        let result = match &self.folder {
            Some(folder) => write_all(folder).map(|()| Vec::new()),
            None => page(built(), Vec::new()).map_err(|error| Failure::new("internal", error.to_string())),
        };
        match result {
            Ok(page) => unless_unprintable(print(stdout(), &page), 0),
            Err(failure) => failure.report(),
        }
    }
}

fn built() -> Command {
    Cli::command().disable_help_subcommand(true)
}

fn page(command: Command, mut page: Vec<u8>) -> std::io::Result<Vec<u8>> {
    Man::new(command).render(&mut page)?;
    Ok(page)
}

fn write_all(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(built(), folder))
        .map_err(|error| Failure::new("output", format!("{}: {error}", folder.display())))
}
