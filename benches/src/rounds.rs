//! The run: contenders take turns at each number in flight, round after round.

use crate::contender::{ALL, REQUEST};
use crate::load::{self, Load};
use crate::server::Server;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::time::Duration;

/// What is run.
pub struct Plan {
    pub rounds: u32,
    /// Measured time of one turn.
    pub measured: Duration,
    /// Numbers of requests in flight.
    pub in_flight: Vec<u16>,
}

/// One turn of one contender.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    pub round: u32,
    pub in_flight: u16,
    /// Its place in [`ALL`].
    #[serde(skip)]
    pub contender: usize,
    pub server: &'static str,
    pub requests: u64,
    pub requests_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// The longest: tells a stall from a slow turn.
    pub max_us: f64,
}

/// Starts all servers, and gives each its turns. Those that are not under load are idle.
pub fn run(plan: &Plan) -> Result<Vec<Turn>> {
    let servers = ALL
        .iter()
        .map(|contender| Server::start(contender.kind).with_context(|| contender.name))
        .collect::<Result<Vec<_>>>()?;
    let mut turns = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        for &in_flight in &plan.in_flight {
            for contender in order(round, ALL.len()) {
                let turn = turn(plan, round, in_flight, contender, &servers[contender]);
                turns.push(turn.with_context(|| ALL[contender].name)?);
            }
        }
    }
    Ok(turns)
}

/// Each round starts with the next one, so that none always follows the same rest or the same noise.
fn order(round: u32, count: usize) -> impl Iterator<Item = usize> {
    let first = round as usize % count;
    (first..count).chain(0..first)
}

fn turn(plan: &Plan, round: u32, in_flight: u16, contender: usize, server: &Server) -> Result<Turn> {
    let load = Load {
        request: REQUEST,
        answer: ALL[contender].answer,
        in_flight,
        warm_up: plan.measured / 4,
        measured: plan.measured,
    };
    let measured = load::run(server.address(), &load)?;
    ensure!(measured.requests > 0, "nothing was answered in {:?}", measured.elapsed);
    let latency_us = |quantile| measured.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Turn {
        round,
        in_flight,
        contender,
        server: ALL[contender].name,
        requests: measured.requests,
        requests_per_second: measured.requests as f64 / measured.elapsed.as_secs_f64(),
        p50_us: latency_us(0.5),
        p99_us: latency_us(0.99),
        max_us: latency_us(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_first() {
        let orders: Vec<Vec<usize>> = (0..4).map(|round| order(round, 3).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
