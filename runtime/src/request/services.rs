//! What the steps of a request ask.

use super::answer::RequestDeduplicator;
use super::journal::RequestJournal;
use super::observer::Observer;
use super::open::Opener;
use super::settings::Settings;
use crate::auth::access::Access;
use crate::modules::Modules;
use crate::network::Router;
use crate::set_aside::SetAside;
use crate::shared::Shared;
use crate::site::Site;
use crate::source::SourceBackend;
use crate::suspects::Suspects;
use crate::wasm::workers::Workers;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::runtime::Handle;

/// The services of the gateway that requests use. Clones share them.
#[derive(Clone)]
pub struct Services {
    /// Who may ask for what.
    pub access: Arc<ArcSwap<Access>>,
    /// What they are held to, and what they can name.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Modules that requests carry, or have carried before.
    pub modules: Arc<Modules>,
    /// Builds source, and runs it natively.
    pub source_backend: Arc<SourceBackend>,
    /// Admit requests, and run guests.
    pub workers: Arc<Workers>,
    /// Knows requests that come again.
    pub deduplicator: Arc<RequestDeduplicator>,
    /// Knows requests that have crashed the gateway; `None` where nobody sends them again by itself.
    pub suspects: Option<Arc<Suspects>>,
    /// Where these go.
    pub set_aside: Arc<SetAside>,
    /// Keeps requests and outcomes; `None` where nothing outlives a crash.
    pub journal: Option<Arc<RequestJournal>>,
    /// The gateway's site.
    pub site: Arc<Site>,
    /// The way to other sites, where there is one.
    pub router: Option<Router>,
    /// What is shared with other gateways; `None` where each is a service of its own.
    pub shared: Option<Shared>,
    /// Opens sealed requests; `None` where others of one service have the keys for that, and this gateway has not.
    pub opener: Option<Arc<Opener>>,
    /// See each request and its answer, in this order.
    pub observers: Vec<Arc<dyn Observer>>,
    /// Where modules are prepared and native programs are waited for.
    pub runtime: Handle,
}
