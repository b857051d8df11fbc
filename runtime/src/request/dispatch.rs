//! The one place where a request goes to its backend.

use super::backend::{Backend, modules, native, remote, wasm};
use super::resolve::Resolved;
use super::services::Services;
use super::tasks::Tasks;
use std::sync::Arc;

/// Hands the request over. Its answer comes from the backend's thread.
pub fn dispatch(resolved: Resolved, services: &Services, tasks: &Tasks) {
    match less_busy(&resolved, services) {
        Some(gate) => hand_on(gate, resolved, services, tasks),
        None => run(resolved, services, tasks),
    }
}

fn run(resolved: Resolved, services: &Services, tasks: &Tasks) {
    let Resolved { backend, run, original, .. } = resolved;
    if let Some(stream) = &run.given.stream {
        tasks.follow(stream.clone());
    }
    match backend {
        Backend::Wasm(module) => wasm::start(module, run, services, tasks),
        Backend::Modules(operation) => modules::start(operation, run, services, tasks),
        Backend::Remote { gate } => remote::start(gate, run, original, services.router.as_ref()),
        Backend::Native { source, compare } => native::start(source, compare, run, services, tasks),
    }
}

/// The gate that a request is handed on to, if it may be, and this gateway is saturated.
fn less_busy(resolved: &Resolved, services: &Services) -> Option<Arc<str>> {
    let router = services.router.as_ref()?;
    let is_for_others = resolved.is_program || router.overflows_code();
    let is_bound = resolved.is_sealed || resolved.run.given.stream.is_some() || resolved.run.is_suspect();
    let may_go = is_for_others && !is_bound;
    // Each gateway has modules of its own.
    let runs_here = !matches!(resolved.backend, Backend::Remote { .. } | Backend::Modules(_));
    (may_go && runs_here).then(|| router.overflow(&resolved.run.client.path())).flatten()
}

/// Hands the request on to another gateway. What that refuses runs here.
fn hand_on(gate: Arc<str>, resolved: Resolved, services: &Services, tasks: &Tasks) {
    let Some(router) = &services.router else { return run(resolved, services, tasks) };
    let mut departure = remote::departure(gate, &resolved.run, &resolved.original);
    let (services, tasks) = (services.clone(), tasks.clone());
    departure.done = Box::new(move |reply| {
        if remote::is_refused(&reply) {
            run(resolved, &services, &tasks);
            return services.workers.dispatch();
        }
        remote::finish(resolved.run, reply);
    });
    router.send(departure);
}
