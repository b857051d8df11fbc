//! The way of a request, from the top: each step is a line, and a file of its own.

use super::address::address;
use super::admit::{Admission, admit};
use super::answer::Refusal;
use super::authorize::authorize;
use super::decode::decode;
use super::deduplicate::deduplicate;
use super::dispatch::dispatch;
use super::identify::identify;
use super::poison::set_poison_aside;
use super::resolve::resolve;
use super::services::Services;
use super::tasks::Tasks;
use crate::ingress::{Delivery, Sink};
use std::time::Instant;

/// The way of all requests, through these services.
pub struct Pipeline {
    services: Services,
    admission: Admission,
    tasks: Tasks,
}

impl Sink for Pipeline {
    fn deliver(&self, delivery: Delivery) {
        if let Err(refusal) = self.advance(delivery, Instant::now()) {
            refusal.answer();
        }
    }

    fn dispatch(&self) {
        self.services.workers.dispatch();
    }
}

impl Pipeline {
    /// Through these services; what waits does so on `tasks`' runtime.
    pub fn new(services: Services) -> Pipeline {
        Pipeline {
            admission: Admission::new(services.workers.clone()),
            tasks: Tasks::new(services.runtime.clone()),
            services,
        }
    }

    /// From the ingress to a backend, or to a refusal.
    fn advance(&self, delivery: Delivery, arrived: Instant) -> Result<(), Refusal> {
        let services = &self.services;
        let (settings, access) = (services.settings.load(), services.access.load());
        let Some(addressed) = address(delivery, &settings.answers, arrived) else { return Ok(()) };
        let decoded = decode(addressed, &settings.bounds, &services.observers)?;
        let authorized = authorize(decoded, &access, &settings.programs)?;
        let accepted = admit(authorized, &self.admission)?.accept();
        let identified = identify(accepted, &settings.programs, services.suspects.as_ref());
        let Some(first) = deduplicate(identified, &services.deduplicator)? else { return Ok(()) };
        let resolved = resolve(first, services, &settings, &access)?;
        let Some(resolved) = set_poison_aside(resolved, services, &self.tasks) else { return Ok(()) };
        dispatch(resolved, services, &self.tasks);
        Ok(())
    }

    /// From now on requests are answered `busy`, and nothing is compared any more: the gateway drains.
    pub fn stop_taking(&self) {
        self.admission.stop();
        self.tasks.stop_comparing();
    }

    /// Answers the requests that still wait for their module, which will not run, and ends native programs.
    pub async fn stop_tasks(&self) {
        self.tasks.stop().await;
    }
}
