//! `offload-sim session`: packets by hand.

mod hub;
mod remote;
mod screen;

use std::io::{self, IsTerminal as _, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustyline::error::ReadlineError;

use self::hub::Host;
use self::remote::Remote;
use self::screen::Screen;
use crate::session::command::MAX_LINE;
use crate::session::display::View;
use crate::session::help;
use crate::session::shell::Reply;

/// Columns where there is no terminal.
const DEFAULT_COLUMNS: usize = 80;

/// Fewer and nothing fits.
const FEWEST_COLUMNS: u16 = 40;

/// Opens brokers, clients and routers by hand, and shows each packet between them.
///
/// For teaching and debugging: the network is virtual, and time goes on by `step` and `run` alone. Commands come from
/// the terminal or a pipe, one a line; `help` lists them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Session {
    /// The seed of all keys. They are for teaching alone: who knows the seed knows them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A socket by which several terminals share one network: the first that names it makes it, and is asked by the
    /// others; with it the network ends.
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    /// Shows packets as lines of JSON.
    #[arg(long)]
    json: bool,
    /// Characters of a line. Default: the terminal's, else 80.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(i64::from(FEWEST_COLUMNS)..=1_000))]
    columns: Option<u16>,
    /// Leaves out the help at the start.
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-sim session
  offload-sim session --network class.sock      (in each of several terminals)
  printf 'open broker b1\\njoin\\n' | offload-sim session --quiet";

/// Who carries commands out: this process, or the one that has the network.
trait Carrier {
    /// Carries out a line.
    ///
    /// # Errors
    /// If the network has ended.
    fn carry_out(&mut self, line: &str) -> anyhow::Result<Reply>;
}

impl Session {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let width =
            terminal_size::terminal_size_of(stdout()).map(|(terminal_size::Width(columns), _)| columns);
        let columns = self.columns.or(width.map(|width| width.max(FEWEST_COLUMNS)));
        // https://no-color.org
        let is_colour_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let view = View {
            columns: columns.map_or(DEFAULT_COLUMNS, usize::from),
            colour: is_colour_wanted && stdout().is_terminal() && !self.json,
            json: self.json,
        };
        let mut lines = Lines::open();
        let screen = lines.screen();
        let mut carrier: Box<dyn Carrier> = match &self.network {
            None => Box::new(Host::alone(self.seed, view)),
            Some(path) => match join(path)? {
                Some(stream) => Box::new(Remote::new(stream, view, screen.clone())?),
                None => Box::new(Host::shared(self.seed, view, path, screen.clone())?),
            },
        };
        let mut reply = carrier.carry_out("")?;
        if !self.quiet && !self.json {
            screen.show(&help::start(self.seed, view.columns))?;
        }
        let mut has_failed = false;
        while let Some(line) = lines.next(&reply)? {
            if !lines.is_typed() && !self.json && !line.trim().is_empty() {
                screen.show(&echo(&reply.session, line.trim()))?;
            }
            // What is too long is refused, and need not travel whole for that.
            let line: String = line.chars().take(MAX_LINE + 1).collect();
            reply = carrier.carry_out(&line)?;
            screen.show(&reply.text)?;
            has_failed |= reply.failed;
            if reply.exit {
                break;
            }
        }
        // Who types sees an error, and goes on; a script's caller has the exit code.
        Ok(lines.is_typed() || !has_failed)
    }
}

/// A command as a transcript shows it; remarks stand for themselves.
fn echo(session: &str, line: &str) -> String {
    if line.starts_with('#') { format!("{line}\n") } else { format!("{session}> {line}\n") }
}

/// The network behind a socket; `None` where there is nobody yet.
fn join(path: &Path) -> anyhow::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot reach the network {}: name a file in a folder that you can write to",
                path.display()
            )
        }),
    }
}

/// Where commands come from.
enum Lines {
    Typed(Box<rustyline::DefaultEditor>),
    Piped(io::Lines<io::StdinLock<'static>>),
}

impl Lines {
    fn open() -> Self {
        let is_terminal = stdin().is_terminal() && stdout().is_terminal();
        // A terminal that cannot be edited on is read like a pipe.
        let editor = is_terminal.then(rustyline::DefaultEditor::new).and_then(Result::ok);
        match editor {
            Some(editor) => Self::Typed(Box::new(editor)),
            None => Self::Piped(stdin().lines()),
        }
    }

    fn is_typed(&self) -> bool {
        matches!(self, Self::Typed(_))
    }

    /// Where all is shown, above the line that is being typed.
    fn screen(&mut self) -> Screen {
        match self {
            Self::Typed(editor) => {
                editor.create_external_printer().map_or_else(|_| Screen::plain(), Screen::above_prompt)
            }
            Self::Piped(_) => Screen::plain(),
        }
    }

    /// The next one; `None` where there are no more.
    fn next(&mut self, reply: &Reply) -> anyhow::Result<Option<String>> {
        match self {
            Self::Piped(lines) => lines.next().transpose().context("cannot read commands"),
            Self::Typed(editor) => loop {
                match editor.readline(format!("{} [{}]> ", reply.session, reply.status).trim_start()) {
                    Ok(line) => {
                        // A history that is full or off is no reason to end.
                        let _ = editor.add_history_entry(&line);
                        return Ok(Some(line));
                    }
                    Err(ReadlineError::Interrupted) => println!("`exit` or ctrl-d ends the terminal"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error).context("cannot read commands"),
                }
            },
        }
    }
}
