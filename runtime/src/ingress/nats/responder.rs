//! Completes a request that JetStream has given to this gateway, from whichever thread has its answer.

use super::held::Held;
use crate::ingress::{Handover, Left, Outgoing, Parts, Responder};
use bytes::Bytes;
use offload_broker::OnAcknowledged;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Parts of answers that wait to be published, of all requests together: more are left out.
pub(super) const MAX_PARTS: usize = 256;

/// What is asked of the task that publishes answers. What bounds the requests, and [`MAX_PARTS`], bounds the channel.
pub(super) enum Command {
    /// To a request that is acknowledged then, if there is one.
    Answer(Option<Held>, Box<Outgoing>),
    /// A part of an answer that has not come yet.
    Part(Part),
    /// No answer is due: the request is acknowledged.
    Settle(Held),
    /// Nobody answers: another gateway gets the request, at once or after this time.
    Release(Held, Duration),
}

/// A part of an answer that has not come yet.
pub(super) struct Part {
    pub topic: String,
    pub bytes: Bytes,
    /// At QoS 1, and not 0.
    pub is_stored: bool,
    _room: OwnedSemaphorePermit,
}

/// The way back of one request.
pub(super) struct NatsResponder {
    held: Option<Held>,
    commands: UnboundedSender<Command>,
    parts: Option<NatsParts>,
}

/// The way of parts, while few wait to be published.
#[derive(Clone)]
pub(super) struct NatsParts {
    pub commands: UnboundedSender<Command>,
    pub room: Arc<Semaphore>,
    /// Whether the request came at QoS 1 or 2.
    pub are_stored: bool,
}

impl NatsResponder {
    /// Without a way for `parts` to one that another gateway has streamed.
    pub fn new(held: Held, commands: UnboundedSender<Command>, parts: Option<NatsParts>) -> NatsResponder {
        NatsResponder { held: Some(held), commands, parts }
    }

    fn send(&self, command: Command) {
        // The receiver is gone when the ingress has shut down: JetStream keeps the request.
        let _ = self.commands.send(command);
    }
}

impl Responder for NatsResponder {
    /// The server has the answer when it has stored it; whether a device has, it does not say.
    fn answer(mut self: Box<Self>, answer: Outgoing, _: Option<OnAcknowledged>) -> Handover {
        let held = self.held.take();
        self.send(Command::Answer(held, Box::new(answer)));
        Handover::Complete
    }

    fn ignore(mut self: Box<Self>) {
        if let Some(held) = self.held.take() {
            self.send(Command::Settle(held));
        }
    }

    fn leave(mut self: Box<Self>, _: Left<'_>) -> Result<(), Box<dyn Responder>> {
        if let Some(held) = self.held.take() {
            self.send(Command::Release(held, LEFT_FOR));
        }
        Ok(())
    }

    fn parts(&self) -> Option<Box<dyn Parts>> {
        Some(Box::new(self.parts.clone()?))
    }
}

impl Parts for NatsParts {
    fn publish(&self, topic: String, _: u64, bytes: Bytes) {
        let Ok(room) = self.room.clone().try_acquire_owned() else { return };
        let part = Part { topic, bytes, is_stored: self.are_stored, _room: room };
        // As for answers.
        let _ = self.commands.send(Command::Part(part));
    }
}

/// Before a request that was left comes to a gateway again, which may be this one.
const LEFT_FOR: Duration = Duration::from_millis(100);

/// Given up without an answer, as when the gateway stops.
impl Drop for NatsResponder {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.send(Command::Release(held, Duration::ZERO));
        }
    }
}
