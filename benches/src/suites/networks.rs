//! What the way to another site costs, and what sealing does: a request through router, master and router beside one
//! that is answered where it is asked, and sealed requests beside one in clear.

use crate::load::{self, Connection, Load, Request};
use crate::request;
use crate::rounds::{Plan, turns};
use crate::serve::Kind;
use crate::server::Server;
use crate::table::{Figure, LOAD_FIGURES, Table, of_load};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use offload_rt::config::Config;
use offload_rt::keys::{Keys, now_ms};
use offload_seal::{PublicKey, Suite, random};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Modules are not compiled twice, so that nothing is compiled while something else is measured.
const BASE: &str = "[compiler]\nbaseline = false\n";

/// Longest time until the sites have heard of each other, and how often they are asked.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// Longest latency that is told from longer ones, in nanoseconds.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// Bytes that stand for a request and for its answer: as long as those are, about.
const PING_BYTES: usize = 96;

/// Bytes of an `id` that is drawn at random: 128 bits.
const ID_BYTES: usize = 16;

pub fn run(plan: &Plan) -> Result<Vec<Table>> {
    Ok(vec![routed(plan)?, sealed(plan)?])
}

/// The two ways of a request, and beside each what its way costs where nobody on it does any work: a server that hands
/// bytes back, and one behind three that hand them on.
fn routed(plan: &Plan) -> Result<Table> {
    let master = Server::start(Kind::Master)?;
    let site = |gate: &str| {
        let master = master.address();
        Server::gateway(&format!("{BASE}[network]\ngate = \"{gate}\"\nmaster = \"mqtt://{master}\"\n"))
    };
    let (near, _far) = (site("near")?, site("far")?);
    let relay = |next: &Server| Server::configured(Kind::Relay, next.address().to_string());
    let echo = Server::start(Kind::Relay)?;
    let middle = relay(&echo)?;
    let chain = relay(&middle)?;
    let contenders = [
        ("direct", Way::Request(request::add())),
        ("routed", Way::Request(Request { topic: "net/far/localCode", ..request::add() })),
        ("echo", Way::Bytes(echo.address())),
        ("chain", Way::Bytes(chain.address())),
    ];
    if let (_, Way::Request(request)) = &contenders[1] {
        until_reachable(&near, request)?;
    }
    let title = "Another site beside one's own";
    let mut table = Table::new("networks", title, &LOAD_FIGURES).compare(&[
        ("routed", "direct"),
        ("chain", "echo"),
        ("routed", "chain"),
        ("direct", "echo"),
    ]);
    plan.each_round("networks", |round| {
        for in_flight in [1, 64] {
            for (name, way) in turns(round, &contenders) {
                let measured = match way {
                    Way::Request(request) => {
                        load::run(near.address(), &Load::closed(request, in_flight, plan.measured))
                    }
                    // One after the other is what tells of the way.
                    Way::Bytes(_) if in_flight > 1 => continue,
                    Way::Bytes(address) => load::ping(*address, PING_BYTES, plan.measured),
                };
                let measured = measured.context(*name)?;
                table.add(round, &format!("{in_flight} in flight"), name, of_load(&measured));
            }
        }
        Ok(())
    })?;
    Ok(table)
}

/// What is measured: requests, or the way alone.
enum Way {
    Request(Request),
    Bytes(SocketAddr),
}

/// Asks until it is answered.
fn until_reachable(near: &Server, request: &Request) -> Result<()> {
    let mut client = Connection::open(near.address(), "early")?;
    let deadline = Instant::now() + PATIENCE;
    while client.ask(request)? != request.answer {
        ensure!(Instant::now() < deadline, "the sites do not find each other");
        thread::sleep(POLL);
    }
    client.close()
}

/// One request after the other, each sealed before its time is taken. Those in clear have an `id` too: it is what has
/// to be durable before the answer is given.
fn sealed(plan: &Plan) -> Result<Table> {
    const FIGURES: [Figure; 2] = [Figure::compared("p50 µs", 0).plotted(), Figure::compared("p99 µs", 0)];
    let folder = tempfile::tempdir()?;
    let data_dir = folder.path().join("data");
    let server = Server::gateway_in(&data_dir)?;
    let (keys, _) = Keys::open(&Config { data_dir, ..Config::default() })?;
    // As the status lists them.
    let listed = serde_json::to_value(keys.set().published())?;
    let key = |suite: Suite| {
        let mut listed = listed.as_array().into_iter().flatten();
        let listed = listed.find(|key| key["suite"] == suite.as_str()).context("there is no such key")?;
        let public = BASE64_STANDARD.decode(listed["public"].as_str().context("it has bytes")?)?;
        anyhow::Ok(PublicKey::new(suite, &public)?)
    };
    let contenders =
        [("clear", None), ("x25519", Some(key(Suite::X25519)?)), ("xwing", Some(key(Suite::XWing)?))];
    let mut table = Table::new("sealed", "Sealed requests beside one in clear", &FIGURES)
        .compare(&[("x25519", "clear"), ("xwing", "clear")]);
    plan.each_round("sealed", |round| {
        for (name, key) in turns(round, &contenders) {
            let mut asker = Asker { client: Connection::open(server.address(), name)?, name };
            let mut latency_ns = Histogram::<u64>::new_with_bounds(1, MAX_LATENCY_NS, 3)?;
            let end = Instant::now() + plan.measured;
            while Instant::now() < end || latency_ns.is_empty() {
                let took = asker.ask(key.as_ref()).with_context(|| (*name).to_owned())?;
                latency_ns.saturating_record(took.as_nanos().try_into().unwrap_or(u64::MAX));
            }
            asker.client.close()?;
            let us = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
            table.add(round, "1 in flight", name, vec![us(0.5), us(0.99)]);
        }
        Ok(())
    })?;
    Ok(table)
}

struct Asker<'a> {
    client: Connection,
    name: &'a str,
}

impl Asker<'_> {
    /// Asks for a sum, and checks it. Returns the time from just before the request is written to just after its answer
    /// is read.
    fn ask(&mut self, key: Option<&PublicKey>) -> Result<Duration> {
        let id: [u8; ID_BYTES] = random()?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut envelope = json!({ "id": id, "program": "add", "args": ["5", "7"] });
        let mut answer_key = None;
        if let Some(key) = key {
            envelope["sealed_at"] = now_ms().into();
            let sealed = key.seal(envelope.to_string().as_bytes(), &format!("localCode/{}/0", self.name))?;
            envelope = json!({
                "sealed": BASE64_STANDARD.encode(&sealed.ciphertext),
                "encapsulated": BASE64_STANDARD.encode(&sealed.encapsulated),
                "key": format!("sha256:{}", key.fingerprint().hex()),
                "suite": key.suite().as_str(),
            });
            answer_key = Some(sealed.answer_key);
        }
        let payload = envelope.to_string().into_bytes();
        let request = Request { topic: "localCode", payload, answer: Vec::new() };
        let begin = Instant::now();
        let answer = self.client.ask(&request)?;
        let took = begin.elapsed();
        let mut answer: Value = serde_json::from_slice(&answer)?;
        if let Some(key) = answer_key {
            let Some(sealed) = answer["sealed"].as_str() else { bail!("not sealed: {answer}") };
            let opened = key.open(&BASE64_STANDARD.decode(sealed)?, &format!("result/{}/0", self.name))?;
            answer = serde_json::from_slice(&opened)?;
        }
        ensure!(answer["id"] == id && answer["stdout"] == BASE64_STANDARD.encode("12\n"), "{answer}");
        Ok(took)
    }
}
