//! One request that outlives a crash, from its acceptance to its answer.
//!
//! Its acceptances, its own and those of repetitions that have joined it, are completed when its record is durable,
//! when its outcome is, or when all who got its answer have acknowledged that. Its record goes when its answer is with
//! the broker, or with its outcome; one that is not being written by then never is.
//!
//! No acceptance is completed, and none dropped, under this lock: both take one of the broker's.

use super::{Draft, RequestJournal, is_short, refusal};
use crate::durability::kind;
use crate::ingress::Acceptance;
use offload_broker::OnAcknowledged;
use offload_journal::{Batch, Failed, RecordId, Refused, Ticket};
use offload_protocol::error::WireError;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

/// See the [module](self).
pub struct Kept {
    journal: Arc<RequestJournal>,
    state: Mutex<State>,
}

struct State {
    acceptances: Vec<Acceptance>,
    /// Acceptances that come late need not wait.
    is_safe: bool,
    record: Record,
    /// Its answer is with the broker.
    is_answered: bool,
}

/// Where the request is.
enum Record {
    /// In memory.
    Draft(Draft),
    /// Its payload is being written.
    Preparing,
    /// In the journal's queue, or on its way to the disk.
    Staged(Ticket, RecordId),
    /// On the disk.
    Durable(RecordId),
    /// Nowhere any more.
    Gone,
}

impl Kept {
    /// A request that is to be kept.
    pub fn new(journal: Arc<RequestJournal>, acceptance: Acceptance, draft: Draft) -> Kept {
        Kept::with(journal, vec![acceptance], Record::Draft(draft))
    }

    /// One that an earlier process has kept.
    pub fn recovered(journal: Arc<RequestJournal>, id: RecordId) -> Kept {
        let kept = Kept::with(journal, Vec::new(), Record::Durable(id));
        kept.lock().is_safe = true;
        kept
    }

    fn with(journal: Arc<RequestJournal>, acceptances: Vec<Acceptance>, record: Record) -> Kept {
        let state = State { acceptances, is_safe: false, record, is_answered: false };
        Kept { journal, state: Mutex::new(state) }
    }

    /// Its journal.
    pub fn journal(&self) -> &Arc<RequestJournal> {
        &self.journal
    }

    /// Puts it into the journal, to be written with the next [`commit`](RequestJournal::commit), or in a task if it is
    /// long. One that is kept already stays.
    ///
    /// # Errors
    ///
    /// Why it is not kept. A journal that is full has the request answered; one that has failed leaves it
    /// unacknowledged besides.
    pub fn put(self: &Arc<Kept>) -> Result<(), WireError> {
        let mut state = self.lock();
        let Record::Draft(draft) = &state.record else { return Ok(()) };
        if is_short(&draft.head, &draft.payload) {
            let mut batch = self.journal.journal.batch();
            let id = batch.put(kind::REQUEST, &[&draft.head[..], &draft.payload].concat());
            return match self.stage(&mut state, batch, id) {
                Ok(()) => Ok(()),
                Err(refused) => Err(self.refuse(state, &refused)),
            };
        }
        if !self.journal.has_room_for(draft.payload.len()) {
            return Err(self.refuse(state, &Refused::Full));
        }
        if let Record::Draft(draft) = mem::replace(&mut state.record, Record::Preparing) {
            let kept = self.clone();
            self.journal.runtime.spawn_blocking(move || kept.put_long(&draft));
        }
        Ok(())
    }

    /// Writes the payload first. The request runs meanwhile, and may have been answered before this is done.
    fn put_long(self: &Arc<Kept>, draft: &Draft) {
        let mut batch = self.journal.journal.batch();
        let put = self.journal.put(&mut batch, kind::REQUEST, &draft.head, &draft.payload);
        let mut state = self.lock();
        if !matches!(state.record, Record::Preparing) {
            return;
        }
        match put.and_then(|id| self.stage(&mut state, batch, id)) {
            Ok(()) => {
                drop(state);
                self.journal.commit();
            }
            // It runs, and is answered; its publisher is not to believe that it is safe.
            Err(refused) => {
                let _ = refusal(&refused);
                state.record = Record::Gone;
                let lost = mem::take(&mut state.acceptances);
                drop(state);
                drop(lost);
            }
        }
    }

    fn stage(self: &Arc<Kept>, state: &mut State, batch: Batch, id: RecordId) -> Result<(), Refused> {
        let kept = self.clone();
        let ticket = self.journal.journal.stage(batch, move |result| kept.durable(result))?;
        state.record = Record::Staged(ticket, id);
        Ok(())
    }

