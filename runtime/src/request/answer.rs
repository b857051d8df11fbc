//! The answer, which leaves by one way ([`PendingAnswer`]), whoever gives it: a backend, a refusal, or the
//! request that this one repeats.

use super::claimed::{Claimed, Kept as SharedAs};
use super::journal::RequestJournal;
use super::journal::kept::Kept;
use super::journal::outcome::{Encoded as EncodedOutcome, Lost, NewOutcome};
use super::observer::AnswerObserver;
use crate::cancellation::{Cancellation, cancelled_error};
use crate::deduplication::{Deduplicator, Key, Prolonged, ReplyTo, Waiters, forgotten};
use crate::fingerprint::Fingerprint;
use crate::ingress::{Outgoing, ReplyAddress, Responder, Seal, SealWith};
use crate::shared::{OnCancelled, Shared};
use crate::stopping::{is_stopping, stopping_error};
use crate::stream::EndOfStream;
use crate::telemetry;
use crate::wasm::guest::Ended;
use crate::wasm::workers::{RunOutcome, Waiting, Workers};
use bytes::Bytes;
use offload_journal::RecordId;
use offload_protocol::answer::{Answer, AnswerForm, Outcome};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{RequestId, StdoutRange};
use offload_seal::AnswerKey;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An answer that is owed. Given once: by [`finish`](Self::finish), by a [`Refusal`], or as a [`Repetition`]. Dropped
/// by a panic, it is the answer `internal`.
#[must_use = "a request is answered exactly once"]
pub struct PendingAnswer {
    /// Where it goes.
    pub way_back: WayBack,
    /// Which part of stdout it carries; all of it if the request names none. Each repetition has its own.
    pub stdout_range: Option<StdoutRange>,
    /// Where repetitions of the request wait for its outcome.
    pub registration: Option<Registered>,
    /// What goes before it, if anything does. Repetitions have none.
    pub stream: Option<EndOfStream>,
    /// Who sees the answer.
    pub observations: Vec<Box<dyn AnswerObserver>>,
}

/// Where an answer goes, and in which form. Whoever has asked hears of a panic in what was to answer: dropped by that,
/// it answers `internal`. Dropped without a panic, it leaves what is not answered to whoever has delivered it.
pub struct WayBack {
    /// Back to the connection that asked; none once it is answered.
    pub responder: Option<Box<dyn Responder>>,
    /// The topic.
    pub address: ReplyAddress,
    /// In which form.
    pub form: AnswerForm,
    /// The request's own name, echoed.
    pub id: Option<RequestId>,
    /// What is in the journal until it is answered, if it is to outlive a crash.
    pub kept: Option<Arc<Kept>>,
    /// How the answer is sealed; none in clear.
    pub seal: Option<Seal>,
}

/// The first request of its name, as the deduplicator knows it. Dropped without an outcome, because its task has
/// panicked, it answers whoever waits for one.
pub struct Registered {
    deduplicator: Arc<RequestDeduplicator>,
    journal: Option<Arc<RequestJournal>>,
    pub(super) names: Names,
    cancellation: Option<Arc<Cancellation>>,
    /// What other gateways know of it, where several are one service.
    pub(super) claimed: Option<Claimed>,
    has_ended: bool,
}

/// What a request is known by, and who pays for remembering its outcome.
pub struct Names {
    /// Its name.
    pub key: Key,
    /// What tells it from others of that name.
    pub fingerprint: Fingerprint,
    /// Who pays.
    pub account: Arc<str>,
}

/// Knows requests that come again.
pub type RequestDeduplicator = Deduplicator<Repetition>;

/// A request that waits for the end of another one: it repeats that, and gets the same answer, on its own topic and in
/// its own form; or it has cancelled that.
pub struct Repetition {
    /// Its own answer.
    pub pending: PendingAnswer,
    /// It was admitted like any other.
    pub waiting: Waiting,
}

