//! Short requests where every worker has endless guests of another client, and one client's beside another's flood.

use crate::guests;
use crate::load::{self, Connection, Load, MAX_IN_FLIGHT, Measured};
use crate::request;
use crate::rounds::{Plan, order, turns};
use crate::serve::Kind;
use crate::server::Server;
use crate::table::{Figure, LOAD_FIGURES, Table, of_load};
use anyhow::{Result, anyhow};
use offload_protocol::request::Digest;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// `[workers] slice`.
const SLICES: [&str; 3] = ["250us", "500us", "1ms"];

/// Guests that never end.
const ENDLESS: [u16; 4] = [0, 2, 8, 32];

/// Time between two requests of an open loop.
const INTERVAL: Duration = Duration::from_millis(2);

/// Endless guests whose work alone is what their work beside a load is compared with: every worker has several.
const MANY: u16 = 8;

/// How much longer than the load the endless guests, or a flood, go on: they are there from its start to its end.
const MARGIN: Duration = Duration::from_millis(50);

/// What the endless guests do beside the load, of what they do alone.
const ENDLESS_WORK: Figure = Figure::plain("endless work %", 0).plotted();

pub fn run(plan: &Plan) -> Result<Vec<Table>> {
    Ok(vec![endless(plan)?, flood(plan)?])
}

/// No guest ends by itself, and no limit of the gateway ends it.
fn configuration(slice: &str) -> String {
    format!(
        "[workers]\nslice = \"{slice}\"\n[limits]\nfuel = {}\ncpu = \"1h\"\nwall = \"1h\"\n",
        u64::MAX / 2
    )
}

/// A gateway, and a client that has sent it a guest that never ends.
struct Busy {
    slice: &'static str,
    server: Server,
    client: Connection,
    endless: Digest,
}

impl Busy {
    fn start(slice: &'static str) -> Result<Busy> {
        let server = Server::gateway(&configuration(slice))?;
        let mut client = Connection::open(server.address(), "endless")?;
        let module = guests::endless()?;
        client.ask(&request::without_fuel(&module))?;
        Ok(Busy { slice, server, client, endless: Digest::of(&module) })
    }

    /// Keeps this many guests running for as long as `beside` is, and returns their fuel a second.
    fn beside<T>(
        &mut self,
        count: u16,
        length: Duration,
        beside: impl FnOnce(SocketAddr) -> Result<T>,
    ) -> Result<(T, f64)> {
        let length = length + MARGIN;
        let request = request::until(&self.endless, length);
        (0..count).try_for_each(|number| self.client.send(&request, number))?;
        let outcome = beside(self.server.address())?;
        let mut fuel = 0;
        for _ in 0..count {
            fuel += request::fuel_until(&self.client.answer()?)?;
        }
        Ok((outcome, fuel as f64 / length.as_secs_f64()))
    }
}

fn endless(plan: &Plan) -> Result<Table> {
    let mut busy = SLICES.into_iter().map(Busy::start).collect::<Result<Vec<_>>>()?;
    let figures = [&LOAD_FIGURES[..], &[ENDLESS_WORK]].concat();
    let mut table = Table::new("endless", "Short requests beside endless guests", &figures);
    let name = |slice: &str, count: u16| format!("slice {slice}, {count} endless");
    for slice in SLICES {
        let pairs = ENDLESS[1..].iter().map(|&count| (name(slice, count), name(slice, 0)));
        table.ratios.extend(pairs);
    }
    let add = request::add();
    let loads = [
        ("1 in flight", Load::closed(&add, 1, plan.measured)),
        ("64 in flight", Load::closed(&add, 64, plan.measured)),
        ("500 a second, open loop", Load::paced(&add, INTERVAL, plan.measured)),
    ];
    plan.each_round("endless", |round| {
        for index in order(round, busy.len()) {
            let busy = &mut busy[index];
            let ((), alone) = busy.beside(MANY, plan.measured, |_| Ok(()))?;
            for (setting, load) in &loads {
                for &count in turns(round, &ENDLESS) {
                    let (measured, fuel) =
                        busy.beside(count, load.length(), |address| load::run(address, load))?;
                    let values = [of_load(&measured), vec![100.0 * fuel / alone]].concat();
                    table.add(round, setting, &name(busy.slice, count), values);
                }
            }
        }
        Ok(())
    })?;
    Ok(table)
}

/// One client's paced requests, alone and beside another one's flood.
fn flood(plan: &Plan) -> Result<Table> {
    const FLOOD: Figure = Figure::plain("flood requests/s", 0);
    let figures = [&LOAD_FIGURES[..], &[FLOOD]].concat();
    let mut table = Table::new("flood", "One client beside another one's flood", &figures)
        .compare(&[("beside a flood", "alone")]);
    let server = Server::start(Kind::Gateway)?;
    let add = request::add();
    let paced = Load::paced(&add, INTERVAL, plan.measured);
    let flood = Load {
        client: "flood",
        warm_up: paced.warm_up,
        measured: plan.measured + MARGIN,
        ..Load::closed(&add, MAX_IN_FLIGHT, plan.measured)
    };
    plan.each_round("flood", |round| {
        for &flooded in turns(round, &[false, true]) {
            let (measured, flood) = thread::scope(|scope| {
                let flood = flooded.then(|| scope.spawn(|| load::run(server.address(), &flood)));
                let measured = load::run(server.address(), &paced)?;
                let flood = flood.map(|flood| flood.join().map_err(|_| anyhow!("the flood panicked"))?);
                anyhow::Ok((measured, flood.transpose()?))
            })?;
            let name = if flooded { "beside a flood" } else { "alone" };
            let requests = flood.as_ref().map_or(0.0, Measured::requests_per_second);
            table.add(round, "500 a second, open loop", name, [of_load(&measured), vec![requests]].concat());
        }
        Ok(())
    })?;
    Ok(table)
}
