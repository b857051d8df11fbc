//! What waits for one client: a bounded queue, then the window of messages in flight.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::BytesMut;
use tokio::time::Instant;

use crate::{
    config::Config,
    message::QoS,
    packet::{codec, outbound_publish::OutboundPublish},
    quotas::account::Account,
    reason::Reason,
    session::{
        inflight::{Finished, Inflight, Resend, Stage},
        receipt::Receipt,
        stored::{Charge, Keep, Queued, Stored, StoredMessage, WithoutRoom},
    },
    stats::{Counters, Tally, count},
    storage::{self, Key, OnDurable},
    version::Version,
};

/// How long expired messages may go on to fill a queue that was just looked through for others: looking takes as long
/// as the queue is, and must not be the price of each message.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Messages of one session that may be stored: each has one of 65 535 packet identifiers as long as it is.
const MAX_STORED: usize = 32_768;

pub(crate) struct Outbox {
    queue: VecDeque<Queued>,
    inflight: Inflight,
    /// Of the messages in both.
    bytes: usize,
    /// Who pays for them.
    account: Arc<Account>,
    /// Messages that were refused since the queue was empty: at QoS 0, and above it.
    refused: [u64; 2],
    /// No message in the queue expires before.
    next_expiry: Option<Instant>,
}

impl Outbox {
    pub fn new(account: Arc<Account>) -> Self {
        Self {
            queue: VecDeque::new(),
            inflight: Inflight::new(),
            bytes: 0,
            account,
            refused: [0; 2],
            next_expiry: None,
        }
    }

