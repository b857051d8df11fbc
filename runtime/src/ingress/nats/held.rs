//! The requests that this gateway holds: JetStream is told of them from time to time, so that it gives them to no other
//! gateway.

use async_nats::{Client, Subject};
use bytes::Bytes;
use slab::Slab;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, interval};

/// Acknowledgements as JetStream reads them.
pub(super) const ACK: Bytes = Bytes::from_static(b"+ACK");
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");
const NOT_ACKNOWLEDGED: &str = "-NAK";

/// How often a request is reported within the acknowledgement wait.
pub(super) const REPORTS: u32 = 3;

/// See the module's documentation.
#[derive(Clone, Default)]
pub(super) struct Holding(Arc<Mutex<Slab<Subject>>>);

/// One request that is held, until it is dropped. It counts towards what the gateway takes at once.
pub(super) struct Held {
    holding: Holding,
    key: usize,
    /// Where JetStream hears of it.
    reply: Subject,
    _room: OwnedSemaphorePermit,
}

impl Holding {
    /// One more; `reply` is where JetStream hears of it.
    pub fn hold(&self, reply: Subject, room: OwnedSemaphorePermit) -> Held {
        let key = self.lock().insert(reply.clone());
        Held { holding: self.clone(), key, reply, _room: room }
    }

    /// Tells JetStream of all that are held, for ever.
    pub async fn report(self, client: Client, ack_wait: Duration) {
        let mut due = interval(ack_wait / REPORTS);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let held: Vec<Subject> = self.lock().iter().map(|(_, reply)| reply.clone()).collect();
            for reply in held {
                // Without a connection it is sent on the next one.
                let _ = client.publish(reply, IN_PROGRESS).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Subject>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

impl Held {
    /// It is answered: JetStream forgets it.
    pub async fn acknowledge(self, client: &Client) {
        // One that is lost with a connection brings the request again.
        let _ = client.publish(self.reply.clone(), ACK).await;
    }

    /// It is not: another gateway gets it after this time.
    pub async fn release(self, client: &Client, after: Duration) {
        let negative = match after.as_nanos() {
            0 => NOT_ACKNOWLEDGED.to_owned(),
            delay => format!("{NOT_ACKNOWLEDGED} {{\"delay\": {delay}}}"),
        };
        let _ = client.publish(self.reply.clone(), negative.into()).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holding.lock().remove(self.key);
    }
}
