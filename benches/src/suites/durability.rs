//! What it costs that nothing acknowledged is lost: the gateway with each value of `durability`, beside fdatasync.

use crate::load::{self, Load, Request};
use crate::request;
use crate::rounds::{Plan, turns};
use crate::server::Server;
use crate::table::{LOAD_FIGURES, Table, of_load};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// Bytes that are written before each fdatasync: about those of one request's record.
const RECORD_BYTES: usize = 256;

/// Bytes of the file that is written, which is as long as it will be from the beginning.
const FILE_BYTES: u64 = 4 << 20;

/// Modules are not compiled twice, so that nothing is compiled while something else is measured.
const BASE: &str = "[compiler]\nbaseline = false\n";

pub fn run(plan: &Plan) -> Result<Vec<Table>> {
    let gateway = |durability: &str| Server::gateway(&format!("durability = \"{durability}\"\n{BASE}"));
    let servers = [("off", gateway("off")?), ("batch", gateway("batch")?), ("always", gateway("always")?)];
    let mut table = Table::new("durability", "What an acknowledgement promises", &LOAD_FIGURES).compare(&[
        ("batch", "off"),
        ("always", "off"),
        ("always", "fdatasync"),
    ]);
    let requests: [(&str, Request); 2] =
        [("without id", request::add()), ("with id", request::add_with_id())];
    plan.each_round("durability", |round| {
        for in_flight in [1, 64] {
            for (name, request) in &requests {
                let setting = format!("{name}, {in_flight} in flight");
                table.add(round, &setting, "fdatasync", fdatasync(plan)?);
                for (durability, server) in turns(round, &servers.iter().collect::<Vec<_>>()) {
                    let load = Load::closed(request, in_flight, plan.measured);
                    let measured = load::run(server.address(), &load).context(*durability)?;
                    table.add(round, &setting, durability, of_load(&measured));
                }
            }
        }
        Ok(())
    })?;
    Ok(vec![table])
}

/// Writes and syncs for a quarter of the time that is measured, in the folder of the gateways' data directories.
fn fdatasync(plan: &Plan) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let file = File::create(folder.path().join("file"))?;
    file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
    file.sync_all()?;
    let (mut latency_us, begin, mut count) = (Histogram::<u64>::new(3)?, Instant::now(), 0_u64);
    while count == 0 || begin.elapsed() < plan.measured / 4 {
        let since = Instant::now();
        file.write_all_at(&[1; RECORD_BYTES], count * RECORD_BYTES as u64 % FILE_BYTES)?;
        file.sync_data()?;
        latency_us.saturating_record(since.elapsed().as_micros() as u64);
        count += 1;
    }
    let quantile = |quantile| latency_us.value_at_quantile(quantile) as f64;
    Ok(vec![count as f64 / begin.elapsed().as_secs_f64(), quantile(0.5), quantile(0.99), 0.0])
}
