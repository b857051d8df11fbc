//! What is asked. From here on an answer is owed, and observers see the request.

use super::address::Addressed;
use super::answer::{PendingAnswer, Refusal, WayBack};
use super::journal::promise::Promise;
use super::observer::{Arrival, Observer};
use crate::client::Client;
use crate::config::Limits;
use bytes::Bytes;
use offload_protocol::UserProperties;
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
    /// As it came, in case that it is to be run again.
    pub payload: Bytes,
    pub user_properties: UserProperties,
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
    let decoded = request::decode(kind, payload.clone(), &user_properties, bounds);
    let request = decoded.as_ref().ok();
    let arrival = Arrival { client: &client, topic: &topic, payload: &payload, request, arrived };
    let observations = observers.iter().filter_map(|observer| observer.request(&arrival)).collect();
    let pending = |form: AnswerForm, stdout_range: Option<StdoutRange>, id| PendingAnswer {
        way_back: WayBack { responder: Some(responder), address: reply_address, form, id, kept: None },
        stdout_range,
        registration: None,
        stream: None,
        observations,
    };
    match decoded {
        Ok(request) => {
            let pending = pending(request.answer_form(), request.stdout_range, request.id.clone());
            let asked = Asked { client, topic, reply_id, arrived, request, payload, user_properties };
            Ok(Decoded { asked, size, is_misdirected, promise, pending })
        }
        Err(Rejected { form, id, error }) => {
            let mut pending = pending(form, None, id);
            pending.way_back.kept = promise.take();
            Err(Refusal::new(pending, error))
        }
    }
}

impl Decoded {
    /// Ends the request. Its publisher is told why it is not run.
    pub fn refuse(self, error: WireError) -> Refusal {
        let Decoded { mut pending, promise, .. } = self;
        pending.way_back.kept = promise.take();
        Refusal::new(pending, error)
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
