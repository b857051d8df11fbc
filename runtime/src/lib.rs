//! `offload-rt`: the gateway that runs what small devices hand over by MQTT.
//!
//! [`Gateway::start`] is the whole; the binary is a thin command line over it. The life of a request:
//!
//! 1. An [`Ingress`](ingress::Ingress) turns an MQTT publish into a [`Delivery`](ingress::Delivery) and puts it into a
//!    [`Batch`](ingress::Batch).
//! 2. The [`Pipeline`](request::Pipeline) takes it through the steps that are named in [`request`]: it is decoded,
//!    authorized, admitted, known again if it has been run ([`deduplication`]), and resolved to a
//!    [`Backend`](request::backend::Backend).
//! 3. A module that is not at hand is compiled and kept ([`Modules::prepare`](modules::Modules::prepare),
//!    [`compiler`]).
//! 4. A worker runs it ([`Workers::submit`](wasm::workers::Workers::submit)), or the sandbox does if it is source that
//!    is run natively ([`SourceBackend::run`](source::SourceBackend::run)).
//! 5. [`PendingAnswer::finish`](request::PendingAnswer::finish) shows the answer to each
//!    [`Observer`](request::Observer), and gives it to the [`Responder`](ingress::Responder) of its ingress.
//!
//! Whoever watches from outside sees the gateway's [`status`], and its requests in the [`audit_log`].

mod allocator;
pub mod audit_log;
pub mod auth;
mod boot;
mod cancellation;
pub mod cli;
pub mod client;
pub mod compiler;
pub mod data_dir;
mod deadline;
pub mod deduplication;
pub mod durability;
mod fair_semaphore;
pub mod fingerprint;
pub mod flow;
mod gateway;
pub mod ingress;
pub mod keys;
mod log_sampling;
mod log_writer;
pub mod modules;
pub mod network;
pub mod once_cache;
pub mod programs;
mod random;
pub mod request;
pub mod scheduling;
pub mod set_aside;
pub mod shared;
pub mod site;
pub mod source;
pub mod status;
mod stopping;
mod stream;
pub mod suspects;
pub mod systemd;
pub mod telemetry;
pub mod wasm;
pub mod watchdog;

pub use offload_config as config;

pub use gateway::{Gateway, ReloadError, Reloaded, StartError};
