//! Completes a request that JetStream has given to this gateway, from whichever thread has its answer.

use super::held::Held;
use crate::ingress::{Handover, Outgoing, Responder};
use offload_broker::OnAcknowledged;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What is asked of the task that publishes answers. What bounds the requests bounds the channel.
pub(super) enum Command {
    /// To a request that is acknowledged then, if there is one.
    Answer(Option<Held>, Box<Outgoing>),
    /// No answer is due: the request is acknowledged.
    Settle(Held),
    /// Nobody answers: another gateway gets the request, at once or after this time.
    Release(Held, Duration),
}

/// The way back of one request.
pub(super) struct NatsResponder {
    held: Option<Held>,
    commands: UnboundedSender<Command>,
}

impl NatsResponder {
    pub fn new(held: Held, commands: UnboundedSender<Command>) -> NatsResponder {
        NatsResponder { held: Some(held), commands }
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

    fn leave(mut self: Box<Self>) {
        if let Some(held) = self.held.take() {
            self.send(Command::Release(held, LEFT_FOR));
        }
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
