//! `cargo xtask validate-sim`: the simulator beside the real system. Each case is run on gateways as processes, and
//! simulated with the very same moments of arrival (the correlated inspection approach: A. M. Law, Simulation Modeling
//! and Analysis, 5th edition, 2015, section 5.6.1), so that what differs is the model and not the luck.
//!
//! What the simulated side is told of the machine is measured on idle gateways ([`parameters`]), never fitted to what
//! comes out. How fast the machine computes changes within seconds, and near saturation the mean goes by it: where all
//! that a worker is asked for is known, what a request took of it is measured in the run itself ([`busy`]).

mod arrivals;
mod busy;
mod cases;
mod deployment;
mod interruption;
mod parameters;
mod programs;
mod simulated;

use crate::load::{self, Load, Measured};
use anyhow::{Context, Result, anyhow, ensure};
use cases::{CASES, Case};
use deployment::{Deployment, Kind};
use interruption::Interruption;
use offload_simulator::validation::{self, Figures, Validation};
use parameters::Parameters;
use programs::Programs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How often each case is run; its 99th percentile differs from one run to the next.
const RUNS: usize = 5;

/// Time of one run that is measured.
const MEASURED: Duration = Duration::from_millis(4_500);

/// The same for a quick look, whose figures mean little.
const QUICK: Duration = Duration::from_millis(900);

/// The part of [`MEASURED`] that goes before it to warm up: with it a run is ten times as long as its warm-up.
const WARM_UP: u32 = 9;

/// Between these lines the documentation has the table.
const MARKS: [&str; 2] = ["<!-- validation -->", "<!-- /validation -->"];

/// What is validated, and where it is written.
#[derive(clap::Args)]
pub struct Arguments {
    /// Once, and briefly: a smoke test
    #[arg(long)]
    quick: bool,
    /// Cases whose name has this in it; all by default
    #[arg(long)]
    only: Option<String>,
    /// Folder for the scenarios and traces of the simulated side, which `offload-sim run` takes
    #[arg(long)]
    scenarios: PathBuf,
    /// Where to write the outcome as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// The page that has the table between two marks
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What loads have shown, by the name of the load: on the real and on the simulated side.
#[derive(Default)]
struct Outcomes {
    names: Vec<String>,
    figures: BTreeMap<String, [Figures; 2]>,
    /// By the name of the case: what a request took of its worker, in each run where that is known.
    took: BTreeMap<&'static str, Vec<Duration>>,
}

/// Runs all cases, prints the table, and writes it where that is asked for.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (runs, measured) = if arguments.quick { (1, QUICK) } else { (RUNS, MEASURED) };
    let chosen = |case: &&Case| arguments.only.as_ref().is_none_or(|part| case.name.contains(part.as_str()));
    let cases: Vec<&Case> = CASES.iter().filter(chosen).collect();
    ensure!(!cases.is_empty(), "there is no such case");
    std::fs::create_dir_all(&arguments.scenarios)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let interruption = Interruption::watch(&runtime)?;
    let ended = run_all(&runtime, &cases, (runs, measured), arguments, &interruption);
    // What fails then does so because its servers are gone.
    interruption.check()?;
    let (measured_of, outcomes) = ended?;
    let validation = Validation {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cores: thread::available_parallelism().map_or(1, Into::into),
        runs: (runs, measured.as_secs_f64()),
        loads: cases
            .iter()
            .map(|case| case.describe(&measured_of[&case.kind], outcomes.took.get(case.name)))
            .collect(),
        parameters: measured_of.iter().map(|(kind, of)| parameters::describe(*kind, of)).collect(),
        cases: outcomes.into_cases(),
    };
    // With as many digits as are written.
    let validation = Validation::read(&validation.json()).context("a load without any answer")?;
    println!("{}\n{}", validation.markdown(), validation.line());
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", validation.json()))?;
    }
    arguments.page.as_deref().map_or(Ok(()), |page| write_between_marks(page, &validation.markdown()))
}

/// Runs all cases so often, for so long; what was measured of the machine in each run, and what came out.
fn run_all(
    runtime: &tokio::runtime::Runtime,
    cases: &[&Case],
    (runs, measured): (usize, Duration),
    arguments: &Arguments,
    interruption: &Interruption,
) -> Result<(BTreeMap<Kind, Vec<Parameters>>, Outcomes)> {
    let programs = Programs::new()?;
    let mut measured_of: BTreeMap<Kind, Vec<Parameters>> = BTreeMap::new();
    let mut outcomes = Outcomes::default();
    let begin = Instant::now();
    for run in 0..runs {
        for (number, case) in cases.iter().enumerate() {
            interruption.check()?;
            tell(begin, run * cases.len() + number, runs * cases.len(), case);
            let of_kind = measured_of.entry(case.kind).or_default();
            if of_kind.len() <= run {
                // Of that kind, but idle and by itself; in each run again, since a machine is not always as fast.
                let deployment = runtime.block_on(Deployment::start(case.kind, &programs))?;
                of_kind.push(Parameters::measure(&deployment, &cases::programs_of(case.kind))?);
            }
            beside(runtime, case, run, measured, &of_kind[run], &programs, arguments, &mut outcomes)
                .with_context(|| case.name)?;
        }
    }
    Ok((measured_of, outcomes))
}

