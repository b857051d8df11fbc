//! Form 5: the arguments of the gateway's default program, as the deployed devices send them: `5 7`.

use bytes::Bytes;

use super::bounds::split_args;
use super::properties::{self, Properties};
use super::{Bounds, Code, Form, Rejected, ReplyForm, Request, RequestKind};
use crate::UserProperties;
use crate::answer::AnswerForm;
use crate::error::WireError;

pub(super) fn decode(
    payload: &[u8],
    user_properties: &[(String, String)],
    bounds: &Bounds,
) -> Result<Request, Rejected> {
    let mut properties = Properties::default();
    let read = properties.read(user_properties).and_then(|()| split(payload, bounds));
    let id = properties.id;
    match read {
        Err(error) => Err(Rejected { form: AnswerForm::Line, id, error }),
        Ok(args) => Ok(Request {
            form: Form::LegacyArgs,
            id,
            code: Code::DefaultProgram,
            args,
            env: Vec::new(),
            stdin: Bytes::new(),
            limits: properties.limits,
            reply: ReplyForm::Stdout,
            stdout_range: None,
        }),
    }
}

fn split(payload: &[u8], bounds: &Bounds) -> Result<Vec<String>, WireError> {
    let text = str::from_utf8(payload).map_err(|_| {
        WireError::malformed("payload", "expected a form of request, got bytes that are not text")
    })?;
    let args = split_args(text, bounds)?;
    // What is white space is in none of them.
    if args.iter().any(|arg| arg.contains(char::is_control)) {
        return Err(WireError::malformed("args", "expected text without control characters"));
    }
    Ok(args)
}

pub(super) fn encode(request: &Request) -> Result<(RequestKind, Bytes, UserProperties), WireError> {
    if request.code != Code::DefaultProgram {
        return Err(WireError::malformed("program", "legacy arguments run the default program"));
    }
    if !request.env.is_empty() {
        return Err(WireError::malformed("env", "legacy arguments carry no environment"));
    }
    let payload = request.args.join(" ");
    // Reading it back says whether the text survives: arguments with white space, empty ones, a leading `{`.
    let same =
        super::decode(RequestKind::LocalCode, Bytes::copy_from_slice(payload.as_bytes()), &[], &Bounds::NONE)
            .is_ok_and(|read| read.form == Form::LegacyArgs && read.args == request.args);
    if !same {
        return Err(WireError::malformed("args", "only an envelope carries these"));
    }
    Ok((RequestKind::LocalCode, payload.into(), properties::write(request)))
}
