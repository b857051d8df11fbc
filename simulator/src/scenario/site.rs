//! `[site.NAME]` and `[master.NAME]`: gateways as routers of their sites, and what joins them.

use offload_policy::DepartureBounds;

use super::reader::Section;
use super::units::{Bytes, Time};
use crate::clock::{MICROSECOND, MILLISECOND, Nanos, SECOND, policy_time};

/// Sites, and masters, of one scenario at the most: a master has no more gates.
const MAX_SITES: usize = 1_024;

/// A gateway as the router of its site. Keys of the gateway's own `[network]` are called as there, and have its
/// defaults.
#[derive(Clone, Debug)]
pub struct Site {
    /// What devices and other sites call it.
    pub name: String,
    /// Its gateway: one of its kind.
    pub gateway: usize,
    /// The masters that it joins, in the order in which they are preferred.
    pub masters: Vec<usize>,
    /// What is between it and them; none is a wire without length.
    pub link: Option<usize>,
    /// Sites that requests are handed on to while its gateway is saturated.
    pub overflow: Vec<usize>,
    /// Requests that may be on their way to other sites.
    pub bounds: DepartureBounds,
    /// Idle time after which a master is probed.
    pub keep_alive: Nanos,
    /// Longest wait between two attempts to connect.
    pub reconnect_max: Nanos,
}

/// What joins the routers of sites.
#[derive(Clone, Debug)]
pub struct Master {
    /// What sites and failures call it.
    pub name: String,
    /// What it takes for each message.
    pub forward: Nanos,
}

impl Master {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let forward = section.or_within("forward", Time(20 * MICROSECOND), Time(0)..=Time(SECOND)).0;
        let master = Self { name: section.name().to_owned(), forward };
        section.finish();
        master
    }
}

/// What a site can name.
pub(super) struct Names<'a> {
    pub sites: Vec<&'a str>,
    pub masters: Vec<&'a str>,
    pub links: Vec<&'a str>,
    pub gateways: Vec<&'a str>,
}

impl Site {
    pub(super) fn read(section: &Section<'_>, names: &Names<'_>) -> Self {
        let gateway = section.one_of("gateway", &names.gateways).or_else(|| {
            // A gateway that is called as its site is need not be named.
            names.gateways.iter().position(|gateway| *gateway == section.name())
        });
        if gateway.is_none() && !section.has("gateway") {
            let accepted = format!("the name of a table [gateway.NAME]: {}", names.gateways.join(", "));
            section.refuse("gateway", "it is missing".to_owned(), &accepted);
        }
        let masters = if section.has("master") || names.masters.len() != 1 {
            section.some_of("master", &names.masters)
        } else {
            vec![0]
        };
        if masters.is_empty() {
            let accepted = format!("names of tables [master.NAME]: {}", names.masters.join(", "));
            section.refuse("master", "it joins no master".to_owned(), &accepted);
        }
        let overflow = section.some_of("overflow", &names.sites);
        if overflow.iter().any(|site| names.sites[*site] == section.name()) {
            section.refuse("overflow", "a site hands nothing on to itself".to_owned(), "other sites");
        }
        let bytes = Bytes(64 << 10)..=Bytes(64 << 30);
        let age = section.or_within(
            "buffer_age",
            Time(30 * SECOND),
            Time(100 * MILLISECOND)..=Time(86_400 * SECOND),
        );
        let (fast, hour) = (Time(100 * MILLISECOND), Time(3_600 * SECOND));
        let site = Self {
            name: section.name().to_owned(),
            gateway: gateway.unwrap_or(0),
            masters,
            link: section.one_of("link", &names.links),
            overflow,
            bounds: DepartureBounds {
                requests: section.or_within("buffer_requests", 4_096, 1..=1_000_000),
                bytes: section.or_within("buffer_bytes", Bytes(64 << 20), bytes).0 as usize,
                age: policy_time(age.0),
            },
            keep_alive: section.or_within("keep_alive", Time(5 * SECOND), Time(5 * SECOND)..=hour).0,
            reconnect_max: section.or_within("reconnect_max", Time(2 * SECOND), fast..=hour).0,
        };
        section.finish();
        site
    }

    /// What holds between sites, and between them and other tables.
    pub(super) fn check(sites: &[Self], gateways: &[super::GatewayGroup], sections: &[Section<'_>]) {
        for (at, (site, section)) in sites.iter().zip(sections).enumerate() {
            if let Some(gateway) = gateways.get(site.gateway) {
                if gateway.count > 1 {
                    let problem = format!("{} has {} gateways", gateway.name, gateway.count);
                    section.refuse(
                        "gateway",
                        problem,
                        "a kind of which there is one: it is the site's router",
                    );
                }
                if gateway.spread != super::Spread::Home {
                    let problem = format!("{} shares a broker with others", gateway.name);
                    section.refuse(
                        "gateway",
                        problem,
                        "a gateway with a broker of its own: spread = \"home\"",
                    );
                }
            }
            if sites[..at].iter().any(|other| other.gateway == site.gateway) {
                section.refuse(
                    "gateway",
                    "it is the router of another site already".to_owned(),
                    "another one",
                );
            }
            if at == MAX_SITES {
                section.refuse_all(format!("{} sites", sites.len()), &format!("{MAX_SITES} at the most"));
            }
        }
    }
}