    /// Whether nothing waits and nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.inflight.is_empty()
    }

    /// Whether retained messages may be added for a new subscription, or what nobody misses: in the first quarter of
    /// the bounds, so that they never crowd out live ones, for which QoS 0 has half.
    pub fn has_room_for_retained(&self, config: &Config) -> bool {
        self.queue.len() < (config.session_queue_messages / 4).max(1)
            && self.bytes < config.session_queue_bytes / 4
    }

    /// A new connection: what is unfinished will be sent again.
    pub fn connected(&mut self, window: u16) {
        self.inflight.connected(window);
    }

    /// Queues a message, or refuses it: the oldest are kept, unless they have expired. QoS 0 goes first, at half of the
    /// bounds. With `keep` it is stored too, or waits in memory if that says so where the storage has no room.
    pub fn push(
        &mut self,
        publish: OutboundPublish,
        keep: Option<Keep<'_>>,
        config: &Config,
        counters: &Counters,
    ) -> Result<Place, Full> {
        let weight = publish.weight();
        let mut room = self.room(weight, publish.qos, keep.is_some(), config, counters);
        if room != Room::Enough {
            self.drop_expired(Instant::now(), counters);
            room = self.room(weight, publish.qos, keep.is_some(), config, counters);
        }
        let waits_in_memory =
            keep.as_ref().is_some_and(|keep| keep.storing.without_room() == WithoutRoom::InMemory);
        let (place, keep) = match (room, keep) {
            (Room::Enough, None) => (Place::InMemory, None),
            (Room::Enough, Some(keep)) => (Place::Stored, Some(keep)),
            (Room::NotStored, _) if waits_in_memory => (Place::Unstored, None),
            (room, _) => {
                let acknowledged = publish.qos != QoS::AtMostOnce;
                count(if acknowledged { &counters.dropped_queue_full } else { &counters.dropped_qos0_queue });
                let dropped = &mut self.refused[usize::from(acknowledged)];
                *dropped += 1;
                let unstored = room == Room::NotStored;
                return Err(Full { qos: publish.qos, dropped: *dropped, unstored });
            }
        };
        let stored = keep.map(|Keep { storage, session, storing }| {
            let id = self.inflight.reserve_id();
            let charge = Charge::new(&self.account, &counters.stored_bytes, weight);
            storing.deliver(storage, session, &publish, id, charge)
        });
        self.add(weight, counters);
        self.next_expiry = self.next_expiry.into_iter().chain(publish.expires).min();
        self.queue.push_back(Queued { publish, stored });
        Ok(place)
    }

    /// Takes over a message that an earlier process has queued: behind those before it, within the bounds of a session.
    /// Shares are counted and refuse nothing: they were granted in another order. What may have been sent by then, as
    /// far as `window` goes, is sent again. The error, if there is no room or another has its identifier, is its
    /// records.
    pub fn recover(
        &mut self,
        publish: OutboundPublish,
        mut stored: Stored,
        may_be_sent: bool,
        window: u16,
        config: &Config,
        counters: &Counters,
    ) -> Result<(), Vec<Key>> {
        let weight = publish.weight();
        if !self.fits(weight, publish.qos, config) || !self.inflight.reserve(stored.packet_id) {
            let mut keys = Vec::new();
            stored.into_all_keys(&mut keys);
            return Err(keys);
        }
        stored.charge(Charge::new(&self.account, &counters.stored_bytes, weight));
        self.add(weight, counters);
        let in_window = may_be_sent && self.queue.is_empty() && self.inflight.len() < usize::from(window);
        if in_window {
            self.inflight.recover(publish, stored);
        } else {
            self.next_expiry = self.next_expiry.into_iter().chain(publish.expires).min();
            self.queue.push_back(Queued { publish, stored: Some(stored) });
        }
        Ok(())
    }

    /// Takes over a message of which PUBREC came, and PUBCOMP did not; false if another has its identifier.
    pub fn recover_release(&mut self, id: u16, key: Key) -> bool {
        let is_free = self.inflight.reserve(id);
        if is_free {
            self.inflight.recover_release(id, key);
        }
        is_free
    }

    /// The storage has not taken a message: takes it out of the queue again.
    pub fn take_back(&mut self, message: &Arc<StoredMessage>, counters: &Counters) {
        let is_it = |queued: &Queued| queued.stored.as_ref().is_some_and(|stored| stored.is_of(message));
        let at = self.queue.iter().rposition(is_it);
        let Some(Queued { publish, stored }) = at.and_then(|at| self.queue.remove(at)) else { return };
        if let Some(stored) = stored {
            self.inflight.give_back(stored.packet_id);
        }
        self.forget(publish.weight(), 1, counters);
        count(&counters.dropped_queue_full);
    }

    fn add(&mut self, weight: usize, counters: &Counters) {
        self.bytes += weight;
        self.account.queued_bytes.add(weight);
        counters.queued_bytes.fetch_add(weight, Relaxed);
        counters.queued_messages.fetch_add(1, Relaxed);
    }

    /// Whether there is room for a message, also in the storage if it is to be stored.
    fn room(&self, weight: usize, qos: QoS, is_stored: bool, config: &Config, counters: &Counters) -> Room {
        // No identity may hold more than is left, in however many sessions, so that few that hoard messages leave room
        // for others; what many of them leave is next to nothing, and the reserve is for sessions that do not hoard.
        let left = config.max_queued_bytes.saturating_sub(counters.queued_bytes.load(Relaxed));
        let shares = self.account.queued_bytes.get() + weight <= left
            || self.bytes + weight <= config.session_reserve_bytes;
        if !shares || !self.fits(weight, qos, config) {
            return Room::Full;
        }
        let limit = config.max_stored_bytes;
        if is_stored && !Charge::fits(&self.account, &counters.stored_bytes, weight, limit) {
            return Room::NotStored;
        }
        Room::Enough
    }

    /// Whether a message is within the bounds of a session.
    fn fits(&self, weight: usize, qos: QoS, config: &Config) -> bool {
        let (mut messages, mut bytes) = (config.session_queue_messages, config.session_queue_bytes);
        if qos == QoS::AtMostOnce {
            messages /= 2;
            bytes /= 2;
        }
        self.queue.len() < messages
            && (self.bytes == 0 || self.bytes + weight <= bytes)
            && self.inflight.reserved() < MAX_STORED
    }

    /// Drops the messages in the queue that have expired, if any may have.
    pub fn drop_expired(&mut self, now: Instant, counters: &Counters) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        let (mut expired, mut weight, mut next) = (0, 0, None);
        let mut gone = Vec::new();
        self.queue.retain_mut(|Queued { publish, stored }| {
            let stays = !publish.expired(now);
            if stays {
                next = next.into_iter().chain(publish.expires).min();
            } else {
                expired += 1;
                weight += publish.weight();
                gone.extend(stored.take());
            }
            stays
        });
        self.next_expiry = next.map(|at: Instant| at.max(now + LOOK_AGAIN));
        counters.dropped_expired.fetch_add(expired as u64, Relaxed);
        self.forget(weight, expired, counters);
        self.remove_stored(gone);
    }

    /// Removes what sessions have stored of messages that are done with.
    fn remove_stored(&mut self, stored: impl IntoIterator<Item = Stored>) {
        let (mut keys, mut storage) = (Vec::new(), None);
        for stored in stored {
            self.inflight.give_back(stored.packet_id);
            storage.get_or_insert_with(|| stored.storage());
            stored.into_all_keys(&mut keys);
        }
        if let Some(storage) = storage {
            storage::remove(&*storage, &keys);
        }
    }

    /// Appends what may be sent now to `out`, until it holds `high` bytes or more. Returns how many messages were
    /// refused before the queue was empty, if that is now.
    pub fn fill(&mut self, to: Encoding, high: usize, counters: &Counters, out: &mut BytesMut) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let now = Instant::now();
        let mut sent = Tally::default();
        while out.len() < high {
            match self.inflight.resend() {
                // This connection takes less than the one before: as if it had been delivered
                // [MQTT-3.1.2-25].
                Some(Resend::Publish(id, publish)) if publish.packet_size(to.version) > to.max_packet => {
                    let stage = Stage::first(publish.qos);
                    count(&counters.dropped_oversize);
                    if let Some(Finished { weight, stored, .. }) = self.inflight.finish(id, stage) {
                        self.forget(weight, 1, counters);
                        self.remove_stored(stored);
                    }
                    continue;
                }
                Some(Resend::Publish(id, publish)) => {
                    publish.encode(to.version, id, true, now, out);
                    sent.message(publish.message.payload.len());
                    continue;
                }
                Some(Resend::Release(id)) => {
                    codec::pubrel(id, Reason::Success, to.version, out);
                    sent.packets(1);
                    continue;
                }
                None => {}
            }
            match self.queue.front() {
                None => break,
                Some(queued) if !queued.may_be_sent() => break,
                Some(queued) if queued.publish.qos != QoS::AtMostOnce && !self.inflight.has_room() => break,
                Some(_) => {}
            }
            let Some(queued) = self.queue.pop_front() else { break };
            let publish = &queued.publish;
            if publish.expired(now) {
                count(&counters.dropped_expired);
            } else if publish.packet_size(to.version) > to.max_packet {
                // It was queued for a connection that took more, or for none.
                count(&counters.dropped_oversize);
            } else {
                sent.message(publish.message.payload.len());
                if publish.qos != QoS::AtMostOnce {
                    let (id, publish) = self.inflight.send(queued);
                    publish.encode(to.version, id, false, now, out);
                    continue;
                }
                publish.encode(to.version, 0, false, now, out);
            }
            self.forget(publish.weight(), 1, counters);
            self.remove_stored(queued.stored);
        }
        counters.sent.add(&sent);
        if !self.queue.is_empty() {
            return 0;
        }
        self.next_expiry = None;
        if self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        std::mem::take(&mut self.refused).iter().sum()
    }

    /// PUBACK, PUBCOMP or a refusing PUBREC.
    pub fn finish(&mut self, id: u16, stage: Stage, counters: &Counters) -> Settled {
        let Some(Finished { weight, receipt, stored, release }) = self.inflight.finish(id, stage) else {
            return Settled::unknown();
        };
        self.forget(weight, usize::from(stage != Stage::Completed), counters);
        let mut keys = Vec::from_iter(release);
        let withdrawn = stored.and_then(|stored| stored.finish(&mut keys));
        Settled { is_known: true, keys, receipt, withdrawn }
    }

    /// PUBREC. One that comes twice is answered twice.
    pub fn receive(&mut self, id: u16, counters: &Counters) -> (Settled, Release) {
        let Some(Finished { weight, receipt, stored, .. }) = self.inflight.receive(id) else {
            let releasing = self.inflight.releasing(id);
            let release = if releasing == Some(false) { Release::WhenDurable } else { Release::Now };
            return (Settled { is_known: releasing.is_some(), ..Settled::unknown() }, release);
        };
        self.forget(weight, 1, counters);
        let (mut keys, mut release) = (Vec::new(), Release::Now);
        if let Some(stored) = stored {
            release = Release::WhenDurable;
            stored.into_keys(&mut keys);
        }
        (Settled { is_known: true, keys, receipt, withdrawn: None }, release)
    }

    /// It is durable that PUBREC came; says whether PUBREL is to be sent now.
    pub fn received_durably(&mut self, id: u16) -> bool {
        self.inflight.received_durably(id)
    }

    /// The session has ended: nothing waits any more. Adds the keys of what is stored.
    pub fn clear(&mut self, keys: &mut Vec<Key>, counters: &Counters) {
        let messages = self.queue.len() + self.inflight.unfinished();
        self.forget(self.bytes, messages, counters);
        for stored in self.queue.drain(..).filter_map(|queued| queued.stored) {
            stored.into_all_keys(keys);
        }
        self.inflight.take_keys(keys);
        *self = Self::new(self.account.clone());
    }

    fn forget(&mut self, weight: usize, messages: usize, counters: &Counters) {
        self.bytes -= weight;
        self.account.queued_bytes.subtract(weight);
        counters.queued_bytes.fetch_sub(weight, Relaxed);
        counters.queued_messages.fetch_sub(messages, Relaxed);
    }
}

