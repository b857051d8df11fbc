//! Whether this client may ask for this, and be answered there.

use super::answer::Refusal;
use super::decode::{Asked, Decoded};
use crate::auth::access::{Access, Who};
use crate::config::Offload;
use crate::programs::Programs;
use crate::telemetry;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{Code, ModulesRequest, ReplyForm};
use offload_protocol::topic;

/// A request that its client may make.
pub struct Authorized(Decoded);

impl Authorized {
    /// The request itself.
    pub fn into_decoded(self) -> Decoded {
        self.0
    }
}

/// Asks the rules.
pub fn authorize(decoded: Decoded, access: &Access, programs: &Programs) -> Result<Authorized, Refusal> {
    if decoded.is_misdirected {
        let message = "answers to this client cannot go to its Response Topic";
        return Err(decoded.refuse(WireError::new(ErrorKind::Unauthorized, message)));
    }
    let (asked, who) = (&decoded.asked, Who::from(&decoded.asked.client));
    if asked.request.reply == ReplyForm::Stream && asked.reply_id.is_empty() && asked.client.flow.is_empty() {
        // Nothing tells such clients apart.
        let message = "reply: on this broker a stream needs a reply id";
        return Err(decoded.refuse(WireError::new(ErrorKind::Malformed, message)));
    }
    let authorized = match &asked.destination {
        // What it may do there is for the rules there.
        Some(gate) => may_ask(gate, asked, who, access),
        None => may_be_asked(asked, who, access)
            .and_then(|()| may_ask_for(&asked.request.code, who, access, programs)),
    };
    match authorized {
        Ok(()) => Ok(Authorized(decoded)),
        Err(error) => Err(decoded.refuse(error)),
    }
}

/// Whether a client of this site may ask another one.
fn may_ask(gate: &str, asked: &Asked, who: Who, access: &Access) -> Result<(), WireError> {
    if access.may_publish(who, &asked.topic) {
        return Ok(());
    }
    let gate = telemetry::bounded(gate);
    let message = format!("this client may not ask the gate `{gate}`; ask the operator for a rule");
    Err(WireError::new(ErrorKind::Unauthorized, message))
}

/// Whether a client of another site may ask on this topic. That one of this site may, its broker has found.
fn may_be_asked(asked: &Asked, who: Who, access: &Access) -> Result<(), WireError> {
    let client = &asked.client;
    if !client.is_routed() || access.may_publish(who, &topic::request(asked.kind, &asked.reply_id)) {
        return Ok(());
    }
    let name = telemetry::bounded(client.name());
    let message = format!("no rule of this site lets `{name}` ask here; ask its operator");
    Err(WireError::new(ErrorKind::Unauthorized, message))
}

fn may_ask_for(code: &Code, who: Who, access: &Access, programs: &Programs) -> Result<(), WireError> {
    let may_run = |program: &str| {
        let denied = || format!("this client may not run `{program}`; ask the operator");
        let permitted = access.may_run(who, program);
        if permitted { Ok(()) } else { Err(WireError::new(ErrorKind::Unauthorized, denied())) }
    };
    match code {
        Code::Program(name) => may_run(name),
        Code::DefaultProgram => may_run(&programs.default_program().name),
        Code::Digest(digest) => match programs.by_digest(digest) {
            Some(program) if access.may_run(who, &program.name) => Ok(()),
            _ => access.may_offload(who, Offload::Wasm),
        },
        Code::Module(_) | Code::Modules(ModulesRequest::Store(_)) => access.may_offload(who, Offload::Wasm),
        // What it has is its own, whatever it may still send.
        Code::Modules(ModulesRequest::List | ModulesRequest::Remove(_)) => Ok(()),
        Code::Source(_) | Code::Files(_) => access.may_offload(who, Offload::Source),
        // It reaches no request but those of its own client. What stays sealed is for the rules of another site.
        Code::Cancel(_) | Code::Sealed => Ok(()),
    }
}
