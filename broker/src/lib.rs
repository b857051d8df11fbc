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
//! The [`Application`] decides who may connect, publish and subscribe, and may take messages itself. A listener
//! speaks one [`Transport`]: plain TCP, TLS or WebSocket. A broker may have several. `examples/` has a plain
//! broker, and one with TLS and passwords.
//!
//! # Design
//!
//! A connection is one task. It has its permit (`connection_limits`) before a byte of it is read. What lies
//! below MQTT (`transport`, `tls`, `websocket`), CONNECT, and the application's word on it (`handshake`) share
//! one timeout, and delay nobody else. A client id, and the session under it, belong to the [`Identity`] that
//! uses it: nobody else's CONNECT takes it over, but a user's that of a client without a name.
//!
//! Then the task (`connection`) takes what the socket has, handles every whole packet in it, and sends all that
//! is due with one write. Bytes become packets in two steps: `frame` checks the fixed header and the size, `codec`
//! and `properties` the structure, in place: what is wrong is refused before anything is built for it. Rumqttd's codec
//! encodes what is rare of what is sent.
//!
//! There is no router task. Whoever publishes, a connection or the application on any thread, looks the topic up in
//! the tree of subscriptions (`trie`) and puts the message into the queue of each session (`outbox`) that matches,
//! under that session's mutex, and wakes its connection, once however many messages follow, and not at all while it
//! runs. A client's message with many receivers is delivered in slices (`fan_out`) by its own connection, which
//! takes nothing else from it meanwhile, and the filters of a SUBSCRIBE are handled in the same way (`filters`);
//! retained messages, of which a new subscription may match thousands, are taken from the store as the receiver's queue
//! has room (`backlog`). The connection encodes what fits the client's window (`inflight`) into its write buffer. What
//! the client published is acknowledged in order (`incoming`), when it was routed or when the application completes its
//! [`Acknowledgement`].
//!
//! A client of 3.1.1 and one of 5 differ in how bytes are read and written, hardly anywhere else.
//!
//! What a client makes the broker hold or do is accounted to an identity (`account`): its user, else its address. All
//! of its connections together have a share of the threads (`fair_share`), of which each takes a bounded `turn` at a
//! time, of the memory for packets that have not come completely (`input_budget`), and one rate (`rate`). A packet
//! that has begun has to come (`progress`).
//!
//! Everything is bounded: connections, in all and for each source address and user, packets before they are allocated,
//! queues in messages and bytes for each session and in bytes for all, write buffers, retained messages,
//! subscriptions, sessions, log lines. What is held for a client, whatever its session, is accounted to its
//! identity (`account`): its user, else its address, of which none may hold more than is left for the others. The
//! oldest message is kept, the newest refused; QoS 0 goes first. A client whose messages wait for acknowledgement,
//! or whose identity has used up one of its shares, is not read from for the moment, one that takes nothing is
//! disconnected. [`Config`] has the numbers. What was dropped, refused and delayed is counted ([`Broker::stats`]),
//! and one of the listeners publishes the counters below `$SYS` (`sys`).
//!
//! Nothing is stored on disk. A message is sent again only on a new connection. Not offered, and refused as the
//! standard says: shared subscriptions, extended authentication, topic aliases towards clients, MQTT 3.1.

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
mod stats;
mod throttle;
mod topics;
mod transport;
mod version;

pub use self::{
    application::{Application, BoxFuture, NoApplication, Received, Route},
    broker::Broker,
    config::Config,
    error::Error,
    message::{Message, Properties, QoS, UserProperties},
    reason::{Reason, Refusal},
    session::{
        acknowledgement::Acknowledgement,
        client::{ClientInfo, Identity, Login},
    },
    stats::{Dropped, Stats},
    topics::{Oversize, Receipt},
    transport::{
        Transport,
        peer::TransportKind,
        tls::{Certificates, ClientCertificates, Tls},
        websocket::WebSocket,
    },
    version::Version,
};
