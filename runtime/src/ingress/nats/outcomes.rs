//! Outcomes of requests with an `id` in a key-value bucket, which all gateways share.
//!
//! A key is a request. Its value says that a gateway runs it, or what its outcome is. Each change names the revision
//! that it replaces, so that of two gateways one is first, whatever they have read. A gateway renews what it runs; a
//! request whose value stays the same for [the acknowledgement wait](crate::config::Nats::ack_wait) is taken over. No
//! clock of another machine is asked.
//!
//! A request that another one cancels gets that outcome from whichever gateway takes the cancel. The gateway that runs
//! it is told by a key beside, `cancel.<name>`, with the revision of the outcome; should that be lost, it finds out
//! when it renews. One that no gateway has begun finds its outcome when it is claimed.

use super::held::REPORTS;
use super::jetstream::{JetStream, NatsError, bytes};
use super::unanswered::Unanswered;
use crate::fingerprint::Fingerprint;
use crate::log_sampling::sampled;
use crate::random::random;
use crate::shared::{
    Cancelling, Claim, KeptOutcome, OnCancelled, SharedName, SharedOutcomes, Target, WhenKept,
};
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateError, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use offload_broker::BoxFuture;
use offload_policy::Backoff;
use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Waits between looks at a request that another gateway runs.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How long the bucket may fail before it is taken for full; an election of its servers takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Waits between attempts while the bucket cannot be written or read.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Requests that are renewed at once.
const RENEWED_AT_ONCE: usize = 64;
/// Bytes of a message beside an outcome: subject and headers.
const OVERHEAD: usize = 512;

/// What the keys begin with that tell of a cancel.
const CANCEL: &str = "cancel.";
/// Cancels that are remembered in case that their requests are being claimed here at this moment.
const MAX_CANCELS: usize = 1_024;

/// How much longer the outcome of a sealed request is kept: its asker's clock may be ahead, and so may be the clock of
/// one gateway against that of another.
const SEALED_MARGIN: Duration = Duration::from_secs(120);
/// Bytes of a value beside the outcome.
const VALUE_HEAD: usize = 1 + 32;

/// First byte of a value: a gateway runs the request.
const RUNS: u8 = 0;
/// First byte of a value: a gateway has begun with the request, which cannot be cancelled.
const FINISHES: u8 = 2;
/// First byte of a value: the request has this outcome.
const DONE: u8 = 1;

/// See the module's documentation.
pub(super) struct NatsOutcomes {
    shared: Arc<Bucket>,
    runtime: Handle,
    /// Outcomes and releases on their way.
    unfinished: TaskTracker,
    _renewing: AbortOnDropHandle<()>,
    _listening: AbortOnDropHandle<()>,
}

struct Bucket {
    store: Store,
    /// Time after which a request that is not renewed is another gateway's.
    lease: Duration,
    max_value: usize,
    /// Whether an outcome that is given again is kept as long again.
    renews: bool,
    claims: Mutex<Claims>,
    unanswered: Unanswered,
}

/// What this gateway runs, and what it has heard of cancels.
#[derive(Default)]
struct Claims {
    running: HashMap<SharedName, Run>,
    /// Names, with the revisions that their outcomes have; the last one last.
    cancelled: VecDeque<(SharedName, u64)>,
}

struct Run {
    fingerprint: Fingerprint,
    /// That of the claim.
    revision: u64,
    /// None of what cannot be cancelled.
    on_cancelled: Option<OnCancelled>,
}

/// A value of the bucket.
enum Value {
    Runs(Fingerprint),
    Finishes(Fingerprint),
    Done(Fingerprint, Bytes),
}

impl NatsOutcomes {
    /// Finds or creates the bucket with the outcomes of requests in clear, kept for `retention`.
    pub async fn open(jetstream: &JetStream, retention: Duration) -> Result<NatsOutcomes, NatsError> {
        NatsOutcomes::find(jetstream, "outcomes", retention, false).await.map(|(outcomes, _)| outcomes)
    }

    /// Finds or creates that of sealed requests, which is also told from one that is made in its place. An outcome that
    /// is given again is kept as long again: its request may have been sealed again meanwhile.
    pub async fn open_sealed(
        jetstream: &JetStream,
        retention: Duration,
    ) -> Result<(NatsOutcomes, String), NatsError> {
        NatsOutcomes::find(jetstream, "sealed", retention + SEALED_MARGIN, true).await
    }