/// Says which case is next, and how long the rest will take.
fn tell(begin: Instant, done: usize, all: usize, case: &Case) {
    let so_far = begin.elapsed();
    let left = match done {
        0 => String::new(),
        _ => format!(", about {} s left", (so_far / done as u32 * (all - done) as u32).as_secs()),
    };
    eprintln!("{:>3} of {all}: {} ({} s{left})", done + 1, case.name, so_far.as_secs());
}

/// Runs a case on both sides.
#[expect(clippy::too_many_arguments, reason = "one run of one case, with all that it is about")]
fn beside(
    runtime: &tokio::runtime::Runtime,
    case: &Case,
    run: usize,
    measured: Duration,
    parameters: &Parameters,
    programs: &Programs,
    arguments: &Arguments,
    outcomes: &mut Outcomes,
) -> Result<()> {
    let warm_up = measured / WARM_UP;
    let length = warm_up + measured;
    let rate = case.rate(parameters);
    let arrivals = arrivals::poisson(rate, length, run as u64);
    let deployment = runtime.block_on(Deployment::start(case.kind, programs))?;
    let (real, took) = really(case, deployment, &arrivals, warm_up, measured)?;
    let simulated =
        simulated::run(case, run, &arrivals, warm_up, length, parameters, took, &arguments.scenarios)?;
    ensure!(real.len() == simulated.len(), "the sides have different loads");
    outcomes.took.entry(case.name).or_default().extend(took);
    for ((name, real), simulated) in case.loads().zip(real).zip(simulated) {
        outcomes.push(name, [real, simulated]);
    }
    Ok(())
}

/// The loads of a case on a real system, its own and the one beside it, and what a request took of its worker, where
/// that can be known.
fn really(
    case: &Case,
    mut deployment: Deployment,
    arrivals: &[Duration],
    warm_up: Duration,
    measured: Duration,
) -> Result<(Vec<[f64; 3]>, Option<Duration>)> {
    let asked = deployment.request(case.program);
    let load = Load {
        connections: case.connections,
        pace: load::Pace::At(arrivals),
        warm_up,
        repeats: case.killed_at.is_some(),
        ..Load::closed(&asked, load::MAX_IN_FLIGHT, measured)
    };
    let beside = case.beside.as_ref().map(|beside| (beside, deployment.request(beside.program)));
    let beside = beside.as_ref().map(|(beside, request)| Load {
        client: "beside",
        connections: beside.connections,
        source: cases::OTHER_ACCOUNT,
        warm_up,
        ..Load::closed(request, 1, measured)
    });
    let address = deployment.address()?;
    let busy = |of: &Deployment| case.is_known().then(|| of.busy()).transpose();
    let (started, busy_before) = (Instant::now(), busy(&deployment)?);
    let all = thread::scope(|scope| {
        let loads =
            [Some(load), beside].map(|load| load.map(|load| scope.spawn(move || load::run(address, &load))));
        if let Some(part) = case.killed_at {
            let at = started + (warm_up + measured).mul_f64(part);
            thread::sleep(at.saturating_duration_since(Instant::now()));
            deployment.kill_one()?;
        }
        let ended = loads.into_iter().flatten();
        ended.map(|load| load.join().map_err(|_| anyhow!("a load has panicked"))?).collect::<Result<Vec<_>>>()
    })?;
    let took = busy(&deployment)?
        .zip(busy_before)
        .map(|(after, before)| (after - before) / arrivals.len().max(1) as u32);
    let figures = |of: &Measured| [of.requests_per_second(), of.mean_us(), of.latency_us(0.99)];
    Ok((all.iter().map(figures).collect(), took))
}

impl Outcomes {
    fn push(&mut self, name: String, sides: [[f64; 3]; 2]) {
        let figures = self.figures.entry(name.clone()).or_insert_with(|| {
            self.names.push(name);
            Default::default()
        });
        for (figures, [per_second, mean_us, p99_us]) in figures.iter_mut().zip(sides) {
            figures.per_second.push(per_second);
            figures.mean_us.push(mean_us);
            figures.p99_us.push(p99_us);
        }
    }

    fn into_cases(mut self) -> Vec<validation::Case> {
        let case = |name: String| {
            let [real, simulated] = self.figures.remove(&name).unwrap_or_default();
            validation::Case { name, real, simulated }
        };
        self.names.into_iter().map(case).collect()
    }
}

fn write_between_marks(page: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("{}", page.display()))?;
    let [begin, end] = MARKS;
    let (before, rest) = text.split_once(begin).context("the page has no mark")?;
    let (_, after) = rest.split_once(end).context("the page has no second mark")?;
    Ok(std::fs::write(page, format!("{before}{begin}\n{table}{end}{after}"))?)
}
