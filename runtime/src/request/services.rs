//! What the steps of a request ask.

use super::answer::Repetition;
use super::observer::Observer;
use crate::auth::access::Access;
use crate::config::{Answers, Limits};
use crate::deduplication::Deduplicator;
use crate::modules::Modules;
use crate::programs::Programs;
use crate::source::SourceBackend;
use crate::suspects::Suspects;
use crate::wasm::workers::Workers;
use std::sync::Arc;
use tokio::runtime::Handle;

/// The services of the gateway that requests use.
pub struct Services {
    /// Who may ask for what.
    pub access: Arc<Access>,
    /// Programs that requests can name.
    pub programs: Programs,
    /// Modules that requests carry, or have carried before.
    pub modules: Arc<Modules>,
    /// Builds source, and runs it natively.
    pub source_backend: Arc<SourceBackend>,
    /// Admit requests, and run guests.
    pub workers: Arc<Workers>,
    /// Knows requests that come again.
    pub deduplicator: Arc<Deduplicator<Repetition>>,
    /// Knows requests that have crashed the gateway; `None` where nobody sends them again by itself.
    pub suspects: Option<Arc<Suspects>>,
    /// What a request may carry and use.
    pub limits: Limits,
    /// Where answers may go.
    pub answers: Answers,
    /// See each request and its answer, in this order.
    pub observers: Vec<Arc<dyn Observer>>,
    /// Where modules are prepared and native programs are waited for.
    pub runtime: Handle,
}
