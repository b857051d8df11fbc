//! Ends slices: moves every engine's epoch on while any worker has a guest on its CPU, and sleeps otherwise.

use crate::scheduling;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;
use wasmtime::Engine;

/// Ticks without any work after which the ticker goes to sleep: often enough awake that a steady stream of short
/// requests does not pay for waking it, seldom enough that an idle gateway does nothing.
const IDLE_TICKS: u32 = 100;

/// The ticker's thread.
pub struct Ticker {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

/// What workers and ticker share.
struct Signal {
    /// One flag a worker: it has work.
    working: Vec<AtomicBool>,
    /// The workers' engines; none while a worker is made anew.
    engines: Vec<Mutex<Option<Engine>>>,
    /// Ticks since the start.
    ticks: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// A worker's end of the ticker.
#[derive(Clone)]
pub struct Ticks {
    signal: Arc<Signal>,
    thread: Thread,
    worker: usize,
}

impl Ticker {
    /// Ticks for the engines of this many workers, and for one that all of them use, every `slice`.
    pub fn start(workers: usize, shared_engine: Option<Engine>, slice: Duration) -> Ticker {
        let signal = Arc::new(Signal {
            working: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            engines: (0..workers).map(|_| Mutex::default()).collect(),
            ticks: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let shared = signal.clone();
        let thread = thread::Builder::new()
            .name("ticker".into())
            .spawn(move || tick(&shared, shared_engine.as_ref(), slice))
            .expect("the operating system gives us a thread at start");
        Ticker { signal, thread: Some(thread) }
    }

    /// The end of one worker.
    pub fn for_worker(&self, worker: usize) -> Ticks {
        let thread = self.thread.as_ref().expect("joined only on drop").thread().clone();
        Ticks { signal: self.signal.clone(), thread, worker }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.signal.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Ticks {
    /// The worker has this engine from now on, or none.
    pub fn set_engine(&self, engine: Option<Engine>) {
        let place = &self.signal.engines[self.worker];
        let old = std::mem::replace(&mut *place.lock().expect("no panic while the lock is held"), engine);
        // Its pool may be freed by that, which takes a while.
        drop(old);
    }

    /// This worker has guests that want the CPU: the epoch must move. Cheap when it already does.
    pub fn want(&self) {
        let working = &self.signal.working[self.worker];
        if !working.load(Ordering::Relaxed) {
            working.store(true, Ordering::SeqCst);
        }
        if self.signal.asleep.load(Ordering::SeqCst) && self.signal.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// Ticks so far, which have told guests to end their slices.
    pub fn count(&self) -> u64 {
        self.signal.ticks.load(Ordering::Relaxed)
    }

    /// This worker is about to wait.
    pub fn done(&self) {
        self.signal.working[self.worker].store(false, Ordering::SeqCst);
    }
}

fn tick(signal: &Signal, shared_engine: Option<&Engine>, slice: Duration) {
    // A tick that comes late makes a slice longer.
    scheduling::short_slices();
    let mut idle = 0;
    while !signal.stop.load(Ordering::SeqCst) {
        thread::sleep(slice);
        let mut any = false;
        for (engine, working) in signal.engines.iter().zip(&signal.working) {
            if working.load(Ordering::SeqCst) {
                if let Some(engine) = &*engine.lock().expect("no panic while the lock is held") {
                    engine.increment_epoch();
                }
                any = true;
            }
        }
        if any && let Some(engine) = shared_engine {
            engine.increment_epoch();
        }
        signal.ticks.fetch_add(1, Ordering::Relaxed);
        idle = if any { 0 } else { idle + 1 };
        if idle >= IDLE_TICKS {
            signal.asleep.store(true, Ordering::SeqCst);
            // Whoever set its flag before it could see us asleep would not wake us.
            if !signal.working.iter().any(|working| working.load(Ordering::SeqCst))
                && !signal.stop.load(Ordering::SeqCst)
            {
                thread::park();
            }
            signal.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }
}
