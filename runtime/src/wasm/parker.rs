//! How a worker's thread waits, and how others wake it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// Where one thread waits.
#[derive(Default)]
pub struct Parker {
    /// Set while the thread waits: whoever has something for it then wakes it.
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Parker {
    /// Called once, by the thread that is to wait here.
    pub fn attach(&self) {
        let attached = self.thread.set(thread::current());
        assert!(attached.is_ok(), "one thread waits here");
    }

    /// Waits until the thread is woken, or for `timeout`. `nothing_new` is asked after it has declared that it waits,
    /// so that nothing is missed that comes before.
    pub fn park(&self, timeout: Option<Duration>, nothing_new: impl FnOnce() -> bool) {
        self.parked.store(true, Ordering::SeqCst);
        if nothing_new() {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout),
                None => thread::park(),
            }
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Wakes the thread, or keeps it from waiting the next time.
    pub fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether the thread waits.
    pub fn is_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst)
    }

    /// Wakes the thread if it waits; says whether it did.
    pub fn notify(&self) -> bool {
        let waits = self.is_parked() && self.parked.swap(false, Ordering::SeqCst);
        if waits {
            self.wake();
        }
        waits
    }
}
