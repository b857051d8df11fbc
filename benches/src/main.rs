//! Side-by-side benchmarks: the gateway beside an echo at the same ingress, and beside an echo on Mosquitto.
//!
//! Absolute figures drift with the machine; what counts is the ratio of contenders that take turns in one run.
//! docs/performance.md says what is measured and what came out.

mod contender;
mod load;
mod mqtt;
mod report;
mod rounds;
mod serve;
mod server;
mod spread;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use offload_rt::compiler::{CHILD_ROLE, child};
use report::Report;
use rounds::Plan;
use std::process::ExitCode;
use std::time::Duration;

/// Longest time of one step, in seconds.
const MAX_SECONDS: f64 = 3_600.0;

/// Measures requests per second and latency of `localCode` at QoS 1 beside an echo on the same broker and one on Mosquitto
#[derive(Parser)]
#[command(name = "offload-benches")]
struct Cli {
    /// How often each contender has its turn; at least 5 for figures to publish
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Measured time of each turn; a quarter more goes before it to warm up
    #[arg(long, default_value = "2", value_parser = seconds)]
    seconds: Duration,
    /// Requests in flight on the one connection, a list
    #[arg(long, value_delimiter = ',', default_value = "1,16,64",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(load::MAX_IN_FLIGHT)))]
    in_flight: Vec<u16>,
    /// Print every measurement as JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program starts itself as, so that nothing shares a process with the load generator.
#[derive(Subcommand)]
enum Role {
    /// A server to measure
    #[command(hide = true)]
    Serve { server: serve::Kind },
    /// The compiler of the gateway that is measured
    #[command(name = CHILD_ROLE, hide = true)]
    CompileChild(child::ChildLimits),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.role {
        Some(Role::CompileChild(limits)) => return child::run(limits),
        Some(Role::Serve { server }) => serve::run(server),
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
    let plan = Plan { rounds: cli.rounds, measured: cli.seconds, in_flight: cli.in_flight };
    let report = Report::new(&plan, rounds::run(&plan)?);
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.parse()?;
    ensure!(seconds > 0.0 && seconds <= MAX_SECONDS, "more than 0, and at most {MAX_SECONDS} seconds");
    Ok(Duration::from_secs_f64(seconds))
}
