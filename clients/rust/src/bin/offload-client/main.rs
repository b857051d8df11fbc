//! `offload-client`: hand work to an offload-rt gateway from the command line.

mod acknowledgement;
mod bench;
mod cancel;
mod code;
mod completions;
mod connection;
mod console;
mod failure;
mod folder;
mod gateways;
mod interrupt;
mod link;
mod man;
mod message;
mod modules;
mod new;
mod progress;
mod report;
mod request;
mod seal;
mod send;
mod units;

use std::ffi::OsString;
use std::io::stderr;
use std::process::ExitCode;

use clap::error::ErrorKind as ClapError;
use clap::{Parser, Subcommand};

use crate::bench::Bench;
use crate::cancel::Cancel;
use crate::completions::Completions;
use crate::connection::ConnectionFlags;
use crate::console::Console;
use crate::failure::{EXIT_ERROR, Failure};
use crate::gateways::Gateways;
use crate::man::Manual;
use crate::modules::{List, Push, Remove};
use crate::new::New;
use crate::report::{print, unless_unprintable};
use crate::send::Send;

/// Hand work to an offload-rt gateway: a WebAssembly program of your own, or arguments for one that the gateway has.
#[derive(Parser)]
#[command(name = "offload-client", version, after_help = EXAMPLES)]
#[command(disable_help_flag = true, disable_version_flag = true)]
struct Cli {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,

    /// Print version
    // Without clap's short form, which is the version of MQTT.
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    #[command(flatten)]
    connection: ConnectionFlags,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Send(Box<Send>),
    Cancel(Cancel),
    Bench(Box<Bench>),
    Gateways(Gateways),
    #[command(name = "ls")]
    List(List),
    Push(Push),
    #[command(name = "rm")]
    Remove(Remove),
    Console(Console),
    New(New),
    Completions(Completions),
    Man(Manual),
}

const EXAMPLES: &str = "\
Examples:
  offload-client send add 5 7
  offload-client send hello.wat
  offload-client send project/ 5 7
  offload-client new --lang rust sum
  offload-client gateways
  offload-client push sort.wasm
  offload-client bench add 5 7
  offload-client -h gateway.local send sort.wasm --stdin numbers.txt
  OFFLOAD_BROKER=mqtts://plant offload-client send prog.wasm
  offload-client --gateway plant send prog.wasm

~/.config/offload/client.toml has what need not be typed each time:
  broker = \"mqtts://gateway.local\"   # and whatever else the flags above name
  username = \"alice\"
  password-file = \"password\"
  [gateway.plant]                     # --gateway plant
  broker = \"mqtts://plant\"";

fn main() -> ExitCode {
    match completions::answered() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        // Nobody waits for a message in the middle of a line.
        Err(_) => return EXIT_ERROR.into(),
    }
    let (own, guest_args) = split_guest_args(std::env::args_os().collect());
    let cli = match Cli::try_parse_from(own) {
        Ok(cli) => cli,
        // Help and version are no errors; 2, which clap would exit with, could be a guest's own code.
        Err(message) if message.use_stderr() => {
            if let (ClapError::MissingRequiredArgument, Some(misplaced)) = (message.kind(), &guest_args) {
                return nothing_before_args(misplaced).report().into();
            }
            // With a kind, as every error has one.
            let message = message.render().to_string().replacen("error: ", "error: malformed: ", 1);
            // Whoever closed stderr does not want to be told.
            let _ = print(stderr(), message.as_bytes());
            return EXIT_ERROR.into();
        }
        Err(message) => {
            return unless_unprintable(message.print(), 0).into();
        }
    };
    match cli.command {
        Command::Send(command) => command.run(cli.connection, guest_args).into(),
        Command::Cancel(command) => command.run(cli.connection).into(),
        Command::Bench(command) => command.run(cli.connection, guest_args).into(),
        Command::Gateways(command) => command.run(cli.connection).into(),
        Command::List(command) => command.run(cli.connection).into(),
        Command::Push(command) => command.run(cli.connection).into(),
        Command::Remove(command) => command.run(cli.connection).into(),
        Command::Console(command) => command.run(cli.connection).into(),
        Command::New(command) => command.run().into(),
        Command::Completions(command) => command.run().into(),
        Command::Man(command) => command.run().into(),
    }
}

/// Everything after `--args` is the guest's, also what looks like one of our flags or like `--`. Behind a `--` it is a
/// word of the guest's already.
fn split_guest_args(mut args: Vec<OsString>) -> (Vec<OsString>, Option<Vec<OsString>>) {
    match args.iter().position(|arg| arg == "--args" || arg == "--") {
        Some(at) if args[at] == "--args" => {
            let guest_args = args.split_off(at + 1);
            args.pop();
            (args, Some(guest_args))
        }
        _ => (args, None),
    }
}

/// `--args` came first, and took what was meant to be run.
fn nothing_before_args(guest_args: &[OsString]) -> Failure {
    let mut words: Vec<_> = guest_args.iter().map(|word| word.to_string_lossy()).collect();
    let operand = words.pop().unwrap_or("PROGRAM".into());
    Failure::usage(format!(
        "--args takes everything that follows it: FILE|PROGRAM goes before it, as in `send {operand} {}`",
        words.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// A line that is broken cannot be pasted.
    #[test]
    fn examples_fit_a_narrow_terminal() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands().chain([&cli]).filter(|command| command.get_name() != "help") {
            let examples = command.get_after_help().expect("every command has examples").to_string();
            assert!(examples.contains("Examples:\n  "), "{examples}");
            assert!(examples.lines().all(|line| line.len() <= 80), "{examples}");
        }
    }

    #[test]
    fn everything_after_args_is_the_guests() {
        let split = |line: &str| split_guest_args(line.split(' ').map(OsString::from).collect());
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            split("oc send add --json --args -x --json -- --args 5"),
            (words("oc send add --json"), Some(words("-x --json -- --args 5")))
        );
        assert_eq!(split("oc send add --args"), (words("oc send add"), Some(vec![])));
        assert_eq!(split("oc send add"), (words("oc send add"), None));
        assert_eq!(split("oc send add -- --args 5"), (words("oc send add -- --args 5"), None));
    }

    #[test]
    fn h_is_the_host_and_connection_flags_stand_on_either_side() {
        for line in ["oc -h box -p 1884 -i me send add", "oc -h box --id me send --port 1884 --id 7 add"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
            let options = cli.connection.options_with(Default::default()).unwrap();
            assert_eq!(
                (options.host.as_str(), options.port, options.client_id.as_str()),
                ("box", 1884, "me")
            );
        }
    }
}
