//! Guests alone: jobs that are handed to the workers directly, beside bare wasmtime that does the same work in the same
//! process. No broker, no request to decode, no answer to send.

mod bare;
mod fed;

use crate::guests::Guests;
use crate::rounds::{Plan, turns};
use crate::table::{Figure, Row, Table};
use anyhow::{Context, Result};
use bare::Bare;
use fed::Fed;
use offload_rt::config::Config;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

const FIGURES: [Figure; 3] = [
    Figure::compared("µs a guest", 2).plotted(),
    Figure::compared("CPU µs a guest", 2),
    Figure::compared("guests/s", 0),
];

/// The workers are to take at most this many times what bare wasmtime takes.
const TARGET: f64 = 1.6;

/// A guest, what it is given, and what it must print.
#[derive(Clone, Copy)]
struct Task {
    /// That of the guest example.
    name: &'static str,
    kind: &'static str,
    args: &'static [&'static str],
    stdin: &'static [u8],
    stdout: &'static [u8],
}

const TASKS: [Task; 3] = [
    Task { name: "add", kind: "module", args: &["5", "7"], stdin: b"", stdout: b"12\n" },
    Task { name: "greet", kind: "component", args: &[], stdin: b"", stdout: b"hello from a component!\n" },
    Task { name: "checksum", kind: "component", args: &[], stdin: b"123456789", stdout: b"cbf43926\n" },
];

/// Who runs guests.
#[derive(Clone, Copy)]
enum Contender {
    Bare,
    /// With this many jobs that wait or run at once.
    Workers(usize),
}

const CONTENDERS: [Contender; 3] = [Contender::Bare, Contender::Workers(1), Contender::Workers(64)];

impl Contender {
    fn name(self) -> String {
        match self {
            Contender::Bare => "bare wasmtime".to_owned(),
            Contender::Workers(in_flight) => format!("workers, {in_flight} at a time"),
        }
    }
}

pub fn run(plan: &Plan, guests: &Guests) -> Result<Vec<Table>> {
    let config = config();
    let fed = Fed::start(&config)?;
    let bare = Bare::start(&config)?;
    let mut table = Table::new("execution", "Guests alone, one worker", &FIGURES);
    for workers in &CONTENDERS[1..] {
        table = table.compare(&[(&workers.name(), &Contender::Bare.name())]);
    }
    let mut guests_of = Vec::new();
    for task in TASKS {
        let module = guests.load(task.name)?;
        guests_of.push((
            format!("{} `{}`", task.kind, task.name),
            fed.prepare(task, &module)?,
            bare.prepare(task, &module)?,
        ));
    }
    plan.each_round("execution", |round| {
        for (setting, job, program) in &guests_of {
            for contender in turns(round, &CONTENDERS) {
                let measure = |length| match contender {
                    Contender::Bare => bare.run(program, length),
                    Contender::Workers(in_flight) => fed.run(job, *in_flight, length),
                };
                let name = contender.name();
                measure(plan.measured / 4).with_context(|| format!("{setting}, {name}"))?;
                let (wall, cpu) = (Instant::now(), process_cpu_time());
                let count = measure(plan.measured)? as f64;
                let (wall, cpu) = (wall.elapsed().as_secs_f64(), (process_cpu_time() - cpu).as_secs_f64());
                table.add(round, setting, &name, vec![wall * 1e6 / count, cpu * 1e6 / count, count / wall]);
            }
        }
        Ok(())
    })?;
    table.notes = table.ratio_rows().iter().map(verdict).collect();
    Ok(vec![table])
}

/// One worker with the gateway's defaults.
fn config() -> Config {
    let mut config = Config::default();
    config.workers.count = 1;
    config
}

fn verdict(Row { setting, contender, spreads }: &Row) -> String {
    let (time, cpu) = (spreads[0].median, spreads[1].median);
    let met = if time <= TARGET { "within" } else { "over" };
    format!(
        "{setting}, {contender}: {time:.2} times, of CPU time {cpu:.2} times; {met} the target of {TARGET}."
    )
}

fn process_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