/// What an acknowledgement of the client's was for.
#[must_use = "whoever waits for a receipt gets it"]
pub(crate) struct Settled {
    /// False if it fits nothing.
    pub is_known: bool,
    /// Records that are to be removed.
    pub keys: Vec<Key>,
    /// To be given, outside of the session's lock.
    pub receipt: Option<Receipt>,
    /// Who has waited for the message to be durable, which it need not be any more. To be told in the same way.
    pub withdrawn: Option<OnDurable>,
}

impl Settled {
    fn unknown() -> Self {
        Self { is_known: false, keys: Vec::new(), receipt: None, withdrawn: None }
    }
}

/// When PUBREL is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    Now,
    /// When it is durable that PUBREC came.
    WhenDurable,
}

/// Whether there is room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    /// In the queue, and not in the storage.
    NotStored,
    Full,
}

/// Where a message is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    InMemory,
    /// It is to be handed over to the storage.
    Stored,
    /// In memory, since its identity has no room in the storage.
    Unstored,
}

/// The queue did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// At which it was to be sent.
    pub qos: QoS,
    /// There was room, but none in the storage.
    pub unstored: bool,
    /// How many it has not taken since it was empty, this one included: at QoS 0, or above it.
    pub dropped: u64,
}

impl Full {
    /// Worth a line in the log: the first, and then each that makes the number ten times as large.
    pub fn is_news(self) -> bool {
        10u64.pow(self.dropped.ilog10()) == self.dropped
    }
}