    async fn find(
        jetstream: &JetStream,
        what: &str,
        retention: Duration,
        renews: bool,
    ) -> Result<(NatsOutcomes, String), NatsError> {
        let bucket = format!("{}-{what}", jetstream.share);
        let name = format!("KV_{bucket}");
        let wanted = Config {
            name: name.clone(),
            description: Some("outcomes of requests with an `id`".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            max_age: retention,
            max_bytes: bytes(jetstream.config.outcome_bytes),
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: jetstream.replicas(),
            ..Config::default()
        };
        let stream = jetstream.stream(wanted).await?;
        let created = stream.cached_info().created.unix_timestamp_nanos().to_string();
        let found = &stream.cached_info().config;
        let what = format!("the bucket {bucket}");
        jetstream.check_replicas(&what, found)?;
        if found.max_age != retention {
            return Err(NatsError::Contradiction {
                what,
                problem: format!(
                    "it keeps values for {:?}, not for {retention:?} (idempotency.retention{})",
                    found.max_age,
                    if renews { " and two minutes" } else { "" }
                ),
                fix: format!("`nats stream edit {name} --max-age {}s`", retention.as_secs()),
            });
        }
        let store = jetstream.bucket(&bucket).await;
        let max_value = jetstream.client.server_info().max_payload.saturating_sub(OVERHEAD);
        let lease = jetstream.config.ack_wait.duration();
        let (claims, unanswered) = (Mutex::default(), Unanswered::new(jetstream));
        let shared = Arc::new(Bucket { store, lease, max_value, renews, claims, unanswered });
        let renewing = AbortOnDropHandle::new(tokio::spawn(shared.clone().renew()));
        let listening = AbortOnDropHandle::new(tokio::spawn(shared.clone().listen()));
        let outcomes = NatsOutcomes {
            shared,
            runtime: Handle::current(),
            unfinished: TaskTracker::new(),
            _renewing: renewing,
            _listening: listening,
        };
        Ok((outcomes, created))
    }
}

impl SharedOutcomes for NatsOutcomes {
    fn claim(
        &self,
        name: SharedName,
        fingerprint: Fingerprint,
        on_cancelled: Option<OnCancelled>,
    ) -> BoxFuture<'_, Claim> {
        Box::pin(self.shared.claim(name, fingerprint, on_cancelled))
    }

    fn keep(&self, name: SharedName, fingerprint: Fingerprint, outcome: Bytes, then: WhenKept) {
        let shared = self.shared.clone();
        let keeping = async move { then(shared.keep(name, fingerprint, outcome).await) };
        self.unfinished.spawn_on(keeping, &self.runtime);
    }

    fn release(&self, name: SharedName) {
        let shared = self.shared.clone();
        self.unfinished.spawn_on(async move { drop(shared.release(&name).await) }, &self.runtime);
    }

    fn cancel(&self, target: Target) -> BoxFuture<'_, Cancelling> {
        Box::pin(self.shared.cancel(target))
    }

    fn max_outcome(&self) -> usize {
        self.shared.max_value.saturating_sub(VALUE_HEAD)
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.unfinished.close();
            self.unfinished.wait().await;
        })
    }
}

