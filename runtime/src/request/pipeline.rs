//! The way of a request, from the top: each step is a line, and a file of its own.

use super::address::address;
use super::admit::{Admission, admit};
use super::answer::Refusal;
use super::authorize::authorize;
use super::cancel::cancel;
use super::claim::{claim, to_be_claimed};
use super::decode::decode;
use super::deduplicate::{First, deduplicate};
use super::dispatch::dispatch;
use super::identify::identify;
use super::journal::promise::Origin;
use super::keep::keep;
use super::poison::set_poison_aside;
use super::resolve::resolve;
use super::services::Services;
use super::tasks::Tasks;
use crate::ingress::{Delivery, Sink};
use crate::shared::Shared;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The way of all requests, through these services.
pub struct Pipeline {
    services: Services,
    admission: Admission,
    tasks: Tasks,
    /// Cancelled when all that an earlier process has left has gone this way.
    recovered: CancellationToken,
    /// For tasks that go on with a request.
    this: Weak<Pipeline>,
}

impl Sink for Pipeline {
    fn deliver(&self, delivery: Delivery) {
        let origin = Origin::of(&delivery, self.services.journal.as_ref());
        self.deliver_from(origin, delivery, Instant::now());
    }

    fn deliver_since(&self, delivery: Delivery, arrived: Instant) {
        let origin = Origin::of(&delivery, self.services.journal.as_ref());
        self.deliver_from(origin, delivery, arrived);
    }

    fn dispatch(&self) {
        // First what another machine waits for.
        if let Some(router) = &self.services.router {
            router.flush();
        }
        self.services.workers.dispatch();
        // What has ended by now needs no record of the request any more.
        if let Some(journal) = &self.services.journal {
            journal.commit();
        }
    }
}

impl Pipeline {
    /// Through these services; what waits does so on `tasks`' runtime.
    pub fn new(services: Services) -> Arc<Pipeline> {
        let recovered = CancellationToken::new();
        if services.journal.is_none() {
            recovered.cancel();
        }
        Arc::new_cyclic(|this| Pipeline {
            recovered,
            admission: Admission::new(services.workers.clone()),
            tasks: Tasks::new(services.runtime.clone()),
            services,
            this: this.clone(),
        })
    }

    /// Takes over a delivery that has arrived then. What is kept of it waits for [`dispatch`](Sink::dispatch).
    pub(super) fn deliver_from(&self, origin: Origin, delivery: Delivery, arrived: Instant) {
        if let Err(refusal) = self.advance(origin, delivery, arrived) {
            refusal.answer();
        }
    }

    /// From the ingress to a backend, or to a refusal.
    fn advance(&self, origin: Origin, delivery: Delivery, arrived: Instant) -> Result<(), Refusal> {
        let services = &self.services;
        let (settings, access) = (services.settings.load(), services.access.load());
        let Some(addressed) = address(delivery, origin, &settings.answers, &services.site, arrived) else {
            return Ok(());
        };
        let opener = services.opener.as_deref();
        let Some(decoded) = decode(addressed, &settings.bounds, opener, &services.observers)? else {
            return Ok(());
        };
        let authorized = authorize(decoded, &access, &settings.programs)?;
        let accepted = admit(authorized, &self.admission)?.accept();
        let identified = identify(accepted, &settings.programs, services.suspects.as_ref());
        let Some(first) = deduplicate(identified, services)? else { return Ok(()) };
        match to_be_claimed(&first, services) {
            Some(shared) => self.start_when_claimed(first, shared.clone()),
            None => self.start(first)?,
        }
        Ok(())
    }

    /// Starts a request that other gateways know, unless one of them has run it.
    fn start_when_claimed(&self, first: First, shared: Shared) {
        let (pipeline, workers, stop) =
            (self.this.clone(), self.services.workers.clone(), self.tasks.stopped());
        self.tasks.spawn(async move {
            let claimed = claim(first, shared, workers, stop).await;
            let Some(pipeline) = pipeline.upgrade() else { return };
            let started = match claimed {
                Ok(Some(first)) => pipeline.start(first),
                Ok(None) => Ok(()),
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = started {
                refusal.answer();
            }
            pipeline.dispatch();
        });
    }

    /// From the first request of its name to a backend, or to a refusal.
    fn start(&self, first: First) -> Result<(), Refusal> {
        let services = &self.services;
        let (settings, access) = (services.settings.load(), services.access.load());
        let Some(first) = cancel(keep(first)?, services, &self.recovered, &self.tasks)? else {
            return Ok(());
        };
        let resolved = resolve(first, services, &settings, &access)?;
        let Some(resolved) = set_poison_aside(resolved, services, &self.tasks) else { return Ok(()) };
        dispatch(resolved, services, &self.tasks);
        Ok(())
    }

    /// All that an earlier process has left has gone this way.
    pub(super) fn recovered(&self) {
        self.recovered.cancel();
    }

    /// What lets requests in.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
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
