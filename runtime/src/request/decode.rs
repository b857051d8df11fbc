//! What is asked. From here on an answer is owed, and observers see the request.

use super::address::Addressed;
use super::answer::{PendingAnswer, Refusal, WayBack};
use super::journal::promise::Promise;
use super::observer::{Arrival, Observer};
use super::open::{Opener, Unsealed};
use crate::client::Client;
use crate::config::Limits;
use crate::deduplication::Until;
use crate::ingress::Left;
use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::answer::AnswerForm;
use offload_protocol::error::WireError;
use offload_protocol::request::{self, Bounds, Code, Form, Incoming, Rejected, Request, StdoutRange};
use offload_protocol::sealed::SealedRequest;
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

/// Reads the payload. `None` for a sealed request that is left to the other gateways of a service: this one has not
/// their keys.
pub fn decode(
    addressed: Addressed,
    bounds: &Bounds,
    opener: Option<&Opener>,
    observers: &[Arc<dyn Observer>],
) -> Result<Option<Decoded>, Refusal> {
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
        mut responder,
        reply_address,
        is_misdirected,
        is_astray,
    } = addressed;
    let size = payload.len();
    let mut stays_sealed = false;
    let (decoded, seal, sealed_until) = match request::read(kind, payload.clone(), &user_properties, bounds) {
        Ok(Incoming::Clear(request)) => (Ok(request), None, None),
        Ok(Incoming::Sealed(sealed)) if destination.is_some() => {
            stays_sealed = true;
            (Ok(for_another_site(sealed.form)), None, None)
        }
        // Whatever brings it here, its asker has not meant this site.
        Ok(Incoming::Sealed(sealed)) if is_astray => (Err(SealedRequest::unopened(sealed.form)), None, None),
        Ok(Incoming::Sealed(sealed)) => match opener {
            Some(opener) if !opener.is_anothers(&sealed) || client.is_routed() => {
                // How long another site says that it was on its way proves nothing.
                let since = if client.is_routed() { Instant::now() } else { arrived };
                let Unsealed { request, seal, until } =
                    opener.open(&sealed, kind, &topic, bounds, since, promise.was_accepted());
                (request, seal, until)
            }
            // What may not be answered where it wants to be is refused the same way, by whichever gateway.
            _ if client.is_routed() || is_misdirected => {
                (Err(SealedRequest::unknown_key(sealed.form)), None, None)
            }
            _ => {
                let (topic, payload, user_properties) = (&*topic, &payload, &user_properties);
                match responder.leave(Left { topic, payload, user_properties, reply_address: &reply_address })
                {
                    Ok(()) => return Ok(None),
                    Err(back) => responder = back,
                }
                (Err(SealedRequest::unknown_key(sealed.form)), None, None)
            }
        },
        Err(rejected) => (Err(rejected), None, None),
    };
    let is_sealed = seal.is_some() || stays_sealed;
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
            // The asking site cuts the answer, if it can read it: it may be asked for other parts.
            let range = request.stdout_range.filter(|_| is_sealed || !client.is_routed());
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
            Ok(Some(Decoded { asked, size, is_misdirected, promise, pending }))
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

/// A request that another site opens, and answers in this form.
fn for_another_site(form: AnswerForm) -> Request {
    let form = if form == AnswerForm::Json { Form::Json } else { Form::Cbor };
    Request { form, ..Request::new(Code::Sealed) }
}
