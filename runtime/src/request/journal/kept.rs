//! One request that outlives a crash, from its acceptance to its answer.
//!
//! Its acceptance is completed when its record is durable, or when all who got its answer have acknowledged that. One
//! that has no record, because it is refused, has come before, or finds the journal full, is acknowledged when whatever
//! the broker keeps of its answer is durable. Its record goes when its answer is with the broker, and not with its
//! outcome: somebody has to publish that. One that nobody needs by then never is written. While a full storage of the
//! broker has its answer in memory alone, the record stays.
//!
//! No acceptance is completed, and none dropped, under this lock: both take one of the broker's.

use super::{Draft, RequestJournal, is_short, refusal};
use crate::durability::kind;
use crate::ingress::{Acceptance, Handover};
use offload_broker::OnAcknowledged;
use offload_journal::{Batch, Failed, RecordId, Refused, Ticket};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

/// See the [module](self).
pub struct Kept {
    journal: Arc<RequestJournal>,
    is_recovered: bool,
    state: Mutex<State>,
}

struct State {
    /// Until it is completed or dropped.
    acceptance: Option<Acceptance>,
    record: Record,
    /// Where its answer is, once it is given.
    answer: Option<Handover>,
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
        Kept::with(journal, false, Some(acceptance), Record::Draft(draft))
    }

    /// One that an earlier process has kept.
    pub fn recovered(journal: Arc<RequestJournal>, id: RecordId) -> Kept {
        Kept::with(journal, true, None, Record::Durable(id))
    }

    fn with(
        journal: Arc<RequestJournal>,
        is_recovered: bool,
        acceptance: Option<Acceptance>,
        record: Record,
    ) -> Kept {
        Kept { journal, is_recovered, state: Mutex::new(State { acceptance, record, answer: None }) }
    }

    /// Its journal.
    pub fn journal(&self) -> &Arc<RequestJournal> {
        &self.journal
    }

    /// Whether an earlier process has kept it.
    pub fn is_recovered(&self) -> bool {
        self.is_recovered
    }

    /// Puts it into the journal, to be written with the next [`commit`](RequestJournal::commit), or in a task if it is
    /// long. One that is kept already stays.
    ///
    /// # Errors
    ///
    /// Why it is not kept. Its publisher then waits for its answer.
    pub fn put(self: &Arc<Kept>) -> Result<(), Refused> {
        let mut state = self.lock();
        let Record::Draft(draft) = &state.record else { return Ok(()) };
        if is_short(&draft.head, &draft.payload) {
            let mut batch = self.journal.journal.batch();
            let id = batch.put(kind::REQUEST, &[&draft.head[..], &draft.payload].concat());
            return self.stage(&mut state, batch, id);
        }
        if !self.journal.has_room_for(draft.payload.len()) {
            return Err(Refused::Full);
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
                let lost = state.acceptance.take();
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

    /// The record is on the disk, or may not be.
    fn durable(&self, result: Result<(), Failed>) {
        let mut state = self.lock();
        match (&state.record, &result) {
            (Record::Staged(_, id), Ok(())) => {
                state.record = Record::Durable(*id);
                self.remove_if_answered(&mut state);
            }
            (_, Ok(())) => {}
            (_, Err(_)) => state.record = Record::Gone,
        }
        self.settle(state, result);
    }

    /// Whatever its publisher waits for is durable, or may not be.
    fn settle(&self, mut state: MutexGuard<'_, State>, result: Result<(), Failed>) {
        let acceptance = state.acceptance.take();
        drop(state);
        if let (Some(acceptance), Ok(())) = (acceptance, result) {
            acceptance.complete();
        }
    }

    /// Its answer is given.
    pub fn answered(self: &Arc<Kept>, handover: Handover) {
        let mut state = self.lock();
        // All may have acknowledged it by now.
        state.answer.get_or_insert(handover);
        if let Record::Draft(_) = state.record {
            state.record = Record::Gone;
            drop(state);
            return self.follow();
        }
        self.remove_if_answered(&mut state);
    }

    /// Its publisher waits until whatever the broker keeps of its answer is durable.
    fn follow(self: &Arc<Kept>) {
        if self.lock().acceptance.is_none() {
            return;
        }
        let kept = self.clone();
        let completion = move |result| kept.settle(kept.lock(), result);
        if self.journal.journal.append(self.journal.journal.batch(), completion).is_err() {
            // It is not acknowledged.
            let lost = self.lock().acceptance.take();
            drop(lost);
        }
    }

    fn remove_if_answered(&self, state: &mut State) {
        if let Record::Durable(id) = state.record
            && state.answer == Some(Handover::Complete)
        {
            state.record = Record::Gone;
            self.journal.remove([id]);
        }
    }

    /// What is to be called when all who got its answer have acknowledged that.
    pub fn on_acknowledged(self: &Arc<Kept>) -> OnAcknowledged {
        let kept = self.clone();
        Box::new(move || kept.acknowledged())
    }

    /// Nobody needs its answer any more, wherever that is.
    fn acknowledged(&self) {
        let mut state = self.lock();
        state.answer = Some(Handover::Complete);
        match state.record {
            Record::Staged(ticket, _) if !self.journal.journal.withdraw(ticket) => {}
            Record::Durable(_) => self.remove_if_answered(&mut state),
            _ => state.record = Record::Gone,
        }
        self.settle(state, Ok(()));
    }

    /// Whether the next process runs it, if this one does not.
    pub fn stays(&self) -> bool {
        matches!(self.lock().record, Record::Staged(..) | Record::Durable(_))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
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
            answered.answered(Handover::Complete);
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
        let on_acknowledged = kept.on_acknowledged();
        kept.answered(Handover::Complete);
        assert_eq!(folder.journal.stats().records, 1, "it waits");
        on_acknowledged();
        assert_eq!(folder.journal.stats().records, 0);
        folder.requests.flush().await;
        assert_eq!(folder.left(), 0);
    }

    #[tokio::test]
    async fn a_record_stays_while_the_answer_is_in_memory_alone() {
        let folder = Folder::new();
        let kept = folder.kept(b"5 7");
        kept.put().unwrap();
        folder.requests.flush().await;
        let on_acknowledged = kept.on_acknowledged();
        kept.answered(Handover::InMemory);
        assert!(kept.stays());
        on_acknowledged();
        assert!(!kept.stays());
        folder.requests.flush().await;
        assert_eq!(folder.left(), 0);
    }

    #[tokio::test]
    async fn what_is_answered_before_it_is_put_has_no_record() {
        let folder = Folder::new();
        let (first, refused) = (folder.kept(b"1"), folder.kept(b"2"));
        first.put().unwrap();
        refused.answered(Handover::Complete);
        refused.put().unwrap();
        folder.requests.flush().await;
        assert!(refused.lock().acceptance.is_none(), "its publisher has been told");
        assert_eq!(folder.left(), 1);
    }

    #[tokio::test]
    async fn a_journal_that_takes_nothing_refuses() {
        let folder = Folder::new();
        let (small, large) = (folder.kept(b"1"), folder.kept(&vec![0; BLOB_FROM]));
        folder.journal.close().unwrap();
        assert!(matches!(small.put(), Err(Refused::Closed)));
        large.put().unwrap();
        while matches!(large.lock().record, Record::Preparing) {
            tokio::task::yield_now().await;
        }
        assert!(!large.stays());
    }
}
