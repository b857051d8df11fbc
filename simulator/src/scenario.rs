//! A scenario: the world that is to be simulated, as a TOML file describes it.

pub mod arrival;
pub mod configuration;
pub mod device;
pub mod failure;
pub mod gateway;
pub mod link;
pub mod program;
pub mod reader;
pub mod refusal;
pub mod site;
pub mod units;
pub mod writer;

use std::path::Path;

use crate::clock::Nanos;

use device::MAX_ENTITIES;
use reader::{Document, Section};

pub use arrival::{Arrival, Surge};
pub use device::DeviceGroup;
pub use failure::{Failure, FailureKind, Schedule, Target};
pub use gateway::{GatewayGroup, ModuleLimits, Spread};
pub use link::Link;
pub use program::Program;
pub use refusal::{Refusal, ScenarioError};
pub use site::{Master, Site};

/// Bytes of a scenario at the most: one with more was given by mistake.
const MAX_BYTES: u64 = 1 << 20;

/// Replicas, unless it is said otherwise: with them an interval is three times as wide as with many.
const DEFAULT_REPLICAS: usize = 5;

/// The world that is to be simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// The seed, unless the command line says another one.
    pub seed: u64,
    /// Runs with seeds of their own, unless the command line says otherwise.
    pub replicas: usize,
    /// How much virtual time is simulated.
    pub duration: Nanos,
    /// What is cut off at the beginning; where it is not said, it is found ([`crate::statistics::warm_up`]).
    pub warm_up: Option<Nanos>,
    /// What devices ask for.
    pub programs: Vec<Program>,
    /// Between devices and gateways.
    pub links: Vec<Link>,
    /// Gateways of one kind.
    pub gateways: Vec<GatewayGroup>,
    /// Gateways that are routers of their sites.
    pub sites: Vec<Site>,
    /// What joins them.
    pub masters: Vec<Master>,
    /// Devices of one kind.
    pub devices: Vec<DeviceGroup>,
    /// What goes wrong, and when.
    pub failures: Vec<Failure>,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or with all that is not accepted in it.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let read = |error| ScenarioError::Read { path: path.to_owned(), error };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if path.is_dir() {
            return Err(ScenarioError::folder(path));
        }
        if bytes > MAX_BYTES {
            return Err(ScenarioError::TooLarge { path: path.to_owned(), bytes, most: MAX_BYTES });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    /// Reads a scenario's text; `path` is told in what is refused, and files that are named in it are beside it.
    ///
    /// # Errors
    /// All that is not accepted.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScenarioError> {
        let document = Document::parse(text, path)?;
        let root = document.root();
        let scenario = Self::read(&root);
        root.finish();
        document.finish().map(|()| scenario)
    }

    fn read(root: &Section<'_>) -> Self {
        let name = root.or("name", "a scenario".to_owned());
        let seed = root.or("seed", 1);
        let replicas = root.or_within("replicas", DEFAULT_REPLICAS, 1..=1_000);
        let duration = root.required_within("duration", units::Time(1)..=units::Time::MAX).0;
        let warm_up = root.optional::<units::Time>("warm_up").map(|time| time.0);
        let programs: Vec<_> = root.named("program").iter().map(Program::read).collect();
        let links: Vec<_> = root.named("link").iter().map(Link::read).collect();
        let gateways: Vec<_> = root.named("gateway").iter().map(GatewayGroup::read).collect();
        let masters: Vec<_> = root.named("master").iter().map(Master::read).collect();
        let site_sections = root.named("site");
        let device_sections = root.named("device");
        let names = site::Names {
            sites: site_sections.iter().map(Section::name).collect(),
            masters: masters.iter().map(|master| master.name.as_str()).collect(),
            links: links.iter().map(|link| link.name.as_str()).collect(),
            gateways: gateways.iter().map(|gateway| gateway.name.as_str()).collect(),
        };
        let sites: Vec<_> = site_sections.iter().map(|section| Site::read(section, &names)).collect();
        Site::check(&sites, &gateways, &site_sections);
        let of_devices = device::Names {
            programs: programs.iter().map(|program| program.name.as_str()).collect(),
            links: names.links.clone(),
            gateways: names.gateways.clone(),
            sites: names.sites.clone(),
            devices: device_sections.iter().map(Section::name).collect(),
            site_gateways: sites.iter().map(|site| site.gateway).collect(),
        };
        let devices: Vec<_> =
            device_sections.iter().map(|section| DeviceGroup::read(section, &of_devices)).collect();
        let targets = failure::Names {
            devices: device_sections.iter().map(Section::name).collect(),
            gateways: names.gateways.clone(),
            counts: gateways.iter().map(|group| group.count).collect(),
            sites: names.sites.clone(),
            masters: names.masters.clone(),
        };
        let failures = root.list("failure").iter().map(|section| Failure::read(section, &targets)).collect();
        if let Some(warm_up) = warm_up.filter(|warm_up| *warm_up >= duration) {
            root.refuse("warm_up", format!("{} is not shorter than the duration", units::Time(warm_up)), "");
        }
        for (table, is_empty) in [("gateway", gateways.is_empty()), ("device", devices.is_empty())] {
            if is_empty {
                root.refuse(table, "there is none".to_owned(), &format!("a table [{table}.NAME]"));
            }
        }
        let counts: [usize; 2] =
            [devices.iter().map(|group| group.count).sum(), gateways.iter().map(|group| group.count).sum()];
        for (table, count) in ["device", "gateway"].into_iter().zip(counts) {
            if count > MAX_ENTITIES {
                root.refuse(
                    table,
                    format!("{count} of them"),
                    &format!("{MAX_ENTITIES} together at the most"),
                );
            }
        }
        drop((names, of_devices, targets));
        Self {
            name,
            seed,
            replicas,
            duration,
            warm_up,
            programs,
            links,
            gateways,
            sites,
            masters,
            devices,
            failures,
        }
    }
}
