//! How throughput grows with the gateways of one service on NATS. What they run sleeps, so that the cores that they
//! share here are not what bounds it: each takes a fixed number of requests at once and no more.

use crate::guests::Guests;
use crate::load::{self, Load, Request};
use crate::rounds::{Plan, turns};
use crate::serve::Kind;
use crate::server::Server;
use crate::table::{LOAD_FIGURES, Table, of_load};
use anyhow::{Context, Result};
use serde_json::json;
use std::net::TcpListener;

/// Requests that a gateway takes at once, and how long each of them sleeps.
const TAKEN_AT_ONCE: usize = 16;
const SLEEP_MS: &str = "50";

/// What such a program prints.
const AWAKE: &[u8] = b"awake\n";

/// Requests that wait, of all clients: twice as many as three gateways take.
const CLIENTS: usize = 8;
const IN_FLIGHT: u16 = 12;

/// One service.
struct Service {
    name: &'static str,
    /// Before their broker, without which they cannot stop well.
    _gateways: Vec<Server>,
    nats: Server,
}

pub fn run(plan: &Plan, guests: &Guests) -> Result<Vec<Table>> {
    let services = [
        Service::start("1 gateway", 1, guests)?,
        Service::start("2 gateways", 2, guests)?,
        Service::start("3 gateways", 3, guests)?,
    ];
    let title = "Programs that sleep, on gateways of one service";
    let mut table = Table::new("gateways", title, &LOAD_FIGURES)
        .compare(&[("2 gateways", "1 gateway"), ("3 gateways", "1 gateway")]);
    let payload = json!({ "program": "sleep", "args": [SLEEP_MS], "reply": "stdout" }).to_string();
    let request = Request { topic: "localCode", payload: payload.into_bytes(), answer: AWAKE.to_vec() };
    let setting = format!("{CLIENTS} clients, {} in flight", CLIENTS * usize::from(IN_FLIGHT));
    plan.each_round("gateways", |round| {
        for service in turns(round, &services) {
            let load = Load { connections: CLIENTS, ..Load::closed(&request, IN_FLIGHT, plan.measured) };
            let measured = load::run(service.nats.address(), &load).context(service.name)?;
            table.add(round, &setting, service.name, of_load(&measured));
        }
        Ok(())
    })?;
    Ok(vec![table])
}

impl Service {
    fn start(name: &'static str, gateways: usize, guests: &Guests) -> Result<Service> {
        // Both at once, so that they differ.
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [client, mqtt] = [ports[0].local_addr()?, ports[1].local_addr()?];
        drop(ports);
        let nats = Server::configured(Kind::Nats, format!("{client} {mqtt}"))?;
        let program = guests.path("sleep")?;
        let configuration = format!(
            "[broker]\nurl = \"nats://{client}\"\n[nats]\nmqtt = \"mqtt://{mqtt}\"\nin_flight = {TAKEN_AT_ONCE}\n\
             [[program]]\nname = \"sleep\"\nfile = {program:?}\n"
        );
        let start = |_| Server::configured(Kind::Gateway, configuration.clone());
        let gateways = (0..gateways).map(start).collect::<Result<_>>()?;
        Ok(Service { name, nats, _gateways: gateways })
    }
}
