//! What is asked. From here on an answer is owed, and observers see the request.

use super::address::Addressed;
use super::answer::{PendingAnswer, Refusal, WayBack};
use super::journal::promise::Promise;
use super::observer::{Arrival, Observer};
use super::open::{Opener, Unsealed};
use crate::client::Client;
use crate::config::Limits;
use crate::deduplication::Until;
use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::answer::AnswerForm;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{self, Bounds, Incoming, Rejected, Request, StdoutRange};
use offload_protocol::topic::RequestKind;
use std::sync::Arc;
use std::time::Instant;

/// What is asked, and who asks.
pub struct Asked {
    pub client: Client,
    pub topic: String,
    /// The site that it is for, if that is another one.
    pub destination: Option<Arc<str>>,
    pub kind: RequestKind,
    pub reply_id: Arc<str>,
    pub arrived: Instant,
    pub request: Request,
    /// Until when it is remembered, if it was sealed.
    pub sealed_until: Option<Until>,
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
    opener: Option<&Opener>,
    observers: &[Arc<dyn Observer>],
) -> Result<Decoded, Refusal> {
    let Addressed {
        client,
        topic,
        destination,
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
    let (decoded, seal, sealed_until) = match request::read(kind, payload.clone(), &user_properties, bounds) {
        Ok(Incoming::Clear(request)) => (Ok(request), None, None),
        Ok(Incoming::Sealed(sealed)) => match opener.filter(|_| destination.is_none() && !client.is_routed())
        {
            Some(opener) => {
                let Unsealed { request, seal, until } =
                    opener.open(&sealed, kind, &topic, bounds, arrived, promise.is_recovered());
                (request, seal, until)
            }
            None => (Err(not_taken(sealed.form)), None, None),
        },
        Err(rejected) => (Err(rejected), None, None),
    };
    let is_sealed = seal.is_some();
    let request = decoded.as_ref().ok().filter(|_| !is_sealed);
    let arrival = Arrival { client: &client, topic: &topic, payload: &payload, request, is_sealed, arrived };
    let observations = observers.iter().filter_map(|observer| observer.request(&arrival)).collect();
    let pending = |form: AnswerForm, stdout_range: Option<StdoutRange>, id| PendingAnswer {
        way_back: WayBack { responder: Some(responder), address: reply_address, form, id, kept: None, seal },
        stdout_range,
        registration: None,
        stream: None,
        observations,
    };
    match decoded {
        Ok(request) => {
            // The asking site cuts the answer: it may be asked for other parts.
            let range = request.stdout_range.filter(|_| !client.is_routed());
            let pending = pending(request.answer_form(), range, request.id.clone());
            let asked = Asked {
                client,
                topic,
                destination,
                kind,
                reply_id,
                arrived,
                request,
                sealed_until,
                payload,
                user_properties,
            };
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

/// Sealed requests are for a gateway that alone knows which it has run, and not for other sites.
fn not_taken(form: AnswerForm) -> Rejected {
    let message = "sealed requests are taken neither on NATS nor for other sites";
    Rejected { form, id: None, error: WireError::new(ErrorKind::Unauthorized, message) }
}
