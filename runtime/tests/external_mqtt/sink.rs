//! A gateway that answers with what it was sent.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use offload_protocol::answer::{Answer, AnswerForm, Outcome};
use offload_protocol::topic;
use offload_rt::ingress::{Delivery, Outgoing, ReplyAddress, Responder, Sink};
use tokio::sync::watch;
use tokio::time::timeout;

use super::PATIENCE;

/// What a delivery was.
#[derive(Clone)]
pub struct Request {
    pub topic: String,
    pub principal: Option<Arc<str>>,
    pub retained: bool,
    payload: Bytes,
}

pub struct EchoSink {
    /// Answers at once, or holds requests until it is told to answer.
    state: Mutex<State>,
    count: watch::Sender<usize>,
    padding: usize,
}

#[derive(Default)]
struct State {
    holding: bool,
    received: Vec<Request>,
    held: Vec<(Request, Box<dyn Responder>)>,
}

impl EchoSink {
    pub fn answering() -> Arc<EchoSink> {
        Self::new(false, 0)
    }

    pub fn holding() -> Arc<EchoSink> {
        Self::new(true, 0)
    }

    /// Answers with this many bytes more.
    pub fn verbose(padding: usize) -> Arc<EchoSink> {
        Self::new(false, padding)
    }

    fn new(holding: bool, padding: usize) -> Arc<EchoSink> {
        let state = Mutex::new(State { holding, ..State::default() });
        Arc::new(EchoSink { state, count: watch::Sender::new(0), padding })
    }

    /// All that came, in order.
    pub fn received(&self) -> Vec<Request> {
        self.state.lock().unwrap().received.clone()
    }

    pub async fn received_at_least(&self, count: usize) {
        let mut watched = self.count.subscribe();
        let enough = watched.wait_for(|now| *now >= count);
        timeout(PATIENCE, enough).await.expect("delivered in time").expect("sink alive");
    }

    /// Answers all that is held, from a thread that knows nothing of the ingress, and from now on at once.
    pub fn release(self: &Arc<Self>) {
        let sink = self.clone();
        std::thread::spawn(move || {
            let held = {
                let mut state = sink.state.lock().unwrap();
                state.holding = false;
                std::mem::take(&mut state.held)
            };
            held.into_iter().for_each(|(request, responder)| sink.answer(&request, responder));
        })
        .join()
        .unwrap();
    }

    fn answer(&self, request: &Request, responder: Box<dyn Responder>) {
        if request.retained {
            return responder.ignore();
        }
        let reply_id = topic::parse_request(&request.topic).unwrap().reply_id;
        responder.answer(answer(reply_id, [&request.payload[..], &vec![b'.'; self.padding]].concat()), None);
    }
}

impl Sink for EchoSink {
    fn dispatch(&self) {}

    fn deliver(&self, delivery: Delivery) {
        let Delivery { client, topic, payload, retained, acceptance, responder, .. } = delivery;
        let request = Request { topic, principal: client.principal, retained, payload };
        acceptance.complete();
        let mut state = self.state.lock().unwrap();
        state.received.push(request.clone());
        let count = state.received.len();
        if state.holding {
            state.held.push((request, responder));
        } else {
            self.answer(&request, responder);
        }
        drop(state);
        self.count.send_replace(count);
    }
}

/// An answer of a program that printed `stdout`.
pub fn answer(reply_id: &str, stdout: impl Into<Bytes>) -> Outgoing {
    let answer = Answer {
        id: None,
        outcome: Outcome::Exited(0),
        stdout: stdout.into(),
        content_range: None,
        stderr: Bytes::new(),
        fuel: 0,
        run_us: 0,
        queue_us: 0,
    };
    let address = ReplyAddress { topic: topic::result(reply_id), correlation_data: None, max_payload: None };
    Outgoing { address, form: AnswerForm::Line, answer, seal: None }
}
