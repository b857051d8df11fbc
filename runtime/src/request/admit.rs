//! Whether there is room for the request, and when its publisher may believe that it is safe.

use super::answer::{PendingAnswer, Refusal};
use super::authorize::Authorized;
use super::decode::{Asked, Decoded};
use super::journal::promise::Promise;
use crate::client::Client;
use crate::stopping::stopping_error;
use crate::wasm::workers::{Waiting, Workers};
use offload_policy::Load;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::Code;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// What a request holds in memory beside its payload, in bytes: an estimate, so that small ones count too.
const REQUEST_OVERHEAD: usize = 512;

/// Requests at once that cancel others and are let in where no other request is: they make room.
const MAX_CANCELS_BEYOND: usize = 1_024;

/// Lets requests in while there is room, until it is stopped.
pub struct Admission {
    workers: Arc<Workers>,
    is_stopped: AtomicBool,
    cancels_beyond: Arc<Semaphore>,
}

/// A request that counts as waiting.
pub struct Admitted {
    asked: Asked,
    promise: Promise,
    pending: PendingAnswer,
    waiting: Waiting,
}

/// An admitted request. Unless it is to be kept, its publisher believes that it is safe.
pub struct Accepted {
    pub asked: Asked,
    pub pending: PendingAnswer,
    pub waiting: Waiting,
}

/// Counts the request as waiting.
pub fn admit(authorized: Authorized, admission: &Admission) -> Result<Admitted, Refusal> {
    let mut decoded = authorized.into_decoded();
    let admitted = match decoded.promise.take_waiting() {
        Some(waiting) => Ok(waiting),
        None => match admission.admit(&decoded.asked.client, decoded.size) {
            Err(error) if matches!(decoded.asked.request.code, Code::Cancel(_)) => {
                admission.admit_beyond(&decoded.asked.client, decoded.size).ok_or(error)
            }
            admitted => admitted,
        },
    };
    match admitted {
        Ok(waiting) => {
            let Decoded { asked, promise, pending, .. } = decoded;
            Ok(Admitted { asked, promise, pending, waiting })
        }
        Err(error) => Err(decoded.refuse(error)),
    }
}

impl Admitted {
    /// The request goes on, and its publisher hears that it is safe: now, or when the journal has it.
    pub fn accept(self) -> Accepted {
        let Admitted { asked, promise, mut pending, waiting } = self;
        pending.way_back.kept = promise.take();
        Accepted { asked, pending, waiting }
    }
}

impl Admission {
    /// Into the queue of these workers.
    pub fn new(workers: Arc<Workers>) -> Admission {
        let cancels_beyond = Arc::new(Semaphore::new(MAX_CANCELS_BEYOND));
        Admission { workers, is_stopped: AtomicBool::new(false), cancels_beyond }
    }

    /// Nothing more is let in.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Counts one request of `size` bytes that an earlier process has admitted: whatever else waits by now, it is not
    /// refused. `None` when the gateway stops.
    pub fn readmit(&self, client: &Client, size: usize) -> Option<Waiting> {
        let load = Load { requests: 1, bytes: size + REQUEST_OVERHEAD };
        let is_open = !self.is_stopped.load(Ordering::SeqCst);
        is_open.then(|| self.workers.readmit(&client.flow_key(), load))
    }

    /// Counts one of a few requests for which there is no other room, unless the gateway stops.
    fn admit_beyond(&self, client: &Client, size: usize) -> Option<Waiting> {
        let permit = self.cancels_beyond.clone().try_acquire_owned().ok()?;
        Some(self.readmit(client, size)?.with(permit))
    }

    /// Counts one request of `size` bytes.
    ///
    /// # Errors
    ///
    /// When there is no room for it, or the gateway stops.
    pub fn admit(&self, client: &Client, size: usize) -> Result<Waiting, WireError> {
        if self.is_stopped.load(Ordering::SeqCst) {
            return Err(stopping_error());
        }
        let load = Load { requests: 1, bytes: size + REQUEST_OVERHEAD };
        self.workers.admit(&client.flow_key(), load).map_err(|busy| {
            let largest = self.workers.largest_request();
            if load.bytes <= largest {
                return WireError::new(ErrorKind::Busy, busy.to_string());
            }
            // No queue is ever empty enough for it.
            let limit = largest.saturating_sub(REQUEST_OVERHEAD);
            let message =
                format!("request: {size} bytes, the limit is {limit} bytes (bytes and share of [queue])");
            WireError::new(ErrorKind::TooLarge, message)
        })
    }
}
