//! Where an ingress puts requests: in batches, since what came together is dispatched together.

use super::delivery::Delivery;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

/// Takes deliveries. Called on the ingress's own task, so it never blocks; an ingress reaches it through an [`Intake`].
pub trait Sink: Send + Sync + 'static {
    /// Takes over one delivery. Its acceptance and its responder are used once each.
    fn deliver(&self, delivery: Delivery);

    /// Takes over one that another site has taken in at this moment already: its timeout counts from then.
    fn deliver_since(&self, delivery: Delivery, arrived: Instant) {
        let _ = arrived;
        self.deliver(delivery);
    }

    /// The batch has ended: what was delivered is run. What is short may be run in here.
    fn dispatch(&self);
}

/// The way into a sink.
#[derive(Clone)]
pub struct Intake(Arc<dyn Sink>);

impl Intake {
    /// Into this sink.
    pub fn new(sink: Arc<dyn Sink>) -> Intake {
        Intake(sink)
    }

    /// Begins to deliver.
    pub fn batch(&self) -> Batch<'_> {
        Batch { sink: &*self.0 }
    }
}

/// Deliveries that came together. They are dispatched when it ends, which is at the latest when it is dropped.
#[must_use = "what is delivered is dispatched when the batch ends"]
pub struct Batch<'i> {
    sink: &'i dyn Sink,
}

impl Batch<'_> {
    /// One delivery more.
    pub fn deliver(&self, delivery: Delivery) {
        self.sink.deliver(delivery);
    }

    /// One delivery more, which another site has taken in at this moment.
    pub fn deliver_since(&self, delivery: Delivery, arrived: Instant) {
        self.sink.deliver_since(delivery, arrived);
    }

    /// Dispatches what was delivered.
    pub fn end(self) {}

    /// Leaves what was delivered to a later batch of this intake, whose end the caller is sure of.
    pub fn suspend(self) {
        mem::forget(self);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.sink.dispatch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::ingress::{Acceptance, DeliveryProperties, Handover, Outgoing, Responder};
    use bytes::Bytes;
    use offload_broker::OnAcknowledged;
    use std::sync::Mutex;

    struct NoConnection;

    impl Responder for NoConnection {
        fn answer(self: Box<Self>, _: Outgoing, _: Option<OnAcknowledged>) -> Handover {
            Handover::Complete
        }
        fn ignore(self: Box<Self>) {}
    }

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Recorder {
        fn calls(&self) -> Vec<String> {
            mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl Sink for Recorder {
        fn deliver(&self, delivery: Delivery) {
            self.0.lock().unwrap().push(delivery.topic.clone());
            delivery.ignore();
        }

        fn dispatch(&self) {
            self.0.lock().unwrap().push("dispatch".to_owned());
        }
    }

    fn delivery(topic: &str) -> Delivery {
        Delivery {
            client: Client { principal: None, flow: "c".into(), account: "a".into(), web: false },
            topic: topic.to_owned(),
            payload: Bytes::new(),
            properties: DeliveryProperties::default(),
            retained: false,
            acceptance: Acceptance::with_the_answer(),
            responder: Box::new(NoConnection),
        }
    }

    #[test]
    fn what_is_delivered_is_dispatched_when_its_batch_ends_however_it_ends() {
        let recorder = Arc::new(Recorder::default());
        let intake = Intake::new(recorder.clone());
        {
            let batch = intake.batch();
            batch.deliver(delivery("a"));
            batch.deliver(delivery("b"));
        }
        assert_eq!(recorder.calls(), ["a", "b", "dispatch"]);
        let batch = intake.batch();
        batch.deliver(delivery("c"));
        batch.suspend();
        assert_eq!(recorder.calls(), ["c"]);
        intake.batch().end();
        assert_eq!(recorder.calls(), ["dispatch"]);
    }
}
