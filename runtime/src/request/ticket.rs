//! What is needed to answer a request, and all that wait for the same answer.

use super::request_log::RequestLog;
use crate::audit_log::AuditEntry;
use crate::deduplication::{Deduplicator, Key};
use crate::ingress::{Outgoing, Responder};
use crate::stopping::stopping_error;
use crate::wasm::workers::{RunOutcome, Waiting};
use bytes::Bytes;
use offload_protocol::answer::{Answer, AnswerForm, Outcome as Ending};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::RequestId;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where an answer goes.
pub struct ReplyAddress {
    /// The topic.
    pub topic: String,
    /// The request's, returned.
    pub correlation_data: Option<Bytes>,
    /// Bytes that the payload may have, where the configuration limits them.
    pub max_payload: Option<usize>,
}

/// What is needed to answer a request; used once.
pub struct Ticket {
    /// Of its delivery.
    pub responder: Box<dyn Responder>,
    /// Where the answer goes.
    pub route: ReplyAddress,
    /// In which form.
    pub form: AnswerForm,
    /// Echoed.
    pub id: Option<RequestId>,
    /// Where repetitions of it wait for its outcome, under which key, and who pays for remembering it.
    pub repeatable: Option<(Arc<Deduplicator<Repetition>>, Key, Arc<str>)>,
    /// Where it is shown to whoever watches.
    pub audit_entry: Option<AuditEntry>,
    /// What is logged of it, if anything.
    pub log: Option<Box<RequestLog>>,
}

/// A repetition of a request that is on its way: it gets the same answer, on its own topic and in its own form.
pub struct Repetition {
    /// To answer it with.
    pub ticket: Ticket,
    /// It was admitted like any other.
    pub waiting: Waiting,
}

impl Ticket {
    /// Answers with how the run ended.
    pub fn finish(self, outcome: RunOutcome) {
        match outcome {
            RunOutcome::Ran { ended, run, queued } => {
                let answer = Answer {
                    id: self.id.clone(),
                    outcome: match ended.result {
                        Ok(code) => Ending::Exited(code),
                        Err(error) => Ending::Failed(error),
                    },
                    stdout: ended.stdout,
                    stderr: ended.stderr,
                    fuel: ended.fuel,
                    run_us: micros(run),
                    queue_us: micros(queued),
                };
                // A fault of ours says nothing about the request.
                let ours =
                    matches!(&answer.outcome, Ending::Failed(error) if error.kind == ErrorKind::Internal);
                self.settle(answer, !ours);
            }
            RunOutcome::Expired => self.fail(expired_error()),
            // Whether or not it had begun to run: nothing is left of that.
            RunOutcome::NotStarted | RunOutcome::Stopped => self.fail(stopping_error()),
        }
    }

    /// Answers that it was not run, and why.
    pub fn fail(self, error: WireError) {
        let answer = Answer::failed(self.id.clone(), error);
        self.settle(answer, false);
    }

    /// Answers the request and its repetitions; later ones get the same answer if it is to be remembered.
    fn settle(mut self, answer: Answer, remember: bool) {
        let repetitions = match self.repeatable.take() {
            Some((deduplicator, key, account)) => {
                deduplicator.end(&key, &account, remember.then_some(&answer), Instant::now())
            }
            None => Vec::new(),
        };
        for Repetition { ticket, waiting } in repetitions {
            ticket.answer(answer.clone());
            drop(waiting);
        }
        self.answer(answer);
    }

    /// Publishes the answer.
    pub fn answer(self, answer: Answer) {
        if let Some(audit_entry) = self.audit_entry {
            audit_entry.answer(&answer);
        }
        if let Some(log) = self.log {
            log.answered(&answer);
        }
        let ReplyAddress { topic, correlation_data, max_payload } = self.route;
        self.responder.answer(Outgoing { topic, answer, form: self.form, correlation_data, max_payload });
    }
}

pub fn expired_error() -> WireError {
    WireError::new(ErrorKind::Expired, "the request's timeout ran out before it could start")
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
