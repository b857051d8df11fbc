//! The simulated side: a scenario as a file, with the arrivals and the run times that were measured beside it.

use super::cases::{Beside, Case};
use super::deployment::{Kind, REDELIVERY, WINDOW};
use super::parameters::Parameters;
use super::programs::sleeps;
use anyhow::{Context, Result};
use offload_simulator::replicas::{self, Unwatched};
use offload_simulator::report::{GroupReport, Report};
use offload_simulator::scenario::Scenario;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Replicas: arrivals are the same in all, run times are drawn.
const REPLICAS: usize = 5;

/// Simulates a case; requests a second, mean and 99th percentile in microseconds, of its loads in their order. Where it
/// was measured in the run what a request `took` of its worker, runs are so much longer or shorter.
#[expect(clippy::too_many_arguments, reason = "one run of one case, with all that it is about")]
pub fn run(
    case: &Case,
    run: usize,
    arrivals: &[Duration],
    warm_up: Duration,
    length: Duration,
    parameters: &Parameters,
    took: Option<Duration>,
    folder: &Path,
) -> Result<Vec<[f64; 3]>> {
    let stem = format!("{}-{run}", case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let folder = folder.join(&stem);
    std::fs::create_dir_all(&folder)?;
    write_times(&folder.join("arrivals"), arrivals)?;
    let file = folder.join("scenario.toml");
    let mut text = String::new();
    write(case, run, warm_up, length, parameters, took, &folder, &mut text)?;
    std::fs::write(&file, text)?;
    let scenario = Scenario::load(&file).with_context(|| format!("{}", file.display()))?;
    let observations = replicas::run(&scenario, scenario.seed, scenario.replicas, None, &Unwatched);
    let report = Report::new(&scenario, scenario.seed, &observations);
    // With several groups all of them together come first.
    let groups = report.groups.iter().filter(|group| scenario.devices.iter().any(|of| of.name == group.name));
    Ok(groups.map(figures).collect())
}

fn figures(group: &GroupReport) -> [f64; 3] {
    let p99 = group.quantile("p99").map_or(f64::NAN, |p99| p99.mean);
    [group.throughput.mean, group.mean.mean * 1e6, p99 * 1e6]
}

#[expect(clippy::too_many_arguments, reason = "one run of one case, with all that it is about")]
fn write(
    case: &Case,
    run: usize,
    warm_up: Duration,
    length: Duration,
    parameters: &Parameters,
    took: Option<Duration>,
    folder: &Path,
    text: &mut String,
) -> Result<()> {
    let nanos = |time: Duration| format!("\"{}ns\"", time.as_nanos());
    writeln!(text, "# Written by `cargo xtask validate-sim`: what it has run on real gateways, simulated.")?;
    writeln!(text, "name = {:?}\nseed = {run}\nreplicas = {REPLICAS}", case.name)?;
    writeln!(text, "duration = {}\nwarm_up = {}", nanos(length), nanos(warm_up))?;
    let beside = case.beside.as_ref().map(|beside| beside.program).filter(|program| *program != case.program);
    for program in [Some(case.program), beside].into_iter().flatten() {
        let factor = took.map_or(1.0, |took| {
            took.saturating_sub(parameters.overhead).as_secs_f64() / parameters.mean(program).as_secs_f64()
        });
        let runs: Vec<Duration> = parameters.runs[program].iter().map(|run| run.mul_f64(factor)).collect();
        write_times(&folder.join(program), &runs)?;
        writeln!(text, "\n[program.{program}]")?;
        if sleeps(program) {
            writeln!(text, "time = {}\nsleep = {{ table = {program:?} }}", nanos(parameters.nothing))?;
        } else {
            writeln!(text, "time = {{ table = {program:?} }}")?;
        }
    }
    let (least, more) = parameters.link;
    writeln!(text, "\n[link.way]\nlatency = {}\njitter = {}", nanos(least), nanos(more))?;
    writeln!(text, "\n[gateway.one]\ncount = {}\nworkers = 1", case.kind.gateways())?;
    if let Some(slots) = case.kind.slots() {
        writeln!(text, "slots = {slots}")?;
    }
    writeln!(text, "ingress = {}\noverhead = {}", nanos(parameters.ingress), nanos(parameters.overhead))?;
    writeln!(text, "slice = {}", nanos(parameters.tick))?;
    if case.kind == Kind::Nats {
        writeln!(text, "spread = \"queue\"\nwindow = {WINDOW}\nredelivery = \"{REDELIVERY}s\"")?;
    }
    let (count, per_account) = case.kind.clients(case.connections);
    writeln!(text, "\n[device.asking]\ncount = {count}\nper_account = {per_account}")?;
    writeln!(text, "program = {:?}\nlink = \"way\"\narrival = {{ trace = \"arrivals\" }}", case.program)?;
    if let Some(Beside { program, connections, .. }) = case.beside {
        writeln!(text, "\n[device.beside]\ncount = {connections}\nper_account = {connections}")?;
        writeln!(text, "program = {program:?}\nlink = \"way\"\narrival = {{ think = \"0s\" }}")?;
    }
    if let Some(part) = case.killed_at {
        let (at, rest) = (length.mul_f64(part), nanos(length));
        writeln!(
            text,
            "\n[[failure]]\nkind = \"crash\"\ngateway = \"one\"\nnumber = 0\nat = {}\nfor = {rest}",
            nanos(at)
        )?;
    }
    Ok(())
}

/// A time on each line.
fn write_times(file: &Path, times: &[Duration]) -> Result<()> {
    let lines: String = times.iter().map(|time| format!("{}ns\n", time.as_nanos())).collect();
    std::fs::write(file, lines).with_context(|| format!("{}", file.display()))
}
