//! Requests that run at another site.

use crate::network::{Departure, Request, Router};
use crate::request::resolve::Original;
use crate::request::run::Run;
use crate::telemetry;
use offload_protocol::error::{ErrorKind, WireError};
use std::sync::Arc;

/// Hands the request to the router. Its answer comes from the router's task.
pub fn start(gate: Arc<str>, run: Run, original: Original, router: Option<&Router>) {
    let Some(router) = router else {
        let gate = telemetry::bounded(&gate);
        let message = format!("there is no gate `{gate}`: this gateway has joined no other sites");
        return run.refuse(WireError::new(ErrorKind::Unreachable, message)).answer();
    };
    let Run { client, pending, waiting, timing, .. } = run;
    let Original { topic, payload, user_properties, .. } = original;
    let request = Request {
        principal: client.principal.as_ref().map(|_| client.name().to_owned()),
        web: client.web,
        path: Vec::new(),
        topic,
        user_properties,
        payload,
    };
    let done = Box::new(move |answer| {
        pending.finish_remotely(answer);
        // Whoever waits until nothing waits any more waits for the answer too.
        drop(waiting);
    });
    router.send(Departure { gate, request, arrived: timing.arrived, deadline: timing.deadline, done });
}