impl Bucket {
    async fn claim(
        &self,
        name: SharedName,
        fingerprint: Fingerprint,
        on_cancelled: Option<OnCancelled>,
    ) -> Claim {
        let (mut poll, mut retry) = (Backoff::new(POLL.0, POLL.1), Backoff::new(RETRY.0, RETRY.1));
        let running = Value::of_claim(fingerprint, on_cancelled.is_some()).encode();
        // The revision that another gateway's claim has, and since when.
        let mut seen: Option<(u64, Instant)> = None;
        let mut trouble = Trouble::default();
        loop {
            if trouble.lasts() {
                return Claim::Unavailable;
            }
            match self.store.create(&*name, running.clone()).await {
                Ok(revision) => {
                    self.run(name, Run { fingerprint, revision, on_cancelled });
                    return Claim::Ours;
                }
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
                Err(error) => {
                    trouble.begin();
                    wait(&mut retry, error).await;
                    continue;
                }
            }
            let (value, revision) = match self.read(&name).await {
                Ok(Some(found)) => found,
                // It has just been removed, or this server does not have it yet.
                Ok(None) => {
                    sleep(poll.wait(random())).await;
                    continue;
                }
                Err(error) => {
                    trouble.begin();
                    wait(&mut retry, error).await;
                    continue;
                }
            };
            trouble = Trouble::default();
            match value {
                Value::Runs(other) | Value::Finishes(other) | Value::Done(other, _)
                    if other != fingerprint =>
                {
                    return Claim::Conflict;
                }
                Value::Done(_, outcome) => {
                    match self.given_again(&name, fingerprint, &outcome, revision).await {
                        Ok(true) => return Claim::Done(outcome),
                        Ok(false) => continue,
                        Err(error) => {
                            trouble.begin();
                            wait(&mut retry, error).await;
                            continue;
                        }
                    }
                }
                Value::Runs(_) | Value::Finishes(_) => {}
            }
            let since = match seen {
                Some((known, since)) if known == revision => since,
                _ => Instant::now(),
            };
            seen = Some((revision, since));
            if since.elapsed() >= self.lease
                && let Ok(revision) = self.store.update(&*name, running.clone(), revision).await
            {
                tracing::info!(name = &*name, "a request is taken over from a gateway that is not heard of");
                self.run(name, Run { fingerprint, revision, on_cancelled });
                return Claim::Ours;
            }
            sleep(poll.wait(random())).await;
        }
    }

    /// Keeps an outcome as long again, where that is to be; whether nobody else has changed it meanwhile.
    async fn given_again(
        &self,
        name: &str,
        fingerprint: Fingerprint,
        outcome: &Bytes,
        revision: u64,
    ) -> Result<bool, UpdateError> {
        if !self.renews {
            return Ok(true);
        }
        let done = Value::Done(fingerprint, outcome.clone()).encode();
        match self.store.update(name, done, revision).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, name: SharedName, fingerprint: Fingerprint, outcome: Bytes) -> KeptOutcome {
        let done = Value::Done(fingerprint, outcome).encode();
        if done.len() > self.max_value {
            let (bytes, most) = (done.len(), self.max_value);
            _ = sampled!(
                warn,
                bytes,
                most,
                "an outcome is too large for NATS: other gateways do not know it"
            );
            // Another gateway may have cancelled it.
            return self.release(&name).await.map_or(KeptOutcome::Unshared, KeptOutcome::Theirs);
        }
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        let mut revision = self.lock().running.remove(&name).map_or(0, |run| run.revision);
        let mut trouble = Trouble::default();
        loop {
            if trouble.lasts() {
                _ = sampled!(warn, "an outcome cannot be shared: other gateways do not know it");
                return KeptOutcome::Unshared;
            }
            match self.store.update(&*name, done.clone(), revision).await {
                Ok(_) => return KeptOutcome::Ours,
                Err(error) if error.kind() != UpdateErrorKind::WrongLastRevision => {
                    trouble.begin();
                    wait(&mut retry, error).await;
                }
                Err(_) => match self.read(&name).await {
                    Ok(Some((Value::Done(print, theirs), current))) => {
                        match self.given_again(&name, print, &theirs, current).await {
                            Ok(true) => return KeptOutcome::Theirs(theirs),
                            Ok(false) => {}
                            Err(error) => {
                                trouble.begin();
                                wait(&mut retry, error).await;
                            }
                        }
                    }
                    Ok(Some((Value::Runs(_) | Value::Finishes(_), current))) => revision = current,
                    Ok(None) => revision = self.last_revision(&name).await,
                    Err(error) => {
                        trouble.begin();
                        wait(&mut retry, error).await;
                    }
                },
            }
        }
    }

    /// Returns the outcome that the request has by now, if it has one.
    async fn release(&self, name: &SharedName) -> Option<Bytes> {
        let claimed = self.lock().running.remove(name)?;
        // Where that fails for another reason, another gateway takes it over after the lease.
        self.store.delete_expect_revision(&**name, Some(claimed.revision)).await.err()?;
        match self.read(name).await {
            Ok(Some((Value::Done(_, outcome), _))) => Some(outcome),
            _ => None,
        }
    }

