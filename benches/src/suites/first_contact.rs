//! Modules that were never seen: how long until the first answer, what their compiling does to others, and what it
//! spares to know a module.

use crate::guests::{self, Guests};
use crate::load::{self, Connection, Load, Request};
use crate::request;
use crate::rounds::{Plan, order, turns};
use crate::server::Server;
use crate::table::{Figure, LOAD_FIGURES, Table, of_load};
use anyhow::{Context, Result, anyhow, ensure};
use offload_protocol::request::Digest;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// How a gateway is configured to compile.
struct Tiers {
    name: &'static str,
    configuration: &'static str,
}

/// All ways to compile that a gateway can be configured for.
const TIERS: [Tiers; 2] = [
    Tiers { name: "optimized", configuration: OPTIMIZED },
    Tiers { name: "baseline first", configuration: "" },
];

/// Nothing is compiled twice, so that nothing is compiled while something else is measured.
const OPTIMIZED: &str = "[compiler]\nbaseline = false\n";

/// Bytes of a module as large as an interpreter's.
const INTERPRETER_BYTES: usize = 1_500_000;

/// Bytes of a module that no compiler is done with in [`BOMB_CPU`], though each of its counts is permitted.
const BOMB_BYTES: usize = 7_500_000;

/// `[compiler] cpu` where a bomb is sent, so that it is refused while one watches.
const BOMB_CPU: Duration = Duration::from_secs(1);

/// Time between two requests of the bystander.
const INTERVAL: Duration = Duration::from_millis(2);

/// Modules that a gateway knows when it starts.
const KNOWN: u64 = 100;

const MILLISECONDS: Figure = Figure::compared("ms", 1).plotted();

pub fn run(plan: &Plan, guests: &Guests) -> Result<Vec<Table>> {
    Ok(vec![first_answer(plan, guests)?, bystander(plan)?, start_up(plan, guests)?, digests(plan, guests)?])
}

/// A module, and what it prints without arguments and input.
struct Sample {
    name: String,
    module: Vec<u8>,
    answer: &'static [u8],
}

fn samples(guests: &Guests) -> Result<Vec<Sample>> {
    let guest = |name: &str, answer| {
        let module = guests.load(name)?;
        anyhow::Ok(Sample { name: format!("`{name}`, {} bytes", module.len()), module, answer })
    };
    let interpreter = guests::interpreter_like(INTERPRETER_BYTES);
    Ok(vec![
        guest("hello", HELLO)?,
        guest("word-count", b"")?,
        // Says on stderr that it wants an argument: what is measured comes before.
        guest(
            "search",
            b"error: exit: program exited with code 2: search: expected EXPRESSION [REPLACEMENT]",
        )?,
        Sample { name: format!("generated, {} bytes", interpreter.len()), module: interpreter, answer: b"" },
    ])
}

/// From just before a module is sent to just after its first answer is read.
fn first_answer(plan: &Plan, guests: &Guests) -> Result<Table> {
    let mut table =
        Table::new("first-contact", "From a module that was never seen to its first answer", &[MILLISECONDS]);
    for tiers in &TIERS[1..] {
        table = table.compare(&[(tiers.name, TIERS[0].name)]);
    }
    let samples = samples(guests)?;
    plan.each_round("first contact", |round| {
        for Sample { name, module, answer } in &samples {
            for tiers in turns(round, &TIERS) {
                // One for this alone: it may go on to compile when it has answered.
                let gateway = Server::gateway(tiers.configuration)?;
                let mut client = Connection::open(gateway.address(), "stranger")?;
                let request = request::module(&guests::never_seen(module), answer);
                let elapsed = time(|| client.ask_rightly(&request).with_context(|| name.clone()))?;
                client.close()?;
                table.add(round, name, tiers.name, vec![elapsed]);
            }
        }
        Ok(())
    })?;
    Ok(table)
}

/// One client's paced requests while another's module is compiled until that is refused.
fn bystander(plan: &Plan) -> Result<Table> {
    const REFUSED: Figure = Figure::plain("refused after ms", 0);
    let figures = [&LOAD_FIGURES[..], &[REFUSED]].concat();
    let mut table = Table::new("compile-bomb", "One client beside another one's compile bombs", &figures)
        .compare(&[("beside two bombs", "alone")]);
    let server = Server::gateway(&format!("{OPTIMIZED}cpu = \"{BOMB_CPU:?}\"\n"))?;
    let address = server.address();
    let bomb = guests::interpreter_like(BOMB_BYTES);
    let add = request::add();
    load::run(address, &Load::paced(&add, INTERVAL, plan.measured))?;
    // From before the bombs are sent until they are refused.
    let load = Load { warm_up: Duration::ZERO, ..Load::paced(&add, INTERVAL, BOMB_CPU + plan.measured) };
    plan.each_round("compile bomb", |round| {
        for &bombed in turns(round, &[false, true]) {
            let (measured, refused) = thread::scope(|scope| {
                // From two clients, so that all turns to compile are taken.
                let bombers: Vec<_> = if bombed { vec!["bomber-0", "bomber-1"] } else { Vec::new() };
                let bombs = bombers.into_iter().map(|name| {
                    let bomb = guests::never_seen(&bomb);
                    scope.spawn(move || refusal(address, name, &bomb))
                });
                let bombs: Vec<_> = bombs.collect();
                let measured = load::run(address, &load)?;
                let refused =
                    bombs.into_iter().map(|bomb| bomb.join().map_err(|_| anyhow!("a bomber panicked"))?);
                anyhow::Ok((measured, refused.collect::<Result<Vec<f64>>>()?))
            })?;
            let name = if bombed { "beside two bombs" } else { "alone" };
            let refused = refused.into_iter().fold(0.0, f64::max);
            table.add(round, "500 a second, open loop", name, [of_load(&measured), vec![refused]].concat());
        }
        Ok(())
    })?;
    Ok(table)
}

