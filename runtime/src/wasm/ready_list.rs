//! The guests of a worker that can go on, and the wakers that put them there.

use super::parker::Parker;
use offload_policy::GuestId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Wake;

/// What other threads leave for a worker.
#[derive(Default)]
pub struct ReadyList {
    woken: Mutex<Vec<GuestId>>,
    /// Where the worker's thread waits.
    pub parker: Parker,
}

impl ReadyList {
    /// Moves the guests that were woken since the last call to the end of `into`.
    pub fn take(&self, into: &mut Vec<GuestId>) {
        into.append(&mut self.lock());
    }

    /// Whether no guest was woken since the last call of [`take`](Self::take).
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn push(&self, guest: GuestId) {
        self.lock().push(guest);
        self.parker.notify();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<GuestId>> {
        self.woken.lock().expect("no panic while the lock is held")
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
            self.ready_list.push(self.guest);
        }
    }
}
