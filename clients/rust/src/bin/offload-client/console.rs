//! `offload-client console`: MQTT by hand, to learn it and to see what a broker does.

mod command;
mod history;
mod pipe;
mod prompt_printer;
mod screen;
mod session;
mod terminal;

use std::io::{IsTerminal, stdin, stdout};
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;

use self::screen::Screen;
use self::session::Session;
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::units;

/// Lines that wait to be carried out; a pipe is not read beyond them, a terminal's are refused.
const MAX_WAITING_LINES: usize = 1024;

/// Talk MQTT with a broker by hand: CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT
///
/// Shows every acknowledgement, and messages as they come. Each command waits for its acknowledgement before the next
/// one. From a pipe or a file it takes one command a line, and exits 125 if one failed (124 if it was for want of an
/// acknowledgement). `help` lists the commands.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Console {
    /// How long a command waits for its acknowledgement: 2s, 500ms; at most an hour
    #[arg(long, value_name = "T", value_parser = ack_timeout, default_value = "10s")]
    ack_timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  offload-client -h gateway.local console
  printf 'connect\\npublish -q 2 lamp on\\n' | offload-client console";

/// Who waits longer wants no limit at all.
const MAX_ACK_TIMEOUT: Duration = Duration::from_secs(60 * 60);

fn ack_timeout(text: &str) -> Result<Duration, String> {
    let timeout = units::duration(text)?;
    if timeout <= MAX_ACK_TIMEOUT { Ok(timeout) } else { Err("expected at most 1h".to_owned()) }
}

/// A line to be carried out.
struct Line {
    /// Where it stands in what is piped in; a terminal's lines have no number.
    number: Option<u64>,
    /// Or what keeps it from being read.
    text: Result<String, String>,
}

impl Console {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags) -> u8 {
        let options = match connection.options() {
            Ok(options) => options,
            Err(failure) => return failure.report(),
        };
        let (sender, lines) = mpsc::channel(MAX_WAITING_LINES);
        let editor = (stdin().is_terminal() && stdout().is_terminal())
            .then(terminal::open)
            // A terminal that cannot be edited on is read like a pipe.
            .and_then(Result::ok);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return Failure::new("internal", error.to_string()).report(),
        };
        match editor {
            Some((editor, printer)) => {
                let interrupts = editor.interrupts();
                let typing = std::thread::spawn(move || editor.read(sender));
                let session = Session::new(options, self.ack_timeout, Screen::terminal(printer));
                runtime.block_on(session.run(lines, interrupts));
                // It has ended, for nothing else ends the session; the terminal is as it was before.
                let _ = typing.join();
                0
            }
            None => {
                // Nothing waits for it: it may be in the middle of a read.
                std::thread::spawn(move || pipe::read(stdin().lock(), &sender));
                let session = Session::new(options, self.ack_timeout, Screen::stdout());
                runtime.block_on(session.run(lines, Default::default()))
            }
        }
    }
}
