//! `[program.NAME]`: what a guest takes of a gateway.

use std::path::Path;

use serde_json::Value as Json;

use super::reader::Section;
use super::units::{Bytes, Time};
use crate::clock::{MICROSECOND, MILLISECOND, Nanos, SECOND};
use crate::random::Distribution;

/// Bytes of a table of measured times at the most.
const MAX_TABLE: u64 = 256 << 20;

/// What a guest takes.
#[derive(Clone, Debug)]
pub struct Program {
    /// What devices call it.
    pub name: String,
    /// Time on a core.
    pub time: Distribution,
    /// Time that it sleeps before it computes, in its slot.
    pub sleep: Option<Distribution>,
    /// Whether its slices can be ended. One instruction that fills memory cannot.
    pub yields: bool,
    /// Bytes of a request for it.
    pub request: u64,
    /// Bytes of its answer.
    pub answer: u64,
    /// What is known of its modules; without it they are loaded already.
    pub modules: Option<Modules>,
}

/// The modules of a program.
#[derive(Clone, Debug)]
pub struct Modules {
    /// How many there are: the devices that ask for it are spread over them.
    pub count: usize,
    /// Bytes of one when it is compiled.
    pub size: u64,
    /// Time on a core to compile or build one; none is compiled already.
    pub compile: Option<Distribution>,
    /// What a worker takes to load one.
    pub load: Option<Distribution>,
    /// Of a native program, the time until its sandbox is there.
    pub native: Option<Distribution>,
}

/// How a distribution is written.
const FORMS: &str = "\"20us\", { exponential = \"20us\" }, { uniform = [\"10us\", \"30us\"] }, { lognormal = \"20us\", \
                     sigma = 0.5 }, { pareto = \"10us\", shape = 2.5, most = \"1s\" }, { mix = [{ weight = 1, time = … \
                     }] } or { table = \"FILE\" }";

impl Program {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let program = Self {
            name: section.name().to_owned(),
            time: distribution(section, "time").unwrap_or_else(|| {
                if !section.has("time") {
                    section.refuse("time", "it is missing".to_owned(), FORMS);
                }
                Distribution::Constant(1)
            }),
            sleep: distribution(section, "sleep"),
            yields: section.or("yields", true),
            request: section.or("request", Bytes(128)).0,
            answer: section.or("answer", Bytes(128)).0,
            modules: Modules::read(section),
        };
        section.finish();
        program
    }
}

/// Modules of one program at the most.
const MAX_MODULES: usize = 1_000_000;

/// What a sandbox takes to start, unless it is said otherwise: bubblewrap on an ordinary machine.
const DEFAULT_SANDBOX_START: Nanos = 10 * MILLISECOND;

impl Modules {
    fn read(section: &Section<'_>) -> Option<Self> {
        let is_native = section.one_of("kind", &["wasm", "native"]) == Some(1);
        let is_told = ["modules", "size", "compile", "load", "start"].iter().any(|key| section.has(key));
        let modules = Self {
            count: section.or_within("modules", 1, 1..=MAX_MODULES),
            size: section.or_within("size", Bytes(0), Bytes(0)..=Bytes(1 << 30)).0,
            compile: distribution(section, "compile"),
            load: distribution(section, "load"),
            native: is_native.then(|| {
                distribution(section, "start").unwrap_or(Distribution::Constant(DEFAULT_SANDBOX_START))
            }),
        };
        if section.has("start") && !is_native {
            section.refuse("start", "a module has no sandbox".to_owned(), "kind = \"native\"");
        }
        if section.has("load") && is_native {
            section.refuse("load", "a native program is not loaded by a worker".to_owned(), "start");
        }
        (is_told || is_native).then_some(modules)
    }
}

/// The distribution that is the value of `key`, if it has one.
pub fn distribution(section: &Section<'_>, key: &'static str) -> Option<Distribution> {
    if section.is_table(key) {
        return section.table(key, FORMS).map(|table| in_table(&table));
    }
    let value = section.get(key)?;
    let time = value.get_ref().as_str().map_or_else(|| Err("it is no time".to_owned()), Time::parse);
    match time {
        Ok(Time(time)) => Some(Distribution::Constant(time)),
        Err(problem) => {
            section.refuse(key, problem, FORMS);
            Some(Distribution::Constant(1))
        }
    }
}

