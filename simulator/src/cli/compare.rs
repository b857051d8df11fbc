//! `offload-sim compare`: which of two scenarios is better, and how sure that is.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::progress::Progress;
use super::run::Replication;
use crate::replicas;
use crate::report::notes::Notes;
use crate::report::table::number;
use crate::report::{Report, table};
use crate::scenario::Scenario;
use crate::statistics::Estimate;

/// Simulates two scenarios with the same seeds, and prints how they differ.
///
/// The differences are those of replicas with the same seed, in pairs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Compare {
    /// The one that the other is compared with.
    #[arg(value_name = "A.toml")]
    one: PathBuf,
    /// The other one.
    #[arg(value_name = "B.toml")]
    other: PathBuf,
    #[command(flatten)]
    replication: Replication,
    /// Prints a JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-sim compare site.toml faster.toml
  offload-sim compare site.toml faster.toml --replicas 20
  offload-sim compare site.toml faster.toml --json | jq '.measures[4]'";

/// What is compared, its name in JSON and in the table, and how it is written.
type Measure = (&'static str, &'static str, fn(&Report) -> f64, fn(Estimate) -> String);

const MEASURES: [Measure; 7] = [
    ("requests answered ok, a second", "ok/s", |report| report.all().throughput.mean, number),
    ("part of requests answered ok", "ok", |report| report.all().ok(), table::percent),
    ("mean latency", "mean latency", |report| report.all().mean.mean, table::time),
    ("p50 of latency", "p50", |report| report.all().quantiles[0].mean, table::time),
    ("p99 of latency", "p99", |report| report.all().quantiles[2].mean, table::time),
    ("p99.9 of latency", "p99.9", |report| report.all().quantiles[3].mean, table::time),
    (
        "utilisation of the first gateways",
        "utilisation *",
        |report| report.gateways[0].utilisation.mean,
        table::percent,
    ),
];

impl Compare {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let mut one = self.replication.load(&self.one)?;
        let mut other = self.replication.load(&self.other)?;
        // The seeds and replicas of the first one are for both, and the longer warm-up.
        (other.seed, other.replicas) = (one.seed, one.replicas);
        let warm_up = one.warm_up.max(other.warm_up);
        (one.warm_up, other.warm_up) = (warm_up, warm_up);
        let notes = Notes::on(&[&one, &other]);
        let (ones, others) = (reports(&one), reports(&other));
        let rows = MEASURES.iter().map(|(name, short, measure, write)| {
            let (one, other): (Vec<f64>, Vec<f64>) =
                (ones.iter().map(measure).collect(), others.iter().map(measure).collect());
            let difference: Vec<f64> = one.iter().zip(&other).map(|(one, other)| other - one).collect();
            (*name, *short, Estimate::of(&one), Estimate::of(&other), Estimate::of(&difference), *write)
        });
        if self.json {
            let measures: Vec<Value> = rows
                .map(|(name, _, one, other, difference, _)| {
                    let is_sure = !difference.holds(0.0) && difference.half_width.is_some();
                    json!({ "measure": name, "a": one.json(), "b": other.json(), "difference": difference.json(),
                        "sure": is_sure })
                })
                .collect();
            let mut object = json!({ "a": one.name, "b": other.name, "seed": one.seed, "replicas": one.replicas,
                "measures": measures });
            notes.add_to(&mut object);
            super::print(&format!("{object:#}\n"))?;
            return Ok(true);
        }
        let mut text = format!(
            "A: {} ({})\nB: {} ({})\n{} pairs of replicas with one seed each, seed {}; intervals are of 95 %\n\n",
            one.name,
            self.one.display(),
            other.name,
            self.other.display(),
            one.replicas,
            one.seed
        );
        let mut lines = vec![["", "A", "B", "B - A", "B has"].map(str::to_owned).to_vec()];
        for (_, name, one, other, difference, write) in rows {
            let verdict = match difference.half_width {
                _ if difference.mean.is_nan() => "no answers",
                None => "one pair",
                Some(_) if difference.mean == 0.0 => "the same",
                Some(_) if difference.holds(0.0) => "not sure",
                Some(_) if difference.mean > 0.0 => "more",
                Some(_) => "less",
            };
            lines.push(vec![
                name.to_owned(),
                write(one),
                write(other),
                write(difference),
                verdict.to_owned(),
            ]);
        }
        // Writing to a string does not fail.
        let _ = table::write_rows(&lines, &mut text);
        text += "* of the first kind of gateways; not sure: the difference's interval holds zero\n";
        text += &notes.text();
        super::print(&text)?;
        Ok(true)
    }
}

/// A report of each replica.
fn reports(scenario: &Scenario) -> Vec<Report> {
    let progress = Progress::new(scenario.replicas, scenario.duration);
    let observations = replicas::run(scenario, scenario.seed, scenario.replicas, None, &progress);
    progress.finish(observations.iter().map(|of| of.events).sum());
    observations.iter().map(|of| Report::new(scenario, scenario.seed, std::slice::from_ref(of))).collect()
}
