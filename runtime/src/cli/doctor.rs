//! `offload-rt doctor`: what this machine gives a gateway, and what to do about what it lacks.

use super::output;
use super::overrides::Overrides;
use super::serve::OTHER_FILES;
use crate::config::capacity::PoolCapacity;
use crate::config::{ByteSize, Config, NativeMode, slot};
use crate::source::sandbox_config;
use crate::wasm::engine;
use clap::Args;
use offload_native::{Need, Sandbox, State, Wasi};
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// What to look at.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    #[command(flatten)]
    overrides: Overrides,
    /// Print an array of JSON objects
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt doctor
  offload-rt doctor --config gateway.toml
  offload-rt doctor --json

Exits 1 when source could not be built here, or the gateway would be smaller
than configured.";

/// Columns of the state, and those between the columns of the table.
const STATE: usize = 7;
const GAP: usize = 2;
/// Columns of the text at least: a narrower terminal breaks lines itself.
const MIN_ROOM: usize = 20;
/// What stands before a remedy.
const ARROW: &str = "→ ";

/// One line of the table.
struct Check {
    what: String,
    state: Health,
    /// What there is.
    found: String,
    /// What to do; empty where nothing is.
    remedy: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// Something is weaker or smaller than it could be.
    Less,
    /// Nobody knows: what it stands on is missing, which is a line of its own.
    Untried,
    Bad,
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Health::Good => "ok",
            Health::Less => "less",
            Health::Untried => "untried",
            Health::Bad => "missing",
        }
    }
}

pub fn run(command: Doctor) -> anyhow::Result<ExitCode> {
    let config = command.overrides.into_config()?;
    let mut checks = vec![capacity(&config), open_files(&config), clearing(), baseline(), proposals()];
    checks.extend(sandbox(&config));
    for check in checks.iter_mut().filter(|check| check.state == Health::Good) {
        check.remedy.clear();
    }
    if command.json {
        let all: Vec<_> = checks
            .iter()
            .map(|Check { what, state, found, remedy }| {
                json!({ "check": what, "state": state.name(), "found": found, "remedy": remedy })
            })
            .collect();
        output::print_line(serde_json::to_string_pretty(&all)?)?;
    } else {
        output::print(table(&checks, output::columns()))?;
    }
    let bad = checks.iter().any(|check| check.state == Health::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The table, with what to do below each line that wants it; of a terminal no word is broken.
fn table(checks: &[Check], columns: Option<usize>) -> String {
    let mut table = String::new();
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = checks.iter().map(|check| check.what.len()).max().unwrap_or(0);
    for Check { what, state, found, remedy } in checks {
        let (on, off) = match (colours, state) {
            (false, _) => ("", ""),
            (true, Health::Good) => ("\x1b[32m", "\x1b[0m"),
            (true, Health::Less | Health::Untried) => ("\x1b[33m", "\x1b[0m"),
            (true, Health::Bad) => ("\x1b[31m", "\x1b[0m"),
        };
        let margin = width + STATE + 2 * GAP;
        let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(margin).max(MIN_ROOM));
        let mut lines = wrapped(found, room);
        let first = lines.next().unwrap_or_default();
        table += &format!("{what:width$}  {on}{:STATE$}{off}  {first}\n", state.name());
        lines.for_each(|line| table += &format!("{:margin$}{line}\n", ""));
        for (number, line) in wrapped(remedy, room.saturating_sub(2)).enumerate() {
            let arrow = if number == 0 { ARROW } else { "  " };
            table += &format!("{:margin$}{arrow}{line}\n", "");
        }
    }
    table
}

/// The lines of a text, of which none has more than `room` columns, but for a word that has.
fn wrapped(text: &str, room: usize) -> impl Iterator<Item = String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter()
}

fn capacity(config: &Config) -> Check {
    let capacity = PoolCapacity::new(&config.workers, &config.compiler);
    let (count, memory) = (config.workers.count, config.workers.memory);
    let found = format!(
        "{} guests at once, {} on each of {count} workers, in {memory}",
        count * capacity.slots,
        capacity.slots
    );
    let (state, remedy) = match capacity.shortage {
        None => (Health::Good, String::new()),
        Some(shortage) => (Health::Bad, shortage.to_string()),
    };
    Check { what: "room for guests".into(), state, found, remedy }
}

fn open_files(config: &Config) -> Check {
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let enough = allowed >= config.listen.max_connections as u64 + OTHER_FILES;
    Check {
        what: "open files".into(),
        state: if enough { Health::Good } else { Health::Bad },
        found: format!("{allowed}, for {} connections", config.listen.max_connections),
        remedy:
            "raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd), or lower listen.max_connections"
                .into(),
    }
}

