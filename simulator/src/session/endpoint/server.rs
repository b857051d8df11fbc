//! Brokers and masters: who is connected, who gets which values, and who has been silent for too long.

use std::collections::BTreeMap;

use offload_protocol::topic;

use super::{Effects, Endpoint, MAX_SUBSCRIPTIONS, MAX_VALUES, Role};
use crate::clock::Nanos;
use crate::session::address::Address;
use crate::session::code::Code;
use crate::session::connection::{Connection, Subscription};
use crate::session::content::Content;
use crate::session::keys::{self, ConnectionKey};

impl Endpoint {
    /// A client, a router or a newcomer has said this.
    pub(super) fn serve(
        &mut self,
        from: Address,
        content: Content,
        key: Option<ConnectionKey>,
        now: Nanos,
    ) -> Effects {
        match content {
            Content::Join { .. } => {
                let key = Some(keys::hex(self.key.public().as_bytes()));
                return Effects::send(from, Content::Join { name: self.name.clone(), key });
            }
            Content::Left { .. } => {
                if let Some(connection) = self.connections.get_mut(&from).filter(|of| of.is_open()) {
                    connection.end(Code::Gone, now);
                }
                return Effects::default();
            }
            Content::ConnectionRequest { keep_alive_ms, description, network } => {
                let Some(key) = key else { return Effects::default() };
                return self.accept(from, key, keep_alive_ms, description, network, now);
            }
            _ => {}
        }
        let Some(connection) = self.connections.get_mut(&from) else { return Effects::default() };
        if !connection.is_open() {
            let code = connection.code;
            let note =
                format!("the connection has ended ({code}, {}): `conn` makes another one", code.meaning());
            return Effects { sends: vec![(from, Content::Disconnection { code })], notes: vec![note] };
        }
        match content {
            Content::SubscriptionRequest { topic, description } => {
                self.add_subscription(from, topic, description, now)
            }
            Content::UnsubscriptionRequest { topic } => {
                let known = connection.subscriptions.get_mut(&topic).filter(|known| known.code == Code::Ok);
                let code = match known {
                    Some(known) => {
                        (known.code, known.since) = (Code::Gone, now);
                        Code::Gone
                    }
                    None => Code::NotFound,
                };
                Effects::send(from, Content::UnsubscriptionResponse { topic, code })
            }
            Content::Publish { topic, value, from: publisher } => {
                // A client speaks for itself, a router for those behind it.
                let is_router = from == Address::ROUTER || from.is_global();
                self.distribute(from, topic, value, if is_router { publisher } else { from }, now)
            }
            Content::Ping {} => {
                connection.last_ping = Some(now);
                Effects::send(from, Content::PingResponse {})
            }
            Content::Disconnection { code } => {
                connection.end(code, now);
                Effects::default()
            }
            _ => Effects::default(),
        }
    }

    fn accept(
        &mut self,
        from: Address,
        key: ConnectionKey,
        keep_alive_ms: u64,
        description: String,
        network: Option<String>,
        now: Nanos,
    ) -> Effects {
        let note = format!(
            "key exchange 4: {} computes X25519(its secret key, the first 32 bytes that travel), then HKDF-SHA256: \
             fingerprint {}. Both have one key, and nobody between them has it",
            self.name,
            key.fingerprint()
        );
        if let Some(network) = network {
            self.learn(from, network, now);
        }
        // Those of an earlier connection have ended with it.
        let connection = Connection {
            code: Code::Ok,
            since: now,
            key,
            description,
            keep_alive_ms,
            heard: now,
            last_ping: None,
            received: self.connections.get(&from).map_or(0, |before| before.received),
            subscriptions: BTreeMap::new(),
        };
        self.connections.insert(from, connection);
        Effects { sends: vec![(from, Content::ConnectionResponse { code: Code::Ok })], notes: vec![note] }
    }

    fn add_subscription(
        &mut self,
        from: Address,
        filter: String,
        description: String,
        now: Nanos,
    ) -> Effects {
        let Some(connection) = self.connections.get_mut(&from) else { return Effects::default() };
        let subscriptions = &mut connection.subscriptions;
        let code = if !topic::is_valid_filter(&filter) {
            Code::BadTopic
        } else if subscriptions.len() >= MAX_SUBSCRIPTIONS && !subscriptions.contains_key(&filter) {
            Code::Full
        } else {
            subscriptions.insert(filter.clone(), Subscription { code: Code::Ok, since: now, description });
            Code::Ok
        };
        let mut effects = Effects::send(from, Content::SubscriptionResponse { topic: filter.clone(), code });
        if code == Code::Ok {
            let values = self.values.iter().filter(|(topic, _)| topic::matches(&filter, topic));
            for (topic, (value, publisher)) in values {
                let (topic, value) = (topic.clone(), value.clone());
                effects.sends.push((from, Content::Publish { topic, value, from: *publisher }));
            }
            effects.notes.push(match effects.sends.len() - 1 {
                0 => format!("no topic of {filter} has a value yet"),
                1 => format!("the last value of {filter} follows"),
                several => format!("the last values of {several} topics follow"),
            });
        }
        effects
    }

    /// Takes a value to those who have subscribed, but not back to where it comes from.
    fn distribute(
        &mut self,
        from: Address,
        topic: String,
        value: String,
        publisher: Address,
        now: Nanos,
    ) -> Effects {
        let mut effects = Effects::default();
        if self.role == Role::Master
            && let Some(network) = self.routes.get(&from).map(|router| router.network.clone())
            && self.learn(publisher, network.clone(), now)
        {
            effects.notes.push(format!(
                "{} learns that {publisher} is {} in {network} (`routes`)",
                self.name,
                publisher.inside()
            ));
        }
        for (address, connection) in &self.connections {
            let mut filters = connection.subscriptions.iter().filter(|(_, of)| of.code == Code::Ok);
            let wants = filters.any(|(filter, _)| topic::matches(filter, &topic));
            if *address != from && connection.is_open() && wants {
                let (topic, value) = (topic.clone(), value.clone());
                effects.sends.push((*address, Content::Publish { topic, value, from: publisher }));
            }
        }
        if self.values.len() < MAX_VALUES || self.values.contains_key(&topic) {
            effects.notes.push(match effects.sends.len() {
                0 => format!("nobody else has subscribed to {topic}; who does later gets this value"),
                1 => format!("one other has subscribed to {topic}"),
                several => format!("{several} others have subscribed to {topic}"),
            });
            self.values.insert(topic, (value, publisher));
        } else {
            effects.notes.push(format!(
                "{} keeps the last values of {MAX_VALUES} topics and no more: who subscribes to {topic} later gets none",
                self.name
            ));
        }
        effects
    }

    /// When the next client has been silent for too long. While the server does not listen itself, none is.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let connections = self.connections.values().filter(|_| self.role.serves() && self.listens);
        connections.filter_map(Connection::deadline).min()
    }

    /// Drops clients that have been silent for too long.
    pub fn drop_silent(&mut self, now: Nanos) -> Effects {
        let mut effects = Effects::default();
        for (address, connection) in &mut self.connections {
            if connection.deadline().is_some_and(|deadline| deadline <= now) {
                connection.end(Code::Silent, now);
                effects.sends.push((*address, Content::Disconnection { code: Code::Silent }));
                effects.notes.push(format!(
                    "{} has heard nothing of {address} for one and a half times its keep-alive, and drops it",
                    self.name
                ));
            }
        }
        effects
    }
}
