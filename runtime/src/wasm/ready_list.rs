//! How a worker is told that a guest can go on, or that there is something new: its ready list, and the wakers of its
//! guests.

use offload_policy::GuestId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Wake;
use std::thread::{self, Thread};
use std::time::Duration;

/// What other threads leave for a worker.
#[derive(Default)]
pub struct ReadyList {
    woken: Mutex<Vec<GuestId>>,
    /// Set while the worker waits: whoever leaves something then wakes it.
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

impl ReadyList {
    /// Called once, by the worker's own thread.
    pub fn attach(&self) {
        let attached = self.thread.set(thread::current());
        assert!(attached.is_ok(), "a ready list has one worker");
    }

    /// Moves the guests that were woken since the last call to the end of `into`.
    pub fn take(&self, into: &mut Vec<GuestId>) {
        into.append(&mut self.woken.lock().expect("no panic while the lock is held"));
    }

    /// Waits until something is left here, or for `timeout`. `nothing_new` is asked once more after the worker has
    /// declared that it waits, so that nothing left in between is missed.
    pub fn park(&self, timeout: Option<Duration>, nothing_new: impl FnOnce() -> bool) {
        self.parked.store(true, Ordering::SeqCst);
        let empty = self.woken.lock().expect("no panic while the lock is held").is_empty();
        if empty && nothing_new() {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout),
                None => thread::park(),
            }
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Wakes the worker's thread, or keeps it from waiting the next time.
    pub fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the worker if it waits; says whether it did.
    pub fn notify(&self) -> bool {
        let waits = self.parked.load(Ordering::SeqCst) && self.parked.swap(false, Ordering::SeqCst);
        if waits {
            self.wake();
        }
        waits
    }
}

/// Wakes one guest.
pub struct GuestWaker {
    guest: GuestId,
    ready_list: Arc<ReadyList>,
    /// Set from the first wake until the guest's next slice.
    woken: AtomicBool,
}

impl GuestWaker {
    /// A waker of this guest.
    pub fn new(guest: GuestId, ready_list: Arc<ReadyList>) -> GuestWaker {
        GuestWaker { guest, ready_list, woken: AtomicBool::new(false) }
    }

    /// The guest is about to be polled: later wakes count again.
    pub fn rearm(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }
}

impl Wake for GuestWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.ready_list.woken.lock().expect("no panic while the lock is held").push(self.guest);
            self.ready_list.notify();
        }
    }
}
