//! `offload-rt journal`: what is in the journal of a gateway that does not run, and whether it is whole.

use super::output;
use super::state::StateFlags;
use crate::durability::{self, journal_config, kind};
use crate::request::journal::describe::describe;
use anyhow::Context;
use clap::{Args, Subcommand};
use offload_journal::{OpenError, Record, Recovery, check, salvage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code where something that was durable cannot be read. 2 is for a wrong command line.
const EXIT_DAMAGED: u8 = 3;

/// What to do with it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct JournalCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Read the whole journal, and say whether anything is damaged
    #[command(after_help = EXAMPLES)]
    Check(Which),
    /// List its records
    #[command(after_help = EXAMPLES)]
    Show(Which),
    /// Copy what is whole into a new journal
    #[command(after_help = EXAMPLES)]
    Salvage {
        #[command(flatten)]
        which: Which,
        /// Folder of the new journal, which is made
        #[arg(value_name = "FOLDER")]
        into: PathBuf,
    },
}

/// Whose journal, and how to print.
#[derive(Args)]
struct Which {
    #[command(flatten)]
    state: StateFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt journal check --data-dir /var/lib/offload-rt
  offload-rt journal show --json
  offload-rt journal salvage --config gateway.toml /tmp/salvaged

The gateway must not run. `check` and `show` change nothing; `salvage` leaves
the old journal as it is. A gateway that starts does by itself what `salvage`
does, and keeps damaged bytes in `journal/damaged`.
Exit codes: 0 all is whole, 1 the journal cannot be read, 3 part of it is lost.";

pub fn run(command: JournalCommand) -> anyhow::Result<ExitCode> {
    let (which, found) = match &command.action {
        Action::Check(which) => {
            let (path, recovery) = which.read()?;
            print_summary(which, &path, &recovery)?;
            (which, recovery)
        }
        Action::Show(which) => {
            let (_, recovery) = which.read()?;
            for record in &recovery.records {
                print_record(which, record)?;
            }
            (which, recovery)
        }
        Action::Salvage { which, into } => {
            let config = which.state.configuration()?;
            let path = durability::folder(&config.data_dir);
            let limits = journal_config(&config).unwrap_or_default();
            let recovery = salvage(&path, into, &limits).map_err(|error| unreadable(&path, error))?;
            print_summary(which, &path, &recovery)?;
            (which, recovery)
        }
    };
    for damage in &found.damage {
        if !which.json {
            output::complain(&format!("damaged: {damage:?}"));
        }
    }
    Ok(if found.damage.is_empty() { ExitCode::SUCCESS } else { EXIT_DAMAGED.into() })
}

impl Which {
    fn read(&self) -> anyhow::Result<(PathBuf, Recovery)> {
        let path = durability::folder(&self.state.configuration()?.data_dir);
        let recovery = check(&path).map_err(|error| unreadable(&path, error))?;
        Ok((path, recovery))
    }
}

fn unreadable(path: &Path, error: OpenError) -> anyhow::Error {
    let hint = match &error {
        OpenError::InUse => "; the gateway of this data directory runs: stop it first",
        OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            "; no gateway with another `durability` than \"off\" has used this data directory"
        }
        _ => "",
    };
    anyhow::anyhow!("{}: {error}{hint}", path.display())
}

fn print_summary(which: &Which, path: &Path, recovery: &Recovery) -> anyhow::Result<()> {
    let mut kinds = BTreeMap::<&str, usize>::new();
    recovery.records.iter().for_each(|record| *kinds.entry(kind::name(record.kind)).or_default() += 1);
    if which.json {
        let damage: Vec<String> = recovery.damage.iter().map(|damage| format!("{damage:?}")).collect();
        let line = serde_json::json!({
            "journal": path.to_str().context("the journal's path is no UTF-8")?,
            "records": kinds,
            "torn_bytes": recovery.torn_bytes,
            "damage": damage,
        });
        output::print_line(line)?;
        return Ok(());
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    let kinds = if kinds.is_empty() { "no records".to_owned() } else { kinds.join(", ") };
    let whole = match recovery.damage.len() {
        0 => "nothing is damaged".to_owned(),
        count => format!("{count} damaged"),
    };
    let torn = match recovery.torn_bytes {
        0 => String::new(),
        bytes => {
            format!("; the last write was cut short ({bytes} bytes), as in a crash: it was not acknowledged")
        }
    };
    output::print_line(format_args!("{}: {kinds}; {whole}{torn}", path.display()))?;
    Ok(())
}

fn print_record(which: &Which, record: &Record) -> anyhow::Result<()> {
    let (id, kind, what) = (record.id.0, kind::name(record.kind), describe(record));
    let bytes = record.bytes.len() as u64 + record.blob.as_ref().map_or(0, |blob| blob.len());
    match which.json {
        true => {
            output::print_line(
                serde_json::json!({"record": id, "kind": kind, "bytes": bytes, "what": what}),
            )?;
        }
        false => output::print_line(format_args!("{id}  {kind}  {bytes} bytes  {what}"))?,
    }
    Ok(())
}
