//! The acknowledgements that are due to a client for what it has published: in the order of the publishes
//! [MQTT-4.6.0-2], whenever each of them is decided, and QoS 2 messages once only.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use crate::{message::QoS, quotas::account::Account, reason::Reason, storage::Key};

/// Bytes that the identifier of a QoS 2 message takes until it is released, with what its table keeps free.
pub(crate) const IDENTIFIER_BYTES: usize = 96;

/// Numbers the publishes of a session, beyond the reuse of packet identifiers.
pub(crate) type PublishNumber = u64;

#[derive(Default)]
pub(crate) struct Incoming {
    /// What this connection's client waits for, in the order of its publishes.
    pending: VecDeque<Pending>,
    /// The number of the first in `pending`; those behind it count up.
    first: PublishNumber,
    /// QoS 2 messages between PUBLISH and PUBREL, which outlive the connection.
    unreleased: HashMap<u16, Unreleased>,
    /// Whom each in `unreleased` is charged to.
    payer: Option<Arc<Account>>,
    /// QoS 1 and 2 publishes of this connection that count against Receive Maximum.
    used: usize,
}

impl Incoming {
    /// Publishes whose acknowledgement is not decided, or waits for one before it.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Publishes of this connection that count against Receive Maximum (section 4.9).
    pub fn used(&self) -> usize {
        self.used
    }

    /// QoS 2 messages whose PUBREL has not come.
    pub fn unreleased(&self) -> usize {
        self.unreleased.len()
    }

    /// Whether a QoS 2 message of this identifier was received and not released.
    pub fn holds(&self, id: u16) -> bool {
        self.unreleased.contains_key(&id)
    }

    /// Takes note of a PUBLISH. A repeated one gets its PUBREC in the same order.
    pub fn accept(&mut self, id: u16, qos: QoS, bounds: &Bounds<'_>) -> Accepted {
        let number = self.first + self.pending.len() as u64;
        let mut pending = Pending { id, qos, decision: None };
        if qos == QoS::AtLeastOnce {
            self.used += 1;
            self.pending.push_back(pending);
            return Accepted::New(number);
        }
        self.charge_to(bounds.account);
        let full = self.unreleased.len() >= bounds.session;
        match self.unreleased.entry(id) {
            Entry::Vacant(_)
                if full || !bounds.account.unreleased.try_add(IDENTIFIER_BYTES, bounds.account_bytes) =>
            {
                pending.decision = Some(Decision::Tell(Reason::QuotaExceeded));
                self.pending.push_back(pending);
                Accepted::Refused
            }
            Entry::Vacant(entry) => {
                entry.insert(Unreleased {
                    number,
                    waits: Some(number),
                    received: false,
                    counted: true,
                    record: None,
                });
                self.used += 1;
                self.pending.push_back(pending);
                Accepted::New(number)
            }
            Entry::Occupied(mut entry) => {
                let message = entry.get_mut();
                if !message.counted {
                    message.counted = true;
                    self.used += 1;
                }
                if message.received {
                    pending.decision = Some(Decision::Tell(Reason::Success));
                    self.pending.push_back(pending);
                } else if message.waits.is_none() {
                    message.waits = Some(number);
                    self.pending.push_back(pending);
                }
                Accepted::Repeated
            }
        }
    }

    /// The last publish was refused, and its refusal is not to be told: 3.1.1 would take it for a promise.
    pub fn withdraw_last(&mut self) {
        self.pending.pop_back();
    }

    /// From now on this account pays: a session without a user may be continued from another address.
    fn charge_to(&mut self, account: &Arc<Account>) {
        if self.payer.as_ref().is_some_and(|payer| Arc::ptr_eq(payer, account)) {
            return;
        }
        let bytes = self.unreleased.len() * IDENTIFIER_BYTES;
        account.unreleased.add(bytes);
        if let Some(former) = self.payer.replace(account.clone()) {
            former.unreleased.subtract(bytes);
        }
    }

    /// This number of identifiers was forgotten.
    fn forgotten(&self, identifiers: usize) {
        if let Some(payer) = &self.payer {
            payer.unreleased.subtract(identifiers * IDENTIFIER_BYTES);
        }
    }