    fn refuse(&self, mut state: MutexGuard<'_, State>, refused: &Refused) -> WireError {
        state.record = Record::Gone;
        let acceptances = mem::take(&mut state.acceptances);
        drop(state);
        match refused {
            Refused::Failed(_) | Refused::Closed => drop(acceptances),
            Refused::Full | Refused::TooLarge { .. } => complete(acceptances),
        }
        refusal(refused)
    }

    /// The record is on the disk, or may not be.
    fn durable(&self, result: Result<(), Failed>) {
        let mut state = self.lock();
        let acceptances = mem::take(&mut state.acceptances);
        if result.is_err() {
            state.record = Record::Gone;
            drop(state);
            drop(acceptances);
            return;
        }
        state.is_safe = true;
        if let Record::Staged(_, id) = state.record {
            state.record = Record::Durable(id);
            self.remove_if_answered(&mut state);
        }
        drop(state);
        complete(acceptances);
    }

    /// Its answer is with the broker.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.is_answered = true;
        let mut acceptances = Vec::new();
        if let Record::Draft(_) = state.record {
            // It was not to be run.
            state.record = Record::Gone;
            state.is_safe = true;
            acceptances = mem::take(&mut state.acceptances);
        }
        self.remove_if_answered(&mut state);
        drop(state);
        complete(acceptances);
    }

    fn remove_if_answered(&self, state: &mut State) {
        if let Record::Durable(id) = state.record
            && state.is_answered
        {
            state.record = Record::Gone;
            self.journal.remove([id]);
        }
    }

    /// What is to be called when all who got its answer have acknowledged that.
    pub fn on_acknowledged(self: &Arc<Kept>) -> Option<OnAcknowledged> {
        if self.lock().is_safe {
            return None;
        }
        let kept = self.clone();
        Some(Box::new(move || kept.acknowledged()))
    }

    fn acknowledged(&self) {
        let mut state = self.lock();
        match state.record {
            Record::Staged(ticket, _) if !self.journal.journal.withdraw(ticket) => state.is_answered = true,
            Record::Durable(_) => {}
            _ => state.record = Record::Gone,
        }
        state.is_safe = true;
        let acceptances = mem::take(&mut state.acceptances);
        drop(state);
        complete(acceptances);
    }

    /// It is a repetition, and the one that it repeats is kept: its publisher waits for that. Of one that has ended
    /// meanwhile it has the answer.
    pub fn join(&self, first: &Kept) {
        let mut state = self.lock();
        if !matches!(state.record, Record::Draft(_)) {
            return;
        }
        state.record = Record::Gone;
        let acceptances = mem::take(&mut state.acceptances);
        drop(state);
        let mut first = first.lock();
        if !first.is_safe {
            return first.acceptances.extend(acceptances);
        }
        drop(first);
        complete(acceptances);
    }

    /// It is a repetition of one that has ended, and needs no record: the answer is given again.
    pub fn forgo_record(&self) {
        let mut state = self.lock();
        if matches!(state.record, Record::Draft(_)) {
            state.record = Record::Gone;
        }
    }

    /// The answer was given again: its publisher waits until whatever the broker keeps of that is durable.
    pub fn follow(self: &Arc<Kept>) {
        if self.lock().is_safe {
            return;
        }
        let kept = self.clone();
        // Otherwise it is not acknowledged.
        if self.journal.journal.append(self.journal.fence(), move |result| kept.durable(result)).is_err() {
            let lost = mem::take(&mut self.lock().acceptances);
            drop(lost);
        }
    }

    /// Has its record removed by the batch of its outcome.
    pub fn remove_with(&self, batch: &mut Batch) {
        if let Record::Staged(_, id) | Record::Durable(id) = self.lock().record {
            batch.remove(id);
        }
    }

    /// Its outcome is in the journal's queue. A record that waits there too need not be written any more.
    pub fn superseded(&self) {
        let mut state = self.lock();
        if let Record::Staged(ticket, _) = state.record {
            self.journal.journal.withdraw(ticket);
        }
        state.record = Record::Gone;
    }

    /// Its outcome is durable, or may not be.
    pub fn outcome_is_durable(&self, result: Result<(), Failed>) {
        self.durable(result);
    }

    /// Whether the next process runs it, if this one does not.
    pub fn stays(&self) -> bool {
        matches!(self.lock().record, Record::Staged(..) | Record::Durable(_))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

fn complete(acceptances: Vec<Acceptance>) {
    acceptances.into_iter().for_each(Acceptance::complete);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use offload_journal::{BLOB_FROM, Config, Journal};
    use tokio::runtime::Handle;

    struct Folder {
        path: tempfile::TempDir,
        journal: Arc<Journal>,
        requests: Arc<RequestJournal>,
    }

    impl Folder {
        fn new() -> Folder {
            let path = tempfile::tempdir().unwrap();
            let journal =
                Arc::new(Journal::open(&path.path().join("journal"), &Config::default()).unwrap().0);
            let requests = Arc::new(RequestJournal::new(journal.clone(), 1 << 30, Handle::current()));
            Folder { path, journal, requests }
        }

        fn kept(&self, payload: &[u8]) -> Arc<Kept> {
            let draft = Draft { head: vec![1], payload: Bytes::copy_from_slice(payload) };
            Arc::new(Kept::new(self.requests.clone(), Acceptance::with_the_answer(), draft))
        }

        /// Records that the next process finds.
        fn left(&self) -> usize {
            self.journal.close().unwrap();
            Journal::open(&self.path.path().join("journal"), &Config::default()).unwrap().1.records.len()
        }
    }

    #[tokio::test]
    async fn a_record_lives_until_the_answer_is_with_the_broker() {
        for payload in [&b"5 7"[..], &vec![0; BLOB_FROM]] {
            let folder = Folder::new();
            let (answered, unanswered) = (folder.kept(payload), folder.kept(payload));
            for kept in [&answered, &unanswered] {
                kept.put().unwrap();
                kept.put().unwrap();
            }
            folder.requests.commit();
            while !answered.stays() || !unanswered.stays() || folder.journal.stats().records < 2 {
                tokio::task::yield_now().await;
            }
            folder.requests.flush().await;
            assert!(answered.on_acknowledged().is_none(), "it is safe");
            answered.answered();
            assert!(!answered.stays() && unanswered.stays());
            folder.requests.flush().await;
            assert_eq!(folder.left(), 1);
        }
    }

    #[tokio::test]
    async fn what_is_acknowledged_before_the_disk_has_it_is_never_written() {
        let folder = Folder::new();
        let kept = folder.kept(b"5 7");
        kept.put().unwrap();
        let on_acknowledged = kept.on_acknowledged().unwrap();
        kept.answered();
        assert_eq!(folder.journal.stats().records, 1, "it waits");
        on_acknowledged();
        assert_eq!(folder.journal.stats().records, 0);
        folder.requests.flush().await;
        assert_eq!(folder.left(), 0);
    }

    #[tokio::test]
    async fn an_outcome_takes_the_place_of_its_request() {
        let folder = Folder::new();
        let (early, late) = (folder.kept(b"early"), folder.kept(b"late"));
        early.put().unwrap();
        folder.requests.flush().await;
        late.put().unwrap();
        for kept in [&early, &late] {
            let mut batch = folder.journal.batch();
            batch.put(kind::OUTCOME, b"outcome");
            kept.remove_with(&mut batch);
            let whole = kept.clone();
            folder.journal.stage(batch, move |result| whole.outcome_is_durable(result)).unwrap();
            kept.superseded();
            assert!(!kept.stays());
        }
        folder.requests.flush().await;
        early.answered();
        late.answered();
        assert_eq!(folder.left(), 2, "the outcomes");
    }

    #[tokio::test]
    async fn a_repetition_has_no_record_and_what_is_refused_none_either() {
        let folder = Folder::new();
        let (first, repetition, refused) = (folder.kept(b"1"), folder.kept(b"1"), folder.kept(b"2"));
        first.put().unwrap();
        repetition.join(&first);
        repetition.put().unwrap();
        refused.answered();
        refused.put().unwrap();
        let again = folder.kept(b"1");
        again.forgo_record();
        again.follow();
        folder.requests.flush().await;
        assert_eq!(folder.left(), 1);
    }

    #[tokio::test]
    async fn a_journal_that_takes_nothing_refuses() {
        let folder = Folder::new();
        let (small, large) = (folder.kept(b"1"), folder.kept(&vec![0; BLOB_FROM]));
        folder.journal.close().unwrap();
        assert!(crate::stopping::is_stopping(&small.put().unwrap_err()));
        large.put().unwrap();
        while matches!(large.lock().record, Record::Preparing) {
            tokio::task::yield_now().await;
        }
        assert!(!large.stays());
    }
}
