//! The resident memory of the gateway, and of the programs that it has started.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arena::Arena;
use crate::priority;

/// Between two looks.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// One look in this many is at the children: all processes of the machine have to be read for it.
const CHILDREN_EVERY: usize = 5;
/// So far over what it was, the attack has won: it is ended before the machine is out of memory.
const HALT_BYTES: u64 = 1 << 30;

/// The resident size of a process in bytes; `None` when it is gone.
pub fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// The same of all that it has started, and of what those have.
fn resident_of_children(process: u32) -> u64 {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name before it may hold anything, but not this bracket after its last one.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.insert(id, parent.unwrap_or(0));
    }
    let is_below = |mut id: u32| {
        // No tree of processes is as deep.
        for _ in 0..64 {
            match parents.get(&id) {
                Some(parent) if *parent == process => return true,
                Some(parent) => id = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().filter(|id| is_below(**id)).filter_map(|id| resident(*id)).sum()
}

/// Looks until it is stopped, and ends an attack that takes too much.
pub struct MemoryWatch {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<MemorySamples>,
}

/// What was seen.
#[derive(Default)]
pub struct MemorySamples {
    /// Of the gateway, in bytes.
    samples: Vec<(Instant, u64)>,
    /// Most of all children together.
    pub children_peak: u64,
    /// Whether an attack was ended for its memory.
    pub halted: bool,
}

impl MemoryWatch {
    pub fn start(process: u32, before: u64, arena: Arc<Arena>) -> Result<MemoryWatch> {
        let enough = Arc::new(AtomicBool::new(false));
        let told = enough.clone();
        let thread = thread::Builder::new().name("memory".into()).spawn(move || {
            priority::raise();
            let mut seen = MemorySamples::default();
            for number in 0.. {
                if told.load(Relaxed) {
                    break;
                }
                let Some(bytes) = resident(process) else { break };
                seen.samples.push((Instant::now(), bytes));
                if bytes > before + HALT_BYTES && !arena.is_over() {
                    seen.halted = true;
                    arena.halt();
                }
                if number % CHILDREN_EVERY == 0 {
                    seen.children_peak = seen.children_peak.max(resident_of_children(process));
                }
                thread::sleep(SAMPLE_INTERVAL);
            }
            seen
        })?;
        Ok(MemoryWatch { enough, thread })
    }

    pub fn stop(self) -> Result<MemorySamples> {
        self.enough.store(true, Relaxed);
        self.thread.join().ok().context("the memory's watcher panicked")
    }
}

impl MemorySamples {
    /// Most that was seen.
    pub fn peak(&self) -> u64 {
        self.samples.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Least that was seen between these moments.
    pub fn least_between(&self, from: Instant, to: Instant) -> Option<u64> {
        self.samples.iter().filter(|(at, _)| *at >= from && *at <= to).map(|(_, bytes)| *bytes).min()
    }
}
