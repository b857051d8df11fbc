//! `[nats]`: what the gateway has in JetStream, where the broker is NATS.

use super::table::table;
use super::{BrokerUrls, ByteSize, Refusal, TimeSpan};

/// Most replicas of a stream that JetStream has.
const MAX_REPLICAS: u16 = 5;

table! {
    /// What gateways have in JetStream, where `broker.url` is a nats:// or tls:// URL. What is missing is created. What
    /// exists in another way is refused at the start, unless the key here is not set. Its names begin with
    /// `broker.share`.
    pub struct Nats {
        /// Where the servers' MQTT listeners are, by which the gateway publishes its status. Default: port 1883 of the
        /// hosts of `broker.url`.
        pub mqtt: Option<BrokerUrls> = None;
        /// Replicas of what is created. Default: 3 in a cluster of three or more servers, else 1.
        pub replicas: Option<u16> = None;
        /// Time after which a request whose gateway has not been heard of is given to another one. Gateways say three
        /// times as often that they still run what they have.
        pub ack_wait: TimeSpan = TimeSpan::secs(30), in TimeSpan::secs(1)..=TimeSpan::secs(3_600);
        /// Requests that this gateway takes at once: as many at QoS 0, and as many at QoS 1 and 2 on each of the two
        /// request topics. What it has not taken is there for other gateways.
        pub in_flight: usize = 256, in 1..=65_536;
        /// Space for requests that no gateway has answered yet. A full stream drops new requests at QoS 0.
        pub request_bytes: ByteSize = ByteSize::gib(1), in ByteSize::mib(1)..=ByteSize::gib(1_024);
        /// Space for outcomes of requests with an `id`, which are kept for `idempotency.retention`, and as much again
        /// for those of sealed requests.
        pub outcome_bytes: ByteSize = ByteSize::mib(256), in ByteSize::mib(1)..=ByteSize::gib(1_024);
        /// Space for modules that clients have sent.
        pub module_bytes: ByteSize = ByteSize::gib(1), in ByteSize::mib(1)..=ByteSize::gib(1_024);
    }
}

impl Nats {
    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        if self.replicas.is_some_and(|replicas| !(1..=MAX_REPLICAS).contains(&replicas)) {
            let problem = "JetStream has from 1 to 5 replicas";
            refusals.push(Refusal::new("nats.replicas", problem).accepting("1, 3 or 5"));
        }
        if self.mqtt.as_ref().is_some_and(BrokerUrls::is_nats) {
            let problem = "no URL of an MQTT listener";
            refusals.push(Refusal::new("nats.mqtt", problem).accepting("mqtt://HOST:PORT, or mqtts://"));
        }
    }
}
