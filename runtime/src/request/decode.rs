//! What is asked. From here on an answer is owed, and observers see the request.

use super::address::Addressed;
use super::answer::{PendingAnswer, Refusal};
use super::journal::promise::Promise;
use super::observer::{Arrival, Observer};
use crate::client::Client;
use crate::config::Limits;
use offload_protocol::answer::AnswerForm;
use offload_protocol::error::WireError;
use offload_protocol::request::{self, Bounds, Rejected, Request, StdoutRange};
use std::sync::Arc;
use std::time::Instant;

/// What is asked, and who asks.
pub struct Asked {
    pub client: Client,
    pub topic: String,
    pub reply_id: Arc<str>,
    pub arrived: Instant,
    pub request: Request,
}

/// A request that can be answered.
pub struct Decoded {
    pub asked: Asked,
    /// Bytes of its payload.
    pub size: usize,
    pub is_misdirected: bool,
    pub promise: Promise,
    pub pending: PendingAnswer,
}

/// Reads the payload.
pub fn decode(
    addressed: Addressed,
    bounds: &Bounds,
    observers: &[Arc<dyn Observer>],
) -> Result<Decoded, Refusal> {
    let Addressed {
        client,
        topic,
        kind,
        reply_id,
        payload,
        user_properties,
        arrived,
        promise,
        responder,
        reply_address,
        is_misdirected,
    } = addressed;
    let size = payload.len();
    let observed = (!observers.is_empty()).then(|| payload.clone());
    let decoded = request::decode(kind, payload, &user_properties, bounds);
    let observations = observed.map_or_else(Vec::new, |payload| {
        let arrival = Arrival {
            client: &client,
            topic: &topic,
            payload: &payload,
            request: decoded.as_ref().ok(),
            arrived,
        };
        observers.iter().filter_map(|observer| observer.request(&arrival)).collect()
    });
    let pending = |form: AnswerForm, stdout_range: Option<StdoutRange>, id| PendingAnswer {
        responder,
        address: reply_address,
        form,
        stdout_range,
        id,
        registration: None,
        kept: None,
        observations,
    };
    match decoded {
        Ok(request) => {
            let pending = pending(request.answer_form(), request.stdout_range, request.id.clone());
            let asked = Asked { client, topic, reply_id, arrived, request };
            Ok(Decoded { asked, size, is_misdirected, promise, pending })
        }
        Err(Rejected { form, id, error }) => {
            let pending = PendingAnswer { kept: promise.refused(), ..pending(form, None, id) };
            Err(Refusal::new(pending, error))
        }
    }
}

impl Decoded {
    /// Ends the request. Its publisher is told that it has arrived, and then why it is not run.
    pub fn refuse(self, error: WireError) -> Refusal {
        Refusal::new(PendingAnswer { kept: self.promise.refused(), ..self.pending }, error)
    }
}

/// How much a request may carry.
pub fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        module: limits.module.as_usize(),
        source: limits.source.as_usize(),
        files: limits.files,
        args: limits.args,
        args_bytes: limits.args_bytes.as_usize(),
        env: limits.env,
        env_bytes: limits.env_bytes.as_usize(),
        stdin: limits.stdin.as_usize(),
    }
}
