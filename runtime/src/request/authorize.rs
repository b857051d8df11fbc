//! Whether this client may ask for this, and be answered there.

use super::answer::Refusal;
use super::decode::Decoded;
use crate::auth::access::{Access, Who};
use crate::config::Offload;
use crate::programs::Programs;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{Code, ReplyForm};

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
    let asked = &decoded.asked;
    if asked.request.reply == ReplyForm::Stream && asked.reply_id.is_empty() && asked.client.flow.is_empty() {
        // Nothing tells such clients apart.
        let message = "reply: on this broker a stream needs a reply id";
        return Err(decoded.refuse(WireError::new(ErrorKind::Malformed, message)));
    }
    let who = Who::from(&decoded.asked.client);
    match may_ask_for(&decoded.asked.request.code, who, access, programs) {
        Ok(()) => Ok(Authorized(decoded)),
        Err(error) => Err(decoded.refuse(error)),
    }
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
        Code::Module(_) => access.may_offload(who, Offload::Wasm),
        Code::Source(_) | Code::Files(_) => access.may_offload(who, Offload::Source),
        // It reaches no request but those of its own client.
        Code::Cancel(_) => Ok(()),
    }
}