    /// Decides the acknowledgement of a publish; without effect if its connection is gone and it was QoS 1. `record` is
    /// where the identifier of a QoS 2 message is stored; handed back if that is needed no longer.
    pub fn decide(
        &mut self,
        number: PublishNumber,
        id: u16,
        qos: QoS,
        reason: Reason,
        record: Option<Key>,
    ) -> Option<Key> {
        self.settle(number, id, qos, Decision::Tell(reason), record)
    }

    /// Decides that a publish is not acknowledged, and not known when it comes again: it is not safe.
    pub fn withhold(&mut self, number: PublishNumber, id: u16, qos: QoS) {
        self.settle(number, id, qos, Decision::Withhold, None);
    }

    fn settle(
        &mut self,
        number: PublishNumber,
        id: u16,
        qos: QoS,
        decision: Decision,
        mut record: Option<Key>,
    ) -> Option<Key> {
        let mut waits = Some(number);
        if qos == QoS::ExactlyOnce
            && let Entry::Occupied(mut entry) = self.unreleased.entry(id)
            && entry.get().number == number
        {
            let message = entry.get_mut();
            waits = message.waits.take();
            message.received = true;
            if decision.is_refusal() {
                // A refused message is finished.
                self.used -= usize::from(message.counted);
                entry.remove();
                self.forgotten(1);
            } else {
                message.record = record.take();
            }
        }
        let at = waits.and_then(|number| number.checked_sub(self.first));
        if let Some(pending) = at.and_then(|at| self.pending.get_mut(at as usize)) {
            pending.decision = Some(decision);
        }
        record
    }

    /// Takes over the identifier of a QoS 2 message that an earlier process has received; false if there is no room.
    pub fn recover(&mut self, id: u16, record: Key, bounds: &Bounds<'_>) -> bool {
        self.charge_to(bounds.account);
        let full = self.unreleased.len() >= bounds.session;
        let Entry::Vacant(entry) = self.unreleased.entry(id) else { return false };
        if full || !bounds.account.unreleased.try_add(IDENTIFIER_BYTES, bounds.account_bytes) {
            return false;
        }
        // A number that no publish has.
        let number = PublishNumber::MAX;
        entry.insert(Unreleased {
            number,
            waits: None,
            received: true,
            counted: false,
            record: Some(record),
        });
        true
    }

    /// Adds the keys of all that is stored.
    pub fn keys(&self, keys: &mut Vec<Key>) {
        keys.extend(self.unreleased.values().filter_map(|message| message.record));
    }

    /// The next acknowledgement that may be sent.
    pub fn next_decided(&mut self) -> Option<Decided> {
        loop {
            let decision = self.pending.front()?.decision?;
            let Pending { id, qos, .. } = self.pending.pop_front()?;
            self.first += 1;
            if qos == QoS::AtLeastOnce {
                self.used -= 1;
            }
            if self.pending.is_empty() && self.pending.capacity() > 64 {
                self.pending = VecDeque::new();
            }
            if let Decision::Tell(reason) = decision {
                return Some(Decided { id, qos, reason });
            }
        }
    }

    /// PUBREL came.
    pub fn release(&mut self, id: u16) -> Released {
        let Some(message) = self.unreleased.remove(&id) else {
            return Released { known: false, record: None };
        };
        self.used -= usize::from(message.counted);
        self.forgotten(1);
        if self.unreleased.is_empty() {
            self.unreleased = HashMap::new();
        }
        Released { known: true, record: message.record }
    }

    /// The connection is gone: what it waited for need not be sent, but QoS 2 messages stay known.
    pub fn disconnected(&mut self) {
        self.first += self.pending.len() as u64;
        self.pending = VecDeque::new();
        self.used = 0;
        for message in self.unreleased.values_mut() {
            message.waits = None;
            message.counted = false;
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.forgotten(self.unreleased.len());
    }
}

/// What to do with a QoS 1 or 2 PUBLISH that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// Hand it on; its acknowledgement is decided under this number.
    New(PublishNumber),
    /// A QoS 2 message that was handed on before.
    Repeated,
    /// A QoS 2 message whose identifier there is no room to remember: not to be handed on. Its PUBREC says so.
    Refused,
}

/// What PUBREL has come for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// Such a message was held.
    pub known: bool,
    /// Where its identifier is stored.
    pub record: Option<Key>,
}

/// What bounds the QoS 2 identifiers that a session remembers.
pub(crate) struct Bounds<'a> {
    /// Who pays for them.
    pub account: &'a Arc<Account>,
    /// Identifiers of this session.
    pub session: usize,
    /// Bytes of those of all sessions of the account.
    pub account_bytes: usize,
}

