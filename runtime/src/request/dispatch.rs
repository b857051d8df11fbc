//! The one place where a request goes to its backend.

use super::backend::{Backend, native, wasm};
use super::resolve::Resolved;
use super::services::Services;
use super::tasks::Tasks;

/// Hands the request over. Its answer comes from the backend's thread.
pub fn dispatch(resolved: Resolved, services: &Services, tasks: &Tasks) {
    let Resolved { backend, run, .. } = resolved;
    if let Some(stream) = &run.given.stream {
        tasks.follow(stream.clone());
    }
    match backend {
        Backend::Wasm(module) => wasm::start(module, run, services, tasks),
        Backend::Native { source, compare } => native::start(source, compare, run, services, tasks),
    }
}
