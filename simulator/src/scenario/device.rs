//! `[device.NAME]`: devices of one kind.

use super::arrival::{Arrival, Surge};
use super::reader::Section;
use super::units::Time;
use crate::clock::{MILLISECOND, Nanos, SECOND};

/// Devices, and gateways, of one scenario at the most: what 32 bits number, with room.
pub(super) const MAX_ENTITIES: usize = 100_000_000;

/// Devices of one kind.
#[derive(Clone, Debug)]
pub struct DeviceGroup {
    /// What reports call it.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// The program that they ask for.
    pub program: usize,
    /// The gateways that they ask.
    pub gateway: usize,
    /// The site whose gateway is to run their requests; none is that of the gateway that they ask.
    pub to: Option<usize>,
    /// What is between; none is a wire without length.
    pub link: Option<usize>,
    /// When they send.
    pub arrival: Arrival,
    /// When they send more often.
    pub surge: Option<Surge>,
    /// MQTT's quality of service: 0 or 1.
    pub qos: u8,
    /// How long a device waits for an answer before it sends the request again, with the same `id`.
    pub timeout: Option<Nanos>,
    /// How often it sends one again, after a `busy` too.
    pub retries: u16,
    /// The shortest and the longest wait before sending again: doubled each time.
    pub backoff: (Nanos, Nanos),
    /// The request's own `timeout_ms`: it is not run later.
    pub deadline: Option<Nanos>,
    /// Whether its requests are sealed: a gateway refuses those that its clock says are too old, or not made yet.
    pub sealed: bool,
    /// It sleeps, and hears what its session has kept for it each time that it wakes, so often.
    pub wakes: Option<Nanos>,
    /// How many devices are one account: those without a name at one address are.
    pub per_account: usize,
    /// The group to whose first account all of these devices belong, in place of accounts of their own.
    pub account: Option<usize>,
}

/// What a device can name.
pub(super) struct Names<'a> {
    pub programs: Vec<&'a str>,
    pub links: Vec<&'a str>,
    pub gateways: Vec<&'a str>,
    pub sites: Vec<&'a str>,
    pub devices: Vec<&'a str>,
    /// By site: its gateway.
    pub site_gateways: Vec<usize>,
}

impl DeviceGroup {
    pub(super) fn read(section: &Section<'_>, names: &Names<'_>) -> Self {
        let one_of = |key: &'static str, names: &[&str], table: &str| match section.one_of(key, names) {
            Some(found) => found,
            // The only one there is need not be named.
            None if names.len() == 1 => 0,
            None => {
                if !section.has(key) {
                    let accepted = format!("the name of a table [{table}.NAME]: {}", names.join(", "));
                    section.refuse(key, "it is missing".to_owned(), &accepted);
                }
                0
            }
        };
        let time = |key, least: Nanos| {
            let Time(time) = section.optional(key)?;
            if time < least {
                section.refuse(
                    key,
                    format!("{} is too short", Time(time)),
                    &format!("{} or more", Time(least)),
                );
            }
            Some(time.max(1))
        };
        let least = section.or_within("backoff", Time(SECOND), Time(MILLISECOND)..=Time(3_600 * SECOND)).0;
        let group = Self {
            name: section.name().to_owned(),
            count: section.or_within("count", 1, 1..=MAX_ENTITIES),
            program: one_of("program", &names.programs, "program"),
            gateway: one_of("gateway", &names.gateways, "gateway"),
            to: section.one_of("to", &names.sites),
            link: section.has("link").then(|| one_of("link", &names.links, "link")),
            arrival: Arrival::read(section),
            surge: section.table("surge").map(|table| Surge::read(&table)),
            qos: section.or_within("qos", 1, 0..=1),
            timeout: time("timeout", 1),
            retries: section.or_within("retries", 0, 0..=1_000),
            backoff: (least, section.or_within("backoff_most", Time(60 * least), Time(least)..=Time::MAX).0),
            deadline: time("deadline", MILLISECOND),
            sealed: section.or("sealed", false),
            wakes: time("wakes", MILLISECOND),
            per_account: section.or_within("per_account", 1, 1..=MAX_ENTITIES),
            account: section.one_of("account", &names.devices),
        };
        if group.to.is_some() && !names.site_gateways.contains(&group.gateway) {
            let problem = "the gateway that these devices ask is no site's router".to_owned();
            section.refuse("to", problem, "a table [site.NAME] for that gateway");
        }
        if group.account.is_some() && section.has("per_account") {
            let problem = "these devices are of another group's account".to_owned();
            section.refuse("per_account", problem, "no `per_account`, or no `account`");
        }
        if group.surge.is_some() && matches!(group.arrival, Arrival::Trace(_)) {
            section.refuse("surge", "a trace has its own times".to_owned(), "");
        }
        section.finish();
        group
    }
}