/// An acknowledgement that may be sent: PUBACK or PUBREC by the QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    pub id: u16,
    pub qos: QoS,
    pub reason: Reason,
}

struct Pending {
    id: u16,
    qos: QoS,
    decision: Option<Decision>,
}

/// What the client is told.
#[derive(Clone, Copy)]
enum Decision {
    Tell(Reason),
    /// Nothing.
    Withhold,
}

impl Decision {
    /// Nothing follows the PUBREC of a message that was refused (section 4.3.3), and no other one is known by it.
    fn is_refusal(self) -> bool {
        match self {
            Decision::Tell(reason) => reason.is_error(),
            Decision::Withhold => true,
        }
    }
}

struct Unreleased {
    /// Of the publish that was handed on.
    number: PublishNumber,
    /// Which entry of `pending` this connection's client waits for, if PUBREC is still due.
    waits: Option<PublishNumber>,
    received: bool,
    /// Counted in `used`.
    counted: bool,
    /// Where it is stored.
    record: Option<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotas::account::Holder;

    fn account() -> Arc<Account> {
        Arc::new(Account::new(Holder::User("anna".into())))
    }

    fn accept(incoming: &mut Incoming, id: u16, qos: QoS) -> Accepted {
        let account = incoming.payer.clone().unwrap_or_else(account);
        incoming.accept(id, qos, &Bounds { account: &account, session: 10, account_bytes: usize::MAX })
    }

    #[test]
    fn identifiers_that_are_not_released_are_bounded_by_session_and_by_identity() {
        let account = account();
        let mut sessions = [Incoming::default(), Incoming::default()];
        let bounds = Bounds { account: &account, session: 3, account_bytes: 5 * IDENTIFIER_BYTES };
        let mut accepted = [0; 2];
        for (incoming, accepted) in sessions.iter_mut().zip(&mut accepted) {
            for id in 1..=5 {
                // Each on a connection of its own, none of them released.
                match incoming.accept(id, QoS::ExactlyOnce, &bounds) {
                    Accepted::New(number) => {
                        incoming.decide(number, id, QoS::ExactlyOnce, Reason::Success, None);
                        *accepted += 1;
                    }
                    refused => assert_eq!(refused, Accepted::Refused),
                }
                let decided = incoming.next_decided().unwrap();
                assert_eq!((decided.id, decided.reason.is_error()), (id, *accepted < usize::from(id)));
                incoming.disconnected();
            }
        }
        assert_eq!((accepted, account.unreleased.get()), ([3, 2], 5 * IDENTIFIER_BYTES));
        // What was received before is known in any case, and what is released makes room.
        assert_eq!(sessions[0].accept(1, QoS::ExactlyOnce, &bounds), Accepted::Repeated);
        assert!(sessions[0].release(1).known);
        assert!(matches!(sessions[1].accept(9, QoS::ExactlyOnce, &bounds), Accepted::New(_)));
        // From another address, another pays; when the session ends, nobody.
        let other = self::account();
        let elsewhere = Bounds { account: &other, ..bounds };
        assert_eq!(sessions[1].accept(1, QoS::ExactlyOnce, &elsewhere), Accepted::Repeated);
        let bytes = |of: &Account| of.unreleased.get() / IDENTIFIER_BYTES;
        assert_eq!((bytes(&account), bytes(&other)), (2, 3));
        drop(sessions);
        assert_eq!((bytes(&account), bytes(&other)), (0, 0));
    }

    fn new(incoming: &mut Incoming, id: u16, qos: QoS) -> PublishNumber {
        match accept(incoming, id, qos) {
            Accepted::New(number) => number,
            other => panic!("{id} is {other:?}"),
        }
    }

    fn sent(incoming: &mut Incoming) -> Vec<u16> {
        std::iter::from_fn(|| incoming.next_decided()).map(|decided| decided.id).collect()
    }

    #[test]
    fn acknowledgements_keep_the_order_of_the_publishes() {
        let mut incoming = Incoming::default();
        let numbers: Vec<_> = (1..=4).map(|id| new(&mut incoming, id, QoS::AtLeastOnce)).collect();
        incoming.decide(numbers[2], 3, QoS::AtLeastOnce, Reason::Success, None);
        incoming.decide(numbers[1], 2, QoS::AtLeastOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [] as [u16; 0]);
        incoming.decide(numbers[0], 1, QoS::AtLeastOnce, Reason::QuotaExceeded, None);
        assert_eq!(sent(&mut incoming), [1, 2, 3]);
        assert_eq!(incoming.used(), 1);
    }

