//! The MQTT client of everyone here who is one: the gateway on another broker, the client library, the console.
//!
//! [`open`] makes a client of either version of MQTT: a [`PacketSender`], which queues packets, and a [`Connection`],
//! which carries them and yields [`Event`]s for as long as it is polled. A connection that has ended is made again when
//! it is polled again; whether that is worth while, and when, is the user's decision.
//!
//! ```no_run
//! use offload_mqtt::{ConnectionOptions, Event, Message, QoS, Subscription, open};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (sender, mut connection) = open(ConnectionOptions::new("127.0.0.1", 1883, "sensor-1"));
//! loop {
//!     match connection.next().await? {
//!         Event::Connected(_) => {
//!             sender.subscribe(&[Subscription::new("result/sensor-1", QoS::AtLeastOnce)])?;
//!         }
//!         Event::SubAck { .. } => sender.publish(Message::new("localCode/sensor-1", "5 7"))?,
//!         Event::Message { message, .. } => break println!("{:?}", message.payload),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It is made of rumqttc's packets and its state of what is in flight. In MQTT 3.1.1 its event loop is used as well, in
//! MQTT 5 not: rumqttc's loses what a broker says when it ends a connection, a DISCONNECT in its short form and the
//! Reason String of a refusal. Nobody else has to know rumqttc.
//!
//! A [`Qos0Connection`] is for who publishes at QoS 0 and cannot wait for the task that reads: the gateways of a
//! network.
//!
//! When no connection comes about, [`ConnectionOptions::identify_peer`] tells what answers where a broker should.

mod connection;
mod error;
mod event;
mod line;
mod message;
mod options;
mod packet_size;
mod peer;
mod qos;
mod reason;
mod stream;
mod v311;
mod v5;

pub use connection::{Connection, Full, PacketSender, open};
pub use error::ConnectionError;
pub use event::{Connected, Event, Sent};
pub use line::one_line;
pub use message::{Message, Properties, Subscription};
pub use options::{ConnectionOptions, MAX_PACKET, Version};
pub use peer::Peer;
pub use reason::{Reason, ReasonCode};
pub use rumqttc::QoS;
pub use v5::{Opened, Publisher, Qos0Connection};