/// A request that ends without having been run.
#[must_use = "whoever is refused is told so"]
pub struct Refusal(Box<Refused>);

struct Refused {
    pending: PendingAnswer,
    error: WireError,
    /// What was admitted counts as waiting until it is answered.
    waiting: Option<Waiting>,
}

impl PendingAnswer {
    /// Answers with how the run ended, or that it was cancelled before.
    pub fn finish(self, outcome: RunOutcome) {
        match outcome {
            RunOutcome::Ran { mut ended, run, queued } => {
                // The answer may wait for the disk.
                if let Some(EndOfStream(stream)) = &self.stream {
                    stream.end();
                }
                if self.is_cancelled() {
                    ended = Ended { fuel: ended.fuel, ..Ended::failed(cancelled_error()) };
                }
                let answer = Answer {
                    id: self.way_back.id.clone(),
                    outcome: match ended.result {
                        Ok(code) => Outcome::Exited(code),
                        Err(error) => Outcome::Failed(error),
                    },
                    stdout: ended.stdout,
                    content_range: None,
                    stderr: ended.stderr,
                    fuel: ended.fuel,
                    run_us: micros(run),
                    queue_us: micros(queued),
                };
                // A fault of ours says nothing about the request.
                let ours =
                    matches!(&answer.outcome, Outcome::Failed(error) if error.kind == ErrorKind::Internal);
                // What was sealed is not run again for that.
                let is_sealed = self.way_back.seal.is_some();
                self.settle(answer, !ours || is_sealed);
            }
            RunOutcome::Expired => self.fail(expired_error()),
            RunOutcome::NotStarted | RunOutcome::Stopped => self.fail(stopping_error()),
        }
    }

    /// Answers with what another gateway says. An outcome of a run is remembered, a refusal is not.
    pub fn finish_remotely(self, answer: Result<Answer, WireError>) {
        match answer {
            // One that was cancelled meanwhile is so, whatever has come of it elsewhere.
            Ok(_) if self.is_cancelled() => self.fail(cancelled_error()),
            Ok(answer) => {
                let remember = match &answer.outcome {
                    Outcome::Exited(_) => true,
                    Outcome::Failed(error) => is_outcome(error.kind),
                };
                let id = self.way_back.id.clone();
                self.settle(Answer { id, ..answer }, remember);
            }
            Err(error) => self.fail(error),
        }
    }

    /// Answers with what another site has sealed: nobody here knows what it says, nor can it be remembered.
    pub fn finish_sealed(mut self, sealed: Bytes) {
        if self.registration.is_some() {
            // It was asked in clear, and has a name.
            return self.fail(telemetry::internal_error("another site has sealed what was asked in clear"));
        }
        self.way_back.seal = Some(Seal { form: self.way_back.form, with: SealWith::Done(sealed) });
        self.publish(Answer::done(None));
    }

    /// Answers that it was not run, and why. What the gateway has kept and cannot run any more before it stops is for
    /// the next process, whether or not it had begun: nothing is left of that.
    fn fail(self, error: WireError) {
        if self.is_cancelled() {
            let answer = Answer::failed(self.way_back.id.clone(), cancelled_error());
            return self.settle(answer, true);
        }
        self.give_up(error);
    }

    /// Whether another request has cancelled this one, before it has come to its end here.
    fn is_cancelled(&self) -> bool {
        self.registration
            .as_ref()
            .is_some_and(|registered| registered.deduplicator.decide(&registered.names.key))
    }

    /// What tells that it is cancelled, if it can be.
    pub fn cancellation(&self) -> Option<&Arc<Cancellation>> {
        self.registration.as_ref()?.cancellation.as_ref()
    }

    fn give_up(self, error: WireError) {
        if is_stopping(&error) && self.way_back.kept.as_ref().is_some_and(|kept| kept.stays()) {
            return self.leave();
        }
        let answer = Answer::failed(self.way_back.id.clone(), error);
        self.settle(answer, false);
    }

