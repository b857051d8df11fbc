//! The keys that requests are sealed to, where several gateways are one service: which set all of them have is noted in
//! a key-value bucket. No secret is in there.
//!
//! The first gateway makes the keys and the note; the others get the file from there. One with another set refuses to
//! start: each of them would refuse what was sealed to the other's. One that has no file leaves sealed requests to the
//! others. Renewed keys take the place of the note's, since they come with those that they replace.

use super::jetstream::{JetStream, NatsError, RETRY};
use crate::config::Config;
use crate::keys::{Keys, MAX_AHEAD, OUTDATED, now_ms};
use crate::log_sampling::sampled;
use crate::random::random;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream;
use futures_util::StreamExt;
use offload_policy::Backoff;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// The key of the note.
const NOTE: &str = "keys";

/// See the module's documentation.
pub struct GroupKeys {
    store: Store,
    bucket: String,
    /// Which bucket has the outcomes of sealed requests.
    outcomes: String,
}

/// What all gateways have.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Note {
    /// Names the whole set.
    set: String,
    /// The fingerprints of the keys that open requests.
    keys: Vec<String>,
    /// In milliseconds since 1970: what was sealed earlier may have been run, and nobody knows.
    after: u64,
    /// Which bucket of outcomes knows all that was run since.
    outcomes: String,
}

impl GroupKeys {
    /// Finds or creates the bucket. `outcomes` tells that of sealed requests from one that is made in its place.
    pub(super) async fn open(jetstream: &JetStream, outcomes: String) -> Result<GroupKeys, NatsError> {
        let bucket = format!("{}-keys", jetstream.share);
        let wanted = stream::Config {
            name: format!("KV_{bucket}"),
            description: Some("which keys requests are sealed to".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: jetstream.replicas(),
            ..stream::Config::default()
        };
        let stream = jetstream.stream(wanted).await?;
        jetstream.check_replicas(&format!("the bucket {bucket}"), &stream.cached_info().config)?;
        Ok(GroupKeys { store: jetstream.bucket(&bucket).await, bucket, outcomes })
    }

    /// The keys of the group, with the time after which it is known what was sealed to them; `None` where others have
    /// them and this gateway has not. `own` are those that it has, and whether they have just been made.
    ///
    /// # Errors
    ///
    /// When its keys are others, or cannot be made.
    pub async fn agree(
        &self,
        config: &Config,
        mut own: Option<(Arc<Keys>, bool)>,
    ) -> Result<Option<(Arc<Keys>, u64)>, NatsError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let noted = match self.read().await {
                Ok(noted) => noted,
                Err(error) => {
                    wait(&mut backoff, error).await;
                    continue;
                }
            };
            let Some((noted, revision)) = noted else {
                let (keys, is_new) = match own {
                    Some(own) => own,
                    None => make(config).await?,
                };
                // Nobody has sealed anything to keys that were not there.
                let after = if is_new { 0 } else { unknown_until() };
                match self.store.create(NOTE, self.note(&keys, after).encode().into()).await {
                    Ok(_) => return Ok(Some((keys, after))),
                    Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
                    Err(error) => wait(&mut backoff, error).await,
                }
                own = Some((keys, is_new));
                continue;
            };
            let Some((keys, is_new)) = own else {
                Keys::none(config).warn_of_none();
                return Ok(None);
            };
            if !keys.set().has(&noted.keys) {
                if is_new && config.keys.path.is_none() {
                    // Made at the same time as another gateway's, which was faster.
                    keys.unmake();
                    own = None;
                    continue;
                }
                let show = format!("nats kv get {} {NOTE}", self.bucket);
                let instead = format!("`nats kv del {} {NOTE}`", self.bucket);
                return Err(keys.another_set(&noted.keys, show, instead).into());
            }
            keys.set_others(noted.keys.clone());
            let after = if noted.outcomes == self.outcomes { noted.after } else { unknown_until() };
            let note = self.note(&keys, after);
            if note == noted {
                return Ok(Some((keys, after)));
            }
            match self.store.update(NOTE, note.encode().into(), revision).await {
                Ok(_) => return Ok(Some((keys, after))),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => wait(&mut backoff, error).await,
            }
            own = Some((keys, is_new));
        }
    }

    /// Notes keys that are renewed here while the gateway runs, and hears of those that are renewed elsewhere.
    pub async fn follow(self, keys: Arc<Keys>) {
        let mut changes = keys.changes();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            if let Err(error) = self.follow_once(&keys, &mut changes).await {
                wait(&mut backoff, error).await;
            }
        }
    }

    async fn follow_once(
        &self,
        keys: &Keys,
        changes: &mut watch::Receiver<()>,
    ) -> Result<(), async_nats::Error> {
        let mut notes = self.store.watch_with_history(NOTE).await?;
        self.renew(keys).await?;
        loop {
            tokio::select! {
                note = notes.next() => {
                    let Some(note) = note.transpose()? else { return Err("it is watched no more".into()) };
                    if let Ok(Note { keys: noted, .. }) = serde_json::from_slice(&note.value) {
                        keys.set_others(noted);
                    }
                }
                Ok(()) = changes.changed() => self.renew(keys).await?,
            }
        }
    }

    async fn renew(&self, keys: &Keys) -> Result<(), async_nats::Error> {
        let Some((noted, revision)) = self.read().await? else { return Ok(()) };
        if !keys.set().has(&noted.keys) {
            tracing::error!("{OUTDATED}");
            return Ok(());
        }
        let note = self.note(keys, noted.after);
        if note != noted {
            self.store.update(NOTE, note.encode().into(), revision).await?;
        }
        Ok(())
    }

    fn note(&self, keys: &Keys, after: u64) -> Note {
        let set = keys.set();
        let (set, keys) = (set.fingerprint().to_string(), set.fingerprints());
        Note { set, keys, after, outcomes: self.outcomes.clone() }
    }

    async fn read(&self) -> Result<Option<(Note, u64)>, async_nats::Error> {
        let entry = self.store.entry(NOTE).await?.filter(|entry| entry.operation == Operation::Put);
        entry.map(|entry| Ok((serde_json::from_slice(&entry.value)?, entry.revision))).transpose()
    }
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written")
    }
}

async fn make(config: &Config) -> Result<(Arc<Keys>, bool), NatsError> {
    let config = config.clone();
    let made = spawn_blocking(move || Keys::open(&config)).await;
    Ok(made.map_err(|panic| NatsError::Making(std::io::Error::other(panic)))??)
}

/// Until when what was sealed may have been run before, by clocks that differ.
fn unknown_until() -> u64 {
    now_ms() + MAX_AHEAD.as_millis() as u64
}

async fn wait(backoff: &mut Backoff, error: impl Display) {
    _ = sampled!(warn, %error, "the bucket of keys does not answer; trying again");
    sleep(backoff.wait(random())).await;
}
