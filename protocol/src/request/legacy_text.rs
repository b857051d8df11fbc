//! Form 4: name, arguments, source and build part with `----` between them, as the deployed clients send them; or name,
//! arguments and a module.

use bytes::Bytes;
use memchr::memmem;

use super::bounds::{check_bytes, split_args};
use super::properties::{self, Properties};
use super::source::check_source;
use super::{
    Bounds, Code, Form, Rejected, ReplyForm, Request, RequestKind, Source, WASM_MAGIC, check_args,
    only_in_envelope,
};
use crate::UserProperties;
use crate::answer::AnswerForm;
use crate::error::WireError;

/// What stands between the parts.
const DELIMITER: &[u8] = b"----";

/// Whether bytes that are of no other form are of this one.
pub(super) fn is_one(payload: &[u8]) -> bool {
    find(payload).is_some()
}

fn find(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, DELIMITER)
}

fn find_last(bytes: &[u8]) -> Option<usize> {
    memmem::rfind(bytes, DELIMITER)
}

pub(super) fn decode(
    payload: &Bytes,
    user_properties: &[(String, String)],
    bounds: &Bounds,
) -> Result<Request, Rejected> {
    let mut properties = Properties::default();
    let read = properties.read(user_properties).and_then(|()| split(payload, bounds));
    let id = properties.id;
    match read {
        Err(error) => Err(Rejected { form: AnswerForm::Line, id, error }),
        Ok((code, args)) => Ok(Request {
            form: Form::LegacyText,
            id,
            code,
            args,
            env: Vec::new(),
            stdin: Bytes::new(),
            limits: properties.limits,
            reply: ReplyForm::Stdout,
            stdout_range: None,
        }),
    }
}

fn split(payload: &Bytes, bounds: &Bounds) -> Result<(Code, Vec<String>), WireError> {
    let missing =
        |part| WireError::malformed(part, "expected name, args, source and build with `----` between them");
    let name_end = find(payload).ok_or_else(|| missing("args"))?;
    let after_name = payload.slice(name_end + DELIMITER.len()..);
    let args_end = find(&after_name).ok_or_else(|| missing("source"))?;
    let args = str::from_utf8(&after_name[..args_end]).map_err(|_| not_text("args"))?;
    let args = split_args(args, bounds)?;
    check_args(&args)?;
    let rest = after_name.slice(args_end + DELIMITER.len()..);
    if rest.starts_with(&WASM_MAGIC) {
        check_bytes("module", rest.len(), bounds.module)?;
        return Ok((Code::Module(rest), args));
    }
    let source_end = find_last(&rest).ok_or_else(|| missing("makefile"))?;
    check_bytes("source", rest.len() - DELIMITER.len(), bounds.source)?;
    let build = str::from_utf8(&rest[source_end + DELIMITER.len()..]).map_err(|_| not_text("makefile"))?;
    let source = Source::read(&payload[..name_end], rest.slice(..source_end), build)?;
    Ok((Code::Source(source), args))
}

fn not_text(field: &str) -> WireError {
    WireError::malformed(field, "expected UTF-8")
}

pub(super) fn encode(request: &Request) -> Result<(RequestKind, Bytes, UserProperties), WireError> {
    if !request.env.is_empty() {
        return Err(only_in_envelope("env"));
    }
    let args = request.args.join(" ");
    let payload = match &request.code {
        Code::Source(source) => {
            check_source(source)?;
            [source.name.as_bytes(), args.as_bytes(), &source.text, source.build.as_str().as_bytes()]
                .join(DELIMITER)
        }
        Code::Module(module) => [b"", args.as_bytes(), module].join(DELIMITER),
        _ => return Err(WireError::malformed("source", "legacy text carries source or a module")),
    };
    let payload = Bytes::from(payload);
    // Reading it back says whether all of it survives: delimiters within the parts, arguments with white space.
    let same = super::decode(RequestKind::InputCode, payload.clone(), &[], &Bounds::NONE).is_ok_and(|read| {
        read.form == Form::LegacyText && read.code == request.code && read.args == request.args
    });
    if !same {
        return Err(WireError::malformed(
            "source",
            "only an envelope carries this source with these arguments",
        ));
    }
    Ok((RequestKind::InputCode, payload, properties::write(request)))
}