    /// Answers the request and its repetitions; later ones get the same answer if it is to be remembered. Where
    /// outcomes outlive a crash, nobody gets one before it does.
    fn settle(mut self, answer: Answer, remember: bool) {
        let Some(mut registered) = self.registration.take() else { return self.publish(answer) };
        let remembered = remember.then(|| registered.remembered(&answer)).flatten();
        match (registered.claimed.take(), remembered) {
            (Some(claimed), Some(remembered)) => {
                let (outcome, remembered) = registered.shared_outcome(&claimed, remembered);
                claimed.keep(outcome, move |kept| match kept {
                    // The other gateways could not know that it was run: nobody hears of it.
                    SharedAs::Unshared if self.way_back.seal.is_some() => {
                        PendingAnswer { registration: Some(registered), ..self }.give_up(unshared_error());
                    }
                    SharedAs::Ours | SharedAs::Unshared => {
                        self.settle_here(registered, answer, Some(remembered));
                    }
                    SharedAs::Theirs(answer) => {
                        let remembered = registered.remembered(&answer);
                        self.settle_here(registered, answer, remembered);
                    }
                });
            }
            // What was claimed and has no outcome is another's to run.
            (_, remembered) => self.settle_here(registered, answer, remembered),
        }
    }

    /// Answers with an outcome that another gateway has, and remembers it.
    pub fn repeat(mut self, answer: Answer) {
        let Some(registered) = self.registration.take() else { return self.publish(answer) };
        let remembered = registered.remembered(&answer);
        self.settle_here(registered, answer, remembered);
    }

    /// As far as this gateway alone is concerned.
    fn settle_here(self, registered: Registered, answer: Answer, remembered: Option<Answer>) {
        match (registered.journal.clone(), remembered) {
            (Some(journal), Some(remembered)) => {
                self.settle_durably(registered, &journal, answer, remembered)
            }
            (_, remembered) => {
                let waiters = registered.end(remembered.as_ref().map(|remembered| (remembered, None)));
                self.tell(waiters, answer);
            }
        }
    }

    fn settle_durably(
        self,
        registered: Registered,
        journal: &Arc<RequestJournal>,
        answer: Answer,
        remembered: Answer,
    ) {
        let outcome = registered.outcome(&remembered, journal.secret());
        journal.keep_outcome(outcome, move |kept| match kept {
            // The next process could not know that it was run: nobody hears of it.
            Ok(None) if self.way_back.seal.is_some() => {
                PendingAnswer { registration: Some(registered), ..self }.give_up(unrecorded_error());
            }
            Ok(record) => {
                let waiters = registered.end(Some((&remembered, record)));
                self.tell(waiters, answer);
            }
            // The next process may have another outcome: nobody hears of this one.
            Err(Lost) => PendingAnswer { registration: Some(registered), ..self }.give_up(stopping_error()),
        });
    }

    fn tell(self, waiters: Waiters<Repetition>, answer: Answer) {
        for repetition in waiters.repetitions {
            repetition.answer(answer.clone());
        }
        self.publish(answer);
        waiters.cancellers.into_iter().for_each(Repetition::confirm);
    }

    /// Leaves the request, and the repetitions that have joined it, to the next process.
    fn leave(mut self) {
        let waiters = self.registration.take().map(|registered| registered.end(None)).unwrap_or_default();
        for Repetition { pending, waiting } in waiters.repetitions.into_iter().chain(waiters.cancellers) {
            // One whose publisher was promised nothing is told that it was for nothing.
            pending.fail(stopping_error());
            drop(waiting);
        }
        if let Some(kept) = self.way_back.kept.take() {
            kept.journal().leave();
        }
    }

