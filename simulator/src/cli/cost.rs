//! `offload-sim cost`: what an event costs, in worlds of growing size. For developers.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;

use crate::clock::{Nanos, SECOND};
use crate::replicas::{self, Unwatched};
use crate::report::svg::{Axis, Line, file};
use crate::scenario::Scenario;
use crate::world::World;

/// The city that ships.
const CITY: &str = include_str!("../../scenarios/city.toml");

/// Devices of each of its gateways.
const DEVICES: usize = 1_000;

const HOUR: Nanos = 3_600 * SECOND;

/// Gateways, and virtual time: of the last ones the city is whole.
const SIZES: [(usize, Nanos); 8] = [
    (1, HOUR),
    (10, HOUR),
    (30, HOUR),
    (100, HOUR),
    (300, HOUR),
    (1_000, HOUR),
    (1_000, 6 * HOUR),
    (1_000, 24 * HOUR),
];

/// Simulates the city that ships in growing sizes, up to a whole day, and prints what an event costs.
#[derive(Debug, clap::Args)]
pub struct Cost {
    /// Writes a plot.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The most events of one world: what has more is left out.
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    most: u64,
}

impl Cost {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let (mut in_shards, mut as_one) = (Vec::new(), Vec::new());
        super::print("gateways  virtual time         events   seconds  million events a second\n")?;
        for (gateways, duration) in SIZES {
            let scenario = city(gateways, duration)?;
            // A request takes some ten events.
            let requests = (gateways * DEVICES) as u64 * duration / (900 * SECOND);
            if 10 * requests > self.most {
                continue;
            }
            let (events, seconds) = timed(|| {
                let observations = replicas::run(&scenario, scenario.seed, 1, None, &Unwatched);
                observations.iter().map(|of| of.events).sum()
            });
            in_shards.push((events as f64, seconds));
            print_line(gateways, duration, events, seconds, "in shards")?;
            // One world in one thread, which does not fit into the processor's caches.
            if duration == HOUR {
                let (events, seconds) = timed(|| {
                    let mut world = World::new(&scenario, replicas::seed_of(scenario.seed, 0));
                    world.run(duration, u64::MAX, |_| true);
                    world.observe().events
                });
                as_one.push((events as f64, seconds));
                print_line(gateways, duration, events, seconds, "one world, one thread")?;
            }
        }
        if let Some(path) = self.svg {
            let axis = |name| Axis { name, is_log: true };
            let lines = [
                Line { name: "in shards, on all cores", points: in_shards },
                Line { name: "one world, one thread", points: as_one },
            ];
            let plot = file(axis("events"), axis("seconds"), &lines);
            std::fs::write(&path, plot).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(true)
    }
}

fn city(gateways: usize, duration: Nanos) -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::parse(CITY, "city.toml".as_ref())?;
    scenario.duration = duration;
    scenario.gateways[0].count = gateways;
    scenario.devices[0].count = gateways * DEVICES;
    Ok(scenario)
}

/// What it returns, and the seconds that it takes.
fn timed(simulate: impl FnOnce() -> u64) -> (u64, f64) {
    let started = Instant::now();
    (simulate(), started.elapsed().as_secs_f64())
}

fn print_line(gateways: usize, duration: Nanos, events: u64, seconds: f64, how: &str) -> std::io::Result<()> {
    let (hours, rate) = (duration / HOUR, events as f64 / seconds / 1e6);
    super::print(&format!("{gateways:>8}  {hours:>10} h  {events:>13}  {seconds:>8.2}  {rate:>5.2} {how}\n"))
}
