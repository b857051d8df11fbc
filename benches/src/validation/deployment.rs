//! The real system: gateways as processes, alone, on NATS, or behind a master.

use super::busy;
use super::programs::{Programs, sleeps};
use crate::load::Request;
use crate::request;
use anyhow::{Context, Result};
use offload_tests::gateway::Gateway;
use offload_tests::nats::{Nats, Version};
use offload_tests::network::Master;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::time::Duration;

/// Slots of a worker whose slots are what is scarce.
const FEW_SLOTS: usize = 8;

/// Gateways on NATS.
const GATEWAYS: usize = 3;

/// Slots of each gateway on NATS.
const SLOTS_ON_NATS: usize = 4;

/// Reply ids of a load, about: as many as it has requests in flight.
const REPLY_IDS: usize = 64;

/// Requests that a gateway on NATS may have unanswered.
pub const WINDOW: usize = 8;

/// Seconds after which a request of a gateway that died is another one's.
pub const REDELIVERY: u64 = 1;

/// What is asked, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A gateway with one worker.
    One,
    /// The same, with few slots.
    FewSlots,
    /// Three of those on a NATS server.
    Nats,
    /// A gateway with few slots, asked by clients of another one.
    Sites,
}

impl Kind {
    /// How many gateways run guests.
    pub fn gateways(self) -> usize {
        if self == Kind::Nats { GATEWAYS } else { 1 }
    }

    /// Slots of each, where they are not the default.
    pub fn slots(self) -> Option<usize> {
        match self {
            Kind::One => None,
            Kind::FewSlots | Kind::Sites => Some(FEW_SLOTS),
            Kind::Nats => Some(SLOTS_ON_NATS),
        }
    }

    /// How many guests run at once: those that compute have the worker, those that sleep the slots that their clients
    /// may hold.
    pub fn servers(self, program: &str) -> usize {
        if !sleeps(program) {
            return self.gateways();
        }
        match self {
            Kind::One => offload_policy::DEFAULT_SLOTS,
            Kind::FewSlots => FEW_SLOTS * 3 / 4,
            Kind::Sites => FEW_SLOTS / 2,
            Kind::Nats => GATEWAYS * SLOTS_ON_NATS,
        }
    }

    /// As whom the gateways that run guests know these clients: how many there are, and how many are one account.
    pub fn clients(self, connections: usize) -> (usize, usize) {
        match self {
            // Anonymous clients are what connects, and their address is the account.
            Kind::One | Kind::FewSlots => (connections, connections),
            // Each reply id is a client and an account, and a load has another one for each request in flight.
            Kind::Nats => (REPLY_IDS, 1),
            // All clients without a name that come through one gate are one.
            Kind::Sites => (1, 1),
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Kind::One => "one gateway",
            Kind::FewSlots => "one gateway with eight slots",
            Kind::Nats => "NATS",
            Kind::Sites => "two sites",
        }
    }

    fn topic(self) -> &'static str {
        if self == Kind::Sites { "net/south/localCode" } else { "localCode" }
    }

    fn configuration(self, programs: &Programs) -> String {
        let slots = self.slots().map_or_else(String::new, |slots| format!("slots = {slots}\n"));
        format!("[workers]\ncount = 1\n{slots}{}", programs.configuration())
    }
}

/// Killed when dropped.
pub struct Deployment {
    kind: Kind,
    address: SocketAddr,
    gateways: Vec<Gateway>,
    _nats: Option<Nats>,
    _master: Option<Master>,
}

impl Deployment {
    /// Starts all of it, and waits until it takes requests.
    pub async fn start(kind: Kind, programs: &Programs) -> Result<Deployment> {
        let configuration = kind.configuration(programs);
        let mut gateways = Vec::new();
        let (mut nats, mut master) = (None, None);
        let address = match kind {
            Kind::One | Kind::FewSlots => {
                gateways.push(Gateway::embedded(&configuration).await?);
                gateways[0].address()?
            }
            Kind::Nats => {
                let server = Nats::start(Version::Debian).await?;
                let lines = format!("ack_wait = \"{REDELIVERY}s\"\nin_flight = {WINDOW}");
                let configuration = format!("{}{configuration}", server.table(&lines));
                for _ in 0..kind.gateways() {
                    gateways.push(Gateway::start(&["--broker", &server.url()], &configuration).await?);
                }
                nats.insert(server).mqtt(0)
            }
            Kind::Sites => {
                let joins = Master::start().await?;
                gateways.push(joins.gateway("north", "").await?);
                gateways.push(joins.gateway("south", &configuration).await?);
                master = Some(joins);
                gateways[0].address()?
            }
        };
        Ok(Deployment { kind, address, gateways, _nats: nats, _master: master })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where devices connect.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.address)
    }

    /// A request for a program.
    pub fn request(&self, program: &str) -> Request {
        request::program(self.kind.topic(), program)
    }

    /// The same, to be answered by an envelope.
    pub fn request_in_envelope(&self, program: &str) -> Request {
        request::program_in_envelope(self.kind.topic(), program)
    }

    /// How long the workers of its one gateway have been busy.
    pub fn busy(&self) -> Result<Duration> {
        busy::of(self.gateways.first().context("there is a gateway")?.id()?)
    }

    /// Ends the first gateway at once.
    pub fn kill_one(&mut self) -> Result<()> {
        self.gateways.first().context("there is a gateway")?.signal(Signal::KILL)
    }
}
