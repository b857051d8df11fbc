//! `[[failure]]`: what goes wrong, and when.

use super::reader::Section;
use super::units::Time;
use crate::clock::{MILLISECOND, Nanos};

/// How much a clock can be wrong: a day, which a device without a battery is easily.
const MAX_SKEW: Nanos = 86_400_000 * MILLISECOND;

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What.
    pub kind: FailureKind,
    /// With what.
    pub target: Target,
    /// When.
    pub schedule: Schedule,
    /// How long it lasts.
    pub lasts: Nanos,
}

/// What something goes wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Gateways of a kind: one of them, or all, each by itself.
    Gateways {
        /// The kind.
        group: usize,
        /// Which one, if it is one.
        number: Option<usize>,
    },
    /// All devices of a kind together.
    Devices(usize),
    /// A site's link to its masters.
    Site(usize),
    /// A master.
    Master(usize),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailureKind {
    /// The process, of a gateway or a master, ends at once and comes back.
    Crash,
    /// A gateway's process stops, and goes on where it was.
    Pause,
    /// All that a gateway computes takes this many times as long.
    Slow(f64),
    /// Nothing passes between a gateway and all others.
    Partition,
    /// Nothing passes by a link: that of devices of a kind, or of a site.
    Link,
    /// A gateway's disk takes this many times as long.
    Disk(f64),
    /// The clock of devices of a kind, or of a gateway, is ahead by this many nanoseconds; behind, if it is negative.
    Clock(i64),
}

/// When something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Once.
    At(Nanos),
    /// Again and again, exponentially distributed, with this mean time from the end of one to the next.
    Random(Nanos),
}

/// What a failure can name.
pub(super) struct Names<'a> {
    pub devices: Vec<&'a str>,
    pub gateways: Vec<&'a str>,
    /// How many gateways there are of each kind.
    pub counts: Vec<usize>,
    pub sites: Vec<&'a str>,
    pub masters: Vec<&'a str>,
}

const KINDS: [&str; 7] = ["crash", "pause", "slow", "partition", "link", "disk", "clock"];

impl Failure {
    pub(super) fn read(section: &Section<'_>, names: &Names<'_>) -> Self {
        let kind = section.one_of("kind", &KINDS);
        if kind.is_none() && !section.has("kind") {
            section.refuse("kind", "it is missing".to_owned(), &KINDS.join(", "));
        }
        let at = section.optional::<Time>("at").map(|time| Schedule::At(time.0));
        let random = section.optional::<Time>("mean_between").map(|time| Schedule::Random(time.0.max(1)));
        if at.is_some() == random.is_some() {
            section.refuse("at", "it is when, or how often".to_owned(), "one of at, mean_between");
        }
        let factor = || section.required_within("factor", 1.0..=1e6);
        let kind = match kind {
            Some(1) => FailureKind::Pause,
            Some(2) => FailureKind::Slow(factor()),
            Some(3) => FailureKind::Partition,
            Some(4) => FailureKind::Link,
            Some(5) => FailureKind::Disk(factor()),
            Some(6) => FailureKind::Clock(skew(section)),
            _ => FailureKind::Crash,
        };
        let failure = Self {
            kind,
            target: target(section, kind, names),
            schedule: at.or(random).unwrap_or(Schedule::At(0)),
            lasts: section.required_within("for", Time(1)..=Time::MAX).0,
        };
        section.finish();
        failure
    }
}

/// What it goes wrong with: each kind has its own.
fn target(section: &Section<'_>, kind: FailureKind, names: &Names<'_>) -> Target {
    let accepted: &[&str] = match kind {
        FailureKind::Crash => &["gateway", "master"],
        FailureKind::Link => &["device", "site"],
        FailureKind::Clock(_) => &["device", "gateway"],
        _ => &["gateway"],
    };
    let named = accepted.iter().filter(|key| section.has(key)).count();
    if named > 1 {
        section.refuse_all("it is with one of them".to_owned(), &format!("one of {}", accepted.join(", ")));
    }
    let found = accepted.iter().find_map(|key| match *key {
        "device" => section.one_of("device", &names.devices).map(Target::Devices),
        "site" => section.one_of("site", &names.sites).map(Target::Site),
        "master" => section.one_of("master", &names.masters).map(Target::Master),
        _ => {
            let number = section.optional("number");
            section.one_of("gateway", &names.gateways).map(|group| Target::Gateways { group, number })
        }
    });
    // The only one there is need not be named.
    let only = match accepted[0] {
        "gateway" if names.gateways.len() == 1 => {
            Some(Target::Gateways { group: 0, number: section.optional("number") })
        }
        "device" if names.devices.len() == 1 && names.sites.is_empty() => Some(Target::Devices(0)),
        _ => None,
    };
    if found.is_none() && only.is_none() && named == 0 {
        let names: Vec<&str> = match accepted[0] {
            "gateway" => names.gateways.clone(),
            _ => names.devices.clone(),
        };
        let accepted = format!("{}: {}", accepted.join(" or "), names.join(", "));
        section.refuse(if named == 0 { "gateway" } else { "kind" }, "it is missing".to_owned(), &accepted);
    }
    let target = found.or(only).unwrap_or(Target::Gateways { group: 0, number: None });
    if let Target::Gateways { group, number: Some(number) } = target
        && let (Some(name), Some(count)) = (names.gateways.get(group), names.counts.get(group).copied())
        && (1..=number).contains(&count)
    {
        let accepted = format!("0 to {}", count - 1);
        section.refuse("number", format!("{name} has no gateway {number}"), &accepted);
    }
    target
}

/// `ahead`, or `behind`.
fn skew(section: &Section<'_>) -> i64 {
    let time =
        |key| section.has(key).then(|| section.or_within(key, Time(0), Time(0)..=Time(MAX_SKEW)).0 as i64);
    match (time("ahead"), time("behind")) {
        (Some(ahead), None) => ahead,
        (None, Some(behind)) => -behind,
        _ => {
            section.refuse_all("it is how wrong the clock is".to_owned(), "one of ahead, behind");
            0
        }
    }
}
