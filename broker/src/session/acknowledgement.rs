//! The acknowledgement of a message that the application has taken.

use std::{fmt, sync::Arc};

use crate::{
    message::QoS,
    reason::Reason,
    session::{Session, incoming::PublishNumber, stored::Storing},
    storage::{Key, NotStored},
};

/// Completes a message that the application received: PUBACK at QoS 1, PUBREC at QoS 2, nothing at QoS 0. May
/// be kept for any time and completed on any thread; acknowledgements reach the client in the order of its
/// publishes, so one that is kept holds up those behind it. Dropped, it is [withheld](Self::withhold) with 0x80.
#[must_use = "dropping it withholds the acknowledgement"]
pub struct Acknowledgement {
    /// `None` at QoS 0 and once it is completed.
    pending: Option<PendingAck>,
}

#[derive(Clone)]
pub(crate) struct PendingAck {
    pub session: Arc<Session>,
    pub number: PublishNumber,
    pub id: u16,
    pub qos: QoS,
}

impl PendingAck {
    /// Decides it. That a session which is stored has published a message at QoS 2 is stored first, so that it is known
    /// when it comes again, whatever happens meanwhile.
    pub fn decide(self, reason: Reason) {
        let mut storing = Storing::default();
        let record = if reason.is_error() { None } else { self.store(&mut storing) };
        if record.is_none() {
            return self.decide_stored(reason, None);
        }
        let durable = self.clone();
        let on_durable = Box::new(move |result: Result<(), NotStored>| match result {
            Ok(()) => durable.decide_stored(reason, record),
            Err(why) => durable.withhold(why.into()),
        });
        match storing.commit(Some(on_durable), false) {
            Ok(()) => {}
            // Once it has failed nothing is acknowledged that it would have to know.
            Err(NotStored::Failed) => self.withhold(NotStored::Failed.into()),
            // The message is taken already, and better twice after a crash than refused now and then sent again.
            Err(NotStored::Full) => self.decide_stored(reason, None),
        }
    }

    /// Puts the identifier of a message at QoS 2 into the storage, if the session is stored.
    pub fn store(&self, storing: &mut Storing) -> Option<Key> {
        let storage = self.session.storage.as_ref().filter(|_| self.qos == QoS::ExactlyOnce)?;
        Some(storing.receive(storage, self.session.serial, self.id))
    }

    /// The message is not safe: see [`Acknowledgement::withhold`].
    pub fn withhold(&self, reason: Reason) {
        self.session.withhold(self.number, self.id, self.qos, reason);
    }

    /// Decides it; `record` is where its identifier is stored.
    pub fn decide_stored(&self, reason: Reason, record: Option<Key>) {
        self.session.decide(self.number, self.id, self.qos, reason, record);
    }
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

    /// What is to be decided, by whoever takes it.
    pub(crate) fn into_pending(mut self) -> Option<PendingAck> {
        self.pending.take()
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
        if let Some(pending) = self.pending.take() {
            pending.withhold(reason);
        }
    }

    fn decide(&mut self, reason: Reason) {
        if let Some(pending) = self.pending.take() {
            pending.decide(reason);
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
