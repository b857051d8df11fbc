//! The acknowledgement of a message that the application has taken.

use std::{fmt, sync::Arc};

use crate::{
    message::QoS,
    reason::Reason,
    session::{Session, incoming::PublishNumber},
};

/// Completes a message that the application received: PUBACK at QoS 1, PUBREC at QoS 2, nothing at QoS 0. May
/// be kept for any time and completed on any thread; acknowledgements reach the client in the order of its
/// publishes, so one that is kept holds up those behind it. Dropped, it is [withheld](Self::withhold) with 0x80.
#[must_use = "dropping it withholds the acknowledgement"]
pub struct Acknowledgement {
    /// `None` at QoS 0 and once it is completed.
    pending: Option<PendingAck>,
}

pub(crate) struct PendingAck {
    pub session: Arc<Session>,
    pub number: PublishNumber,
    pub id: u16,
    pub qos: QoS,
}

impl Acknowledgement {
    pub(crate) fn pending(pending: Option<PendingAck>) -> Self {
        Self { pending }
    }

    /// Tells the publisher that its message is safe. Without effect if its connection is gone, but a QoS 2
    /// message that comes again is then known.
    pub fn complete(mut self) {
        self.decide(Reason::Success);
    }

    /// Tells an MQTT 5 publisher why its message was not taken. 3.1.1 has no code for it: its
    /// acknowledgement says nothing.
    pub fn refuse(mut self, reason: Reason) {
        self.decide(reason);
    }

    /// The message is not safe, and its publisher is not to believe that it is: MQTT 5 is told why, 3.1.1 gets no
    /// acknowledgement, and sends the message again on its next connection.
    pub fn withhold(mut self, reason: Reason) {
        self.decide_or_withhold(reason);
    }

    /// Whether the publisher waits for it: at QoS 1 and 2.
    pub fn is_owed(&self) -> bool {
        self.pending.is_some()
    }

    fn decide_or_withhold(&mut self, reason: Reason) {
        if let Some(PendingAck { session, number, id, qos }) = self.pending.take() {
            session.withhold(number, id, qos, reason);
        }
    }

    fn decide(&mut self, reason: Reason) {
        if let Some(PendingAck { session, number, id, qos }) = self.pending.take() {
            session.decide(number, id, qos, reason);
        }
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        self.decide_or_withhold(Reason::UnspecifiedError);
    }
}

impl fmt::Debug for Acknowledgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledgement")
            .field("pending", &self.pending.as_ref().map(|pending| pending.id))
            .finish()
    }
}
