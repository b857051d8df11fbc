//! Clients and routers: what they send when they are told to, and what they do with what comes.

use offload_protocol::topic;
use offload_seal::{PublicKey, Suite};

use super::{Effects, Endpoint, MAX_SUBSCRIPTIONS, Role};
use crate::clock::{MILLISECOND, Nanos};
use crate::session::address::Address;
use crate::session::code::Code;
use crate::session::connection::{Connection, Subscription};
use crate::session::content::Content;
use crate::session::keys;

/// The filter of all topics, to which a router subscribes on both of its sides.
const ALL_TOPICS: &str = "#";

impl Endpoint {
    /// Whom it is connected to.
    fn servers(&self) -> &'static [Address] {
        match self.role {
            Role::Client => &[Address::BROKER],
            Role::Router => &[Address::BROKER, Address::MASTER],
            Role::Broker | Role::Master => &[],
        }
    }

    /// It has been given its addresses, and says that it is there.
    pub fn joined(&self) -> Effects {
        let join = || Content::Join { name: self.name.clone(), key: None };
        Effects { sends: self.servers().iter().map(|server| (*server, join())).collect(), notes: Vec::new() }
    }

    /// It leaves.
    pub fn leave(&mut self, now: Nanos) -> Effects {
        let mut effects = Effects::default();
        for server in self.servers() {
            match self.connections.get_mut(server).filter(|connection| connection.is_open()) {
                Some(connection) => connection.end(Code::Gone, now),
                // Where the server has no key of it, this is said in clear.
                None => drop(self.connections.remove(server)),
            }
            effects.sends.push((*server, Content::Left { name: self.name.clone() }));
        }
        effects
    }

    /// Asks its servers for connections.
    ///
    /// # Errors
    /// If it is no client, or does not know their keys.
    pub fn connect(&self, keep_alive: Nanos, description: &str) -> Result<Effects, String> {
        self.has_to_be_a_client("connect")?;
        let mut effects = Effects::default();
        for server in self.servers() {
            if !self.server_keys.contains_key(server) {
                return Err(format!(
                    "{} does not know the public key of {server} yet: `join`, then `run` until it has answered",
                    self.name
                ));
            }
            let network = self.local.as_ref().filter(|_| server.is_global());
            let request = Content::ConnectionRequest {
                keep_alive_ms: keep_alive / MILLISECOND,
                description: description.to_owned(),
                network: network.map(|network| network.name.clone()),
            };
            effects.sends.push((*server, request));
        }
        Ok(effects)
    }

    /// Ends its connections.
    ///
    /// # Errors
    /// If it has none.
    pub fn disconnect(&mut self, now: Nanos) -> Result<Effects, String> {
        self.has_to_be_a_client("disconnect")?;
        self.has_to_be_connected()?;
        let mut effects = Effects::default();
        for (server, connection) in self.connections.iter_mut().filter(|(_, of)| of.is_open()) {
            connection.end(Code::Gone, now);
            effects.sends.push((*server, Content::Disconnection { code: Code::Gone }));
        }
        Ok(effects)
    }

    /// Says that it is still there.
    ///
    /// # Errors
    /// If it has no connection.
    pub fn ping(&mut self, now: Nanos) -> Result<Effects, String> {
        self.has_to_be_a_client("send pings")?;
        self.has_to_be_connected()?;
        let mut effects = Effects::default();
        for (server, connection) in self.connections.iter_mut().filter(|(_, of)| of.is_open()) {
            connection.last_ping = Some(now);
            effects.sends.push((*server, Content::Ping {}));
        }
        Ok(effects)
    }

    /// Asks for the values of topics.
    ///
    /// # Errors
    /// If it is no client, or has no connection. A filter that is none is the broker's to refuse.
    pub fn subscribe(&mut self, filter: &str, description: &str, now: Nanos) -> Result<Effects, String> {
        let connection = self.as_client("subscribe")?;
        if connection.subscriptions.len() >= MAX_SUBSCRIPTIONS
            && !connection.subscriptions.contains_key(filter)
        {
            return Err(format!("a connection has at most {MAX_SUBSCRIPTIONS} subscriptions"));
        }
        let subscription =
            Subscription { code: Code::Waiting, since: now, description: description.to_owned() };
        connection.subscriptions.insert(filter.to_owned(), subscription);
        let (topic, description) = (filter.to_owned(), description.to_owned());
        Ok(Effects::send(Address::BROKER, Content::SubscriptionRequest { topic, description }))
    }

    /// Asks for them no more.
    ///
    /// # Errors
    /// If it is no client, or has no connection.
    pub fn unsubscribe(&mut self, filter: &str) -> Result<Effects, String> {
        self.as_client("unsubscribe")?;
        let topic = filter.to_owned();
        Ok(Effects::send(Address::BROKER, Content::UnsubscriptionRequest { topic }))
    }

    /// Publishes a topic's new value.
    ///
    /// # Errors
    /// If it is no client, has no connection, or the topic is none.
    pub fn publish(&mut self, name: &str, value: &str) -> Result<Effects, String> {
        self.as_client("publish")?;
        if !topic::is_valid_name(name) {
            return Err(format!(
                "{name:?} is no topic to publish on: wildcards (+ and #) are for subscriptions; `publ kitchen/lamp on`"
            ));
        }
        let from = self.address_towards(Address::BROKER).unwrap_or(Address::BROKER);
        let publish = Content::Publish { topic: name.to_owned(), value: value.to_owned(), from };
        Ok(Effects::send(Address::BROKER, publish))
    }

    fn has_to_be_a_client(&self, what: &str) -> Result<(), String> {
        if self.role.serves() {
            return Err(format!(
                "{} is a {}: clients and routers {what}, and it answers; `open client NAME` opens a client",
                self.name, self.role
            ));
        }
        Ok(())
    }

    fn has_to_be_connected(&self) -> Result<(), String> {
        if self.connections.values().any(Connection::is_open) {
            return Ok(());
        }
        let name = &self.name;
        Err(if self.connections.values().any(|connection| connection.code == Code::Waiting) {
            format!("{name} waits for the connection response: `run` until it is here, or `conn` again")
        } else if self.has_joined() {
            format!("{name} is not connected: `conn`, then `run`")
        } else {
            format!("{name} is on no network: `join`, `run`, `conn`, `run`")
        })
    }

    /// Its one connection.
    fn as_client(&mut self, what: &str) -> Result<&mut Connection, String> {
        if self.role == Role::Router {
            return Err(format!(
                "{} is a router: clients {what}, and it passes on what they publish; `open client NAME` opens one",
                self.name
            ));
        }
        self.has_to_be_a_client(what)?;
        self.has_to_be_connected()?;
        self.connections.get_mut(&Address::BROKER).ok_or_else(|| format!("{} is not connected", self.name))
    }

    /// A server has said this.
    pub(super) fn hear(&mut self, from: Address, content: Content, now: Nanos) -> Effects {
        match content {
            Content::Join { name, key: Some(key) } => self.trust(from, &name, &key),
            Content::ConnectionResponse { code } => self.is_answered(from, code, now),
            Content::SubscriptionResponse { topic, code }
            | Content::UnsubscriptionResponse { topic, code } => {
                self.subscription_becomes(from, topic, code, now)
            }
            Content::Publish { topic, value, from: publisher } if self.role == Role::Router => {
                self.pass_on(from, topic, value, publisher, now)
            }
            Content::Publish { topic, value, from: publisher } => {
                Effects::note(format!("{} takes {topic} = {value}, published by {publisher}", self.name))
            }
            Content::Disconnection { code } => {
                if let Some(connection) = self.connections.get_mut(&from) {
                    connection.end(code, now);
                }
                Effects::note(format!("{} is connected no more: {code}, {}", self.name, code.meaning()))
            }
            // A ping's answer says that the server is there, and all others are for servers.
            _ => Effects::default(),
        }
    }

    /// Takes the key that a server tells for its own, as nothing speaks against it yet.
    fn trust(&mut self, server: Address, name: &str, key: &str) -> Effects {
        let public = keys::from_hex(key).and_then(|bytes| PublicKey::new(Suite::X25519, &bytes).ok());
        let Some(public) = public else {
            return Effects::note(format!("{}: what {name} tells is no public key", self.name));
        };
        let fingerprint = keys::fingerprint(public.as_bytes());
        self.server_keys.insert(server, public);
        Effects::note(format!(
            "{} takes {fingerprint} for the fingerprint of {name}'s public key. Nothing proves it: whoever altered \
             this packet could stand between them, so people compare fingerprints (`sessions`)",
            self.name
        ))
    }

    fn is_answered(&mut self, server: Address, code: Code, now: Nanos) -> Effects {
        let Some(connection) = self.connections.get_mut(&server) else {
            return Effects::default();
        };
        connection.becomes(code, now);
        let mut effects = Effects::note(format!(
            "{} can open it, so {server} has the same key, fingerprint {}",
            self.name,
            connection.key.fingerprint()
        ));
        // On both sides at once: what the broker has is to have somewhere to go.
        if self.role == Role::Router
            && self
                .servers()
                .iter()
                .all(|server| self.connections.get(server).is_some_and(Connection::is_open))
        {
            if let (Some(local), Some(global)) = (&self.local, self.global) {
                let network = local.name.clone();
                self.learn(global, network, now);
            }
            let description = format!("router {}", self.name);
            for server in self.servers() {
                if let Some(connection) = self.connections.get_mut(server) {
                    let subscription =
                        Subscription { code: Code::Waiting, since: now, description: description.clone() };
                    connection.subscriptions.insert(ALL_TOPICS.to_owned(), subscription);
                }
                let topic = ALL_TOPICS.to_owned();
                let request = Content::SubscriptionRequest { topic, description: description.clone() };
                effects.sends.push((*server, request));
            }
        }
        effects
    }

    fn subscription_becomes(&mut self, server: Address, topic: String, code: Code, now: Nanos) -> Effects {
        let connection = self.connections.get_mut(&server);
        if let Some(subscription) = connection.and_then(|of| of.subscriptions.get_mut(&topic)) {
            (subscription.code, subscription.since) = (code, now);
        }
        match code {
            Code::Ok | Code::Gone => Effects::default(),
            code => Effects::note(format!("{topic}: {code}, {}", code.meaning())),
        }
    }

    /// A router takes a value from one of its sides to the other.
    fn pass_on(
        &mut self,
        from: Address,
        topic: String,
        value: String,
        publisher: Address,
        now: Nanos,
    ) -> Effects {
        let to = if from == Address::MASTER { Address::BROKER } else { Address::MASTER };
        let (Some(local), true) = (&self.local, self.connections.get(&to).is_some_and(Connection::is_open))
        else {
            return Effects::note(format!("{} is not connected to {to}: it passes nothing on", self.name));
        };
        let network = local.name.clone();
        // Split horizon: a last value that a new subscription brings does not go back to where it comes from.
        let is_own = publisher.outside(local.network) == publisher.inside().outside(local.network);
        if is_own == (from == Address::MASTER) {
            return Effects::note(format!("{} does not send back what comes from there", self.name));
        }
        if from == Address::MASTER {
            return Effects::send(to, Content::Publish { topic, value, from: publisher });
        }
        let outside = publisher.outside(local.network);
        self.learn(outside, network, now);
        let note = format!(
            "{} writes {outside} for {publisher}, an address that each network has anew (`routes`)",
            self.name
        );
        Effects { sends: vec![(to, Content::Publish { topic, value, from: outside })], notes: vec![note] }
    }
}
