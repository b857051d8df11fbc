//! `offload-sim plan`: how few gateways, workers or slots are enough.

use std::path::PathBuf;

use serde_json::json;

use super::progress::Progress;
use super::run::Replication;
use crate::planning::{self, Goal, Plan as Planned, Resource, Trial, Tried};
use crate::replicas::Watcher;
use crate::report::notes::Notes;
use crate::report::table;
use crate::scenario::Scenario;
use crate::scenario::units::Time;
use crate::statistics::Estimate;

/// Finds the fewest gateways, workers or slots that keep a latency, also with one lost.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Plan {
    /// The scenario.
    #[arg(value_name = "SCENARIO.toml")]
    scenario: PathBuf,
    /// The 99th percentile of latency that is to be kept: `50ms`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    p99: u64,
    /// The part of requests that are to be answered `ok`, of those that end or are left open at the end: 0 to 1.
    #[arg(long, value_name = "PART", default_value_t = 0.999, value_parser = part)]
    ok: f64,
    /// What there is to be enough of.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Resource::Gateways)]
    vary: Resource,
    /// Whose: the name of a [gateway.NAME]. Default: the first one.
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// The most that are tried.
    #[arg(long, value_name = "COUNT", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,
    #[command(flatten)]
    replication: Replication,
    /// Prints a JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-sim plan site.toml --p99 250ms
  offload-sim plan site.toml --p99 250ms --vary workers --ok 0.99
  offload-sim plan site.toml --p99 1s --json | jq .with_one_lost

Exit codes: 0, or 1 where nothing that was tried is enough.";

fn part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err("expected a number from 0 to 1".to_owned()) }
}

fn time(text: &str) -> Result<u64, String> {
    match super::time(text)? {
        Time(0) => Err("nothing is answered in no time".to_owned()),
        Time(time) => Ok(time),
    }
}

impl Plan {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let (most, limit) = (self.most as usize, self.vary.most());
        anyhow::ensure!(
            most <= limit,
            "--most {most}: a scenario has {limit} {} at the most",
            self.vary.name()
        );
        let scenario = self.replication.load(&self.scenario)?;
        let group = self.group(&scenario)?;
        let goal = Goal { p99: self.p99, ok: self.ok };
        let watch = |Trial { count, is_one_lost }: Trial| -> Box<dyn Watcher> {
            let lost = if is_one_lost { ", one lost" } else { "" };
            let what = format!("{count} {}{lost}: ", self.vary.name());
            Box::new(Progress::of(&what, scenario.replicas, scenario.duration))
        };
        let plan = planning::plan(&scenario, group, self.vary, goal, most, &watch);
        let printed =
            if self.json { self.json_of(&scenario, &plan) } else { self.text_of(&scenario, group, &plan) };
        super::print(&printed)?;
        Ok(plan.enough.is_some())
    }

    fn group(&self, scenario: &Scenario) -> anyhow::Result<usize> {
        let Some(name) = &self.gateway else { return Ok(0) };
        let found = scenario.gateways.iter().position(|gateway| gateway.name == *name);
        found.ok_or_else(|| {
            let names: Vec<&str> = scenario.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
            let file = self.scenario.display();
            anyhow::anyhow!(
                "--gateway {name}: {file} has no [gateway.{name}] (accepted: {})",
                names.join(", ")
            )
        })
    }

    fn text_of(&self, scenario: &Scenario, group: usize, plan: &Planned) -> String {
        let what = self.vary.name();
        let mut text = format!(
            "{}: {what} of {},\nso that p99 ≤ {} and {} % are answered ok; {} replicas, seed {}\n\n",
            scenario.name,
            scenario.gateways[group].name,
            Time(self.p99),
            self.ok * 100.0,
            scenario.replicas,
            scenario.seed
        );
        let mut rows = vec![["", what, "p99", "ok", ""].map(str::to_owned).to_vec()];
        let row = |name: &str, tried: &Tried| {
            let verdict = if tried.keeps { "enough" } else { "too few" };
            let (p99, ok) = (table::time(tried.p99), table::percent(tried.ok));
            vec![name.to_owned(), tried.count.to_string(), p99, ok, verdict.to_owned()]
        };
        rows.extend(plan.tried.iter().map(|tried| row("", tried)));
        rows.extend(plan.tried_with_one_lost.iter().map(|tried| row("one lost", tried)));
        // Writing to a string does not fail.
        let _ = table::write_rows(&rows, &mut text);
        let sure = |p99: Estimate| match p99.half_width {
            None => "one replica says nothing of others: not sure",
            Some(half) if p99.mean + half <= self.p99 as f64 / 1e9 => {
                "the 95 % interval of their p99 keeps it, too"
            }
            Some(_) => "the 95 % interval of their p99 reaches beyond: not sure, more replicas may tell",
        };
        text += &match (plan.enough(), plan.with_one_lost) {
            (None, _) => format!("{} {what} are not enough (--most).\n", self.most),
            (Some(tried), lost) => {
                let lost = match lost {
                    Some(count) => format!("{count} are, if one of them is lost."),
                    None => format!("If one is lost, {} are not enough (--most).", self.most),
                };
                format!("{} {what} are enough; {}.\n{lost}\n", tried.count, sure(tried.p99))
            }
        };
        text + &Notes::on(&[scenario]).text()
    }

    fn json_of(&self, scenario: &Scenario, plan: &Planned) -> String {
        let trial = |tried: &Tried| {
            json!({ "count": tried.count, "p99_s": tried.p99.json(), "ok": tried.ok.json(), "enough": tried.keeps,
                "sure": tried.is_sure })
        };
        let trials = |all: &[Tried]| all.iter().map(trial).collect::<Vec<_>>();
        let mut object = json!({
            "scenario": scenario.name, "seed": scenario.seed, "replicas": scenario.replicas,
            "vary": self.vary.name(), "p99_s": self.p99 as f64 / 1e9, "ok": self.ok,
            "tried": trials(&plan.tried), "enough": plan.enough,
            "tried_with_one_lost": trials(&plan.tried_with_one_lost), "with_one_lost": plan.with_one_lost,
        });
        Notes::on(&[scenario]).add_to(&mut object);
        format!("{object:#}\n")
    }
}
