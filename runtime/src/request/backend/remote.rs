//! Requests that run at another gateway.

use crate::cancellation::Cancellation;
use crate::network::{Departure, Reply, Request, Router};
use crate::request::resolve::Original;
use crate::request::run::Run;
use crate::stopping::is_stopping;
use crate::telemetry;
use offload_protocol::answer::{Answer, Outcome};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::RequestId;
use std::sync::Arc;

/// Hands the request to the router, for the site that it names. Its answer comes from the router's task.
pub fn start(gate: Arc<str>, run: Run, original: Original, router: Option<&Router>) {
    let Some(router) = router else {
        let gate = telemetry::bounded(&gate);
        let message = format!("there is no gate `{gate}`: this gateway has joined no other sites");
        return run.refuse(WireError::new(ErrorKind::Unreachable, message)).answer();
    };
    let mut departure = departure(gate, &run, &original);
    departure.may_wait = true;
    let cancellable = Cancellable::of(&run);
    departure.done = Box::new(move |reply| finish(run, reply));
    send(departure, cancellable, router);
}

/// A request that another one may cancel while it is at another gateway.
pub struct Cancellable(Option<(Arc<Cancellation>, RequestId)>);

impl Cancellable {
    /// This one, if it can be cancelled.
    pub fn of(run: &Run) -> Cancellable {
        Cancellable(run.pending.cancellation().cloned().zip(run.given.context.request_id.clone()))
    }
}

/// Sends it off. When it is cancelled, it is answered here, and the other gateway is told.
pub fn send(departure: Departure, Cancellable(cancellable): Cancellable, router: &Router) {
    let number = router.send(departure);
    if let Some((number, (cancellation, id))) = number.zip(cancellable) {
        let router = router.clone();
        cancellation.handed_on(move || router.cancel(number, id));
    }
}

/// The request for another gateway, which nobody waits for yet.
pub fn departure(gate: Arc<str>, run: &Run, original: &Original) -> Departure {
    let Run { client, timing, .. } = run;
    let (address, responder) = (&run.pending.way_back.address, run.pending.way_back.responder.as_ref());
    let taken = responder.and_then(|responder| responder.max_payload(address));
    let answer_room = [taken, address.max_payload].into_iter().flatten().min();
    let request = Request {
        principal: client.principal.as_ref().map(|_| client.name().to_owned()),
        web: client.web,
        path: client.path().into_iter().map(str::to_owned).collect(),
        topic: original.topic.clone(),
        answer_topic: address.topic.clone(),
        answer_room: answer_room.map(|room| room as u64),
        user_properties: original.user_properties.clone(),
        payload: original.payload.clone(),
    };
    let (arrived, deadline) = (timing.arrived, timing.deadline);
    let stream = run.given.stream.clone();
    Departure { gate, request, arrived, deadline, may_wait: false, stream, done: Box::new(|_| {}) }
}

/// Answers with what the other gateway says.
pub fn finish(run: Run, reply: Result<Reply, WireError>) {
    let Run { pending, waiting, .. } = run;
    match reply {
        Ok(Reply::Clear(answer)) => pending.finish_remotely(Ok(answer)),
        Ok(Reply::Sealed(sealed)) => pending.finish_sealed(sealed),
        Err(error) => pending.finish_remotely(Err(error)),
    }
    // Whoever waits until nothing waits any more waits for the answer too.
    drop(waiting);
}

/// Whether the other gateway has not run the request, and another one might.
pub fn is_refused(reply: &Result<Reply, WireError>) -> bool {
    use ErrorKind::{Busy, Internal, NotFound, TooLarge, Unauthorized, Unreachable};
    let error = match reply {
        Ok(Reply::Clear(Answer { outcome: Outcome::Failed(error), .. })) | Err(error) => error,
        Ok(_) => return false,
    };
    matches!(error.kind, Busy | Internal | NotFound | TooLarge | Unauthorized | Unreachable)
        && !(reply.is_err() && is_stopping(error))
}