    #[test]
    fn a_qos_2_message_is_new_once_until_it_is_released() {
        let mut incoming = Incoming::default();
        let number = new(&mut incoming, 9, QoS::ExactlyOnce);
        assert_eq!(accept(&mut incoming, 9, QoS::ExactlyOnce), Accepted::Repeated);
        incoming.decide(number, 9, QoS::ExactlyOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [9]);
        assert_eq!(accept(&mut incoming, 9, QoS::ExactlyOnce), Accepted::Repeated);
        assert_eq!(sent(&mut incoming), [9]);
        assert_eq!(incoming.used(), 1);
        assert!(incoming.release(9).known);
        assert!(!incoming.release(9).known);
        assert_eq!(incoming.used(), 0);
        new(&mut incoming, 9, QoS::ExactlyOnce);
    }

    #[test]
    fn a_qos_2_message_decided_after_reconnecting_is_acknowledged_to_its_repetition() {
        let mut incoming = Incoming::default();
        let number = new(&mut incoming, 9, QoS::ExactlyOnce);
        incoming.disconnected();
        assert_eq!(incoming.used(), 0);
        new(&mut incoming, 1, QoS::AtLeastOnce);
        assert_eq!(accept(&mut incoming, 9, QoS::ExactlyOnce), Accepted::Repeated);
        incoming.decide(number, 9, QoS::ExactlyOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [] as [u16; 0]);
        incoming.decide(number + 1, 1, QoS::AtLeastOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [1, 9]);
        assert_eq!(incoming.used(), 1);
    }

    #[test]
    fn a_refused_qos_2_message_is_finished() {
        let mut incoming = Incoming::default();
        let number = new(&mut incoming, 9, QoS::ExactlyOnce);
        incoming.decide(number, 9, QoS::ExactlyOnce, Reason::NotAuthorized, None);
        assert_eq!(sent(&mut incoming), [9]);
        assert_eq!(incoming.used(), 0);
        assert!(!incoming.holds(9));
        new(&mut incoming, 9, QoS::ExactlyOnce);
    }

    #[test]
    fn a_message_whose_acknowledgement_is_withheld_is_new_when_it_comes_again_and_holds_up_nobody() {
        let mut incoming = Incoming::default();
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (lost, safe) = (new(&mut incoming, 1, qos), new(&mut incoming, 2, qos));
            incoming.decide(safe, 2, qos, Reason::Success, None);
            assert_eq!(sent(&mut incoming), [] as [u16; 0]);
            incoming.withhold(lost, 1, qos);
            assert_eq!(sent(&mut incoming), [2]);
            let again = new(&mut incoming, 1, qos);
            incoming.decide(again, 1, qos, Reason::Success, None);
            assert_eq!(sent(&mut incoming), [1]);
            assert_eq!(incoming.release(1).known, qos == QoS::ExactlyOnce);
            assert_eq!(incoming.release(2).known, qos == QoS::ExactlyOnce);
        }
        assert_eq!(incoming.used(), 0);
    }

    #[test]
    fn a_message_released_before_it_is_decided_holds_up_nobody() {
        let mut incoming = Incoming::default();
        let early = new(&mut incoming, 9, QoS::ExactlyOnce);
        assert!(incoming.release(9).known);
        let again = new(&mut incoming, 9, QoS::ExactlyOnce);
        incoming.decide(again, 9, QoS::ExactlyOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [] as [u16; 0]);
        incoming.decide(early, 9, QoS::ExactlyOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [9, 9]);
    }

    #[test]
    fn a_decision_for_a_lost_connection_disturbs_nobody() {
        let mut incoming = Incoming::default();
        let old = new(&mut incoming, 1, QoS::AtLeastOnce);
        incoming.disconnected();
        let number = new(&mut incoming, 1, QoS::AtLeastOnce);
        incoming.decide(old, 1, QoS::AtLeastOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [] as [u16; 0]);
        incoming.decide(number, 1, QoS::AtLeastOnce, Reason::Success, None);
        assert_eq!(sent(&mut incoming), [1]);
    }
}
