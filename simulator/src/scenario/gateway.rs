//! `[gateway.NAME]`: gateways of one kind.

use super::configuration::Configuration;
use super::program::distribution;
use super::reader::Section;
use super::units::Time;
use crate::clock::{Nanos, SECOND};
use crate::random::Distribution;

/// Gateways of one kind at the most: a report has a line of each interval for each.
pub const MAX_GATEWAYS: usize = 1_000_000;

/// Gateways of one kind.
#[derive(Clone, Debug)]
pub struct GatewayGroup {
    /// What devices and failures call it.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// What its own configuration says.
    pub config: Configuration,
    /// Whether slices end when a clock ticks, and not each after its own time.
    pub ticks: bool,
    /// What the worker does for each request beside running its guest.
    pub overhead: Nanos,
    /// What the thread that receives requests takes for each of them.
    pub ingress: Nanos,
    /// How devices find one of several.
    pub spread: Spread,
    /// What the disk takes for one sync, where requests that were taken outlive a crash.
    pub disk: Option<Distribution>,
    /// What a call of the bucket takes in which gateways of a work queue have the outcomes of each `id`.
    pub outcomes: Option<Distribution>,
    /// Power in watts while nothing runs, and beyond that while all workers run.
    pub watts: Option<(f64, f64)>,
}

/// How the requests of devices come to one of several gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each device has one gateway, whose own broker it is connected to.
    Home,
    /// A broker hands them out in rotation, as a shared subscription does.
    Rotation,
    /// A work queue: a gateway that has room takes the next one.
    Queue,
}

impl GatewayGroup {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let config = Configuration::read(section);
        let time = |key| section.or_within(key, Time(0), Time(0)..=Time(SECOND)).0;
        let group = Self {
            name: section.name().to_owned(),
            count: section.or_within("count", 1, 1..=MAX_GATEWAYS),
            config,
            ticks: section.or("ticks", true),
            overhead: time("overhead"),
            ingress: time("ingress"),
            spread: match section.one_of("spread", &["home", "rotation", "queue"]) {
                None | Some(0) => Spread::Home,
                Some(1) => Spread::Rotation,
                Some(_) => Spread::Queue,
            },
            disk: distribution(section, "disk"),
            outcomes: distribution(section, "outcomes"),
            watts: section.table("watts", "{ idle = 6.0, busy = 9.0 }").map(|watts| {
                let read = (watts.or_within("idle", 0.0, 0.0..=1e6), watts.or_within("busy", 0.0, 0.0..=1e6));
                watts.finish();
                read
            }),
        };
        if group.disk.is_some() && !group.config.durable {
            section.refuse("disk", "nothing is written".to_owned(), "durable = true");
        }
        if group.outcomes.is_some() && group.spread != Spread::Queue {
            section.refuse("outcomes", "gateways share none".to_owned(), "spread = \"queue\"");
        }
        section.finish();
        group
    }
}
