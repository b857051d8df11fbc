//! Completes a delivery of an external broker, from whichever thread has its answer.

use bytes::Bytes;
use offload_broker::OnAcknowledged;
use offload_mqtt::{QoS, Version};
use offload_policy::Receipt;
use offload_protocol::UserProperties;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};

use super::publication::{Publication, overhead};
use crate::ingress::{Handover, Left, Notice, Outgoing, Parts, ReplyAddress, Responder};

/// What is asked of the task that owns the connection.
///
/// The channel has no bound of its own: every delivery sends one command, so what bounds the deliveries (Receive
/// Maximum, the gateway's queues) bounds it too, and sending never blocks a worker. The gateway's status comes at most
/// once in its interval, and of parts of answers there are [`MAX_PARTS`].
pub(super) enum Command {
    /// Boxed: it is far larger than the others.
    Answer(Option<Receipt>, Box<Publication>),
    /// A message of the gateway's own.
    Notice(Notice),
    /// A part of an answer that has not come yet.
    Part(Box<Publication>),
    /// Other gateways are to get the request: as it was published once more.
    Leave(Option<Receipt>, Box<Publication>),
    /// No answer is due: acknowledge.
    Settle(Receipt),
    /// Nobody answers: do not acknowledge.
    Release(Receipt),
    /// Give the share back, and drop the sender when the broker has it.
    StopTaking(oneshot::Sender<()>),
    Shutdown,
}

/// Parts of answers that wait for the connection, of all requests together: more are left out.
pub(super) const MAX_PARTS: usize = 256;

/// The user property that counts the gateways that have left a request to others.
const LEFT_BY: &str = "left-by";
/// Gateways that may leave a request to others, until one refuses it: so none goes round for ever where no gateway has
/// the key.
const MAX_LEFT_BY: u32 = 8;

/// One delivery; without a receipt where the broker wants no acknowledgement (QoS 0).
pub(super) struct ExternalResponder {
    receipt: Option<Receipt>,
    commands: UnboundedSender<Command>,
    room_for_parts: Arc<Semaphore>,
    /// Bytes of the largest packet that the broker takes.
    max_packet: usize,
}

impl ExternalResponder {
    pub fn new(
        receipt: Option<Receipt>,
        commands: UnboundedSender<Command>,
        room_for_parts: Arc<Semaphore>,
        max_packet: usize,
    ) -> ExternalResponder {
        ExternalResponder { receipt, commands, room_for_parts, max_packet }
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

    /// Publishes the request once more: the broker gives it to the next gateway of the group, which may be this one.
    fn leave(mut self: Box<Self>, request: Left<'_>) -> Result<(), Box<dyn Responder>> {
        let Some(user_properties) = left_once_more(request.user_properties) else { return Err(self) };
        let receipt = self.receipt.take();
        self.send(Command::Leave(receipt, Box::new(Publication::left(&request, user_properties))));
        Ok(())
    }

    fn max_payload(&self, address: &ReplyAddress) -> Option<usize> {
        self.max_packet.checked_sub(overhead(
            &address.topic,
            address.correlation_data.as_ref(),
            None,
            Version::V5,
        ))
    }

    fn parts(&self) -> Option<Box<dyn Parts>> {
        let (commands, room) = (self.commands.clone(), self.room_for_parts.clone());
        // The broker wants no acknowledgement of what came at QoS 0.
        let qos = if self.receipt.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        Some(Box::new(ExternalParts { commands, room, qos }))
    }
}

/// These user properties, with one more gateway counted that has left the request to others; `None` when it was left so
/// often that none takes it.
fn left_once_more(user_properties: &UserProperties) -> Option<UserProperties> {
    let mut others = user_properties.clone();
    let mut before = 0;
    others.retain(|(name, value)| {
        let is_count = name == LEFT_BY;
        if is_count {
            // What is no number is nobody's count.
            before = before.max(value.parse().unwrap_or(MAX_LEFT_BY));
        }
        !is_count
    });
    (before < MAX_LEFT_BY).then(|| {
        others.push((LEFT_BY.to_owned(), (before + 1).to_string()));
        others
    })
}

/// The way of parts to the broker, while few wait for it.
struct ExternalParts {
    commands: UnboundedSender<Command>,
    room: Arc<Semaphore>,
    qos: QoS,
}

impl Parts for ExternalParts {
    fn publish(&self, topic: String, _: u64, part: Bytes) {
        let Ok(permit) = self.room.clone().try_acquire_owned() else { return };
        let publication = Box::new(Publication::part(topic, part, self.qos, permit));
        // As for answers.
        let _ = self.commands.send(Command::Part(publication));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_left_a_few_times_and_not_for_ever() {
        let mut properties = vec![("mine".to_owned(), "1".to_owned())];
        for times in 1..=MAX_LEFT_BY {
            properties = left_once_more(&properties).unwrap();
            assert_eq!(properties, [("mine", "1".to_owned()), (LEFT_BY, times.to_string())].map(own));
        }
        assert_eq!(left_once_more(&properties), None);
        assert_eq!(left_once_more(&vec![own((LEFT_BY, "many".to_owned()))]), None);
    }

    fn own((name, value): (&str, String)) -> (String, String) {
        (name.to_owned(), value)
    }
}
