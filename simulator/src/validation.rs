//! How far the simulator was from the real system when both were run beside each other: the last outcome of `cargo
//! xtask validate-sim`, which is compiled in, so that every report states it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::wrapping::wrapped;

/// The last validation, as it was written.
const LAST: &str = include_str!("../validation.json");

/// Characters of a line of the documentation's pages; tables have more.
const PAGE_WIDTH: usize = 120;

/// How far throughput and mean may be from the real ones.
pub const TOLERANCE: f64 = 0.15;

/// The last validation; `None` where there was none.
pub static VALIDATION: LazyLock<Option<Validation>> =
    LazyLock::new(|| serde_json::from_str(LAST).ok().as_ref().and_then(Validation::read));

/// The real system beside the simulator.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// The version that was run.
    pub version: String,
    /// Cores of the machine.
    pub cores: usize,
    /// How often each case was run, and for how long each time, in seconds.
    pub runs: (usize, f64),
    /// What was asked in each case, for people.
    pub loads: Vec<String>,
    /// What was measured of the real system for the simulated one, for people.
    pub parameters: Vec<String>,
    /// Loads of each case.
    pub cases: Vec<Case>,
}

/// A load, on the real and on the simulated system.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// What was measured.
    pub real: Figures,
    /// What was simulated.
    pub simulated: Figures,
}

/// What came out, run by run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Requests a second that were answered.
    pub per_second: Vec<f64>,
    /// Mean latency in microseconds.
    pub mean_us: Vec<f64>,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: Vec<f64>,
}

impl Figures {
    fn read(json: &Value) -> Option<Self> {
        let numbers = |key: &str| -> Option<Vec<f64>> {
            json.get(key)?.as_array()?.iter().map(Value::as_f64).collect()
        };
        let figures = Self {
            per_second: numbers("per_second")?,
            mean_us: numbers("mean_us")?,
            p99_us: numbers("p99_us")?,
        };
        let all = [&figures.per_second, &figures.mean_us, &figures.p99_us];
        all.iter().all(|numbers| !numbers.is_empty()).then_some(figures)
    }

    fn json(&self) -> Value {
        // A tenth is far below what one run differs from the next by.
        let rounded = |numbers: &[f64]| -> Vec<f64> {
            numbers.iter().map(|number| (number * 10.0).round() / 10.0).collect()
        };
        let Self { per_second, mean_us, p99_us } = self;
        json!({
            "per_second": rounded(per_second), "mean_us": rounded(mean_us), "p99_us": rounded(p99_us),
        })
    }
}

impl Case {
    /// How far the simulated throughput is from the real one, as a part of that.
    pub fn throughput_error(&self) -> f64 {
        mean(&self.simulated.per_second) / mean(&self.real.per_second) - 1.0
    }

    /// How far the simulated mean latency is from the real one, as a part of that.
    pub fn mean_error(&self) -> f64 {
        mean(&self.simulated.mean_us) / mean(&self.real.mean_us) - 1.0
    }

    /// Whether the simulated 99th percentile is one that the real system has from run to run.
    pub fn is_p99_within_spread(&self) -> bool {
        let (least, most) = spread(&self.real.p99_us);
        (least..=most).contains(&mean(&self.simulated.p99_us))
    }

    /// Whether all of it is as near as it has to be.
    pub fn is_valid(&self) -> bool {
        let errors = [self.throughput_error(), self.mean_error()];
        errors.iter().all(|error| error.abs() <= TOLERANCE) && self.is_p99_within_spread()
    }

    fn json(&self) -> Value {
        let Self { name, real, simulated } = self;
        json!({ "name": name, "real": real.json(), "simulated": simulated.json() })
    }

    fn row(&self) -> String {
        let Self { name, real, simulated } = self;
        let (least, most) = spread(&real.p99_us);
        format!(
            "| {name} | {:.0} | {:.0} | {} | {} | {} | {} | {}–{} | {} | {} |",
            mean(&real.per_second),
            mean(&simulated.per_second),
            percent(self.throughput_error()),
            millis(mean(&real.mean_us)),
            millis(mean(&simulated.mean_us)),
            percent(self.mean_error()),
            millis(least),
            millis(most),
            millis(mean(&simulated.p99_us)),
            if self.is_p99_within_spread() { "within" } else { "outside" },
        )
    }
}

