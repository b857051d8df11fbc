//! QoS 1 and 2 messages that were sent to a client and are not finished (sections 4.3 and 4.9).

use std::collections::{HashSet, VecDeque};

use crate::{
    message::QoS,
    packet::outbound_publish::OutboundPublish,
    session::{
        receipt::Receipt,
        stored::{Queued, Stored},
    },
    storage::Key,
};

/// The window, in the order of first sending, which redelivery keeps [MQTT-4.6.0-1].
pub(crate) struct Inflight {
    entries: VecDeque<Entry>,
    /// How many entries, from the front, were sent on this connection.
    sent: usize,
    window: usize,
    last_id: u16,
    /// Identifiers of messages that are stored, in the window or before it.
    reserved: HashSet<u16>,
}

impl Inflight {
    pub fn new() -> Self {
        Self { entries: VecDeque::new(), sent: 0, window: 0, last_id: 0, reserved: HashSet::new() }
    }

    /// An identifier for a message that is stored before it is sent, until it is given back.
    pub fn reserve_id(&mut self) -> u16 {
        let id = self.free_id();
        self.reserved.insert(id);
        id
    }

    /// Takes over an identifier that an earlier process has reserved; false if another message has it.
    pub fn reserve(&mut self, id: u16) -> bool {
        self.last_id = id;
        self.reserved.insert(id)
    }

    /// A message with a reserved identifier is done with.
    pub fn give_back(&mut self, id: u16) {
        self.reserved.remove(&id);
        if self.reserved.is_empty() {
            self.reserved = HashSet::new();
        }
    }

    /// Identifiers that are reserved.
    pub fn reserved(&self) -> usize {
        self.reserved.len()
    }

    /// A new connection allows `window` messages at a time; nothing was sent on it yet.
    pub fn connected(&mut self, window: u16) {
        self.window = window.into();
        self.sent = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages of the window.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Messages that are still held, those waiting for PUBCOMP not among them.
    pub fn unfinished(&self) -> usize {
        self.entries.iter().filter(|entry| entry.publish.is_some()).count()
    }

    /// What an earlier connection left unfinished comes before anything new.
    pub fn resend(&mut self) -> Option<Resend<'_>> {
        loop {
            if self.sent >= self.window {
                return None;
            }
            let at = self.sent;
            let entry = self.entries.get(at)?;
            self.sent += 1;
            // PUBREL is sent when it is durable that it may be.
            if entry.publish.is_some() || entry.release.is_none_or(|release| release.durable) {
                break;
            }
        }
        let entry = self.entries.get(self.sent - 1)?;
        Some(match &entry.publish {
            Some(publish) => Resend::Publish(entry.id, publish),
            None => Resend::Release(entry.id),
        })
    }

    /// True if a new message may be sent.
    pub fn has_room(&self) -> bool {
        self.sent == self.entries.len() && self.sent < self.window
    }

    /// Takes a message that is being sent and gives it its packet identifier, unless it has one. There must be room.
    pub fn send(&mut self, Queued { publish, stored }: Queued) -> (u16, &OutboundPublish) {
        let id = stored.as_ref().map_or_else(|| self.free_id(), |stored| stored.packet_id);
        let stage = Stage::first(publish.qos);
        self.sent += 1;
        self.entries.push_back(Entry { id, stage, publish: None, stored, release: None });
        let entry = self.entries.back_mut().expect("an entry was just added");
        (id, entry.publish.insert(publish))
    }

    /// Takes over a message that an earlier process may have sent.
    pub fn recover(&mut self, publish: OutboundPublish, stored: Stored) {
        let (id, stage) = (stored.packet_id, Stage::first(publish.qos));
        self.entries.push_back(Entry {
            id,
            stage,
            publish: Some(publish),
            stored: Some(stored),
            release: None,
        });
    }

    /// Takes over a message of which an earlier process has got PUBREC.
    pub fn recover_release(&mut self, id: u16, key: Key) {
        let release = Some(Release { key, durable: true });
        self.entries.push_back(Entry { id, stage: Stage::Completed, publish: None, stored: None, release });
    }

