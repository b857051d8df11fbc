//! `offload-checker`: kills a gateway under load again and again, and checks that nothing acknowledged is lost.

use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use offload_checker::deployment::{Settings, Target};
use offload_checker::ledger::{Counts, Promise};
use offload_checker::report;
use offload_checker::run::{Kill, Options, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

/// Of this program, when a signal ends it: that of a shell.
const INTERRUPTED: u8 = 130;

/// When it could not check anything.
const FAILED: u8 = 2;

/// Kills a gateway under load again and again, and checks that nothing that was acknowledged is lost
///
/// Exits with 1 when it finds a contradiction, and prints it with the seed and the round. The seed says what is sent
/// and when what is killed; not how the system schedules it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// All choices follow from it; by default from the time
    #[arg(long)]
    seed: Option<u64>,
    /// Rounds of load, kills and checks
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// What is tested
    #[arg(long, default_value = "embedded")]
    target: Target,
    /// What is killed: by default the gateway, or Mosquitto where there is none; of a network all kinds of servers,
    /// and links are cut
    #[arg(long)]
    kill: Option<Kill>,
    /// What is promised: by default `ids` if Mosquitto is killed beside a gateway, which loses what it acknowledges
    #[arg(long)]
    promise: Option<PromiseArgument>,
    /// The gateway's `durability`: by default its own default
    #[arg(long, value_name = "MODE")]
    durability: Option<String>,
    /// Mosquitto keeps nothing
    #[arg(long)]
    no_persistence: bool,
    /// Requests of all devices that are not answered yet
    #[arg(long, value_name = "N", default_value_t = 64)]
    in_flight: usize,
    /// Seconds without anything new before what is owed is given up: by default 20, or 120 where Mosquitto is killed
    /// beside a gateway, which tries again after longer and longer pauses, and for networks
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
    /// The program `offload-rt`: by default the one beside this program
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// The program `nats-server`, 2.10 or newer: by default the one that `cargo xtask setup` has installed beside the
    /// target directory's programs, or that of `PATH`
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// Lines for the gateway's configuration
    #[arg(long, value_name = "TOML", default_value = "")]
    configuration: String,
    /// The servers' folder stays, with their logs and data
    #[arg(long)]
    keep: bool,
    /// Prints what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// [`Promise`], as it is typed.
#[derive(Clone, Copy, ValueEnum)]
enum PromiseArgument {
    /// What was acknowledged is answered or delivered, and sessions and retained values are kept
    Acknowledged,
    /// A request with an `id` that is repeated until it is answered is answered with the same bytes each time
    Ids,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match check(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn check(arguments: &Arguments) -> Result<ExitCode> {
    let options = options(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let report = local.block_on(&runtime, async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            report = run(&options, progress(options.rounds)) => report.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    })?;
    let Some(report) = report else { return Ok(ExitCode::from(INTERRUPTED)) };
    if arguments.json {
        println!("{:#}", report::json(&options, &report));
    } else {
        print!("{}", report::text(&options, &report));
    }
    Ok(if report.contradictions.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(arguments: &Arguments) -> Result<Options> {
    let (plain, network) = (arguments.target == Target::MosquittoPlain, arguments.target.is_network());
    let kill = arguments.kill.unwrap_or(match (plain, network) {
        (true, _) => Kill::Broker,
        (_, true) => Kill::Either,
        _ => Kill::Gateway,
    });
    ensure!(!network || matches!(kill, Kill::Either | Kill::None), "of a network all or nothing is killed");
    let kills_gateway = matches!(kill, Kill::Gateway | Kill::Either);
    let kills_broker = matches!(kill, Kill::Broker | Kill::Either);
    ensure!(!(plain && kills_gateway), "there is no gateway to kill");
    ensure!(!(arguments.target == Target::Embedded && kills_broker), "there is no Mosquitto to kill");
    let promise = match arguments.promise {
        Some(PromiseArgument::Acknowledged) => Promise::Acknowledged,
        Some(PromiseArgument::Ids) => Promise::Ids,
        None if kills_broker && !plain && !network => Promise::Ids,
        None => Promise::Acknowledged,
    };
    ensure!(!(plain && promise == Promise::Ids), "Mosquitto alone answers no request");
    let patience = arguments.patience.unwrap_or(if kills_broker && !plain { 120 } else { 20 });
    let beside = std::env::current_exe()?;
    let installed = beside.ancestors().nth(2).map(|target| target.join("python/bin/nats-server"));
    let nats_server = arguments.nats_server.clone().or(installed.filter(|file| file.is_file()));
    let gateway = match &arguments.gateway {
        Some(file) => file.clone(),
        None => beside.with_file_name("offload-rt"),
    };
    ensure!(plain || gateway.is_file(), "{} is not built", gateway.display());
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is wrong")?.as_secs(),
    };
    Ok(Options {
        seed,
        rounds: arguments.rounds,
        settings: Settings {
            target: arguments.target,
            gateway,
            nats_server,
            durability: arguments.durability.clone(),
            persistence: !arguments.no_persistence,
            configuration: arguments.configuration.clone(),
        },
        kill,
        promise,
        in_flight: arguments.in_flight,
        patience: Duration::from_secs(patience),
        keep: arguments.keep,
    })
}

/// A line that is written over, where there is a terminal.
fn progress(rounds: u32) -> impl FnMut(u32, &Counts) {
    let terminal = stderr().is_terminal();
    move |round, counts| {
        if terminal {
            let found: u64 = counts.contradictions.values().sum();
            let end = if round == rounds || found > 0 { "\n" } else { "" };
            let mut stderr = stderr().lock();
            // Whoever closes stderr wants none of it.
            let _ = write!(
                stderr,
                "\rround {round} of {rounds}: {} acknowledged, {found} contradictions{end}",
                counts.acknowledged
            );
            let _ = stderr.flush();
        }
    }
}
