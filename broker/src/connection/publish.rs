//! PUBLISH: where it goes, and how it is acknowledged.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::warn;

use crate::{
    application::Received,
    broker::authorization::Destination,
    connection::{Connection, end::End},
    message::{Message, QoS},
    packet::codec::Publish,
    reason::{Reason, Violation},
    session::{
        Pause,
        acknowledgement::{Acknowledgement, PendingAck},
        client::ClientInfo,
        incoming::{Accepted, Bounds},
        over_receive_maximum,
    },
    stats::count,
    storage::{Key, NotStored},
    throttle::{Cause, clip},
    topics::{
        fan_out::{FanOut, Routed},
        topic,
    },
    version::Version,
};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Handles a PUBLISH; `decided` is where it goes, if that is known.
    pub(super) fn publish(
        &mut self,
        mut publish: Publish,
        decided: Option<Destination>,
    ) -> Result<Pause, End> {
        self.resolve_alias(&mut publish)?;
        Self::check_topic(&publish)?;
        let Publish { topic, payload, qos, retain, dup, id, properties, .. } = publish;
        let (pause, ack) = self.acknowledgement(id, qos)?;
        let Some(ack) = ack else { return Ok(pause) };
        match decided.unwrap_or_else(|| self.broker.destination(&self.client, &topic)) {
            Destination::Application(claim) => {
                let client = self.client.clone();
                let received = Received { client, topic, claim, payload, properties, qos, retain, dup, ack };
                self.broker.application().publish(&self.broker, received);
                self.handed_over = true;
            }
            Destination::Subscribers => {
                let properties = properties.map(|properties| Arc::new(*properties));
                let message = Message { topic, payload, qos, retain, properties };
                self.broker.application().passes(&message);
                let fan_out = self.broker.topics().start(Some(&self.session), &message);
                self.deliver(message, fan_out, ack);
            }
            Destination::Nobody => ack.refuse(Reason::NoMatchingSubscribers),
            Destination::Refused(refusal) => {
                count(&self.broker.counters().dropped_refused);
                self.report_denied("publish refused", &topic, refusal);
                ack.refuse(refusal.reason);
            }
        }
        Ok(pause)
    }

    /// The acknowledgement that is to be completed for a PUBLISH; `None` for one that is not to be handed on, whose
    /// acknowledgement is decided.
    fn acknowledgement(&self, id: u16, qos: QoS) -> Result<(Pause, Option<Acknowledgement>), End> {
        if qos == QoS::AtMostOnce {
            return Ok((Pause(false), Some(Acknowledgement::pending(None))));
        }
        let config = self.broker.config();
        let mut state = self.session.lock_for(self.connection_id)?;
        let incoming = &mut state.incoming;
        let again = qos == QoS::ExactlyOnce && incoming.holds(id);
        if !again && over_receive_maximum(incoming, self.version, config) {
            let detail = "more unacknowledged messages than Receive Maximum";
            return Err(Violation::new(Reason::ReceiveMaximumExceeded, detail).into());
        }
        let bounds = Bounds {
            account: &self.client.account,
            // A client of 3.1.1 may send as many as there are identifiers before its first PUBREL.
            session: match self.version {
                Version::V5 => config.receive_maximum.into(),
                Version::V311 => usize::MAX,
            },
            account_bytes: config.max_unreleased_bytes_per_identity,
        };
        let accepted = incoming.accept(id, qos, &bounds);
        let pause = Pause(incoming.pending() > usize::from(config.receive_maximum));
        match accepted {
            Accepted::New(number) => {
                let pending = PendingAck { session: self.session.clone(), number, id, qos };
                Ok((pause, Some(Acknowledgement::pending(Some(pending)))))
            }
            Accepted::Refused if self.version == Version::V311 => {
                incoming.withdraw_last();
                let detail = "more QoS 2 messages that are not released than there is room for";
                Err(Violation::new(Reason::QuotaExceeded, detail).into())
            }
            Accepted::Repeated | Accepted::Refused => Ok((pause, None)),
        }
    }

    /// Delivers a slice of what it has published, and acknowledges it with the last.
    pub(super) fn deliver(&mut self, message: Message, mut fan_out: FanOut, ack: Acknowledgement) {
        let offered = |fan_out: &FanOut| fan_out.routed.reached + fan_out.routed.refused;
        let before = offered(&fan_out);
        let delivered = self.broker.topics().deliver_slice(&message, &mut fan_out, None);
        self.work(offered(&fan_out) - before);
        if !delivered {
            self.publishing = Some((message, fan_out, ack));
            return;
        }
        self.acknowledge(&message, fan_out, ack);
    }

    /// Acknowledges a message that all receivers have: when what is stored of it is durable, or at once.
    fn acknowledge(&mut self, message: &Message, mut fan_out: FanOut, ack: Acknowledgement) {
        let Some(pending) = ack.into_pending() else {
            return self.broker.topics().finish(message, &mut fan_out);
        };
        if fan_out.has_failed {
            self.broker.topics().finish(message, &mut fan_out);
            return pending.withhold(NotStored::Failed.into());
        }
        let handed_over = fan_out.stores.handed_over;
        // In one batch with the deliveries, so that it comes to nobody twice.
        let record = match fan_out.stores.storing.is_empty() {
            false => pending.store(&mut fan_out.stores.storing),
            true => None,
        };
        let mut stored = self.acknowledge_when_stored(message, &mut fan_out, &pending, record);
        if stored == Err(NotStored::Full) {
            fan_out.stores.handed_over = handed_over;
            // Without deliveries it is never full.
            stored = self.acknowledge_when_stored(message, &mut fan_out, &pending, None);
        }
        if let Err(why) = stored {
            // Nothing is acknowledged any more that would have to be durable.
            pending.withhold(why.into());
        }
    }

    fn acknowledge_when_stored(
        &mut self,
        message: &Message,
        fan_out: &mut FanOut,
        pending: &PendingAck,
        record: Option<Key>,
    ) -> Result<(), NotStored> {
        let routed = fan_out.routed;
        let (told, durable, parts) = (told(routed), pending.clone(), fan_out.parts.clone());
        if fan_out.stores.storing.is_empty() && !fan_out.stores.handed_over {
            self.report_if_unkept(message, routed);
            match told {
                Told::Reason(reason) => durable.decide(reason),
                Told::Withheld => durable.withhold(Reason::QuotaExceeded),
            }
            return Ok(());
        }
        let on_durable = Box::new(move |result: Result<(), NotStored>| {
            // What was handed over before is told before.
            let parts = parts.iter().filter_map(|part| part.get().copied()).find(Result::is_err);
            match (result.and(parts.unwrap_or(Ok(()))), told) {
                (Ok(()), Told::Reason(reason)) if record.is_some() => durable.decide_stored(reason, record),
                (Ok(()), Told::Reason(reason)) => durable.decide(reason),
                (Ok(()), Told::Withheld) => durable.withhold(Reason::QuotaExceeded),
                (Err(why), _) => durable.withhold(why.into()),
            }
        });
        self.broker.topics().store(message, fan_out, Some(on_durable))
    }

    /// Topic aliases (section 3.3.2.3.4), of which each connection may set as many as CONNACK offered.
    pub(super) fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Violation> {
        let Some(alias) = publish.alias else { return Ok(()) };
        if alias > self.broker.config().topic_alias_maximum {
            return Err(Violation::new(Reason::TopicAliasInvalid, "topic alias over the maximum"));
        }
        if publish.topic.is_empty() {
            match self.aliases.get(&alias) {
                Some(topic) => publish.topic = topic.clone(),
                None => return Err(Violation::protocol("topic alias that was never set")),
            }
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    pub(super) fn check_topic(publish: &Publish) -> Result<(), Violation> {
        if publish.topic.is_empty() {
            return Err(Violation::protocol("empty topic without a topic alias")); // section 3.3.2.1
        }
        if !topic::valid_name(&publish.topic) {
            return Err(Violation::new(Reason::TopicNameInvalid, "invalid topic name"));
        }
        Ok(())
    }

    /// The acknowledgement of 3.1.1 says that a message is safe, whether it is or not.
    fn report_if_unkept(&mut self, message: &Message, routed: Routed) {
        let refused = routed.refused;
        if self.version != Version::V311 || told(routed) != Told::Reason(Reason::QuotaExceeded) {
            return;
        }
        self.unkept += 1;
        if let Some(left_out) = self.broker.throttle().line(Cause::Unkept) {
            let ClientInfo { client_id, user, peer, .. } = &*self.client;
            let (client_id, user, topic) = (clip(client_id), user.as_deref().map(clip), clip(&message.topic));
            let unkept = self.unkept;
            warn!(
                client_id,
                user,
                %peer,
                topic,
                unkept,
                refused,
                left_out,
                "acknowledged, as 3.1.1 has no code for it, and not kept: there is no room"
            );
        }
    }
}

/// What the publisher is told of where its message went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Reason(Reason),
    /// What the storage has no room for is not acknowledged: 3.1.1 sends it again, MQTT 5 is told.
    Withheld,
}

fn told(routed: Routed) -> Told {
    Told::Reason(match routed {
        Routed { reached: 1.., .. } => Reason::Success,
        // A stranger that hoards keeps nobody from publishing what is retained.
        Routed { refused: 1.., kept: true, .. } => Reason::Success,
        Routed { unstored: 1.., .. } => return Told::Withheld,
        Routed { refused: 1.., .. } => Reason::QuotaExceeded,
        Routed { .. } => Reason::NoMatchingSubscribers,
    })
}
