//! `offload-sim swarm`: looks for a world in which an invariant breaks.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::scenario::Scenario;
use crate::swarm::{self, Fault, Feature, Finding, Found, Search, Verdict, Violation};
use crate::world::trace::Trace;

/// Looks for faults of the scheduling code in random worlds.
///
/// It ends with the first world that breaks an invariant, and writes the smallest scenario that still breaks it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Swarm {
    /// Worlds that are looked at, at the most.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// The seed of all that is random. Default: 1; of `--check`, the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// Features that no world has, so that what is known of one does not hide what others do.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FEATURE")]
    without: Vec<Feature>,
    /// The folder for the scenario that is found.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Prints a JSON object.
    #[arg(long)]
    json: bool,
    /// Looks at this scenario alone.
    #[arg(long, value_name = "SCENARIO.toml", conflicts_with_all = ["rounds", "without", "out"])]
    check: Option<PathBuf>,
    /// Writes each step of each request of that scenario, a line of JSON each, until the invariant breaks.
    #[arg(long, value_name = "FILE", requires = "check")]
    trace: Option<PathBuf>,
    /// Puts a fault into the scheduler, which has to be found.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
}

const EXAMPLES: &str = "\
Examples:
  offload-sim swarm --rounds 1000
  offload-sim swarm --seed 7 --without brokers,crashes
  offload-sim swarm --fault forgets-release
  offload-sim swarm --check swarm-1-42.toml --trace steps.jsonl

Exit codes: 0, 1 where a fault was found.";

impl Swarm {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        // A panic is a finding, and is told as one.
        std::panic::set_hook(Box::new(|_| {}));
        let outcome = match &self.check {
            Some(path) => self.check(path),
            None => self.search(),
        };
        drop(std::panic::take_hook());
        outcome
    }

    /// Whether all invariants hold in one scenario.
    fn check(&self, path: &Path) -> anyhow::Result<bool> {
        let scenario = Scenario::load(path)?;
        let seed = self.seed.unwrap_or(scenario.seed);
        let cannot = |path: &Path| format!("cannot write {}", path.display());
        let mut lines = match &self.trace {
            Some(path) => Some(BufWriter::new(File::create(path).with_context(|| cannot(path))?)),
            None => None,
        };
        let trace = lines.as_mut().map(Trace::new);
        let verdict = swarm::check_traced(&scenario, seed, self.fault, trace);
        if let (Some(path), Some(mut lines)) = (&self.trace, lines) {
            lines.flush().with_context(|| cannot(path))?;
        }
        let text = match &verdict {
            Verdict::Holds => "all invariants hold".to_owned(),
            Verdict::Breaks(violation) => violation.to_string(),
            Verdict::TooLong => {
                "it has more events than are looked at, in which all invariants hold".to_owned()
            }
        };
        let violation = match &verdict {
            Verdict::Breaks(violation) => Some(violation),
            _ => None,
        };
        let json = json!({
            "seed": seed,
            "violation": violation.map(of_violation),
            "is_whole": verdict != Verdict::TooLong,
        });
        super::print(&if self.json { format!("{json:#}\n") } else { format!("{text}\n") })?;
        Ok(violation.is_none())
    }

    fn search(&self) -> anyhow::Result<bool> {
        let Self { rounds, fault, .. } = *self;
        let search = Search { rounds, seed: self.seed.unwrap_or(1), without: self.without.clone(), fault };
        let bar = bar(rounds);
        let found = search.run(|round, tries| {
            bar.set_position(round);
            bar.set_message(if tries > 0 { format!("shrinking: {tries}") } else { String::new() });
        });
        bar.finish_and_clear();
        let mut path = None;
        if let Some(finding) = &found.finding {
            let file = self.out.join(format!("swarm-{}-{}.toml", search.seed, finding.round));
            std::fs::create_dir_all(&self.out)
                .and_then(|()| std::fs::write(&file, self.text_of(finding, &file)))
                .with_context(|| format!("cannot write {}", file.display()))?;
            path = Some(file);
        }
        if let Some((round, scenario)) = &found.first_too_long {
            let file = self.out.join(format!("swarm-{}-{round}-long.toml", search.seed));
            std::fs::create_dir_all(&self.out)
                .and_then(|()| std::fs::write(&file, scenario))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let printed = match self.json {
            true => format!("{:#}\n", self.json_of(&found, path.as_deref())),
            false => self.told(&found, path.as_deref()),
        };
        super::print(&printed)?;
        Ok(found.finding.is_none())
    }

    /// A scenario with what is to be known of it.
    fn text_of(&self, finding: &Finding, file: &Path) -> String {
        let Finding { violation, smallest, .. } = finding;
        let name = file.file_name().map_or(file, Path::new);
        format!("# {violation}\n# {}\n{smallest}", self.command(name))
    }

    /// What shows it again.
    fn command(&self, file: &Path) -> String {
        let fault = self.fault.and_then(|fault| clap::ValueEnum::to_possible_value(&fault));
        let fault = fault.map_or_else(String::new, |fault| format!(" --fault {}", fault.get_name()));
        format!("offload-sim swarm --check {}{fault}", file.display())
    }

    fn told(&self, found: &Found, path: Option<&Path>) -> String {
        let Found { rounds, too_long, finding, .. } = found;
        let (Some(Finding { violation, smallest, round, tries, .. }), Some(path)) = (finding, path) else {
            let cut = if *too_long > 0 {
                format!(
                    ", {too_long} of them not to their end, the first of which is in {}",
                    self.out.display()
                )
            } else {
                String::new()
            };
            return format!("{rounds} worlds{cut}: all invariants hold\n");
        };
        format!(
            "round {round}: {violation}\n\n{smallest}\n{} has it, the smallest of {tries} that were tried. Again:\n{}\n",
            path.display(),
            self.command(path)
        )
    }

    fn json_of(&self, found: &Found, path: Option<&Path>) -> Value {
        let names = |features: &[Feature]| features.iter().map(|of| of.name()).collect::<Vec<_>>();
        let features: serde_json::Map<_, _> =
            found.features.iter().map(|(feature, count)| (feature.name(), json!(count))).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "seed": self.seed.unwrap_or(1),
            "rounds": found.rounds,
            "too_long": found.too_long,
            "features": features,
            "finding": found.finding.as_ref().map(|finding| json!({
                "round": finding.round,
                "features": names(&finding.features),
                "violation": of_violation(&finding.violation),
                "tries": finding.tries,
                "scenario": finding.smallest,
                "first": finding.first,
                "file": path.map(|path| path.display().to_string()),
                "command": path.map(|path| self.command(path)),
            })),
        })
    }
}

fn of_violation(violation: &Violation) -> Value {
    let Violation { invariant, at, detail } = violation;
    json!({ "invariant": invariant.name(), "at_s": *at as f64 / 1e9, "detail": detail })
}

fn bar(rounds: u64) -> ProgressBar {
    let bar = ProgressBar::new(rounds);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {pos} of {len} worlds  {msg}  {elapsed} (left: {eta})")
    {
        bar.set_style(style);
    }
    bar
}
