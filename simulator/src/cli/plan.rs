//! `offload-sim plan`: how few gateways, workers or slots are enough.

use std::path::PathBuf;

use serde_json::json;

use super::progress::Progress;
use super::run::Replication;
use crate::planning::{self, Goal, Plan as Planned, Resource};
use crate::replicas::Watcher;
use crate::report::table;
use crate::scenario::Scenario;
use crate::scenario::units::Time;
use crate::statistics::Estimate;

/// Finds the fewest gateways, workers or slots that keep a latency, and those that keep it with one lost.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// The scenario.
    #[arg(value_name = "SCENARIO.toml")]
    scenario: PathBuf,
    /// The 99th percentile of latency that is to be kept: `50ms`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    p99: u64,
    /// The part of requests that are to be answered `ok`.
    #[arg(long, default_value_t = 0.999, value_parser = part)]
    ok: f64,
    /// What there is to be enough of.
    #[arg(long, value_enum, default_value_t = Resource::Gateways)]
    vary: Resource,
    /// Whose: the name of a [gateway.NAME]. Default: the first one.
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// The most that are tried.
    #[arg(long, default_value_t = 1_024)]
    most: usize,
    #[command(flatten)]
    replication: Replication,
    /// Prints a JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

fn part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err("expected a number from 0 to 1".to_owned()) }
}

fn time(text: &str) -> Result<u64, String> {
    Time::parse(text).map(|time| time.0)
}

impl Plan {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let scenario = self.replication.load(&self.scenario)?;
        let group = match &self.gateway {
            None => 0,
            Some(name) => {
                let found = scenario.gateways.iter().position(|gateway| gateway.name == *name);
                found.ok_or_else(|| anyhow::anyhow!("{} has no [gateway.{name}]", self.scenario.display()))?
            }
        };
        let goal = Goal { p99: self.p99, ok: self.ok };
        let watch = |scenario: &Scenario| -> Box<dyn Watcher> {
            Box::new(Progress::new(scenario.replicas, scenario.duration))
        };
        let plan = planning::plan(&scenario, group, self.vary, goal, self.most, &watch);
        let printed =
            if self.json { self.json_of(&scenario, &plan) } else { self.text_of(&scenario, group, &plan) };
        super::print(&printed)?;
        Ok(plan.enough.is_some())
    }

    fn text_of(&self, scenario: &Scenario, group: usize, plan: &Planned) -> String {
        let what = self.vary.name();
        let mut text = format!(
            "{}: {what} of {}, so that p99 ≤ {} and {} % are answered ok; {} replicas, seed {}\n\n",
            scenario.name,
            scenario.gateways[group].name,
            Time(self.p99),
            self.ok * 100.0,
            scenario.replicas,
            scenario.seed
        );
        for tried in &plan.tried {
            text += &format!(
                "{:>6} {what}: p99 {:>22}, ok {:>18}: {}\n",
                tried.count,
                table::time(tried.p99),
                table::percent(tried.ok),
                if tried.keeps { "enough" } else { "too few" }
            );
        }
        let sure = |p99: Estimate| match p99.half_width {
            None => "one replica says nothing of others: not sure".to_owned(),
            Some(half) if p99.mean + half <= self.p99 as f64 / 1e9 => {
                "its 95 % interval keeps it, too".to_owned()
            }
            Some(_) => "its 95 % interval reaches beyond: not sure, more replicas may tell".to_owned(),
        };
        text += &match plan.enough() {
            Some(tried) => format!("\n{} {what} are enough; {}.\n", tried.count, sure(tried.p99)),
            None => format!("\n{} {what} are not enough.\n", self.most),
        };
        match plan.with_one_lost {
            Some(count) => text + &format!("{count} are, if one of them is lost.\n"),
            None => text + &format!("Should one be lost, it takes one more than {} (--most).\n", self.most),
        }
    }

    fn json_of(&self, scenario: &Scenario, plan: &Planned) -> String {
        let tried: Vec<_> = (plan.tried.iter())
            .map(|tried| {
                json!({ "count": tried.count, "p99_s": tried.p99.json(), "ok": tried.ok.json(), "enough": tried.keeps,
                    "sure": tried.is_sure })
            })
            .collect();
        let object = json!({
            "scenario": scenario.name, "seed": scenario.seed, "replicas": scenario.replicas,
            "vary": self.vary.name(), "p99_s": self.p99 as f64 / 1e9, "ok": self.ok,
            "tried": tried, "enough": plan.enough, "with_one_lost": plan.with_one_lost,
        });
        format!("{object:#}\n")
    }
}
