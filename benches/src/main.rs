//! Side-by-side benchmarks: the gateway beside floors (an echo, bare wasmtime) and beside peers.
//!
//! Absolute figures drift with the machine; what counts is the ratio of contenders that take turns in one run.
//! docs/performance.md says what is measured and what came out.

mod guests;
mod load;
mod plot;
mod report;
mod request;
mod rounds;
mod serve;
mod server;
mod spread;
mod suites;
mod table;
mod validation;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use guests::Guests;
use offload_rt::compiler::{CHILD_ROLE, child};
use report::Report;
use rounds::Plan;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use suites::Suite;

/// Longest time of one turn, in seconds.
const MAX_SECONDS: f64 = 3_600.0;

/// Most idle clients: as many as one port can have from one address.
const MAX_IDLE_CLIENTS: i64 = 28_000;

/// Measures the gateway beside floors and peers that take turns with it
#[derive(Parser)]
#[command(name = "offload-benches")]
struct Cli {
    /// Suites to run, a list; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Suite>,
    /// How often each contender has its turn; at least 5 for figures to publish
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Measured time of each turn; a quarter more goes before it to warm up
    #[arg(long, default_value = "0.8", value_parser = seconds)]
    seconds: Duration,
    /// Clients that are connected and do nothing, where there is a crowd
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=MAX_IDLE_CLIENTS))]
    idle_clients: u32,
    /// Folder for the plots, as SVG; none by default
    #[arg(long, overrides_with = "plots")]
    plots: Option<PathBuf>,
    /// Print every measurement as JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program starts itself as, so that no server shares a process with the load; and what else it does.
#[derive(Subcommand)]
enum Role {
    /// A server to measure
    #[command(hide = true)]
    Serve(serve::Arguments),
    /// Runs the real system and the simulated one beside each other
    ValidateSim(validation::Arguments),
    /// The compiler of the gateway that is measured
    #[command(name = CHILD_ROLE, hide = true)]
    CompileChild(child::ChildLimits),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.role {
        Some(Role::CompileChild(limits)) => return child::run(limits),
        Some(Role::Serve(arguments)) => serve::run(arguments),
        Some(Role::ValidateSim(arguments)) => validation::run(&arguments),
        None => bench(cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(cli: Cli) -> Result<()> {
    allow_many_files()?;
    let guests = Guests::find()?;
    let plan = Plan { rounds: cli.rounds, measured: cli.seconds, idle_clients: cli.idle_clients as usize };
    let mut tables = Vec::new();
    for suite in suites::chosen(&cli.only) {
        tables.extend(suite.run(&plan, &guests).with_context(|| format!("{suite:?}"))?);
    }
    let report = Report::new(&plan, tables);
    if let Some(folder) = cli.plots {
        report.tables().try_for_each(|table| plot::write(table, &folder))?;
    }
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Each client is an open file, here and in the server that inherits the limit.
fn allow_many_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.parse()?;
    ensure!(seconds > 0.0 && seconds <= MAX_SECONDS, "more than 0, and at most {MAX_SECONDS} seconds");
    Ok(Duration::from_secs_f64(seconds))
}