fn baseline() -> Check {
    let (state, found) = match engine::baseline() {
        Ok(_) => (Health::Good, "large modules are answered before they are optimized".to_owned()),
        Err(error) => (Health::Less, format!("{error:#}")),
    };
    let remedy = "nothing: a large module's first answer takes longer".to_owned();
    Check { what: "baseline compiler".into(), state, found, remedy }
}

fn proposals() -> Check {
    let (state, found) = match engine::proposals() {
        Ok(names) => (Health::Good, names.join(" ")),
        Err(error) => (Health::Bad, format!("{error:#}")),
    };
    let remedy = "there is no compiler for this processor".to_owned();
    Check { what: "wasm proposals".into(), state, found, remedy }
}

fn clearing() -> Check {
    let (state, found) = if engine::has_pagemap_scan() {
        (Health::Good, "what a guest has written is cleared after it (PAGEMAP_SCAN)".to_owned())
    } else {
        let kept = ByteSize::new(slot::MEMORY_KEEP_RESIDENT as u64);
        let found = format!("up to {kept} are cleared after each guest: this kernel has no PAGEMAP_SCAN");
        (Health::Less, found)
    };
    let remedy =
        "Linux 6.7 or newer: guests with large stacks, as in Rust, take about half of the time".to_owned();
    Check { what: "memory of guests".into(), state, found, remedy }
}

fn sandbox(config: &Config) -> Vec<Check> {
    let probed = Sandbox::probe(sandbox_config(config));
    let report = match &probed {
        Ok(sandbox) => sandbox.report(),
        Err(unavailable) => &unavailable.report,
    };
    let wasi = probed.as_ref().ok().map(|sandbox| compiler_for_wasi(config, sandbox));
    let accepted = &config.sandbox.accept;
    let check = |finding: &offload_native::Finding| {
        let mechanism = finding.mechanism;
        let (state, found) = match (&finding.state, mechanism.need()) {
            (State::Untried, _) => return None,
            (State::Present(what), _) => (Health::Good, what.clone()),
            (State::Missing(why), Need::Extra) => (Health::Less, why.clone()),
            (State::Missing(why), _) if accepted.contains(&mechanism) => {
                (Health::Less, format!("{why} (accepted)"))
            }
            (State::Missing(why), _) => (Health::Bad, why.clone()),
        };
        let what = format!("sandbox: {mechanism}");
        Some(Check { what, state, found, remedy: mechanism.remedy().to_owned() })
    };
    let untried: Vec<&str> = report.untried().map(|mechanism| mechanism.name()).collect();
    let untried = (!untried.is_empty()).then(|| Check {
        what: "sandbox: the rest".to_owned(),
        state: Health::Untried,
        found: format!("{} cannot be tried: they need what is missing above", untried.join(", ")),
        remedy: String::new(),
    });
    report.findings().iter().filter_map(check).chain(untried).chain(wasi).collect()
}

fn compiler_for_wasi(config: &Config, sandbox: &Sandbox) -> Check {
    let mut modes = config.access.rule.iter().filter_map(|rule| rule.native).chain([config.native]);
    let (state, found) = match sandbox.probe_wasi() {
        Ok(wasi) => (Health::Good, wasi.compiler().to_owned()),
        Err(why) if modes.any(|mode| matches!(mode, NativeMode::Wasm | NativeMode::Compare)) => {
            (Health::Bad, why)
        }
        Err(why) => (Health::Less, format!("{why} (source as wasm, which `native` does not ask for)")),
    };
    Check { what: "compiler for WASI".into(), state, found, remedy: Wasi::REMEDY.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_broken_at_the_edge_of_a_terminal() {
        let found =
            "mutable-global saturating-float-to-int sign-extension reference-types multi-value bulk-memory";
        let (what, remedy) = ("wasm proposals".to_owned(), found.to_owned());
        let check = Check { what, state: Health::Less, found: found.into(), remedy };
        for columns in [60, 80, 200] {
            let table = table(std::slice::from_ref(&check), Some(columns));
            assert!(table.lines().all(|line| line.chars().count() <= columns), "{table}");
            let words: Vec<&str> = table.split_whitespace().collect();
            let told: Vec<&str> = found.split(' ').collect();
            let expected = [&["wasm", "proposals", "less"], &told[..], &["→"], &told[..]].concat();
            assert_eq!(words, expected, "{columns}");
        }
        assert_eq!(table(&[check], None).lines().count(), 2, "scripts read one line each");
    }
}
