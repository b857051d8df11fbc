//! The visitor: one new device after the other that comes, asks for one thing, and goes. How long that takes is what
//! those find who are not there yet when an attack begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::Client;
use crate::module::Printer;
use crate::packet::Publish;
use crate::priority;
use crate::stage::{VISITORS, visitor};

/// Between two visits.
const PACE: Duration = Duration::from_millis(500);

/// What a visitor comes for.
#[derive(Clone, Copy, PartialEq)]
pub enum Errand {
    /// A program of the gateway.
    Program,
    /// A small module that nobody has sent before.
    NewModule,
    /// C source that nobody has sent before.
    NewSource,
}

/// One visit.
#[derive(Clone)]
pub struct Visit {
    pub began: Instant,
    /// From connecting to the right answer, or to the end of its patience.
    pub took: Duration,
    /// Why there was no right answer.
    pub failure: Option<String>,
}

/// Comes again and again until it is stopped.
pub struct Visitors {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Visit>>,
}

impl Visitors {
    pub fn start(gateway: SocketAddr, named: bool, errand: Errand) -> Result<Visitors> {
        let enough = Arc::new(AtomicBool::new(false));
        let told = enough.clone();
        let thread = thread::Builder::new().name("visitor".into()).spawn(move || {
            priority::raise();
            let mut visits = Vec::new();
            for number in 0.. {
                let began = Instant::now();
                let failure = visit(gateway, named, errand, number).err().map(|error| format!("{error:#}"));
                visits.push(Visit { began, took: began.elapsed(), failure });
                let next = began + PACE;
                while Instant::now() < next && !told.load(Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
                if told.load(Relaxed) {
                    break;
                }
            }
            visits
        })?;
        Ok(Visitors { enough, thread })
    }

    /// Lets the visit that has begun end, and returns all of them in order.
    pub fn stop(self) -> Result<Vec<Visit>> {
        self.enough.store(true, Relaxed);
        self.thread.join().ok().context("the visitor panicked")
    }
}

fn visit(gateway: SocketAddr, named: bool, errand: Errand, number: usize) -> Result<()> {
    let id = visitor(number % VISITORS);
    let mut client = Client::connect(gateway, &id, named.then_some(id.as_str()))?;
    // Its own, so that no cache knows it.
    let text = format!("{} {number}", std::process::id());
    let input = format!("inputCode/{id}");
    let (request, expected) = match errand {
        Errand::Program => (Publish::new(&format!("localCode/{id}"), "5 7"), "12\n".to_owned()),
        Errand::NewModule => (Publish::new(&input, Printer(&text).wasm()?), text),
        Errand::NewSource => {
            let source = format!("#include <stdio.h>\nint main(void) {{ printf(\"{text}\"); return 0; }}\n");
            let legacy = offload_tests::source::legacy("visit", "", &source, offload_tests::source::COMMAND);
            (Publish::new(&input, legacy), text)
        }
    };
    let answer = client.ask(&request)?;
    ensure!(answer == expected.as_bytes(), "a wrong answer: {}", answer.escape_ascii());
    Ok(())
}
