//! What the conformance and end-to-end tests share: the programs under test as processes on free ports, a second
//! broker, devices that speak MQTT 3.1.1 and 5, and the guests with their cases.
//!
//! The tests know nothing of the project's internals: they start the built `offload-rt`, talk to it over TCP and
//! judge what comes back by `docs/protocol.md`. Nothing here waits for a fixed time; every wait has a deadline.

pub mod answer;
pub mod arduino_client;
pub mod built;
pub mod c_client;
pub mod cable;
pub mod cbor;
pub mod deployment;
pub mod device;
pub mod document;
pub mod envelope;
pub mod gateway;
pub mod guest;
pub mod javascript_client;
pub mod mosquitto;
pub mod nats;
pub mod network;
pub mod password_file;
pub mod process;
pub mod project;
pub mod proxy;
pub mod pub_sub_client;
pub mod sealing;
pub mod source;

use std::time::Duration;

/// Longest wait for anything that has to happen. Far above what a busy machine needs: reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);
