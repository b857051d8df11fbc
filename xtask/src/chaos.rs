//! `cargo xtask chaos`: the broker alone, and the whole gateway, under abuse for as long as one likes; or killed again
//! and again, and checked for what it has acknowledged.

use std::io::stderr;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::process::{cargo, run as run_command};
use crate::time::Span;
use crate::workspace::Workspace;

/// The broker alone, with all kinds of abuse at once, has this part of the time; attacks on the whole gateway have
/// the rest.
const BROKERS_PART: u64 = 4;

/// What is abused, and for how long.
#[derive(Args)]
pub struct Arguments {
    /// A quarter of it is for the broker alone; attacks on the gateway go on in whole rounds, one at least
    #[arg(long, default_value = "1h")]
    time: Span,
    /// Only these attacks on the gateway, in one round; nothing on the broker alone
    #[arg(long, value_name = "NAME,…")]
    only: Option<String>,
    /// How long each attack on the gateway lasts
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds_each: u64,
    /// The attacks on the gateway, by name
    #[arg(long)]
    list: bool,
    /// Prints what became of the gateway as JSON, all else to stderr
    #[arg(long)]
    json: bool,
    /// Kills the gateway under load again and again instead, and checks that nothing acknowledged is lost
    #[arg(long, conflicts_with_all = ["time", "only", "seconds_each", "list"])]
    crash: bool,
    /// With --crash: how many rounds
    #[arg(long, value_name = "N", requires = "crash", default_value_t = 1000)]
    rounds: u32,
    /// With --crash: what is sent and when what is killed follows from it; by default from the time
    #[arg(long, value_name = "S", requires = "crash")]
    seed: Option<u64>,
    /// With --crash: `embedded`, `mosquitto`, `mosquitto-plain`, which has no gateway, or a network: `nats`, `sites`
    #[arg(long, requires = "crash", default_value = "embedded")]
    target: String,
    /// With --crash: more for `offload-checker`, whose --help has it
    #[arg(last = true, requires = "crash")]
    rest: Vec<String>,
}

/// Fails when a client that behaves is disturbed, memory grows, or the broker or the gateway ends.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.crash {
        return crash(arguments);
    }
    let root = Workspace::find()?.root;
    let begin = Instant::now();
    let whole = arguments.only.is_none() && !arguments.list;
    let broker = if whole {
        let seconds = arguments.time.seconds() / BROKERS_PART;
        let mut chaos = cargo(&root);
        chaos.args(test("chaos")).args(["--seconds", &seconds.to_string()]);
        if arguments.json {
            chaos.stdout(stderr());
        }
        run_command(&mut chaos)
    } else {
        Ok(())
    };
    // `cargo test` builds a package's programs for that package's own tests only.
    if !arguments.list {
        let mut build = cargo(&root);
        run_command(build.args(["build", "--release", "--workspace", "--bin", "offload-rt"]))?;
    }
    let mut abuse = cargo(&root);
    abuse.args(test("abuse")).args(["full", "--seconds-each", &arguments.seconds_each.to_string()]);
    if whole {
        let left = arguments.time.seconds().saturating_sub(begin.elapsed().as_secs());
        abuse.args(["--seconds", &left.to_string()]);
    }
    if let Some(names) = &arguments.only {
        abuse.args(["--only", names]);
    }
    for (flag, given) in [("--list", arguments.list), ("--json", arguments.json)] {
        if given {
            abuse.arg(flag);
        }
    }
    // What the broker fell short of is told once the gateway has been attacked, too.
    run_command(&mut abuse).and(broker)
}

fn crash(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let mut build = cargo(&workspace.root);
    build.args(["build", "--release", "--workspace", "--bin", "offload-rt", "--bin", "offload-checker"]);
    run_command(&mut build)?;
    let mut checker = Command::new(workspace.target.join("release/offload-checker"));
    checker.args(["--rounds", &arguments.rounds.to_string(), "--target", &arguments.target]);
    if let Some(seed) = arguments.seed {
        checker.args(["--seed", &seed.to_string()]);
    }
    if arguments.json {
        checker.arg("--json");
    }
    run_command(checker.args(&arguments.rest))
}

/// Not by `--package`: with the features of the whole workspace nothing heavy is compiled again.
fn test(name: &str) -> [&str; 5] {
    ["test", "--release", "--test", name, "--"]
}