/// Milliseconds until a bomb is refused.
fn refusal(address: SocketAddr, client: &str, bomb: &[u8]) -> Result<f64> {
    let mut client = Connection::open(address, client)?;
    let request = request::module(bomb, b"");
    let mut answer = Vec::new();
    let elapsed = time(|| {
        answer = client.ask(&request)?;
        Ok(())
    })?;
    ensure!(answer.starts_with(b"error: compile: "), "the bomb was answered {}", answer.escape_ascii());
    client.close()?;
    Ok(elapsed)
}

/// How long a gateway takes to start, and to its first answer, with modules that clients have sent before.
fn start_up(plan: &Plan, guests: &Guests) -> Result<Table> {
    const FIRST_ANSWER: Figure = Figure::compared("first answer ms", 1);
    let mut table = Table::new("start-up", "Start of a gateway", &[MILLISECONDS, FIRST_ANSWER]);
    let hello = guests.load("hello")?;
    let modules: Vec<Vec<u8>> = (0..KNOWN).map(|_| guests::never_seen(&hello)).collect();
    let names = ["no modules".to_owned(), format!("{KNOWN} modules")];
    table = table.compare(&[(&names[1], &names[0])]);
    // Made by the gateways themselves, closed to others as they want them.
    let folder = tempfile::tempdir()?;
    let data_dirs = [folder.path().join("without"), folder.path().join("with")];
    let known = [&modules[..0], &modules[..]];
    for (data_dir, known) in data_dirs.iter().zip(known) {
        let server = Server::gateway_in(data_dir)?;
        let mut client = Connection::open(server.address(), "sender")?;
        for module in known {
            client.ask_rightly(&request::module(module, HELLO))?;
        }
        client.close()?;
    }
    plan.each_round("start-up", |round| {
        for index in order(round, names.len()) {
            let mut server = None;
            let started = time(|| {
                server = Some(Server::gateway_in(&data_dirs[index])?);
                Ok(())
            })?;
            let server = server.context("it has started")?;
            let mut client = Connection::open(server.address(), "sender")?;
            // The built-in program is the one that a gateway without modules has.
            let request = match known[index].last() {
                Some(module) => request::known(&Digest::of(module), b"", HELLO),
                None => request::add(),
            };
            let answered = time(|| client.ask_rightly(&request))?;
            client.close()?;
            table.add(round, "restart", &names[index], vec![started, answered]);
        }
        Ok(())
    })?;
    Ok(table)
}

/// The same module sent with each request, and named by its digest.
fn digests(plan: &Plan, guests: &Guests) -> Result<Table> {
    const BYTES: Figure = Figure::compared("bytes a request", 0).plotted();
    let figures = [&LOAD_FIGURES[..], &[BYTES]].concat();
    let mut table =
        Table::new("digests", "A known module by its digest", &figures).compare(&[("by digest", "module")]);
    let server = Server::gateway(OPTIMIZED)?;
    let samples = samples(guests)?;
    let mut contenders: Vec<(&str, [(&str, Request); 2])> = Vec::new();
    for Sample { name, module, answer } in &samples {
        let whole = request::module(module, answer);
        let by_digest = request::known(&Digest::of(module), b"", answer);
        let mut client = Connection::open(server.address(), "sender")?;
        client.ask_rightly(&whole).with_context(|| name.clone())?;
        client.close()?;
        contenders.push((name, [("module", whole), ("by digest", by_digest)]));
    }
    plan.each_round("digests", |round| {
        for (setting, forms) in &contenders {
            for (name, request) in turns(round, forms) {
                let measured = load::run(server.address(), &Load::closed(request, 1, plan.measured / 4))?;
                let bytes = request.payload.len() as f64;
                table.add(round, setting, name, [of_load(&measured), vec![bytes]].concat());
            }
        }
        Ok(())
    })?;
    Ok(table)
}

/// What the guest `hello` prints.
const HELLO: &[u8] = b"hello!\n";

/// In milliseconds.
fn time(what: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    what()?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
