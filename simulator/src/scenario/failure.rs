//! `[[failure]]`: what goes wrong, and when.

use super::gateway::GatewayGroup;
use super::reader::Section;
use super::units::Time;
use crate::clock::Nanos;

/// Something that goes wrong with a gateway.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What.
    pub kind: FailureKind,
    /// With which gateways.
    pub gateway: usize,
    /// Which one of them; all, each by itself, where none is named.
    pub number: Option<usize>,
    /// When.
    pub schedule: Schedule,
    /// How long it lasts.
    pub lasts: Nanos,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailureKind {
    /// The process ends at once, and comes back.
    Crash,
    /// The process stops, and goes on where it was.
    Pause,
    /// All that it computes takes this many times as long.
    Slow(f64),
    /// Nothing passes between it and its devices.
    Partition,
}

/// When something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Once.
    At(Nanos),
    /// Again and again, exponentially distributed, with this mean time from the end of one to the next.
    Random(Nanos),
}

impl Failure {
    pub(super) fn read(section: &Section<'_>, groups: &[GatewayGroup]) -> Self {
        let gateways: &[&str] = &groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>();
        let kind = section.one_of("kind", &["crash", "pause", "slow", "partition"]);
        if kind.is_none() && !section.has("kind") {
            section.refuse("kind", "it is missing".to_owned(), "crash, pause, slow, partition");
        }
        let at = section.optional::<Time>("at").map(|time| Schedule::At(time.0));
        let random = section.optional::<Time>("mean_between").map(|time| Schedule::Random(time.0.max(1)));
        if at.is_some() == random.is_some() {
            section.refuse("at", "it is when, or how often".to_owned(), "one of at, mean_between");
        }
        let failure = Self {
            kind: match kind {
                Some(1) => FailureKind::Pause,
                Some(2) => FailureKind::Slow(section.required_within("factor", 1.0..=1e6)),
                Some(3) => FailureKind::Partition,
                _ => FailureKind::Crash,
            },
            gateway: section.one_of("gateway", gateways).unwrap_or(0),
            number: section.optional("number"),
            schedule: at.or(random).unwrap_or(Schedule::At(0)),
            lasts: section.required_within("for", Time(1)..=Time::MAX).0,
        };
        if !section.has("gateway") && gateways.len() > 1 {
            section.refuse("gateway", "it is missing".to_owned(), &gateways.join(", "));
        }
        let count = groups.get(failure.gateway).map_or(0, |group| group.count);
        if let Some(number) = failure.number.filter(|number| count > 0 && *number >= count) {
            let name = &groups[failure.gateway].name;
            section.refuse(
                "number",
                format!("{name} has no gateway {number}"),
                &format!("0 to {}", count - 1),
            );
        }
        section.finish();
        failure
    }
}
