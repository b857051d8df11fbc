//! The simulator for a web page: a wasm module that imports nothing. `index.html` beside it calls the exports;
//! `cargo xtask simulator-page` puts both into one file.
//!
//! Texts go in and out through one buffer of the module: the page asks for room with [`room`], writes, and calls
//! [`open`]; what an export answers with a length is at the buffer's start.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use offload_simulator::clock::{Nanos, seconds};
use offload_simulator::scenario::Scenario;
use offload_simulator::world::World;
use offload_simulator::world::by_hand::Played;
use offload_simulator::world::trace::Trace;
use serde_json::json;

/// All that there is, once the page has opened a scenario.
static PAGE: Mutex<Page> = Mutex::new(Page { played: None, steps: None, buffer: Vec::new() });

struct Page {
    played: Option<Played<'static>>,
    /// Steps of requests since the page has asked for them last.
    steps: Option<Steps>,
    buffer: Vec<u8>,
}

/// Lines that the world writes and the page reads.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<u8>>>);

impl Write for Steps {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A page has one thread: nobody has panicked with the lock before and goes on.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Page {
    fn say(&mut self, text: Vec<u8>) -> usize {
        self.buffer = text;
        self.buffer.len()
    }
}

/// Where the buffer is, with room for this many bytes.
#[unsafe(no_mangle)]
pub extern "C" fn room(bytes: usize) -> *mut u8 {
    let mut page = lock(&PAGE);
    page.buffer.resize(bytes, 0);
    page.buffer.as_mut_ptr()
}

/// Where the buffer is.
#[unsafe(no_mangle)]
pub extern "C" fn buffer() -> *const u8 {
    lock(&PAGE).buffer.as_ptr()
}

/// Opens the scenario whose text is in the buffer. Whether it is accepted; the buffer then has its shape as JSON, else
/// what is refused.
#[unsafe(no_mangle)]
pub extern "C" fn open(seed: u32) -> bool {
    let mut page = lock(&PAGE);
    let text = String::from_utf8_lossy(&page.buffer).into_owned();
    let scenario = match Scenario::parse(&text, Path::new("scenario")) {
        // It lives as long as the page: it is small, and opened as often as somebody presses a button.
        Ok(scenario) => &*Box::leak(Box::new(scenario)),
        Err(refused) => {
            page.say(refused.to_string().into_bytes());
            return false;
        }
    };
    let steps = Steps::default();
    let mut world = World::new(scenario, seed.into());
    world.set_trace(Trace::new(steps.clone()));
    page.played = Some(Played::new(world));
    page.steps = Some(steps);
    let groups: Vec<_> =
        scenario.devices.iter().map(|of| json!({ "name": of.name, "count": of.count })).collect();
    let gateways: usize = scenario.gateways.iter().map(|group| group.count).sum();
    let shape = json!({
        "name": scenario.name, "groups": groups, "gateways": gateways, "seconds": seconds(scenario.duration),
    });
    page.say(shape.to_string().into_bytes());
    true
}

/// Bytes in the buffer.
#[unsafe(no_mangle)]
pub extern "C" fn said() -> usize {
    lock(&PAGE).buffer.len()
}

/// Goes on until this time, in nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn advance(until: f64) {
    if let Some(played) = &mut lock(&PAGE).played {
        played.advance(until.max(0.0) as Nanos);
    }
}

/// Pulls the cable of a gateway, or puts it back.
#[unsafe(no_mangle)]
pub extern "C" fn pull(gateway: u32, is_pulled: bool) -> bool {
    lock(&PAGE).played.as_mut().is_some_and(|played| played.pull(gateway, is_pulled))
}

/// The steps of requests since the last time, a line of JSON each: their length.
#[unsafe(no_mangle)]
pub extern "C" fn steps() -> usize {
    let mut page = lock(&PAGE);
    let steps = page.steps.as_ref().map(|steps| std::mem::take(&mut *lock(&steps.0))).unwrap_or_default();
    page.say(steps)
}

/// What the gateways do, as a list in JSON: its length.
#[unsafe(no_mangle)]
pub extern "C" fn gateways() -> usize {
    let mut page = lock(&PAGE);
    let states: Vec<_> = (page.played.iter().flat_map(Played::gateways))
        .map(|state| json!({ "waiting": state.waiting, "running": state.running, "reachable": state.is_reachable }))
        .collect();
    page.say(json!(states).to_string().into_bytes())
}