fn in_table(table: &Section<'_>) -> Distribution {
    let kinds = ["exponential", "lognormal", "pareto", "uniform", "mix", "table"];
    if kinds.iter().filter(|kind| table.has(kind)).count() > 1 {
        table.refuse_all("it is more than one distribution".to_owned(), FORMS);
        return Distribution::Constant(1);
    }
    let found = if table.has("exponential") {
        Distribution::Exponential(table.required::<Time>("exponential").0)
    } else if table.has("lognormal") {
        let median = table.required::<Time>("lognormal").0;
        Distribution::Lognormal { median, sigma: table.or_within("sigma", 0.5, 0.0..=10.0) }
    } else if table.has("pareto") {
        let least = table.required_within("pareto", Time(1)..=Time::MAX).0;
        let shape = table.or_within("shape", 2.5, 0.1..=100.0);
        let most = table.required_within("most", Time(least)..=Time::MAX).0;
        Distribution::Pareto { least, shape, most }
    } else if table.has("uniform") {
        uniform(table)
    } else if table.has("mix") {
        let parts: Vec<_> = table.list("mix").iter().map(part).collect();
        if parts.is_empty() {
            table.refuse("mix", "it is empty".to_owned(), FORMS);
        }
        Distribution::Mix(parts)
    } else if table.has("table") {
        measured(table)
    } else {
        table.refuse_all("it is no distribution".to_owned(), FORMS);
        return Distribution::Constant(1);
    };
    table.finish();
    found
}

fn part(section: &Section<'_>) -> (f64, Distribution) {
    let weight = section.or_within("weight", 1.0, 1e-9..=1e9);
    let time = distribution(section, "time").unwrap_or_else(|| {
        section.refuse("time", "it is missing".to_owned(), FORMS);
        Distribution::Constant(1)
    });
    section.finish();
    (weight, time)
}

fn uniform(table: &Section<'_>) -> Distribution {
    let ends = table.get("uniform").and_then(|value| {
        let texts = value.get_ref().as_array()?.iter().map(|value| value.get_ref().as_str());
        texts.map(|text| Time::parse(text?).ok()).collect::<Option<Vec<_>>>()
    });
    match ends.as_deref() {
        Some([Time(least), Time(most)]) if least <= most => Distribution::Uniform(*least, *most),
        _ => {
            table.refuse(
                "uniform",
                "it is no pair of times".to_owned(),
                "[\"10us\", \"30us\"], the shorter one first",
            );
            Distribution::Constant(1)
        }
    }
}

/// A file that was measured: what `offload-client bench --json` prints, lines of an audit log, or a time a line.
fn measured(table: &Section<'_>) -> Distribution {
    let path = table.folder().join(table.required::<String>("table"));
    measured_in(&path).unwrap_or_else(|problem| {
        let accepted = "a file beside the scenario: what `offload-client bench --json` prints, lines of \
                        gateway/NAME/jobs, or a time on each line, such as 1.5ms";
        table.refuse("table", format!("{}: {problem}", path.display()), accepted);
        Distribution::Constant(1)
    })
}

/// Reads a table of measured times.
///
/// # Errors
/// What is wrong with it.
pub fn measured_in(path: &Path) -> Result<Distribution, String> {
    let text = table_text(path)?;
    // One object over several lines, as `jq` writes it.
    if let Ok(json) = serde_json::from_str::<Json>(&text)
        && let Some(quantiles) = quantiles(&json)
    {
        return Ok(Distribution::Quantiles(quantiles));
    }
    let mut times = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        // Clients that print topics have them before the audit log's lines.
        let line = match line.split_once(' ') {
            Some((topic, json)) if topic.starts_with("gateway/") => json.trim_start(),
            _ => line,
        };
        if line.starts_with('{') {
            let json: Json =
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))?;
            if let Some(quantiles) = quantiles(&json) {
                return Ok(Distribution::Quantiles(quantiles));
            }
            times.extend(run_time(&json));
        } else {
            times.push(Time::parse(line).map_err(|problem| format!("line {}: {problem}", index + 1))?.0);
        }
    }
    times.sort_unstable();
    if times.is_empty() {
        Err("there is no time in it".to_owned())
    } else {
        Ok(Distribution::Measured(times))
    }
}

/// The text of a table of times.
///
/// # Errors
/// When it cannot be read, or is larger than any.
pub fn table_text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > MAX_TABLE {
        return Err(format!("it has {bytes} bytes, more than {MAX_TABLE}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The quantiles of the run time that `offload-client bench --json` has measured.
fn quantiles(json: &Json) -> Option<Vec<(f64, Nanos)>> {
    let run = json.get("run_us")?;
    let at = |name: &str| Some((run.get(name)?.as_f64()? * MICROSECOND as f64).round() as Nanos);
    let known = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)];
    let mut quantiles: Vec<(f64, Nanos)> =
        known.iter().filter_map(|(name, quantile)| Some((*quantile, at(name)?))).collect();
    let (_, median) = *quantiles.first()?;
    // What is below the median is not told: as far below it as the next one is above it, at the most.
    let above = quantiles.get(1).map_or(median, |(_, next)| *next);
    quantiles.insert(0, (0.0, (2 * median).saturating_sub(above)));
    Some(quantiles)
}

/// What an answer of the audit log says that its program has taken.
fn run_time(json: &Json) -> Option<Nanos> {
    let micros = json.get("answer")?.get("run_us")?.as_f64()?;
    let time = (micros * MICROSECOND as f64).round();
    (0.0..(1e6 * SECOND as f64)).contains(&time).then_some(time as Nanos)
}
