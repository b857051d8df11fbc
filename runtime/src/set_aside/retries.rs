//! Requests that are to be run again, taken up by the gateway: at its start, and soon after each is asked for.
//!
//! What is taken up is no suspect any more. It stays in its folder until it is answered, so that a gateway which it
//! crashes again finds it there; then it is a suspect like any other, runs alone, and is set aside again after two
//! crashes. Its answer goes where the first one would have gone.

use super::{JobError, SetAside};
use crate::client::Client;
use crate::fingerprint::Fingerprint;
use crate::ingress::{
    Acceptance, Delivery, DeliveryProperties, Handover, Ingress, Intake, Outgoing, Responder,
};
use crate::suspects::Suspects;
use offload_broker::OnAcknowledged;
use offload_protocol::answer::Outcome;
use offload_protocol::error::{ErrorKind, WireError};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two looks for requests that are to be run again: soon enough for somebody who waits for the answer, and
/// next to nothing for a gateway that runs for years.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Takes up what is to be run again, for as long as the gateway lives.
pub struct Retries {
    set_aside: Arc<SetAside>,
    suspects: Option<Arc<Suspects>>,
    intake: Intake,
    ingress: Arc<dyn Ingress>,
    state: Mutex<State>,
    /// Told when one is answered.
    answered: Notify,
}

#[derive(Default)]
struct State {
    /// Those that are on their way.
    running: HashSet<u64>,
    /// Those that this process has taken up, and not an earlier one.
    taken: HashSet<u64>,
    /// Of those, the ones that are answered: their folders go.
    answered: Vec<u64>,
}

/// Where the answer to one of them goes.
struct Back {
    retries: Arc<Retries>,
    number: u64,
    asker: Client,
}

impl Retries {
    /// Takes them up by this intake, and answers by this ingress.
    pub fn new(
        set_aside: Arc<SetAside>,
        suspects: Option<Arc<Suspects>>,
        intake: Intake,
        ingress: Arc<dyn Ingress>,
    ) -> Arc<Retries> {
        let (state, answered) = (Mutex::default(), Notify::new());
        Arc::new(Retries { set_aside, suspects, intake, ingress, state, answered })
    }

    /// Looks for them again and again. Never returns.
    pub async fn follow(self: Arc<Self>) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.answered.notified() => {}
            }
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.look()).await {
                Ok(Ok(deliveries)) if deliveries.is_empty() => {}
                Ok(Ok(deliveries)) => {
                    let batch = self.intake.batch();
                    deliveries.into_iter().for_each(|delivery| batch.deliver(delivery));
                }
                Ok(Err(error)) => tracing::warn!(%error, "requests that are to be run again cannot be read"),
                Err(panic) => tracing::error!(%panic, "requests that are to be run again cannot be read"),
            }
        }
    }

    /// Clears away what is answered, and takes up what is new.
    fn look(self: &Arc<Self>) -> Result<Vec<Delivery>, JobError> {
        let answered = std::mem::take(&mut self.state().answered);
        for number in answered {
            // One whose folder stays is not run again before the next start.
            match self.set_aside.end_retry(number) {
                Ok(()) => drop(self.state().running.remove(&number)),
                Err(error) => {
                    tracing::error!(number, %error, "a request that was run again cannot be removed")
                }
            }
        }
        let mut deliveries = Vec::new();
        for number in self.set_aside.retried()? {
            if self.state().running.insert(number) {
                match self.take_up(number) {
                    Ok(delivery) => deliveries.extend(delivery),
                    // It stays marked as running: the log is told once.
                    Err(error) => tracing::error!(number, %error, "a request cannot be run again"),
                }
            }
        }
        Ok(deliveries)
    }

    /// `None` for one that an earlier process has taken up, where nobody would know whether it has crashed that.
    fn take_up(self: &Arc<Self>, number: u64) -> Result<Option<Delivery>, JobError> {
        let job = self.set_aside.job(number)?;
        let (payload, document) = (job.payload()?, job.document);
        match (&self.suspects, job.is_taken) {
            (None, true) if !self.state().taken.contains(&number) => {
                self.set_aside.put_back(number)?;
                self.state().running.remove(&number);
                tracing::warn!(
                    number,
                    "a request that was run again did not end before the gateway did: it is set aside again, since \
                     with durability \"off\" it could crash the gateway for ever"
                );
                return Ok(None);
            }
            (_, true) => {}
            (suspects, false) => {
                let prints = document.fingerprints.iter().filter_map(|print| Fingerprint::from_hex(print));
                prints.for_each(|print| suspects.iter().for_each(|suspects| suspects.acquit(&print)));
                self.set_aside.take(number)?;
                self.state().taken.insert(number);
                let reference = &document.reference;
                tracing::info!(number, reference, "a request that was set aside is run again");
            }
        }
        let client = document.client.to_client();
        let back = Back { retries: self.clone(), number, asker: client.clone() };
        Ok(Some(Delivery {
            client,
            topic: document.topic,
            payload: payload.into(),
            properties: DeliveryProperties {
                response_topic: document.response_topic,
                correlation_data: document.correlation_data.map(Into::into),
                user_properties: document.user_properties,
            },
            retained: false,
            acceptance: Acceptance::given(),
            responder: Box::new(back),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

impl Responder for Back {
    fn answer(self: Box<Self>, answer: Outgoing, on_acknowledged: Option<OnAcknowledged>) -> Handover {
        let Back { retries, number, asker } = *self;
        if let Outcome::Failed(WireError { kind: ErrorKind::Busy, .. }) = answer.answer.outcome {
            // It was not run: a later look, or the next gateway, takes it up again.
            retries.state().running.remove(&number);
            return Handover::Complete;
        }
        let handover = if asker.is_routed() {
            // Nobody here has asked, and at its site nobody waits any more.
            tracing::info!(number, client = asker.name(), "a request of another site was run again");
            Handover::Complete
        } else {
            retries.ingress.publish_answer(&asker, answer, on_acknowledged)
        };
        retries.state().answered.push(number);
        retries.answered.notify_one();
        handover
    }

    fn ignore(self: Box<Self>) {
        let Back { retries, number, .. } = *self;
        retries.state().answered.push(number);
        retries.answered.notify_one();
    }
}