    /// Whichever is first counts: the outcome of a run, or this one.
    async fn cancel(&self, target: Target) -> Cancelling {
        let (mut poll, mut retry) = (Backoff::new(POLL.0, POLL.1), Backoff::new(RETRY.0, RETRY.1));
        let (name, mut trouble) = (&target.name, Trouble::default());
        loop {
            if trouble.lasts() {
                return Cancelling::Unavailable;
            }
            let found = match self.read(name).await {
                Ok(found) => found,
                Err(error) => {
                    trouble.begin();
                    wait(&mut retry, error).await;
                    continue;
                }
            };
            let cancelled = |fingerprint| Value::Done(fingerprint, (target.outcome)(fingerprint)).encode();
            let written = match found {
                Some((Value::Done(..) | Value::Finishes(_), _)) => return Cancelling::NotFound,
                Some((Value::Runs(print), at)) => {
                    self.store.update(&**name, cancelled(print), at).await.map_err(|error| {
                        (error.kind() == UpdateErrorKind::WrongLastRevision, error.to_string())
                    })
                }
                None => match self.unanswered.find(&target).await {
                    Ok(None) => return Cancelling::NotFound,
                    Ok(Some(print)) => {
                        self.store.create(&**name, cancelled(print)).await.map_err(|error| {
                            (error.kind() == CreateErrorKind::AlreadyExists, error.to_string())
                        })
                    }
                    Err(error) => Err((false, error.to_string())),
                },
            };
            match written {
                Ok(revision) => {
                    self.tell(name, revision).await;
                    return Cancelling::Done;
                }
                // It has begun, or ended, meanwhile; or this server does not have that yet.
                Err((true, _)) => sleep(poll.wait(random())).await,
                Err((false, error)) => {
                    trouble.begin();
                    wait(&mut retry, error).await;
                }
            }
        }
    }

    /// Tells whoever runs it that a request was cancelled, by the value of this revision.
    async fn tell(&self, name: &SharedName, revision: u64) {
        self.cancelled(name.clone(), revision);
        let told =
            self.store.put(format!("{CANCEL}{name}"), Bytes::copy_from_slice(&revision.to_be_bytes())).await;
        if let Err(error) = told {
            _ = sampled!(warn, %error, "a cancel is not told: the gateway that runs the request finds out later");
        }
    }

    /// Renews what this gateway runs, for ever.
    async fn renew(self: Arc<Self>) {
        let mut due = interval(self.lease / REPORTS);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let running: Vec<_> = self
                .lock()
                .running
                .iter()
                .map(|(name, run)| (name.clone(), run.value(), run.revision))
                .collect();
            // Together, so that one that gets no answer keeps none of the others waiting beyond the lease.
            let renewals = running.into_iter().map(|(name, value, at)| self.renew_one(name, value, at));
            stream::iter(renewals).for_each_concurrent(RENEWED_AT_ONCE, |renewal| renewal).await;
        }
    }

    /// Renews one that has this value, of this revision. It may be cancelled instead.
    async fn renew_one(&self, name: SharedName, value: Value, revision: u64) {
        match self.store.update(&*name, value.encode(), revision).await {
            Ok(renewed) => {
                if let Some(run) = self.lock().running.get_mut(&name)
                    && run.revision == revision
                {
                    run.revision = renewed;
                }
            }
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                if let Ok(Some((Value::Done(..), revision))) = self.read(&name).await {
                    self.cancelled(name, revision);
                }
            }
            Err(_) => {}
        }
    }

    /// Hears of cancels, for ever.
    async fn listen(self: Arc<Self>) {
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.store.watch(format!("{CANCEL}*")).await {
                Ok(mut cancels) => {
                    while let Some(Ok(cancel)) = cancels.next().await {
                        retry.reset();
                        let name = cancel.key.strip_prefix(CANCEL).map(SharedName::from);
                        let revision = cancel.value[..].try_into().map(u64::from_be_bytes);
                        if let (Some(name), Ok(revision)) = (name, revision) {
                            self.cancelled(name, revision);
                        }
                    }
                }
                Err(error) => {
                    _ = sampled!(warn, %error, "cancels of other gateways are not heard of; trying again")
                }
            }
            sleep(retry.wait(random())).await;
        }
    }

    /// A request runs here from now on.
    fn run(&self, name: SharedName, run: Run) {
        let (revision, on_cancelled) = (run.revision, run.on_cancelled.clone());
        let is_cancelled = {
            let mut claims = self.lock();
            let is_cancelled = claims.cancelled.iter().any(|(known, at)| *known == name && *at > revision);
            claims.running.insert(name, run);
            is_cancelled
        };
        if let Some(on_cancelled) = on_cancelled.filter(|_| is_cancelled) {
            on_cancelled();
        }
    }

    /// A request was cancelled, by the value of this revision.
    fn cancelled(&self, name: SharedName, revision: u64) {
        let on_cancelled = {
            let mut claims = self.lock();
            let run = claims.running.get(&name).filter(|run| run.revision < revision);
            let on_cancelled = run.and_then(|run| run.on_cancelled.clone());
            claims.cancelled.push_back((name, revision));
            if claims.cancelled.len() > MAX_CANCELS {
                claims.cancelled.pop_front();
            }
            on_cancelled
        };
        if let Some(on_cancelled) = on_cancelled {
            on_cancelled();
        }
    }

    /// What a key has, with its revision; none where it was removed.
    async fn read(&self, name: &str) -> Result<Option<(Value, u64)>, async_nats::Error> {
        let entry = self.store.entry(name).await?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.and_then(|entry| Some((Value::decode(entry.value)?, entry.revision))))
    }

    /// That of a key whose value is gone: of the mark of its removal, if there is one.
    async fn last_revision(&self, name: &str) -> u64 {
        self.store.entry(name).await.ok().flatten().map_or(0, |entry| entry.revision)
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().expect("no panic while the lock is held")
    }
}

