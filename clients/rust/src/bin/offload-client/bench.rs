//! `offload-client bench`: how many requests a gateway answers, and how fast.

mod live;
mod load;
mod schedule;
mod summary;
mod tally;

use std::ffi::OsString;
use std::io::stdout;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Args, value_parser};
use clap_complete::ArgValueCompleter;
use offload_client::{AnswerForm, MqttVersion, Options, Request};

use self::load::{Measurement, Plan};
use self::schedule::Extent;
use self::summary::Summary;
use crate::completions;
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::report::{print, report_failure, unless_unprintable};
use crate::request::RequestFlags;
use crate::units;

/// Some request was not answered as it should be.
const EXIT_FAILED: u8 = 1;

/// Requests a second; more than any client can send.
const MAX_RATE: i64 = 1_000_000;

/// Connections of one benchmark; fewer than most systems let a process have files open.
const MAX_CONNECTIONS: i64 = 1_000;

/// Requests in flight of one benchmark: as many as MQTT has packet identifiers.
const MAX_CONCURRENCY: i64 = 65_535;

/// Longest warm-up, measurement and wait for an answer.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Requests in flight at most, of an open loop that does not say.
const DEFAULT_OPEN_CONCURRENCY: u16 = 1_024;

/// Measure how many requests a gateway answers, and how fast
///
/// Sends one request again and again, each checked for an answer without error and exit code 0, and prints throughput
/// and percentiles of the latency. Without FILE or PROGRAM the gateway's default program is run with the arguments
/// alone. The first request of each connection goes alone and is not measured; if it fails, so does the command, as
/// `send` does.
///
/// With --rate requests are due at fixed times, and latency counts from then, even if a request could only be sent
/// later: what devices see. Without it the loop is closed: a new request is sent when one is answered, which measures
/// throughput, but hides the time that requests would have waited while the gateway was slow.
///
/// Exits 1 if a request was answered with an error, was lost or could not be sent; on another error 125, on a timeout
/// of the first request 124. Ctrl-c ends it early with the summary of what there was, and exits as at its end; before
/// there is anything to sum up it exits 130.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    /// A .wasm, .wat, C or C++ file, a folder with a Makefile, the name of a program that the gateway has, or the
    /// digest of a module that it has. Of a module only the digest is sent, once the gateway has it
    #[arg(value_name = "FILE|PROGRAM|sha256:HEX", add = ArgValueCompleter::new(completions::operands))]
    operand: Option<String>,

    /// Requests a second, due at fixed times (open loop)
    #[arg(long, value_name = "R", value_parser = value_parser!(u32).range(1..=MAX_RATE))]
    rate: Option<u32>,

    /// Requests in flight, all connections together: always this many, with --rate at most [default: 1 for each
    /// connection, with --rate 1024]. With more than 1024 on one connection a gateway may drop answers, which are lost:
    /// its `session_queue` says how many may wait for a client that reads too slowly
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=MAX_CONCURRENCY))]
    concurrency: Option<u16>,

    /// Connections to share them, as clients of their own: ID, ID-2, ID-3, … One connection can keep one core of this
    /// machine busy, at some 20 000 requests a second; a gateway does more
    #[arg(long, value_name = "C", default_value = "1", value_parser = value_parser!(u16).range(1..=MAX_CONNECTIONS))]
    connections: u16,

    /// How long to measure: 10s, 1m
    #[arg(long, value_name = "T", default_value = "10s", value_parser = some_time)]
    duration: Duration,

    /// How many requests to measure, however long that takes
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// How long to send before that; what happens then is not counted
    #[arg(long, value_name = "T", default_value = "2s", value_parser = time)]
    warm_up: Duration,

    /// A request without an answer after this time is lost; the gateway is not told. With --rate a request that could
    /// not be sent within this time after the last one was due is given up
    #[arg(long, value_name = "T", default_value = "10s", value_parser = some_time)]
    timeout: Duration,

    /// Print the summary, or the error, as one JSON object on stdout; times in microseconds
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    request: RequestFlags,
}

const EXAMPLES: &str = "\
Examples:
  offload-client bench add 5 7
  offload-client bench --args 5 7
  offload-client bench filter.wasm --stdin sample.txt --rate 200 --duration 1m
  offload-client bench --concurrency 64 --connections 4 --json add 5 7";

fn time(text: &str) -> Result<Duration, String> {
    units::duration(text).and_then(|time| {
        if time > MAX_TIME {
            Err(format!("expected at most {} h", MAX_TIME.as_secs() / 3600))
        } else {
            Ok(time)
        }
    })
}

fn some_time(text: &str) -> Result<Duration, String> {
    time(text).and_then(|time| if time.is_zero() { Err("expected more than 0".to_owned()) } else { Ok(time) })
}

impl Bench {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags, guest_args: Option<Vec<OsString>>) -> u8 {
        let as_json = self.json;
        let measured = connection.options().and_then(|options| {
            let plan = self.plan()?;
            let request = self.request.request(self.operand.as_deref(), guest_args)?;
            let address = format!("{}:{}", options.host, options.port);
            let in_envelope = request.answer_form() != AnswerForm::Line;
            let run_is_known = in_envelope || options.mqtt_version == MqttVersion::V5;
            let measurement = measure(&plan, options, request)?;
            Ok(Summary { plan, address, queued_is_known: in_envelope, run_is_known, measurement })
        });
        let summary = match measured {
            Ok(summary) => summary,
            Err(failure) => return report_failure(&failure, as_json),
        };
        let printed = if as_json { summary.json() + "\n" } else { summary.table() };
        let printed = print(stdout(), printed.as_bytes());
        let exit_code = match (summary.measurement.over.clone(), summary.failures()) {
            (Some(error), _) => Failure::from(error).report(),
            (None, Some(failures)) => {
                Failure { exit_code: EXIT_FAILED, ..Failure::new("failed", failures) }.report()
            }
            (None, None) => 0,
        };
        unless_unprintable(printed, exit_code)
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let default = if self.rate.is_some() { DEFAULT_OPEN_CONCURRENCY } else { self.connections };
        let concurrency = self.concurrency.unwrap_or(default);
        if concurrency < self.connections {
            return Err(Failure::usage("--concurrency: expected at least one for each of --connections"));
        }
        Ok(Plan {
            rate: self.rate,
            concurrency,
            connections: self.connections,
            warm_up: self.warm_up,
            extent: self.requests.map_or(Extent::Duration(self.duration), Extent::Requests),
            timeout: self.timeout,
        })
    }
}

fn measure(plan: &Plan, options: Options, request: Request) -> Result<Measurement, Failure> {
    let cores = available_parallelism().map_or(1, usize::from);
    let mut runtime = match cores.min(plan.connections.into()) {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(threads);
            runtime
        }
    };
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("internal", format!("no runtime: {error}")))?;
    runtime.block_on(load::run(plan, options, request))
}
