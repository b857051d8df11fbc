//! `offload-rt`: the gateway that runs what small devices hand over by MQTT.
//!
//! [`Gateway::start`] is the whole; the binary is a thin command line over it. The way of a request:
//!
//! 1. an [`ingress`] turns an MQTT publish into a delivery,
//! 2. [`request`] decodes it, knows it again if it has been run ([`deduplication`]), admits it and has its module
//!    compiled ([`compiler`], [`modules`]),
//! 3. a worker runs it ([`wasm`]), or the sandbox does if it is source ([`source`]), and
//! 4. the answer goes back through the ingress.
//!
//! Whoever watches from outside sees the gateway's [`status`], and its requests in the [`audit_log`].

mod allocator;
pub mod audit_log;
pub mod auth;
pub mod cli;
pub mod client;
pub mod compiler;
pub mod config;
pub mod data_dir;
pub mod deduplication;
mod fair_semaphore;
pub mod fingerprint;
pub mod flow;
mod gateway;
pub mod ingress;
mod log_sampling;
mod log_writer;
pub mod modules;
pub mod once_cache;
pub mod programs;
pub mod request;
pub mod scheduling;
pub mod source;
pub mod status;
mod stopping;
pub mod suspects;
pub mod telemetry;
pub mod wasm;
pub mod watchdog;

pub use gateway::{Gateway, StartError};