    /// Every answer leaves through here: cut to the part that was asked for, seen by observers, then published.
    fn publish(self, answer: Answer) {
        let PendingAnswer { mut way_back, stdout_range, stream, observations, .. } = self;
        drop(stream);
        let answer = match stdout_range {
            Some(range) => answer.with_range(range),
            None => answer,
        };
        let shown = way_back.seal.as_ref().map(|_| without_content(&answer));
        for observation in observations {
            observation.answer(shown.as_ref().unwrap_or(&answer));
        }
        way_back.answer(answer);
    }
}

impl WayBack {
    fn answer(&mut self, answer: Answer) {
        if let Some(responder) = self.responder.take() {
            let (address, kept) = (std::mem::take(&mut self.address), self.kept.take());
            let on_acknowledged = kept.as_ref().map(Kept::on_acknowledged);
            let outgoing = Outgoing { address, form: self.form, answer, seal: self.seal.take() };
            let handover = responder.answer(outgoing, on_acknowledged);
            if let Some(kept) = kept {
                kept.answered(handover);
            }
        }
    }
}

impl Drop for WayBack {
    fn drop(&mut self) {
        if self.responder.is_some() && std::thread::panicking() {
            let error = telemetry::internal_error("what was to answer a request panicked");
            self.answer(Answer::failed(self.id.clone(), error));
        }
    }
}

impl Registered {
    /// Registered there under this name.
    pub fn new(
        deduplicator: Arc<RequestDeduplicator>,
        journal: Option<Arc<RequestJournal>>,
        names: Names,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Registered {
        Registered { deduplicator, journal, names, cancellation, claimed: None, has_ended: false }
    }

    /// What ends the request where another gateway has cancelled it, if it can be cancelled.
    pub fn on_cancelled(&self, workers: Arc<Workers>) -> Option<OnCancelled> {
        let (deduplicator, key) = (self.deduplicator.clone(), self.names.key.clone());
        self.cancellation.as_ref()?;
        Some(Arc::new(move || {
            if let Some(cancellation) = deduplicator.cancel_elsewhere(&key) {
                workers.cancel(&cancellation);
            }
        }))
    }

    /// What is to be remembered of an answer, if anything is.
    fn remembered(&self, answer: &Answer) -> Option<Answer> {
        self.deduplicator.kept(&self.names.key, answer)
    }

    /// The outcome as it is kept; that of a sealed request is sealed with `secret`.
    fn outcome(&self, answer: &Answer, secret: Option<&AnswerKey>) -> EncodedOutcome {
        let Names { key, fingerprint, account } = &self.names;
        let until = self.deduplicator.sealed_until(key).map(|until| until.wall_ms);
        // One that is forgotten already is sealed all the same.
        let sealed_until = until.or((key.reply_to == ReplyTo::Sealed).then_some(0));
        NewOutcome { key, fingerprint, account, answer, sealed_until }.encode(secret)
    }

    /// The outcome as it is shared, and what is to be remembered of it. Of a sealed request that is always something.
    fn shared_outcome(&self, claimed: &Claimed, remembered: Answer) -> (EncodedOutcome, Answer) {
        let outcome = self.outcome(&remembered, claimed.secret());
        if claimed.secret().is_none() || outcome.size() <= claimed.max_outcome() {
            return (outcome, remembered);
        }
        let remembered = forgotten(&self.names.key.id);
        (self.outcome(&remembered, claimed.secret()), remembered)
    }

    /// Answers a repetition of a sealed request that is remembered longer by it, when all gateways know that, and it is
    /// durable.
    pub fn prolong(
        mut self,
        repetition: Repetition,
        answer: Answer,
        prolonged: Prolonged,
        shared: Option<&Shared>,
    ) {
        // Not that of a request that runs.
        self.has_ended = true;
        let Some(shared) = shared else { return self.prolong_here(repetition, answer, prolonged) };
        let claimed = Claimed::of(shared, &self.names.key, self.names.fingerprint);
        let (outcome, _) = self.shared_outcome(&claimed, answer.clone());
        claimed.keep(outcome, move |kept| match kept {
            SharedAs::Unshared => self.undo(repetition, prolonged, unshared_error()),
            SharedAs::Ours | SharedAs::Theirs(_) => self.prolong_here(repetition, answer, prolonged),
        });
    }

    fn prolong_here(self, repetition: Repetition, answer: Answer, prolonged: Prolonged) {
        let Some(journal) = self.journal.clone() else { return repetition.answer(answer) };
        let outcome = self.outcome(&answer, journal.secret());
        journal.clone().keep_outcome(outcome, move |kept| match kept {
            Ok(Some(new)) => {
                self.deduplicator.recorded_again(&self.names.key, Some(new));
                journal.remove(prolonged.record);
                repetition.answer(answer);
            }
            Ok(None) => self.undo(repetition, prolonged, unrecorded_error()),
            Err(Lost) => repetition.refuse(stopping_error()).answer(),
        });
    }

    /// It is not remembered longer: whoever asks again has that tried again.
    fn undo(&self, repetition: Repetition, prolonged: Prolonged, error: WireError) {
        self.deduplicator.undo(&self.names.key, prolonged);
        repetition.refuse(error).answer();
    }

    /// The request has ended, with an outcome that is to be remembered, and its record if there is one, or with none.
    /// Returns who has waited for it.
    fn end(mut self, outcome: Option<(&Answer, Option<RecordId>)>) -> Waiters<Repetition> {
        self.has_ended = true;
        self.deduplicator.end(&self.names.key, &self.names.account, outcome, Instant::now())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let error = telemetry::internal_error("a request was given up without an outcome");
        let waiters = self.deduplicator.end(&self.names.key, &self.names.account, None, Instant::now());
        for repetition in waiters.repetitions.into_iter().chain(waiters.cancellers) {
            let id = repetition.pending.way_back.id.clone();
            repetition.answer(Answer::failed(id, error.clone()));
        }
    }
}

impl Repetition {
    /// With the answer of the request that it repeats.
    pub fn answer(self, answer: Answer) {
        let Repetition { pending, waiting } = self;
        pending.publish(answer);
        // Whoever waits until nothing waits any more waits for the answer too.
        drop(waiting);
    }
}

impl Repetition {
    /// The request that it was to cancel has ended so.
    pub fn confirm(self) {
        let Repetition { pending, waiting } = self;
        let answer = Answer::done(pending.way_back.id.clone());
        pending.settle(answer, true);
        drop(waiting);
    }

