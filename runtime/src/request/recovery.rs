//! What an earlier process has left in the journal: outcomes are known again, requests go their way again.

use super::answer::RequestDeduplicator;
use super::journal::kept::Kept;
use super::journal::outcome::{decode, decode_sealed};
use super::journal::promise::Origin;
use super::journal::{Arrived, RequestJournal};
use super::pipeline::Pipeline;
use crate::deduplication::{Remembered, Until};
use crate::durability::moment::Moment;
use crate::ingress::{Acceptance, Delivery, Detached, Ingress, Sink};
use crate::keys::now_ms;
use offload_journal::Record;
use offload_protocol::request::RequestId;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Remembers the outcomes in these records. This waits for the disk where they are long.
pub fn restore_outcomes(records: &[Record], journal: &RequestJournal, deduplicator: &RequestDeduplicator) {
    let (now, mut known, mut superfluous) = (Moment::now(), HashSet::new(), Vec::new());
    let mut outcomes: Vec<(Remembered, Duration)> = Vec::new();
    // The newest of a name counts: an older one was forgotten, and the crash has forgotten that.
    for record in records.iter().rev() {
        match journal.read(record).map(|bytes| decode(bytes.into(), record.id)) {
            Ok(Some((outcome, moment))) if known.insert(outcome.key.clone()) => {
                outcomes.push((outcome, moment.age(&now)));
            }
            Ok(Some(_)) => superfluous.push(record.id),
            Ok(None) => unreadable(record, "it is no outcome of this version"),
            Err(error) => unreadable(record, &error),
        }
    }
    journal.remove(superfluous);
    outcomes.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
    if !outcomes.is_empty() {
        tracing::info!(outcomes = outcomes.len(), "outcomes of an earlier process are known again");
    }
    deduplicator.restore(outcomes, Instant::now());
}

/// The same of sealed requests.
pub fn restore_sealed(records: &[Record], journal: &RequestJournal, deduplicator: &RequestDeduplicator) {
    let Some(secret) = journal.secret() else { return };
    let (now, mut superfluous) = (now_ms(), Vec::new());
    let mut outcomes: HashMap<RequestId, Remembered> = HashMap::new();
    for record in records {
        match journal.read(record).map(|bytes| decode_sealed(bytes.into(), record.id, secret)) {
            // The one that counts longer counts; of two that count as long, either.
            Ok(Some(outcome)) => match outcomes.entry(outcome.key.id.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(outcome);
                }
                Entry::Occupied(mut known) if known.get().sealed_until < outcome.sealed_until => {
                    superfluous.push(known.insert(outcome).record);
                }
                Entry::Occupied(_) => superfluous.push(record.id),
            },
            Ok(None) => unreadable(record, "it is no sealed outcome of this version and data directory"),
            Err(error) => unreadable(record, &error),
        }
    }
    journal.remove(superfluous);
    let until = |outcome: &Remembered| Until::new(outcome.sealed_until.unwrap_or(0), now);
    let outcomes = outcomes.into_values().map(|outcome| {
        let until = until(&outcome);
        (outcome, until)
    });
    deduplicator.restore_sealed(outcomes, Instant::now());
}

/// Runs the requests in these records, in their order. They were admitted, so they are not refused for lack of room:
/// those that come meanwhile are. What bounded them then bounds them now.
pub async fn run_again(
    records: Vec<Record>,
    journal: Arc<RequestJournal>,
    pipeline: Arc<Pipeline>,
    ingress: Arc<dyn Ingress>,
) {
    if records.is_empty() {
        return pipeline.recovered();
    }
    let (at, now) = (Instant::now(), Moment::now());
    tracing::info!(requests = records.len(), "requests that an earlier process has accepted are run again");
    for record in records {
        let id = record.id;
        let Some(Arrived { client, topic, payload, properties, moment }) = read(&journal, record).await
        else {
            continue;
        };
        let waiting = pipeline.admission().readmit(&client, payload.len());
        let arrived = at.checked_sub(moment.age(&now)).unwrap_or(at);
        let delivery = Delivery {
            responder: Box::new(Detached { ingress: ingress.clone(), asker: client.clone() }),
            client,
            topic,
            payload,
            properties,
            retained: false,
            acceptance: Acceptance::with_the_answer(),
        };
        let kept = Arc::new(Kept::recovered(journal.clone(), id));
        pipeline.deliver_from(Origin::Journal(kept, waiting), delivery, arrived);
        pipeline.dispatch();
    }
    pipeline.recovered();
}

async fn read(journal: &Arc<RequestJournal>, record: Record) -> Option<Arrived> {
    let reading = journal.clone();
    let read = move || match reading.read(&record).map(|bytes| Arrived::decode(bytes.into())) {
        Ok(Some(arrived)) => Some(arrived),
        Ok(None) => {
            unreadable(&record, "it is no request of this version");
            None
        }
        Err(error) => {
            unreadable(&record, &error);
            None
        }
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

fn unreadable(record: &Record, why: impl std::fmt::Display) {
    let (record, kind) = (record.id.0, record.kind);
    tracing::error!(record, kind, %why, "a record of the journal cannot be used, and is left alone");
}
