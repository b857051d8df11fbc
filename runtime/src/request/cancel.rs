//! A request that ends another one of its client.

use super::answer::{Refusal, RequestDeduplicator};
use super::claimed;
use super::decode::Asked;
use super::deduplicate::First;
use super::identify::{digest, key};
use super::journal::outcome::NewOutcome;
use super::open::Opener;
use super::services::Services;
use super::settings::Settings;
use super::tasks::Tasks;
use crate::cancellation::cancelled_error;
use crate::deduplication::{Cancelling, Key, ReplyTo};
use crate::fingerprint::Fingerprint;
use crate::request::answer::Repetition;
use crate::shared::{self, SharedOutcomes};
use crate::stopping::stopping_error;
use crate::wasm::workers::Workers;
use arc_swap::ArcSwap;
use bytes::Bytes;
use offload_protocol::answer::Answer;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{self, Code, Incoming, RequestId, RequestKind};
use offload_protocol::topic;
use std::sync::Arc;
use std::time::Instant;
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
    if let Some(shared) = &services.shared {
        let (outcomes, target) =
            (claimed::outcomes(shared, &key).clone(), shared_target(&key, &first.asked, services));
        tasks.spawn(cancel_anywhere(outcomes, target, id, canceller, tasks.stopped()));
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
    outcomes: Arc<dyn SharedOutcomes>,
    target: shared::Target,
    id: RequestId,
    canceller: Repetition,
    stop: CancellationToken,
) {
    let cancelling = tokio::select! {
        cancelling = outcomes.cancel(target) => cancelling,
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
    let sought = Sought {
        key: key.clone(),
        reply_id: asked.reply_id.clone(),
        settings: services.settings.clone(),
        opener: services.opener.clone(),
    };
    let (cancelled_key, account) = (key.clone(), asked.client.account.clone());
    let sealed_until = asked.sealed_until.map(|until| until.wall_ms);
    let outcome = Box::new(move |fingerprint| {
        let answer = &Answer::failed(Some(cancelled_key.id.clone()), cancelled_error());
        let (key, fingerprint, account) = (&cancelled_key, &fingerprint, &*account);
        let outcome = NewOutcome { key, fingerprint, account, answer, sealed_until };
        outcome.encode(claimed::secret(key).as_ref()).into_bytes()
    });
    shared::Target {
        name: claimed::name(key),
        reply_id: asked.reply_id.clone(),
        recognize: Box::new(move |kind, payload: &Bytes| sought.recognize(kind, payload)),
        outcome,
    }
}

/// A request that is looked for among the messages that nobody has answered.
struct Sought {
    key: Key,
    reply_id: Arc<str>,
    settings: Arc<ArcSwap<Settings>>,
    opener: Option<Arc<Opener>>,
}

impl Sought {
    /// The fingerprint of a message, if that is the request and can be cancelled.
    fn recognize(&self, kind: RequestKind, payload: &Bytes) -> Option<Fingerprint> {
        let settings = self.settings.load();
        let is_sealed = self.key.reply_to == ReplyTo::Sealed;
        let request = match request::read(kind, payload.clone(), &[], &settings.bounds).ok()? {
            Incoming::Clear(request) if !is_sealed => request,
            Incoming::Sealed(sealed) if is_sealed => {
                let topic = topic::request(kind, &self.reply_id);
                let opener = self.opener.as_ref()?;
                opener.open(&sealed, kind, &topic, &settings.bounds, Instant::now(), false).request.ok()?
            }
            _ => return None,
        };
        let is_it = request.id.as_ref() == Some(&self.key.id)
            && !matches!(request.code, Code::Cancel(_) | Code::Modules(_));
        let default_program = &settings.programs.default_program().name;
        let fingerprint = || Fingerprint::of_request(&request, digest(&request.code), default_program);
        is_it.then(|| claimed::shown(&self.key, fingerprint()))
    }
}

fn not_found(id: &RequestId, canceller: Repetition) -> Refusal {
    let message = format!("no request `{id}` of this client waits or runs");
    canceller.refuse(WireError::new(ErrorKind::NotFound, message))
}
