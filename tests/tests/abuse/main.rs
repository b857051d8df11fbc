//! The whole gateway under abuse: one attack after the other on a real `offload-rt` with passwords, several ordinary
//! users and native builds, beside a bystander that asks 50 times a second and visitors that come anew.
//!
//! With all other tests it is a smoke test: every attack for a second and in small, judged by what no busy machine
//! excuses. `cargo xtask chaos` runs them in full, and judges what the bystander waits, what memory it takes, and
//! what is logged. Nothing in it is random: an attack does the same each time, as far as the gateway lets it.

mod arena;
mod attacks;
mod bystander;
mod client;
mod memory;
mod module;
mod packet;
mod priority;
mod report;
mod stage;
mod trial;
mod verdict;
mod visitor;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::attacks::{ATTACKS, Attack};
use crate::report::Row;
use crate::stage::{PasswordHash, Stage};
use crate::trial::Plan;

/// The first argument of a run in full; whatever else `cargo test` hands to every test program is for those made of
/// `#[test]`s.
const FULL: &str = "full";

/// Each attack with all other tests.
const SMOKE: Plan =
    Plan { alone: Duration::ZERO, attack: Duration::from_secs(1), after: Duration::ZERO, full: false };

/// Each attack in full, unless `--seconds-each` says otherwise: longer than a sleeping guest may live is not needed,
/// since what is taken is taken within seconds.
const DEFAULT_SECONDS: u64 = 20;

/// Without the attack, first: what the bystander's percentiles are compared with.
const ALONE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match arguments.next().as_deref() {
        Some(FULL) => match Options::read(arguments) {
            Ok(options) => full(&options).await,
            Err(error) => Err(error),
        },
        _ => smoke().await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a run in full is asked for.
struct Options {
    /// Rounds go on until then.
    time: Duration,
    seconds_each: u64,
    attacks: Vec<&'static Attack>,
    json: bool,
    list: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options {
            time: Duration::ZERO,
            seconds_each: DEFAULT_SECONDS,
            attacks: ATTACKS.iter().collect(),
            json: false,
            list: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--seconds" => options.time = Duration::from_secs(value()?.parse()?),
                "--seconds-each" => options.seconds_each = value()?.parse()?,
                "--only" => options.attacks = named(&value()?)?,
                "--json" => options.json = true,
                "--list" => options.list = true,
                _ => bail!("unknown argument {argument}"),
            }
        }
        Ok(options)
    }
}

fn named(names: &str) -> Result<Vec<&'static Attack>> {
    let find = |name: &str| {
        let attack = ATTACKS.iter().find(|attack| attack.name == name);
        attack.with_context(|| format!("no attack is called {name}: --list shows all"))
    };
    names.split(',').map(find).collect()
}

/// All that is asked for, each attack on a gateway of its own, round after round until the time is over. Whether all
/// held.
async fn full(options: &Options) -> Result<bool> {
    if options.list {
        report::list();
        return Ok(true);
    }
    many_files()?;
    let hash = PasswordHash::make()?;
    let attack = Duration::from_secs(options.seconds_each);
    let plan = Plan { alone: ALONE.min(attack), attack, after: trial::GIVES_BACK_IN, full: true };
    let (began, mut rows) = (Instant::now(), Vec::new());
    loop {
        for (number, attack) in options.attacks.iter().copied().enumerate() {
            report::begins(number + 1, options.attacks.len(), attack);
            let mut stage = Stage::open(attack.door, &hash).await?;
            let trial = trial::run(attack, &mut stage, &hash, plan).await?;
            rows.push(Row { attack, shortfalls: verdict::shortfalls(&trial), trial });
            rows.last().into_iter().for_each(report::ends);
        }
        if began.elapsed() >= options.time {
            break;
        }
    }
    if options.json {
        report::json(&rows)
    } else {
        report::table(&rows)
    }
    Ok(rows.iter().all(|row| row.shortfalls.is_empty()))
}

/// Every attack in small. Whether the bystander was answered throughout.
async fn smoke() -> Result<bool> {
    many_files()?;
    let (hash, mut held) = (PasswordHash::make()?, true);
    for (number, attack) in ATTACKS.iter().enumerate() {
        report::begins(number + 1, ATTACKS.len(), attack);
        let mut stage = Stage::open(attack.door, &hash).await?;
        let trial = trial::run(attack, &mut stage, &hash, SMOKE).await?;
        ensure!(trial.during.count() > 0, "the bystander did not ask during {}", attack.name);
        let row = Row { attack, shortfalls: verdict::no_harm(&trial), trial };
        report::ends(&row);
        if !row.shortfalls.is_empty() {
            held = false;
            eprintln!("{}", stage.gateway.log());
        }
    }
    Ok(held)
}

/// As many open files as the system allows, for this process and for the gateway that it starts.
fn many_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