impl Validation {
    /// Reads what [`Validation::json`] has written.
    pub fn read(json: &Value) -> Option<Self> {
        let case = |json: &Value| {
            Some(Case {
                name: json.get("name")?.as_str()?.to_owned(),
                real: Figures::read(json.get("real")?)?,
                simulated: Figures::read(json.get("simulated")?)?,
            })
        };
        let texts = |key: &str| -> Option<Vec<String>> {
            json.get(key)?.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let cases: Vec<_> = json.get("cases")?.as_array()?.iter().map(case).collect::<Option<_>>()?;
        (!cases.is_empty()).then_some(Self {
            version: json.get("version")?.as_str()?.to_owned(),
            cores: json.get("cores")?.as_u64()? as usize,
            runs: (json.get("runs")?.as_u64()? as usize, json.get("seconds")?.as_f64()?),
            loads: texts("loads")?,
            parameters: texts("parameters")?,
            cases,
        })
    }

    /// All of it.
    pub fn json(&self) -> Value {
        json!({
            "version": self.version,
            "cores": self.cores,
            "runs": self.runs.0,
            "seconds": self.runs.1,
            "loads": self.loads,
            "parameters": self.parameters,
            "cases": self.cases.iter().map(Case::json).collect::<Vec<_>>(),
        })
    }

    /// The largest errors of throughput and mean, and in how many cases the 99th percentile is within its spread.
    pub fn errors(&self) -> (f64, f64, usize) {
        let worst =
            |error: fn(&Case) -> f64| self.cases.iter().map(|case| error(case).abs()).fold(0.0, f64::max);
        let within = self.cases.iter().filter(|case| case.is_p99_within_spread()).count();
        (worst(Case::throughput_error), worst(Case::mean_error), within)
    }

    /// For a report: the error, in one line.
    pub fn line(&self) -> String {
        let (throughput, mean, within) = self.errors();
        format!(
            "beside the real system (version {}): throughput within {:.0} %, mean within {:.0} %, p99 within its \
             spread in {within} of {} cases",
            self.version,
            (throughput * 100.0).ceil(),
            (mean * 100.0).ceil(),
            self.cases.len(),
        )
    }

    /// For the documentation: a table, and what was measured for it.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        let Self { version, cores, runs: (runs, seconds), loads, parameters, cases } = self;
        let about = format!(
            "Version {version}, {cores} cores, {runs} runs of {seconds} s each; latencies in ms. Requests a second and \
             means are means over the runs; the real 99th percentile is the least and the most of the {runs} runs."
        );
        writeln!(text, "{}", wrapped(&about, PAGE_WIDTH, ""))?;
        writeln!(
            text,
            "| case | requests/s, real | simulated | error | mean, real | simulated | error | p99, real | simulated \
             | |"
        )?;
        writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        cases.iter().try_for_each(|case| writeln!(text, "{}", case.row()))?;
        writeln!(text, "\nAsked in each case:\n")?;
        write_list(text, loads)?;
        writeln!(
            text,
            "\nMeasured for it, in each run on gateways that do nothing else; means over the runs:\n"
        )?;
        write_list(text, parameters)
    }
}

fn write_list(text: &mut String, items: &[String]) -> std::fmt::Result {
    items.iter().try_for_each(|item| write!(text, "{}", wrapped(&format!("- {item}"), PAGE_WIDTH, "  ")))
}

/// The error of this version, in one line.
pub fn line() -> String {
    let own = env!("CARGO_PKG_VERSION");
    match VALIDATION.as_ref() {
        Some(validation) if validation.version == own => validation.line(),
        Some(validation) => format!("version {own} is not validated; {}", validation.line()),
        None => format!("version {own} is not validated"),
    }
}

/// The error of this version, for a report as JSON.
pub fn summary() -> Value {
    let Some(validation) = VALIDATION.as_ref() else { return Value::Null };
    let (throughput, mean, within) = validation.errors();
    json!({
        "version": validation.version,
        "cases": validation.cases.len(),
        "throughput_error": (throughput * 1e4).round() / 1e4,
        "mean_error": (mean * 1e4).round() / 1e4,
        "p99_within_spread": within,
    })
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

fn spread(numbers: &[f64]) -> (f64, f64) {
    let bounds = (f64::INFINITY, f64::NEG_INFINITY);
    numbers.iter().fold(bounds, |(least, most), number| (least.min(*number), most.max(*number)))
}

fn percent(part: f64) -> String {
    format!("{:+.1} %", part * 100.0)
}

fn millis(micros: f64) -> String {
    let millis = micros / 1e3;
    let decimals = if millis < 9.995 { 2 } else { 1 };
    format!("{millis:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validation() -> Validation {
        let real = Figures {
            per_second: vec![100.0, 102.0],
            mean_us: vec![5_000.0; 2],
            p99_us: vec![9_000.0, 12_000.0],
        };
        let simulated =
            Figures { mean_us: vec![5_500.0; 2], p99_us: vec![10_000.0, 11_000.0], ..real.clone() };
        let near = Case { name: "near".to_owned(), real: real.clone(), simulated };
        let far = Figures { mean_us: vec![3_000.0; 2], p99_us: vec![8_000.0; 2], ..real.clone() };
        Validation {
            version: "1.2.3".to_owned(),
            cores: 2,
            runs: (2, 1.5),
            loads: vec!["near: one client".to_owned()],
            parameters: vec!["a link of 50 µs".to_owned()],
            cases: vec![near, Case { name: "far".to_owned(), real, simulated: far }],
        }
    }

    #[test]
    fn errors_are_told_as_they_are() {
        let validation = validation();
        assert_eq!(validation.cases.iter().map(Case::is_valid).collect::<Vec<_>>(), [true, false]);
        assert_eq!(
            validation.line(),
            "beside the real system (version 1.2.3): throughput within 0 %, mean within 40 %, p99 within its spread in \
             1 of 2 cases"
        );
        let row = "| near | 101 | 101 | +0.0 % | 5.00 | 5.50 | +10.0 % | 9.00–12.0 | 10.5 | within |\n";
        assert!(validation.markdown().contains(row), "{}", validation.markdown());
    }

    #[test]
    fn the_documentation_has_the_table_of_the_last_validation() {
        let page = include_str!("../../docs/simulator.md");
        let between = page
            .split_once("<!-- validation -->")
            .and_then(|(_, rest)| rest.split_once("<!-- /validation -->"));
        let table = VALIDATION.as_ref().map(Validation::markdown).unwrap_or_default();
        assert_eq!(between.unwrap().0, format!("\n{table}"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let validation = validation();
        assert_eq!(Validation::read(&validation.json()), Some(validation));
        assert_eq!(Validation::read(&json!({ "cases": [] })), None);
    }
}
