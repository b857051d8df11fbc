//! What the publisher of a request is promised, and where the request comes from: until it is accepted or refused.

use super::kept::Kept;
use super::{Draft, RequestJournal};
use crate::ingress::{Acceptance, Delivery, Handover};
use crate::wasm::workers::Waiting;
use std::sync::Arc;

/// Where a delivery comes from.
pub enum Origin {
    /// From a broker, and it need not outlive a crash.
    Broker,
    /// From a broker, and it is to be kept in this journal.
    ToBeKept(Arc<RequestJournal>, Draft),
    /// From the journal; with the room that it was admitted to, if there is any for it.
    Journal(Arc<Kept>, Option<Waiting>),
}

/// What the publisher of a request is promised, until the request is accepted or refused.
pub struct Promise {
    acceptance: Acceptance,
    origin: Origin,
}

impl Origin {
    /// Of what an ingress delivers: what is acknowledged before it is answered has to be kept, if anything is.
    pub fn of(delivery: &Delivery, journal: Option<&Arc<RequestJournal>>) -> Origin {
        match journal {
            Some(journal) if delivery.acceptance.is_owed() => {
                Origin::ToBeKept(journal.clone(), Draft::of(delivery))
            }
            _ => Origin::Broker,
        }
    }

    /// It is no request: nothing is kept of it.
    pub fn end(self) {
        if let Origin::Journal(kept, _) = self {
            kept.answered(Handover::Complete);
        }
    }
}

impl Promise {
    /// With this acceptance.
    pub fn new(acceptance: Acceptance, origin: Origin) -> Promise {
        Promise { acceptance, origin }
    }

    /// Whether the request was accepted before: by an earlier process, or by this one, which runs it again.
    pub fn was_accepted(&self) -> bool {
        matches!(self.origin, Origin::Journal(..)) || self.acceptance.is_given()
    }

    /// The room that the request was admitted to, if it was already.
    pub fn take_waiting(&mut self) -> Option<Waiting> {
        match &mut self.origin {
            Origin::Journal(_, waiting) => waiting.take(),
            _ => None,
        }
    }

    /// The request is accepted, or refused. What is to be kept goes on with it; otherwise what is in memory counts as
    /// safe.
    pub fn take(self) -> Option<Arc<Kept>> {
        match self.origin {
            Origin::ToBeKept(journal, draft) => Some(Arc::new(Kept::new(journal, self.acceptance, draft))),
            Origin::Journal(kept, _) => Some(kept),
            Origin::Broker => {
                self.acceptance.complete();
                None
            }
        }
    }
}
