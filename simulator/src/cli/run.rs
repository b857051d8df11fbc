//! `offload-sim run`: what a scenario's fleet does.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::progress::Progress;
use crate::clock::Nanos;
use crate::replicas;
use crate::report::{Report, html, json, table};
use crate::scenario::Scenario;
use crate::scenario::units::Time;
use crate::world::capture::Capture;
use crate::world::trace::Trace;

/// Simulates a scenario and prints tables.
///
/// The same seed and version print the same.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// The scenario; `offload-sim new` writes one.
    #[arg(value_name = "SCENARIO.toml")]
    scenario: PathBuf,
    #[command(flatten)]
    replication: Replication,
    /// Prints a JSON object in place of the tables.
    #[arg(long)]
    json: bool,
    /// Writes an HTML file that needs nothing else: tables, plots, and a map that plays.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes each step of each request of the first replica, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Writes the MQTT packets of the first replica's devices, as Wireshark opens them.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Packets that are written there at the most, the first ones.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, requires = "pcap")]
    pcap_packets: u64,
}

const EXAMPLES: &str = "\
Examples:
  offload-sim run site.toml
  offload-sim run site.toml --html report.html
  offload-sim run site.toml --replicas 20 --duration 1h
  offload-sim run site.toml --json | jq '.devices[0].latency_s'
  offload-sim run site.toml --duration 1min --pcap packets.pcap";

/// How often, and for how long, a scenario is simulated.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Replication {
    /// The seed of all that is random. Default: the scenario's.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Runs with seeds of their own, over which intervals of 95 % are told. Default: the scenario's, else 5.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub replicas: Option<u16>,
    /// Virtual time of each: `10min`, `1d`. Default: the scenario's.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Nanos>,
}

fn duration(text: &str) -> Result<Nanos, String> {
    match super::time(text)? {
        Time(0) => Err("nothing happens in no time".to_owned()),
        Time(time) => Ok(time),
    }
}

impl Replication {
    /// The scenario of a file, with what the command line says otherwise.
    ///
    /// # Errors
    /// See [`Scenario::load`].
    pub fn load(&self, path: &Path) -> anyhow::Result<Scenario> {
        let mut scenario = Scenario::load(path)?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        scenario.replicas = self.replicas.map_or(scenario.replicas, usize::from);
        if let Some(duration) = self.duration {
            scenario.duration = duration;
            scenario.warm_up = scenario.warm_up.filter(|warm_up| *warm_up < duration);
        }
        Ok(scenario)
    }
}

impl Run {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let scenario = self.replication.load(&self.scenario)?;
        let (seed, count) = (scenario.seed, scenario.replicas);
        let progress = Progress::new(count, scenario.duration);
        let mut lines = match &self.trace {
            Some(path) => Some(BufWriter::new(create(path)?)),
            None => None,
        };
        let mut packets = match &self.pcap {
            Some(path) => Some(BufWriter::new(create(path)?)),
            None => None,
        };
        let mut trace = lines.as_mut().map(Trace::new);
        if let Some(packets) = &mut packets {
            trace = Some(Trace::capturing(trace, Capture::new(packets, self.pcap_packets)));
        }
        let observations = replicas::run(&scenario, seed, count, trace, &progress);
        for (path, lines) in [(&self.trace, lines), (&self.pcap, packets)] {
            let (Some(path), Some(mut lines)) = (path, lines) else { continue };
            lines.flush().with_context(|| format!("cannot write {}", path.display()))?;
        }
        let report = Report::new(&scenario, seed, &observations);
        progress.finish(report.events);
        if let Some(path) = &self.html {
            std::fs::write(path, html::of(&report))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let printed = if self.json { format!("{:#}\n", json::of(&report)) } else { table::of(&report) };
        super::print(&printed)?;
        Ok(true)
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}
