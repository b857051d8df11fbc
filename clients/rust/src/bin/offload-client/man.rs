//! `offload-client man`: its manual, made of what `--help` says.

use std::io::{self, stdout};
use std::path::{Path, PathBuf};
use std::{fs, iter};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::Cli;
use crate::failure::Failure;
use crate::report::{print, unless_unprintable};

/// When the texts were last gone through; a page has to have a date.
const DATE: &str = "2026-11-30";

/// What holds for all commands: heading, and terms with what they mean.
const SHARED: [(&str, &[(&str, &str)]); 3] = [
    (
        "EXIT STATUS",
        &[
            ("0 to 255", "What the guest exited with, of send."),
            ("124", "Time ran out, at the gateway or here."),
            ("125", "Another error: error: <kind>: <message> is on stderr, or with --json on stdout."),
            ("130", "Ctrl-c."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("OFFLOAD_BROKER", "A URL as of --broker. Flags that say where go before it."),
            (
                "OFFLOAD_PASSWORD_FILE",
                "A file as of --password-file. Passwords on the command line go before it.",
            ),
            ("OFFLOAD_CONFIG", "A file as of --config; /dev/null for none."),
        ],
    ),
    (
        "FILES",
        &[(
            "$XDG_CONFIG_HOME/offload/client.toml, by default ~/.config/offload/client.toml",
            "Settings of the connection by the names of the flags: broker = \"mqtts://plant\". A gateway in a table of \
             its own, [gateway.NAME], is chosen by --gateway NAME. Flags and environment go before it.",
        )],
    ),
];

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
        let mut cli = Cli::command().disable_help_subcommand(true);
        cli.build();
        let result = match &self.folder {
            Some(folder) => write_all(&cli, folder).map(|()| Vec::new()),
            None => page(&cli).map_err(|error| Failure::new("internal", error.to_string())),
        };
        match result {
            Ok(page) => unless_unprintable(print(stdout(), &page), 0),
            Err(failure) => failure.report(),
        }
    }
}

fn write_all(cli: &Command, folder: &Path) -> Result<(), Failure> {
    let refused =
        |path: &Path, error: io::Error| Failure::new("output", format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| refused(folder, error))?;
    for command in iter::once(cli).chain(cli.get_subcommands().filter(|command| !command.is_hide_set())) {
        let file = folder.join(format!("{}.1", title(command)));
        page(command).and_then(|page| fs::write(&file, page)).map_err(|error| refused(&file, error))?;
    }
    Ok(())
}

/// As in `offload-client-send`.
fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut page = Vec::new();
    let name = title(command).to_owned();
    Man::new(command.clone().after_help(None::<&'static str>))
        .title(name.to_uppercase())
        .date(DATE)
        .source(concat!("offload-client ", env!("CARGO_PKG_VERSION")))
        .manual("offload-rt")
        .render(&mut page)?;
    let mut rest = Roff::new();
    // As they stand: a line that is broken cannot be pasted.
    rest.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in examples.lines().skip(1) {
        rest.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    rest.control("fi", []);
    for (heading, terms) in SHARED {
        rest.control("SH", [heading]);
        for (term, meaning) in terms {
            rest.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
        }
    }
    // The page begins with it already.
    let preamble = Roff::new().render();
    let rest = rest.render();
    page.extend(rest.strip_prefix(&preamble).unwrap_or(&rest).bytes());
    Ok(page)
}
