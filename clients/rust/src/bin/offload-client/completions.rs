//! `offload-client completions`: what a shell has to know to complete the command line, and what it is answered.
//!
//! The shell asks the command itself, which knows the files of the configuration and the programs of the gateway.

use std::ffi::{OsStr, OsString};
use std::io::stdout;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches};
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use crate::Cli;
use crate::connection::{Configuration, ConnectionFlags};
use crate::failure::Failure;
use crate::gateways;
use crate::report::{print, unless_unprintable};

/// The command, and so the function that completes it.
const NAME: &str = "offload-client";

/// The environment variable with which the shell asks; its value is the shell's name.
const ASKING_VARIABLE: &str = "OFFLOAD_COMPLETE";

/// The longest that the gateways are asked for their programs: nobody waits longer for a completion.
const ASKING_TIME: Duration = Duration::from_millis(500);

/// How long further gateways are listened to, once the broker has granted the subscription.
const LISTENING_TIME: Duration = Duration::from_millis(50);

/// Print the completions of a shell
///
/// The script has the shell ask this command: for its flags, for files, for the gateways of the configuration file, and
/// for the programs that gateways have, if they answer within half a second.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell to complete in: bash, elvish, fish, powershell or zsh
    #[arg(hide_possible_values = true)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(offload-client completions bash)
  offload-client completions bash > \\
      ~/.local/share/bash-completion/completions/offload-client
  offload-client completions zsh > ~/.zfunc/_offload-client
  offload-client completions fish > \\
      ~/.config/fish/completions/offload-client.fish";

impl Completions {
    /// Runs the command; returns its exit code.
    pub fn run(self) -> u8 {
        let Some(shell) = Shells::builtins().0.iter().find(|shell| shell.is(&self.shell.to_string())) else {
            return Failure::usage(format!("no completions for {}", self.shell)).report();
        };
        let mut script = Vec::new();
        match shell.write_registration(ASKING_VARIABLE, NAME, NAME, &own_path(), &mut script) {
            Ok(()) => unless_unprintable(print(stdout(), script.trim_ascii_start()), 0),
            Err(error) => Failure::new("internal", error.to_string()).report(),
        }
    }
}

/// What the shell is to call: the name where it finds this very program by it, else the path.
fn own_path() -> String {
    let Ok(own) = std::env::current_exe().and_then(|path| path.canonicalize()) else {
        return NAME.to_owned();
    };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(NAME)).find(|path| path.is_file());
    match found.and_then(|path| path.canonicalize().ok()) {
        Some(found) if found == own => NAME.to_owned(),
        _ => own.display().to_string(),
    }
}

/// Answers a shell that asks; whether one did.
///
/// # Errors
///
/// When it asks in a way that is not known, or the answer cannot be printed.
pub fn answered() -> Result<bool, clap::Error> {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command)
        .var(ASKING_VARIABLE)
        .try_complete(std::env::args_os(), folder.as_deref())
}

/// What can be sent: files, folders, and programs that gateways have.
pub fn operands(start: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = PathCompleter::any().complete(start);
    // Names of programs have neither; a path does not cost a look at the network.
    if !start.as_encoded_bytes().iter().any(|byte| b"/.".contains(byte)) {
        let names = programs().into_iter().filter(|name| name.starts_with(&*start.to_string_lossy()));
        candidates.extend(names.map(CompletionCandidate::new));
    }
    candidates
}

fn programs() -> Vec<String> {
    let Some(flags) = flags_so_far() else { return Vec::new() };
    let configuration = Configuration::find(flags.config()).ok().flatten();
    let Ok(options) = flags.options_by(configuration.as_ref()) else { return Vec::new() };
    gateways::programs(&options, LISTENING_TIME, ASKING_TIME)
}

/// The connection flags among the words that the shell hands over, as far as they can be understood.
fn flags_so_far() -> Option<ConnectionFlags> {
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    let flags = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    ConnectionFlags::from_arg_matches(flags).ok()
}
