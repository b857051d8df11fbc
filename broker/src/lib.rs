//! An embeddable MQTT 3.1.1 and 5 broker.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use offload_broker::{Broker, Config, NoApplication, Transport};
//!
//! let broker = Broker::new(Config::default(), Arc::new(NoApplication));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:1883").await?;
//! broker.serve(listener, Transport::Tcp, tokio_util::sync::CancellationToken::new()).await?;
//! # Ok(()) }
//! ```
//!
//! A listener speaks one [`Transport`]: plain TCP, TLS or WebSocket. A broker may have several. The [`Application`] has
//! the hooks of a deployment, each with a default: who may connect, publish and subscribe, and which messages it takes
//! itself.
//!
//! ```
//! use std::sync::Arc;
//!
//! use offload_broker::{Application, Broker, ClientInfo, Config, Message, QoS, Received, Route};
//!
//! /// Answers what is published to `ping`, to its publisher alone.
//! struct Pong;
//!
//! impl Application for Pong {
//!     fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
//!         if topic == "ping" { Route::Application(0) } else { Route::Broker }
//!     }
//!
//!     fn publish(&self, broker: &Broker, message: Received) {
//!         let pong = Message::new("pong", message.payload, QoS::AtLeastOnce);
//!         broker.publish_to(&message.client, &pong, None, None);
//!         message.ack.complete();
//!     }
//! }
//!
//! let broker = Broker::new(Config::default(), Arc::new(Pong));
//! ```
//!
//! `examples/` has a plain broker, and one with TLS and passwords.
//!
//! # Design
//!
//! | part | what it does | knows nothing of |
//! | --- | --- | --- |
//! | `packet/` | control packets, from bytes to values and back, with the standard's checks | connections, sessions |
//! | `transport/` | what lies between TCP and MQTT: TLS, WebSocket, the buffers of a connection | packets |
//! | `quotas/` | what one identity may take of what all share; its account | sessions |
//! | `session/` | one client's subscriptions, messages to it, acknowledgements due to it | other sessions |
//! | `topics/` | the tree of subscriptions, retained messages, the way of a message to its subscribers | connections |
//! | `registry/` | which sessions there are, whose they are, when they end | connections, the application |
//! | `connection/` | one client's connection, from its first byte to its last | other connections |
//! | `listener` | accepts connections | packets |
//! | `storage` | the interface of what keeps sessions, their messages and retained messages across the process | everything else |
//! | `broker`, `application` | the parts together, and the hooks; `broker/recovery` begins with what is stored | |
//!
//! **A connection is one task.** It has its permit (`quotas/connection_limits`) before a byte of it is read. The
//! handshakes of TLS and WebSocket (`connection/upgrade`), CONNECT and the application's decision about it
//! (`connection/handshake`) share one timeout, and delay no other client. A client id, and the session under it, belong
//! to the [`Identity`] that uses it. No other identity's CONNECT takes it over, except that a user's takes over that of
//! a client without a name.
//!
//! Then the task takes what the socket has, handles every whole packet in it (`connection/input`), and sends all that
//! is due with one write. Bytes become packets in two steps: `packet/frame` checks the fixed header and the size,
//! `packet/codec` and `packet/properties` the structure, in place: what is wrong is refused before anything is built
//! for it. Rumqttd's codec encodes what is rare of what is sent.
//!
//! **There is no router task.** Whoever publishes, a connection or the application on any thread, looks the topic up in
//! the tree of subscriptions (`topics/trie`), puts the message into the queue of each session that matches
//! (`session/outbox`), under that session's mutex, and wakes its connection: once however many messages follow, and not
//! at all while it runs. The connection encodes what fits the client's window (`session/inflight`) into its write
//! buffer. What the client published is acknowledged in order (`session/incoming`), when it was delivered or when the
//! application completes its [`Acknowledgement`].
//!
//! **What is long is cut.** A client's message with many receivers is delivered in slices (`topics/fan_out`) by its own
//! connection, which takes nothing else from it meanwhile. The filters of a SUBSCRIBE are handled in the same way
//! (`packet/subscribe`). Retained messages, of which a new subscription may match thousands, are taken from the store
//! as the receiver's queue has room (`session/backlog`). One poll of a connection's task has a budget of 500 µs
//! (`connection/work_budget`).
//!
//! **What outlives the process** is what the [`storage`] has: sessions that outlive their connection, with their
//! subscriptions and their messages at QoS 1 and 2 (`session/stored`), and what clients retain. A message's records are
//! put while it is delivered, and handed over together; it is sent after that, and acknowledged to its publisher when
//! they are durable. QoS 2 is exactly once across a crash because each step is durable before the other side hears of
//! it: a message has its packet identifier in its record from the beginning, and is sent when that is durable; PUBREL
//! and PUBCOMP are sent when PUBREC and PUBREL are. Nothing waits for the storage under a lock, and sessions that end
//! with their connection do not touch it.
//!
//! A client of 3.1.1 and one of 5 differ in how bytes are read and written, hardly anywhere else.
//!
//! # Limits
//!
//! What a client makes the broker hold or do is accounted to its identity (`quotas/account`): its user, else its
//! address. All of its connections together have a share of the threads (`quotas/fair_share`), a share of the memory
//! for packets that have not come completely (`quotas/input_budget`), and one rate (`quotas/rate`). A packet that has
//! begun has to come (`connection/input_rate`).
//!
//! Everything is bounded: connections, in all and for each source address and user, packets before they are allocated,
//! queues in messages and bytes for each session and in bytes for all, write buffers, retained messages,
//! subscriptions, sessions, log lines. No identity may hold more of what is shared than is left for the others. The
//! oldest message is kept, the newest refused; QoS 0 goes first. A client whose messages wait for acknowledgement,
//! or whose identity has used up one of its shares, is not read from for the moment. One that takes nothing is
//! disconnected. [`Config`] has the numbers. What was dropped, refused and delayed is counted ([`Broker::stats`]),
//! and one of the listeners publishes the counters below `$SYS` (`topics/sys`).
//!
//! # What it does not do
//!
//! It writes nothing to a disk: without a [`Storage`] sessions and retained messages end with the process, and wills do
//! with one. A message is sent again only on a new connection. Not offered, and refused as the standard says: shared
//! subscriptions, extended authentication, topic
//! aliases towards clients, MQTT 3.1.

mod application;
mod broker;
pub mod config;
mod connection;
mod context;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod listener;
mod message;
mod packet;
mod quotas;
mod reason;
mod registry;
mod session;
mod spare_descriptor;
mod stats;
pub mod storage;
mod throttle;
mod topics;
mod transport;
mod version;

pub use self::{
    application::{Application, BoxFuture, NoApplication, Received, Route},
    broker::{Broker, WeakBroker},
    config::Config,
    error::{Error, TlsPart},
    message::{Message, Properties, QoS, UserProperties},
    reason::{Reason, Refusal},
    session::{
        acknowledgement::Acknowledgement,
        client::{ClientInfo, Identity, Login},
        receipt::OnAcknowledged,
    },
    stats::{Dropped, Stats},
    storage::Storage,
    topics::{Oversize, Placed, Published},
    transport::{
        Transport,
        peer::TransportKind,
        tls::{Certificates, ClientCertificates, Tls},
        websocket::WebSocket,
    },
    version::Version,
};
