//! The configuration of offload-rt: one typed tree, one file a table, whose defaults are its documentation.
//!
//! Without a file every value is its default. A file names only what differs, and what it leaves out follows what it
//! says ([`relations`]). A key that does not exist, a wrong unit, an impossible value, or values that contradict each
//! other are refused, all of them at once, with their places in the file and with what would be accepted.

mod access;
mod answers;
mod bounds;
mod broker;
mod broker_url;
pub mod capacity;
pub mod certificates;
mod changes;
mod check;
mod compiler;
mod contents;
mod defaults;
mod draft;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod given;
mod host_port;
mod idempotency;
mod journal;
mod keys;
mod limits;
mod listen;
mod locate;
mod mirror;
mod modules;
mod native;
mod nats;
mod network;
pub mod password_file;
mod program;
mod quantity;
mod queue;
mod relations;
mod section;
mod share;
mod size;
pub mod slot;
mod status;
mod table;
mod time_span;
mod tls;
mod topic_filter;
mod topic_pattern;
mod tree;
mod watchdog;
mod websocket;
mod workers;

pub use access::{Access, Offload, Rule};
pub use answers::{Answers, MaxAnswer};
pub use broker::{Broker, MqttVersion};
pub use broker_url::{BrokerUrl, BrokerUrls, MAX_BROKERS, Scheme};
pub use compiler::Compiler;
pub use draft::{Draft, Finished, MAX_FILE_BYTES};
pub use error::{ConfigError, MAX_REFUSALS, Place, Refusal, Refusals};
pub use given::Given;
pub use host_port::HostPort;
pub use idempotency::Idempotency;
pub use journal::{Durability, Journal};
pub use keys::Keys;
pub use limits::{Limits, WASM_PAGE};
pub use listen::Listen;
pub use mirror::Mirror;
pub use modules::Modules;
pub use native::{NativeMode, Sandbox};
pub use nats::Nats;
pub use network::{Master, Masters, Network, master_url};
pub use program::{BUILT_IN, Program};
pub use queue::Queue;
pub use size::ByteSize;
pub use status::Status;
pub use time_span::TimeSpan;
pub use tls::Tls;
pub use topic_filter::TopicFilter;
pub use topic_pattern::TopicPattern;
pub use tree::Config;
pub use watchdog::Watchdog;
pub use websocket::WebSocket;
pub use workers::Workers;

#[cfg(test)]
mod tests;