/// How packets are encoded for a connection: its version, and bytes of the largest that its client takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    pub version: Version,
    pub max_packet: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::Message, quotas::account::Accounts};

    /// The outbox of a session of its own identity.
    fn outbox() -> Outbox {
        Outbox::new(account())
    }

    fn account() -> Arc<Account> {
        Accounts::default().of(None, [192, 0, 2, 1].into())
    }

    fn publish(payload: &str, qos: QoS) -> OutboundPublish {
        let message = Message::new("a", payload.to_owned(), qos);
        OutboundPublish {
            message,
            qos,
            retain: false,
            subscription_ids: Vec::new(),
            expires: None,
            receipt: None,
        }
    }

    const TO: Encoding = Encoding { version: Version::V311, max_packet: 100 };

    fn packets(outbox: &mut Outbox, counters: &Counters) -> usize {
        let mut out = BytesMut::new();
        outbox.fill(TO, usize::MAX, counters, &mut out);
        // Each packet here has seven or eight bytes: header 2, topic 3, identifier 2, payload 1.
        out.iter().filter(|&&byte| byte & 0xF0 == 0x30 && byte != b'1').count()
    }

    #[test]
    fn bounds_hold_and_qos_0_goes_first() {
        let config = Config { session_queue_messages: 4, ..Config::default() };
        let counters = Counters::default();
        let mut outbox = outbox();
        for _ in 0..3 {
            let _ = outbox.push(publish("q", QoS::AtMostOnce), None, &config, &counters);
        }
        for _ in 0..3 {
            let _ = outbox.push(publish("q", QoS::AtLeastOnce), None, &config, &counters);
        }
        let stats = counters.snapshot();
        assert_eq!((stats.queued_messages, stats.dropped.qos0_queue, stats.dropped.queue_full), (4, 1, 1));
        outbox.clear(&mut Vec::new(), &counters);
        let stats = counters.snapshot();
        assert_eq!((stats.queued_messages, stats.queued_bytes), (0, 0));
    }

    #[test]
    fn refusals_are_counted_at_each_level_until_the_queue_is_empty() {
        let config = Config { session_queue_messages: 2, ..Config::default() };
        let counters = Counters::default();
        let mut outbox = outbox();
        outbox.connected(10);
        let push = |outbox: &mut Outbox, qos| outbox.push(publish("q", qos), None, &config, &counters);
        let full = |qos, dropped| Err(Full { qos, dropped, unstored: false });
        for _ in 0..2 {
            assert_eq!(push(&mut outbox, QoS::AtMostOnce), Ok(Place::InMemory));
            assert_eq!(push(&mut outbox, QoS::AtMostOnce), full(QoS::AtMostOnce, 1));
            assert_eq!(push(&mut outbox, QoS::AtLeastOnce), Ok(Place::InMemory));
            assert_eq!(push(&mut outbox, QoS::ExactlyOnce), full(QoS::ExactlyOnce, 1));
            assert_eq!(push(&mut outbox, QoS::AtLeastOnce), full(QoS::AtLeastOnce, 2));
            assert_eq!(push(&mut outbox, QoS::AtMostOnce), full(QoS::AtMostOnce, 2));
            packets(&mut outbox, &counters);
        }
    }

    #[test]
    fn refusals_are_news_at_powers_of_ten() {
        let news: Vec<u64> = (1..=1_000)
            .filter(|&dropped| Full { qos: QoS::AtLeastOnce, dropped, unstored: false }.is_news())
            .collect();
        assert_eq!(news, [1, 10, 100, 1_000]);
    }

    #[test]
    fn what_has_expired_makes_room_whatever_bound_it_fills() {
        let weight = publish("q", QoS::AtLeastOnce).weight();
        let defaults = Config { session_reserve_bytes: 0, ..Config::default() };
        for config in [
            Config { session_queue_messages: 6, ..defaults.clone() },
            Config { session_queue_bytes: 6 * weight, ..defaults.clone() },
            Config { max_queued_bytes: 6 * weight, ..defaults },
        ] {
            let counters = Counters::default();
            let mut outbox = outbox();
            let now = Instant::now();
            let fill = |outbox: &mut Outbox, expires| {
                let of = |at: usize| if at.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                let expiring = |at| OutboundPublish { expires, ..publish("q", of(at)) };
                (0..20).filter(|&at| outbox.push(expiring(at), None, &config, &counters).is_ok()).count()
            };
            // Nothing that may still be delivered makes room for another, what has expired does at both levels.
            let filled = fill(&mut outbox, Some(now + Duration::from_secs(1_000)));
            assert_eq!(fill(&mut outbox, None), 0);
            outbox.clear(&mut Vec::new(), &counters);
            assert_eq!(fill(&mut outbox, Some(now)), 20, "each has expired when the next one comes");
            outbox.drop_expired(now + LOOK_AGAIN, &counters);
            assert_eq!((fill(&mut outbox, None), outbox.queue.len()), (filled, filled));
            outbox.clear(&mut Vec::new(), &counters);
            assert_eq!((counters.snapshot().queued_bytes, outbox.account.queued_bytes.get()), (0, 0));
        }
    }

    #[test]
    fn those_that_hoard_leave_room_for_others() {
        let weight = publish("q", QoS::AtLeastOnce).weight();
        let mut config = Config { max_queued_bytes: 100 * weight, ..Config::default() };
        config.session_reserve_bytes = 0;
        let counters = Counters::default();
        let mut hoarders: Vec<_> = (0..9).map(|_| outbox()).collect();
        let push =
            |outbox: &mut Outbox| outbox.push(publish("q", QoS::AtLeastOnce), None, &config, &counters);
        for _ in 0..100 {
            for hoarder in &mut hoarders {
                let _ = push(hoarder);
            }
        }
        assert!(push(&mut hoarders[0]).is_err());
        assert_eq!(push(&mut outbox()), Ok(Place::InMemory));
        let stats = counters.snapshot();
        assert!((80..=100).contains(&stats.queued_messages), "{}", stats.queued_messages);
    }

    #[test]
    fn those_that_hoard_one_after_the_other_leave_the_reserve() {
        let weight = publish("q", QoS::AtLeastOnce).weight();
        let config =
            Config { max_queued_bytes: 100 * weight, session_reserve_bytes: 2 * weight, ..Config::default() };
        let counters = Counters::default();
        let push =
            |outbox: &mut Outbox| outbox.push(publish("q", QoS::AtLeastOnce), None, &config, &counters);
        for _ in 0..50 {
            let mut hoarder = outbox();
            while push(&mut hoarder).is_ok() {}
        }
        let mut honest = outbox();
        assert_eq!(
            [push(&mut honest), push(&mut honest), push(&mut honest)],
            [
                Ok(Place::InMemory),
                Ok(Place::InMemory),
                Err(Full { qos: QoS::AtLeastOnce, dropped: 1, unstored: false })
            ]
        );
        assert!(counters.snapshot().queued_messages <= 100 + 51 * 2);
    }

    #[test]
    fn the_sessions_of_one_identity_share_what_one_may_hold() {
        let weight = publish("q", QoS::AtLeastOnce).weight();
        let mut config = Config { max_queued_bytes: 100 * weight, ..Config::default() };
        config.session_reserve_bytes = 0;
        let counters = Counters::default();
        let hoarder = account();
        let mut sessions: Vec<_> = (0..50).map(|_| Outbox::new(hoarder.clone())).collect();
        let push = |outbox: &mut Outbox| {
            outbox.push(publish("q", QoS::AtLeastOnce), None, &config, &counters).is_ok()
        };
        let held = sessions.iter_mut().map(|session| (0..10).filter(|_| push(session)).count()).sum();
        assert_eq!((50, 50 * weight), (held, hoarder.queued_bytes.get()));
        assert!(push(&mut outbox()));
        for session in &mut sessions {
            session.clear(&mut Vec::new(), &counters);
        }
        assert_eq!(hoarder.queued_bytes.get(), 0);
    }

    #[test]
    fn the_account_is_balanced_when_all_is_acknowledged() {
        let config = Config::default();
        let counters = Counters::default();
        let mut outbox = outbox();
        outbox.connected(2);
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce, QoS::AtLeastOnce] {
            outbox.push(publish("q", qos), None, &config, &counters).unwrap();
        }
        assert_eq!(packets(&mut outbox, &counters), 3); // QoS 0 does not count against the window
        assert!(outbox.finish(1, Stage::Acknowledged, &counters).is_known);
        assert!(outbox.receive(2, &counters).0.is_known);
        assert!(outbox.receive(2, &counters).0.is_known);
        assert_eq!(packets(&mut outbox, &counters), 1);
        assert!(outbox.finish(2, Stage::Completed, &counters).is_known);
        assert!(outbox.finish(3, Stage::Acknowledged, &counters).is_known);
        assert!(!outbox.finish(3, Stage::Acknowledged, &counters).is_known);
        let stats = counters.snapshot();
        assert_eq!((stats.queued_messages, stats.queued_bytes, stats.messages_sent), (0, 0, 4));
    }
}