    /// Nothing is cancelled, for this reason.
    pub fn refuse(self, error: WireError) -> Refusal {
        Refusal::of_waiting(self.pending, error, self.waiting)
    }
}

impl Refusal {
    /// Of a request that was not admitted.
    pub fn new(pending: PendingAnswer, error: WireError) -> Refusal {
        Refusal(Box::new(Refused { pending, error, waiting: None }))
    }

    /// Of a request that counts as waiting, until it is answered.
    pub fn of_waiting(pending: PendingAnswer, error: WireError, waiting: Waiting) -> Refusal {
        Refusal(Box::new(Refused { pending, error, waiting: Some(waiting) }))
    }

    /// Answers with the reason.
    pub fn answer(self) {
        let Refused { pending, error, waiting } = *self.0;
        pending.fail(error);
        // As for a repetition.
        drop(waiting);
    }
}

/// Whether an error of this kind is how a run has ended.
fn is_outcome(kind: ErrorKind) -> bool {
    use ErrorKind::{Build, Cancelled, Exit, Fuel, Memory, Output, Timeout, Trap};
    matches!(kind, Build | Cancelled | Exit | Fuel | Memory | Output | Timeout | Trap)
}

/// To a request whose time ran out before it started.
pub fn expired_error() -> WireError {
    WireError::new(ErrorKind::Expired, "the request's timeout ran out before it could start")
}

/// To a sealed request of whose run the other gateways cannot be told.
fn unshared_error() -> WireError {
    let message = "the bucket of sealed outcomes is full, or does not answer, without which nobody knows that this was run; try \
         again after 5 s";
    WireError::new(ErrorKind::Busy, message)
}

/// To a sealed request that the journal has no room for.
fn unrecorded_error() -> WireError {
    let message = "the journal is full, without which nobody knows that this was run; try again after 5 s";
    WireError::new(ErrorKind::Busy, message)
}

/// What observers see of an answer that is sealed: how it ended and what that took. An exit code, a message and the
/// fuel are the program's.
fn without_content(answer: &Answer) -> Answer {
    let outcome = match &answer.outcome {
        Outcome::Exited(_) => Outcome::Exited(0),
        // Its message is the reference of what we have logged.
        Outcome::Failed(error) if error.kind == ErrorKind::Internal => Outcome::Failed(error.clone()),
        Outcome::Failed(error) => Outcome::Failed(WireError::new(error.kind, "sealed")),
    };
    Answer {
        outcome,
        run_us: answer.run_us,
        queue_us: answer.queue_us,
        ..Answer::failed(None, stopping_error())
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::Handover;
    use offload_broker::OnAcknowledged;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;

    struct Back(mpsc::Sender<Answer>);

    impl Responder for Back {
        fn answer(self: Box<Self>, Outgoing { answer, .. }: Outgoing, _: Option<OnAcknowledged>) -> Handover {
            self.0.send(answer).unwrap();
            Handover::Complete
        }

        fn ignore(self: Box<Self>) {}
    }

    struct Panics;

    impl AnswerObserver for Panics {
        fn answer(self: Box<Self>, _: &Answer) {
            panic!("an observer's fault");
        }
    }

    fn pending(observations: Vec<Box<dyn AnswerObserver>>) -> (PendingAnswer, mpsc::Receiver<Answer>) {
        let (sender, receiver) = mpsc::channel();
        let way_back = WayBack {
            responder: Some(Box::new(Back(sender))),
            address: ReplyAddress::default(),
            form: AnswerForm::Line,
            id: Some("a".try_into().unwrap()),
            kept: None,
            seal: None,
        };
        let pending =
            PendingAnswer { way_back, stdout_range: None, registration: None, stream: None, observations };
        (pending, receiver)
    }

    fn kinds(receiver: &mpsc::Receiver<Answer>) -> Vec<ErrorKind> {
        let kind = |answer: Answer| match answer.outcome {
            Outcome::Failed(error) => error.kind,
            Outcome::Exited(code) => panic!("it exited with {code}"),
        };
        receiver.try_iter().map(kind).collect()
    }

    #[test]
    fn whoever_asked_hears_of_a_panic_in_what_was_to_answer() {
        let (pending, receiver) = pending(Vec::new());
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _pending = pending;
            panic!("a fault of ours");
        }));
        assert!(panicked.is_err());
        assert_eq!(kinds(&receiver), [ErrorKind::Internal]);
    }

    #[test]
    fn a_panic_of_an_observer_leaves_nobody_without_an_answer() {
        let (pending, receiver) = pending(vec![Box::new(Panics)]);
        let panicked = catch_unwind(AssertUnwindSafe(|| pending.finish(RunOutcome::Expired)));
        assert!(panicked.is_err());
        assert_eq!(kinds(&receiver), [ErrorKind::Internal]);
    }

    #[test]
    fn what_is_given_up_without_a_panic_is_left_to_whoever_delivered_it() {
        let (given_up, receiver) = pending(Vec::new());
        drop(given_up);
        assert!(kinds(&receiver).is_empty());
        let (pending, receiver) = pending(Vec::new());
        pending.finish(RunOutcome::Expired);
        assert_eq!(kinds(&receiver), [ErrorKind::Expired]);
    }
}
