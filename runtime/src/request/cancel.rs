//! A request that ends another one of its client.

use super::answer::{Refusal, RequestDeduplicator};
use super::claim::name;
use super::decode::Asked;
use super::deduplicate::First;
use super::identify::{digest, key};
use super::journal::outcome::NewOutcome;
use super::services::Services;
use super::settings::Settings;
use super::tasks::Tasks;
use crate::cancellation::cancelled_error;
use crate::deduplication::{Cancelling, Key, ReplyTo};
use crate::fingerprint::Fingerprint;
use crate::request::answer::Repetition;
use crate::shared::{self, Shared};
use crate::stopping::stopping_error;
use crate::wasm::workers::Workers;
use bytes::Bytes;
use offload_protocol::answer::Answer;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{self, Code, Incoming, RequestId, RequestKind};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Ends the request that this one is to cancel: it is answered when that one is. Returns any other request. What an
/// earlier process has left is waited for before something is said not to be there.
pub fn cancel(
    first: First,
    services: &Services,
    recovered: &CancellationToken,
    tasks: &Tasks,
) -> Result<Option<First>, Refusal> {
    let Code::Cancel(id) = &first.asked.request.code else { return Ok(Some(first)) };
    if first.asked.destination.is_some() {
        // It goes where the other one has gone.
        return Ok(Some(first));
    }
    let key = match first.asked.sealed_until {
        // Neither knows of the other's names.
        Some(_) => Some(Key { principal: None, reply_to: ReplyTo::Sealed, id: id.clone() }),
        None => key(&first.asked.client, &first.asked.reply_id, id),
    };
    let id = id.clone();
    let canceller = Repetition { pending: first.pending, waiting: first.waiting };
    let Some(key) = key else { return Err(not_found(&id, canceller)) };
    if let Some(shared) = services.shared.clone() {
        let target = shared_target(&key, &first.asked, services);
        tasks.spawn(cancel_anywhere(shared, target, id, canceller, tasks.stopped()));
        return Ok(None);
    }
    let target =
        Target { id, key, deduplicator: services.deduplicator.clone(), workers: services.workers.clone() };
    // Asked first: what is left by then is known to the deduplicator.
    let is_recovered = recovered.is_cancelled();
    match target.cancel(canceller) {
        Ok(()) => Ok(None),
        Err(Failed::Refused(refusal)) => Err(refusal),
        // The earlier process has done that, and could not say so.
        Err(Failed::NotFound(canceller)) if was_done(&canceller, &target) => {
            canceller.confirm();
            Ok(None)
        }
        Err(Failed::NotFound(canceller)) if is_recovered => Err(not_found(&target.id, *canceller)),
        Err(Failed::NotFound(canceller)) => {
            tasks.spawn(wait(target, *canceller, recovered.clone(), tasks.stopped()));
            Ok(None)
        }
    }
}

/// The request that is to end.
struct Target {
    id: RequestId,
    key: Key,
    deduplicator: Arc<RequestDeduplicator>,
    workers: Arc<Workers>,
}

/// Why it is not cancelled.
enum Failed {
    NotFound(Box<Repetition>),
    Refused(Refusal),
}

impl Target {
    fn cancel(&self, canceller: Repetition) -> Result<(), Failed> {
        match self.deduplicator.cancel(&self.key, canceller) {
            Cancelling::Begun(cancellation) => {
                self.workers.cancel(&cancellation);
                Ok(())
            }
            Cancelling::NotFound(canceller) => Err(Failed::NotFound(Box::new(canceller))),
            Cancelling::TooMany(canceller) => {
                let message = "too many requests cancel this one already, try again after 1 s";
                Err(Failed::Refused(canceller.refuse(WireError::new(ErrorKind::Busy, message))))
            }
        }
    }
}

/// Whether a cancel that an earlier process has kept has found its request then.
fn was_done(canceller: &Repetition, target: &Target) -> bool {
    let kept = canceller.pending.way_back.kept.as_ref();
    kept.is_some_and(|kept| kept.is_recovered()) && target.deduplicator.was_cancelled(&target.key)
}

async fn wait(target: Target, canceller: Repetition, recovered: CancellationToken, stop: CancellationToken) {
    let refusal = tokio::select! {
        () = recovered.cancelled() => match target.cancel(canceller) {
            Ok(()) => return,
            Err(Failed::Refused(refusal)) => refusal,
            Err(Failed::NotFound(canceller)) => not_found(&target.id, *canceller),
        },
        () = stop.cancelled() => canceller.refuse(stopping_error()),
    };
    refusal.answer();
}

/// Ends a request that any of several gateways may have. That it has ended is what they all know, before the one that
/// runs it is told.
async fn cancel_anywhere(
    shared: Shared,
    target: shared::Target,
    id: RequestId,
    canceller: Repetition,
    stop: CancellationToken,
) {
    let cancelling = tokio::select! {
        cancelling = shared.outcomes.cancel(target) => cancelling,
        () = stop.cancelled() => return canceller.refuse(stopping_error()).answer(),
    };
    match cancelling {
        shared::Cancelling::Done => canceller.confirm(),
        shared::Cancelling::NotFound => not_found(&id, canceller).answer(),
        shared::Cancelling::Unavailable => {
            let message = "the bucket of outcomes is full, or does not answer; try again after 5 s";
            canceller.refuse(WireError::new(ErrorKind::Busy, message)).answer();
        }
    }
}

/// The request of this name, as all gateways know it.
fn shared_target(key: &Key, asked: &Asked, services: &Services) -> shared::Target {
    let (settings, id) = (services.settings.clone(), key.id.clone());
    let recognize =
        Box::new(move |kind, payload: &Bytes| fingerprint_if(&id, kind, payload, &settings.load()));
    let (cancelled_key, account) = (key.clone(), asked.client.account.clone());
    let outcome = Box::new(move |fingerprint| {
        let answer = &Answer::failed(Some(cancelled_key.id.clone()), cancelled_error());
        let (key, fingerprint, account) = (&cancelled_key, &fingerprint, &*account);
        NewOutcome { key, fingerprint, account, answer, sealed_until: None }.encode(None).into_bytes()
    });
    shared::Target { name: name(key), reply_id: asked.reply_id.clone(), recognize, outcome }
}

/// The fingerprint of a message that nobody has answered, if it is a request of this name that can be cancelled.
fn fingerprint_if(
    id: &RequestId,
    kind: RequestKind,
    payload: &Bytes,
    settings: &Settings,
) -> Option<Fingerprint> {
    let Incoming::Clear(request) = request::read(kind, payload.clone(), &[], &settings.bounds).ok()? else {
        return None;
    };
    let is_it =
        request.id.as_ref() == Some(id) && !matches!(request.code, Code::Cancel(_) | Code::Modules(_));
    let default_program = &settings.programs.default_program().name;
    is_it.then(|| Fingerprint::of_request(&request, digest(&request.code), default_program))
}

fn not_found(id: &RequestId, canceller: Repetition) -> Refusal {
    let message = format!("no request `{id}` of this client waits or runs");
    canceller.refuse(WireError::new(ErrorKind::NotFound, message))
}
