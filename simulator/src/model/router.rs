//! The router of a site and the masters that join routers, as far as they are state: who is connected, and what is on
//! its way. The books of that are the runtime's own ([`Departures`]); `runtime/src/network/` is the original.

use std::collections::HashMap;

use offload_policy::{Backoff, Departures, GatewayLoad};

use super::outcome::Outcome;
use crate::clock::{MILLISECOND, Nanos, SECOND, policy_time};
use crate::random::Stream;
use crate::scenario;

/// Gateways that one request passes at the most, as in the runtime.
pub const MAX_HOPS: usize = 8;

/// How often a router looks for what is overdue, as in the runtime.
pub const TICK: Nanos = 100 * MILLISECOND;

/// How often a router says how busy its gateway is, as in the runtime.
pub const LOAD_EVERY: Nanos = SECOND;

/// So long after its start a master does not know all gates yet, as in the runtime.
pub const GATHERING: Nanos = 5 * SECOND;

/// First wait between two attempts to connect, as in the runtime.
const RECONNECT_MIN: Nanos = 50 * MILLISECOND;

/// Messages that wait at a master for one router, as in the runtime.
const MAX_QUEUED: u32 = 8_192;

/// A message between routers.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The request that it is about.
    pub request: u32,
    /// The site that sends it.
    pub from: usize,
    /// The site that it is for.
    pub to: usize,
    /// Which of the sender's connections it takes, and then which of the receiver's.
    pub connection: usize,
    /// The session of that connection: what belongs to another one is lost.
    pub session: u32,
    /// Its number at the asking router, and which start of that it was.
    pub tag: Tag,
    /// What it says.
    pub says: Says,
    /// Whether the receiver's gateway has read it.
    pub is_read: bool,
}

/// Names a request at the router that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Counts the starts of the gateway.
    pub instance: u32,
    /// Its number.
    pub number: u64,
}

/// What a message between routers says.
#[derive(Clone, Debug)]
pub enum Says {
    /// A request.
    Request {
        /// The sites that it has come through, the sender last.
        path: Vec<u16>,
        /// When its time is up.
        deadline: Option<Nanos>,
    },
    /// Its answer.
    Answer(Outcome),
    /// The asking router asks whether it is still there.
    Probe,
    /// It is, and runs.
    Running,
    /// The master could not hand it over, or the router that it is for does not know it.
    Returned,
}

/// What a site does to a request of another one.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Who waits for its answer: the site, and its tag.
    pub askers: Vec<(usize, Tag)>,
    /// The sites that it has come through.
    pub path: Vec<u16>,
    /// How it has ended.
    pub ended: Option<Outcome>,
}

/// What is kept of a request that is on its way to another site.
#[derive(Clone, Copy, Debug)]
pub struct Departing {
    /// The request.
    pub request: u32,
    /// Whether it was handed on, and runs here if it is refused there.
    pub is_overflow: bool,
    /// When its time is up.
    pub deadline: Option<Nanos>,
}

/// The router of a site.
#[derive(Debug)]
pub struct Router {
    /// Its gateway's number in the world.
    pub gateway: u32,
    /// What is on its way to other sites.
    pub departures: Departures<usize, Departing>,
    /// Requests of other sites, by their numbers in the world.
    pub visits: HashMap<u64, Visit>,
    /// To its masters.
    pub connections: Vec<Connection>,
    /// Counts its gateway's starts.
    pub instance: u32,
    /// Failures of its link that last.
    pub cuts: u32,
    /// Whether a look at what is overdue is scheduled.
    pub is_ticking: bool,
    /// How busy its gateway is, as the others know it.
    pub told: GatewayLoad,
    /// Waits, and what its link adds.
    pub random: Stream,
    /// What it has done.
    pub counters: RouterCounters,
    /// Requests that had passed it when it was last asked.
    pub passed: u64,
}

/// What a router has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterCounters {
    /// Requests for other sites that it has taken, repetitions aside.
    pub departed: u64,
    /// Those of them that were handed on since the gateway was saturated.
    pub handed_on: u64,
    /// Those of them that another site has refused and that ran here.
    pub came_back: u64,
    /// Messages that were sent again, or for nothing.
    pub repeated: u64,
    /// Requests that found no room.
    pub refused: u64,
    /// Requests that were given up.
    pub given_up: u64,
    /// Requests of other sites that have run here or joined those that do.
    pub visited: u64,
    /// The most requests that were on their way at once.
    pub most: u64,
    /// Gateways that a request has passed at the most.
    pub most_hops: u64,
}

/// The connection to one master.
#[derive(Debug)]
pub struct Connection {
    /// The master.
    pub master: usize,
    /// Whether it has joined.
    pub is_joined: bool,
    /// Whether it is being made.
    pub is_trying: bool,
    /// Counts connections.
    pub session: u32,
    /// Waits between attempts.
    pub backoff: Backoff,
}

/// A master.
#[derive(Clone, Debug)]
pub struct MasterState {
    /// By site: its router's connection, if it is there.
    pub gates: Vec<Option<usize>>,
    /// By site: whether it has joined since the master's start.
    pub has_known: Vec<bool>,
    /// By site: messages on their way to its router.
    pub queued: Vec<u32>,
    /// Crashes that last.
    pub crashes: u32,
    /// When it has started.
    pub started: Nanos,
    /// When it is free for another message.
    pub free: Nanos,
}

impl Router {
    /// Of this site, not connected.
    pub fn new(seed: u64, number: usize, site: &scenario::Site, gateway: u32) -> Self {
        let longest = policy_time(site.reconnect_max);
        let connection = |master: &usize| Connection {
            master: *master,
            is_joined: false,
            is_trying: false,
            session: 0,
            backoff: Backoff::new(policy_time(RECONNECT_MIN).min(longest).into(), longest.into()),
        };
        Self {
            gateway,
            departures: Departures::new(site.bounds),
            visits: HashMap::new(),
            connections: site.masters.iter().map(connection).collect(),
            instance: 0,
            cuts: 0,
            is_ticking: false,
            told: GatewayLoad::default(),
            random: Stream::new(seed, "site", number as u64),
            counters: RouterCounters::default(),
            passed: 0,
        }
    }
}

impl MasterState {
    /// It knows no site.
    pub fn new(sites: usize) -> Self {
        Self {
            gates: vec![None; sites],
            has_known: vec![false; sites],
            queued: vec![0; sites],
            crashes: 0,
            started: 0,
            free: 0,
        }
    }

    /// Whether it has room for a message to this site, which is there.
    pub fn takes(&self, site: usize) -> bool {
        self.gates[site].is_some() && self.queued[site] < MAX_QUEUED
    }

    /// Its process has ended.
    pub fn crash(&mut self) {
        let sites = self.gates.len();
        *self = Self { crashes: self.crashes + 1, ..Self::new(sites) };
    }
}