impl Run {
    fn value(&self) -> Value {
        Value::of_claim(self.fingerprint, self.on_cancelled.is_some())
    }
}

impl Value {
    fn of_claim(fingerprint: Fingerprint, can_be_cancelled: bool) -> Value {
        if can_be_cancelled { Value::Runs(fingerprint) } else { Value::Finishes(fingerprint) }
    }

    fn encode(&self) -> Bytes {
        let (kind, fingerprint, outcome) = match self {
            Value::Runs(fingerprint) => (RUNS, fingerprint, &[][..]),
            Value::Finishes(fingerprint) => (FINISHES, fingerprint, &[][..]),
            Value::Done(fingerprint, outcome) => (DONE, fingerprint, &outcome[..]),
        };
        let mut bytes = BytesMut::with_capacity(1 + fingerprint.0.len() + outcome.len());
        bytes.put_u8(kind);
        bytes.put_slice(&fingerprint.0);
        bytes.put_slice(outcome);
        bytes.freeze()
    }

    fn decode(bytes: Bytes) -> Option<Value> {
        let (kind, rest) = bytes.split_first()?;
        let (fingerprint, _) = rest.split_first_chunk()?;
        let outcome = bytes.slice(1 + fingerprint.len()..);
        match *kind {
            RUNS => Some(Value::Runs(Fingerprint(*fingerprint))),
            FINISHES => Some(Value::Finishes(Fingerprint(*fingerprint))),
            DONE => Some(Value::Done(Fingerprint(*fingerprint), outcome)),
            _ => None,
        }
    }
}

/// Since when the bucket does not do what it is asked.
#[derive(Default)]
struct Trouble(Option<Instant>);

impl Trouble {
    /// It does not, for now.
    fn begin(&mut self) {
        self.0.get_or_insert_with(Instant::now);
    }

    /// Whether that is no election among its servers any more: it may be full.
    fn lasts(&self) -> bool {
        self.0.is_some_and(|since| since.elapsed() >= PATIENCE)
    }
}

async fn wait(retry: &mut Backoff, error: impl Display) {
    _ = sampled!(warn, %error, "the bucket of outcomes does not answer; trying again");
    sleep(retry.wait(random())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back() {
        let print = Fingerprint([7; 32]);
        let done = Value::Done(print, Bytes::from_static(b"outcome")).encode();
        assert!(matches!(Value::decode(done), Some(Value::Done(p, o)) if p == print && &o[..] == b"outcome"));
        assert!(matches!(Value::decode(Value::Runs(print).encode()), Some(Value::Runs(p)) if p == print));
        let finishes = Value::of_claim(print, false).encode();
        assert!(matches!(Value::decode(finishes), Some(Value::Finishes(p)) if p == print));
        for bytes in [&b""[..], b"\x01short", &[9; 33]] {
            assert!(Value::decode(Bytes::copy_from_slice(bytes)).is_none());
        }
    }
}
