//! `cargo xtask fuzz`: the fuzz targets of all crates that have some, for a bounded time or number of inputs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::process::{cargo, run as run_command, succeeds};
use crate::time::Span;
use crate::workspace::Workspace;

/// Bytes of the largest input: a few dozen packets, or a request with all that it can have.
const LARGEST_INPUT: usize = 4_096;
/// Seconds after which an input counts as one that hangs.
const HANGS: u64 = 30;
/// Resident size in MB above which an input counts as one that eats memory: many times what the target takes.
const MOST_MEMORY: usize = 1_024;

/// What to fuzz, and for how long.
#[derive(Args)]
pub struct Arguments {
    /// For each target
    #[arg(long, default_value = "60s")]
    time: Span,
    /// The number of inputs for each target, however long that takes
    #[arg(long, value_name = "N", conflicts_with = "time")]
    runs: Option<u64>,
    /// Runs nothing: tells whether the targets still compile
    #[arg(long, conflicts_with_all = ["time", "runs", "target"])]
    check: bool,
    /// Only this one
    target: Option<Target>,
}

/// The crates that have fuzz targets.
const OWNERS: [&str; 5] = ["broker", "protocol", "journal", "config", "runtime"];

/// The programs in the `fuzz/fuzz_targets` of these crates.
#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// Bytes to packets
    Packets,
    /// Whole connections
    Connections,
    /// Bytes to requests, in every form
    Requests,
    /// Bytes to answers, in every form
    Answers,
    /// Topics, filters and digests
    Names,
    /// Segments and blobs of a journal, of any content
    Segments,
    /// Damage to whole journals
    Damage,
    /// Configuration files
    Configuration,
    /// What the broker keeps in the journal
    Records,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Packets => "packets",
            Target::Connections => "connections",
            Target::Requests => "requests",
            Target::Answers => "answers",
            Target::Names => "names",
            Target::Segments => "segments",
            Target::Damage => "damage",
            Target::Configuration => "configuration",
            Target::Records => "records",
        }
    }

    /// The folder of the crate that it belongs to.
    fn owner(self) -> &'static str {
        match self {
            Target::Packets | Target::Connections => "broker",
            Target::Requests | Target::Answers | Target::Names => "protocol",
            Target::Segments | Target::Damage => "journal",
            Target::Configuration => "config",
            Target::Records => "runtime",
        }
    }
}

/// Fails when one of them finds something.
pub fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    if arguments.check {
        return OWNERS.iter().try_for_each(|owner| check(&workspace, owner));
    }
    if !succeeds(cargo(&workspace.root).args(["fuzz", "--version"])) {
        run_command(cargo(&workspace.root).args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let targets = arguments.target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    targets.into_iter().try_for_each(|target| fuzz(&workspace, target, arguments))
}

/// The workspace's own checks pass over these crates, which are workspaces of their own.
fn check(workspace: &Workspace, owner: &str) -> Result<()> {
    let mut command = cargo(&workspace.root.join(owner).join("fuzz"));
    command.args(["check", "--locked", "--target-dir"]).arg(workspace.target.join("fuzz/check"));
    // As cargo-fuzz compiles them.
    command.env("RUSTFLAGS", "--cfg fuzzing");
    // Nothing is linked: the fuzzer's own library, which is C++, need not be built.
    command.env("CUSTOM_LIBFUZZER_PATH", workspace.root.join("Cargo.toml"));
    run_command(&mut command)
}

fn fuzz(workspace: &Workspace, target: Target, arguments: &Arguments) -> Result<()> {
    let (owner, name) = (workspace.root.join(target.owner()), target.name());
    let folder = |of: &str| -> Result<PathBuf> {
        let folder = workspace.target.join("fuzz").join(of).join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let (corpus, seeds, findings) = (folder("corpus")?, folder("seeds")?, folder("findings")?);
    write_seeds(&owner.join("fuzz/seeds").join(name).with_extension("hex"), &seeds)?;
    let mut command = cargo(&owner);
    // Without a sanitizer, which this toolchain does not offer: none of the crates has unsafe code that it could watch.
    command.args(["fuzz", "run", "--sanitizer", "none", "--target-dir"]);
    command.arg(workspace.target.join("fuzz/build")).arg(name).arg(&corpus).arg(&seeds).arg("--");
    command.arg(match arguments.runs {
        Some(runs) => format!("-runs={runs}"),
        None => format!("-max_total_time={}", arguments.time.seconds()),
    });
    command.arg(format!("-max_len={LARGEST_INPUT}")).arg(format!("-timeout={HANGS}"));
    command.arg(format!("-rss_limit_mb={MOST_MEMORY}"));
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    let ended = run_command(&mut command);
    if ended.is_err() {
        print_findings(&findings)?;
    }
    ended
}

/// One file a line of the list, which is what the fuzzer takes.
fn write_seeds(list: &Path, folder: &Path) -> Result<()> {
    let text = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (number, line) in lines.enumerate() {
        let bytes = line.rsplit_once(": ").and_then(|(_, hex)| from_hex(hex));
        let Some(bytes) = bytes else { bail!("{}: not a seed: {line}", list.display()) };
        fs::write(folder.join(number.to_string()), bytes)?;
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.split_whitespace().flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

/// As lines for the list of seeds.
fn print_findings(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hex: String = fs::read(&path)?.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{}: {hex}", path.display());
    }
    Ok(())
}