    /// Identifiers go round, so that one is not used again as soon as it is free.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            if !self.reserved.contains(&id) && self.entries.iter().all(|entry| entry.id != id) {
                return id;
            }
        }
    }

    /// The client finished with a message that waited for `stage`: PUBACK, PUBCOMP, or a refusing PUBREC.
    /// `None` if there is no such message.
    pub fn finish(&mut self, id: u16, stage: Stage) -> Option<Finished> {
        let at = self.position(id, stage)?;
        let Entry { publish, stored, release, .. } = self.entries.remove(at)?;
        self.sent -= usize::from(at < self.sent);
        if stored.is_some() || release.is_some() {
            self.give_back(id);
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
        let release = release.map(|release| release.key);
        Some(Finished { stored, release, ..Finished::of(publish) })
    }

    /// PUBREC came: PUBREL is due. `None` if there is no such message; what it held otherwise.
    pub fn receive(&mut self, id: u16) -> Option<Finished> {
        let at = self.position(id, Stage::Received)?;
        let entry = &mut self.entries[at];
        entry.stage = Stage::Completed;
        let stored = entry.stored.take();
        let key = stored.as_ref().and_then(Stored::release);
        entry.release = key.map(|key| Release { key, durable: false });
        Some(Finished { stored, ..Finished::of(entry.publish.take()) })
    }

    /// It is durable that PUBREC came; says whether PUBREL is to be sent now.
    pub fn received_durably(&mut self, id: u16) -> bool {
        let Some(at) = self.position(id, Stage::Completed) else { return false };
        let Some(release) = &mut self.entries[at].release else { return false };
        !std::mem::replace(&mut release.durable, true) && at < self.sent
    }

    /// Adds the keys of all that is stored.
    pub fn take_keys(&mut self, keys: &mut Vec<Key>) {
        for Entry { stored, release, .. } in self.entries.drain(..) {
            keys.extend(release.map(|release| release.key));
            if let Some(stored) = stored {
                stored.into_all_keys(keys);
            }
        }
    }

    /// Whether PUBREL was sent for this identifier and PUBCOMP has not come; `None` if it was never due.
    pub fn releasing(&self, id: u16) -> Option<bool> {
        let at = self.position(id, Stage::Completed)?;
        Some(self.entries[at].release.is_none_or(|release| release.durable))
    }

    fn position(&self, id: u16, stage: Stage) -> Option<usize> {
        // Clients acknowledge in order, so it is nearly always the first.
        self.entries.iter().position(|entry| entry.id == id && entry.stage == stage)
    }
}

struct Entry {
    id: u16,
    stage: Stage,
    publish: Option<OutboundPublish>,
    /// Where the message is stored.
    stored: Option<Stored>,
    /// Where it is stored that PUBREL is due.
    release: Option<Release>,
}

#[derive(Clone, Copy)]
struct Release {
    key: Key,
    durable: bool,
}

/// What a message held that is done with.
pub(crate) struct Finished {
    /// Bytes of the queue.
    pub weight: usize,
    /// To be given, outside of the session's lock.
    pub receipt: Option<Receipt>,
    pub stored: Option<Stored>,
    pub release: Option<Key>,
}

impl Finished {
    fn of(publish: Option<OutboundPublish>) -> Self {
        let (weight, receipt) = publish.map_or((0, None), |publish| (publish.weight(), publish.receipt));
        Self { weight, receipt, stored: None, release: None }
    }
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

    fn publish(qos: QoS) -> Queued {
        let message = Message::new("a", "b", qos);
        let publish = OutboundPublish {
            message,
            qos,
            retain: false,
            subscription_ids: Vec::new(),
            expires: None,
            receipt: None,
        };
        Queued { publish, stored: None }
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
        assert_eq!(inflight.releasing(1), Some(true));
        assert!(!inflight.has_room());
        assert!(inflight.finish(1, Stage::Completed).is_some_and(|finished| finished.weight == 0));
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
