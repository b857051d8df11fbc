//! QoS 1 and 2 messages that were sent to a client and are not finished (sections 4.3 and 4.9).

use std::collections::VecDeque;

use crate::{message::QoS, packet::outbound_publish::OutboundPublish, session::receipt::Receipt};

/// The window, in the order of first sending, which redelivery keeps [MQTT-4.6.0-1].
pub(crate) struct Inflight {
    entries: VecDeque<Entry>,
    /// How many entries, from the front, were sent on this connection.
    sent: usize,
    window: usize,
    last_id: u16,
}

impl Inflight {
    pub fn new() -> Self {
        Self { entries: VecDeque::new(), sent: 0, window: 0, last_id: 0 }
    }

    /// A new connection allows `window` messages at a time; nothing was sent on it yet.
    pub fn connected(&mut self, window: u16) {
        self.window = window.into();
        self.sent = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages that are still held, those waiting for PUBCOMP not among them.
    pub fn unfinished(&self) -> usize {
        self.entries.iter().filter(|entry| entry.publish.is_some()).count()
    }

    /// What an earlier connection left unfinished comes before anything new.
    pub fn resend(&mut self) -> Option<Resend<'_>> {
        if self.sent >= self.window {
            return None;
        }
        let entry = self.entries.get(self.sent)?;
        self.sent += 1;
        Some(match &entry.publish {
            Some(publish) => Resend::Publish(entry.id, publish),
            None => Resend::Release(entry.id),
        })
    }

    /// True if a new message may be sent.
    pub fn has_room(&self) -> bool {
        self.sent == self.entries.len() && self.sent < self.window
    }

    /// Takes a message that is being sent and gives it its packet identifier. There must be room.
    pub fn send(&mut self, publish: OutboundPublish) -> (u16, &OutboundPublish) {
        let id = self.free_id();
        let stage = Stage::first(publish.qos);
        self.sent += 1;
        self.entries.push_back(Entry { id, stage, publish: None });
        let entry = self.entries.back_mut().expect("an entry was just added");
        (id, entry.publish.insert(publish))
    }

    /// Identifiers go round, so that one is not used again as soon as it is free.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.entries.iter().all(|entry| entry.id != self.last_id) {
                return self.last_id;
            }
        }
    }

    /// The client finished with a message that waited for `stage`: PUBACK, PUBCOMP, or a refusing PUBREC.
    /// `None` if there is no such message; what it held otherwise.
    pub fn finish(&mut self, id: u16, stage: Stage) -> Option<Released> {
        let at = self.position(id, stage)?;
        let entry = self.entries.remove(at)?;
        self.sent -= usize::from(at < self.sent);
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
        Some(entry.publish.map(Released::of).unwrap_or_default())
    }

    /// PUBREC came: PUBREL is due. `None` if there is no such message; what it held otherwise.
    pub fn receive(&mut self, id: u16) -> Option<Released> {
        let at = self.position(id, Stage::Received)?;
        let entry = &mut self.entries[at];
        entry.stage = Stage::Completed;
        entry.publish.take().map(Released::of)
    }

    /// Whether PUBREL was sent for this identifier and PUBCOMP has not come.
    pub fn releasing(&self, id: u16) -> bool {
        self.position(id, Stage::Completed).is_some()
    }

    fn position(&self, id: u16, stage: Stage) -> Option<usize> {
        // Clients acknowledge in order, so it is nearly always the first.
        self.entries.iter().position(|entry| entry.id == id && entry.stage == stage)
    }
}

/// What a message held that needs to be held no longer.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// Bytes.
    pub weight: usize,
    /// To be given, outside of the session's lock.
    pub receipt: Option<Receipt>,
}

impl Released {
    fn of(publish: OutboundPublish) -> Self {
        Self { weight: publish.weight(), receipt: publish.receipt }
    }
}

struct Entry {
    id: u16,
    stage: Stage,
    publish: Option<OutboundPublish>,
}

/// What an unfinished message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// PUBACK.
    Acknowledged,
    /// PUBREC.
    Received,
    /// PUBCOMP, PUBREL being sent; the message itself is done with.
    Completed,
}

impl Stage {
    /// What a message of this QoS waits for first.
    pub fn first(qos: QoS) -> Self {
        if qos == QoS::ExactlyOnce { Self::Received } else { Self::Acknowledged }
    }
}

/// What has to be sent next on a new connection.
pub(crate) enum Resend<'a> {
    /// The PUBLISH again, with DUP.
    Publish(u16, &'a OutboundPublish),
    /// The PUBREL again.
    Release(u16),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn publish(qos: QoS) -> OutboundPublish {
        let message = Message::new("a", "b", qos);
        OutboundPublish {
            message,
            qos,
            retain: false,
            subscription_ids: Vec::new(),
            expires: None,
            receipt: None,
        }
    }

    fn window(size: u16) -> Inflight {
        let mut inflight = Inflight::new();
        inflight.connected(size);
        inflight
    }

    fn resent(inflight: &mut Inflight) -> Vec<(u16, bool)> {
        let mut ids = Vec::new();
        while let Some(resend) = inflight.resend() {
            ids.push(match resend {
                Resend::Publish(id, _) => (id, true),
                Resend::Release(id) => (id, false),
            });
        }
        ids
    }

    #[test]
    fn the_window_is_honoured() {
        let mut inflight = window(2);
        for expected in [1, 2] {
            assert!(inflight.has_room());
            assert_eq!(inflight.send(publish(QoS::AtLeastOnce)).0, expected);
        }
        assert!(!inflight.has_room());
        assert!(inflight.finish(2, Stage::Acknowledged).is_some());
        assert!(inflight.has_room());
        assert!(inflight.finish(2, Stage::Acknowledged).is_none());
    }

    #[test]
    fn a_qos_2_message_holds_its_place_until_it_is_completed() {
        let mut inflight = window(1);
        inflight.send(publish(QoS::ExactlyOnce));
        assert!(inflight.finish(1, Stage::Acknowledged).is_none());
        assert!(inflight.receive(1).is_some());
        assert!(inflight.receive(1).is_none());
        assert!(inflight.releasing(1));
        assert!(!inflight.has_room());
        assert_eq!(inflight.finish(1, Stage::Completed).map(|released| released.weight), Some(0));
        assert!(inflight.has_room());
    }

    #[test]
    fn redelivery_keeps_order_stage_and_a_smaller_window() {
        let mut inflight = window(10);
        for _ in 0..4 {
            inflight.send(publish(QoS::ExactlyOnce));
        }
        inflight.receive(2);
        inflight.finish(1, Stage::Received);
        inflight.connected(2);
        assert!(!inflight.has_room());
        assert_eq!(resent(&mut inflight), [(2, false), (3, true)]);
        inflight.finish(2, Stage::Completed);
        assert_eq!(resent(&mut inflight), [(4, true)]);
        assert!(!inflight.has_room());
        inflight.finish(4, Stage::Received);
        assert!(inflight.has_room());
    }

    #[test]
    fn identifiers_skip_those_in_use_and_0() {
        let mut inflight = window(10);
        inflight.send(publish(QoS::AtLeastOnce));
        inflight.last_id = u16::MAX;
        assert_eq!(inflight.send(publish(QoS::AtLeastOnce)).0, 2);
    }
}
