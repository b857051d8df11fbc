//! Completes a delivery of an external broker, from whichever thread has its answer.

use offload_broker::OnAcknowledged;
use offload_policy::Receipt;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::publication::Publication;
use crate::ingress::{Handover, Notice, Outgoing, Responder};

/// What is asked of the task that owns the connection.
///
/// The channel has no bound of its own: every delivery sends one command, so what bounds the deliveries (Receive
/// Maximum, the gateway's queues) bounds it too, and sending never blocks a worker. The gateway's status comes at most
/// once in its interval.
pub(super) enum Command {
    /// Boxed: it is far larger than the others.
    Answer(Option<Receipt>, Box<Publication>),
    /// A message of the gateway's own.
    Notice(Notice),
    /// No answer is due: acknowledge.
    Settle(Receipt),
    /// Nobody answers: do not acknowledge.
    Release(Receipt),
    /// Give the share back, and drop the sender when the broker has it.
    StopTaking(oneshot::Sender<()>),
    Shutdown,
}

/// One delivery; without a receipt where the broker wants no acknowledgement (QoS 0).
pub(super) struct ExternalResponder {
    receipt: Option<Receipt>,
    commands: UnboundedSender<Command>,
}

impl ExternalResponder {
    pub fn new(receipt: Option<Receipt>, commands: UnboundedSender<Command>) -> ExternalResponder {
        ExternalResponder { receipt, commands }
    }

    fn send(&self, command: Command) {
        // The receiver is gone when the ingress has shut down: nobody is left to tell, and the broker keeps the
        // request.
        let _ = self.commands.send(command);
    }
}

impl Responder for ExternalResponder {
    /// The broker has the answer when it has acknowledged it; whether a device has, it does not say.
    fn answer(mut self: Box<Self>, answer: Outgoing, _: Option<OnAcknowledged>) -> Handover {
        let receipt = self.receipt.take();
        self.send(Command::Answer(receipt, Box::new(answer.into())));
        Handover::Complete
    }

    fn ignore(mut self: Box<Self>) {
        if let Some(receipt) = self.receipt.take() {
            self.send(Command::Settle(receipt));
        }
    }
}

/// Given up without an answer, as when the gateway stops: the broker delivers the request again.
impl Drop for ExternalResponder {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.send(Command::Release(receipt));
        }
    }
}
