//! Hand work to an offload-rt gateway: connect, send a request, await its answer.
//!
//! ```no_run
//! # async fn example() -> Result<(), offload_client::Error> {
//! use offload_client::{Client, Code, Options, Request};
//!
//! let client = Client::connect(Options::default()).await?;
//! let mut request = Request::new(Code::Program("add".into()));
//! request.args = vec!["5".into(), "7".into()];
//! let answer = client.send(request).await?;
//! println!("{}", String::from_utf8_lossy(&answer.stdout));
//! client.disconnect().await;
//! # Ok(())
//! # }
//! ```
//!
//! Many requests may be in flight on one [`Client`]; MQTT 5 Correlation Data says which request an answer is to, in
//! MQTT 3.1.1 the id of the envelope. A lost connection is made again, and what has no answer yet is sent again where
//! the broker has forgotten it. So a request may be run twice, unless it has an id, by which the gateway knows it
//! again.
//!
//! A request with an id can be cancelled ([`Client::cancel`]), and its stdout can come as it is written
//! ([`Client::send_streaming`]).
//!
//! # Examples
//!
//! A module of one's own, `cargo run --example offload -- prog.wasm 5 7`:
//!
//! ```no_run
#![doc = include_str!("../examples/offload.rs")]
//! ```
//!
//! Many requests in flight, `cargo run --example in_flight -- add 100`:
//!
//! ```no_run
#![doc = include_str!("../examples/in_flight.rs")]
//! ```
//!
//! A program that the gateway has, by name, `cargo run --example run -- add 5 7`: `examples/run.rs`.

mod client;
mod driver;
mod error;
mod explain;
mod in_flight;
mod modules;
mod options;
mod reconnect;
mod sealing;
mod stream;

pub use client::{Client, made_up_id};
pub use error::Error;
pub use offload_mqtt::Version as MqttVersion;
pub use offload_protocol::answer::{self, Answer, AnswerForm, Outcome};
pub use offload_protocol::error::{ErrorKind, WireError};
pub use offload_protocol::request::{
    Build, Code, Digest, Files, Form, Language, ModulesRequest, ReplyForm, Request, RequestId, RequestLimits,
    Source, StdoutRange, StoredModule, decode_list, encode_list,
};
pub use offload_seal::{PublicKey, Suite};
pub use offload_tls::{Identity, TlsFiles};
pub use options::{DEFAULT_HOST, DEFAULT_PORT, DEFAULT_TLS_PORT, Options, UrlError};
pub use stream::{Assembly, Part};
