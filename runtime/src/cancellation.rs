//! What tells a request that it is cancelled, wherever it is: in a task, in the queue, or as a guest on a worker.

use crate::flow::Flow;
use offload_protocol::error::{ErrorKind, WireError};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use tokio_util::sync::CancellationToken;

/// Of one request, shared by all that wait for it or run it.
#[derive(Default)]
pub struct Cancellation {
    token: CancellationToken,
    /// The flow in whose queue it waits, or has waited.
    queued_as: OnceLock<Flow>,
    /// What is to be told of it.
    told: Mutex<Option<Told>>,
}

/// What is told that the request is cancelled.
enum Told {
    /// Its guest, which may sleep.
    Guest(Waker),
    /// What has handed it on to another gateway.
    Elsewhere(Box<dyn FnOnce() + Send>),
}

impl Cancellation {
    /// The request is to end. A guest that sleeps is woken for that; another gateway is told.
    pub fn cancel(&self) {
        self.token.cancel();
        self.tell();
    }

    /// Whether it is to end.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// It has gone into the queue of this flow.
    pub fn queued(&self, flow: &Flow) {
        self.queued_as.get_or_init(|| flow.clone());
    }

    /// In whose queue it may be.
    pub fn queued_as(&self) -> Option<&Flow> {
        self.queued_as.get()
    }

    /// It runs as a guest that is woken by this. Whether it is cancelled by now is for the caller to ask afterwards.
    pub fn started(&self, guest: Waker) {
        *self.lock() = Some(Told::Guest(guest));
    }

    /// It was handed on to another gateway, where this ends it: now, if it is cancelled by now.
    pub fn handed_on(&self, end: impl FnOnce() + Send + 'static) {
        *self.lock() = Some(Told::Elsewhere(Box::new(end)));
        if self.is_cancelled() {
            self.tell();
        }
    }

    fn tell(&self) {
        let told = self.lock().take();
        match told {
            Some(Told::Guest(guest)) => guest.wake(),
            Some(Told::Elsewhere(end)) => end(),
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().expect("no panic while the lock is held")
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancellation").field(&self.is_cancelled()).finish()
    }
}

/// Returns when the request is cancelled; never for one that cannot be.
pub async fn cancelled(cancellation: Option<&Arc<Cancellation>>) {
    match cancellation {
        Some(cancellation) => cancellation.token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// To a request that was cancelled.
pub fn cancelled_error() -> WireError {
    WireError::new(ErrorKind::Cancelled, "another request of this client has cancelled it")
}
