//! Form 1: the payload is a wasm module or component; all else comes from user properties.

use bytes::Bytes;

use super::properties::{self, Properties};
use super::{
    Code, Form, Rejected, ReplyForm, Request, RequestKind, WASM_MAGIC, check_args, check_env,
    code_on_local_code, only_in_envelope,
};
use crate::UserProperties;
use crate::answer::AnswerForm;
use crate::error::WireError;

const ARG: &str = "arg";
const ENV_PREFIX: &str = "env.";

pub(super) fn decode(
    kind: RequestKind,
    payload: Bytes,
    user_properties: &[(String, String)],
) -> Result<Request, Rejected> {
    let mut properties = Properties::default();
    let read = read(kind, user_properties, &mut properties);
    let id = properties.id;
    match read {
        Err(error) => Err(Rejected { form: AnswerForm::Line, id, error }),
        Ok((args, env)) => Ok(Request {
            form: Form::RawModule,
            id,
            code: Code::Module(payload),
            args,
            env,
            stdin: Bytes::new(),
            limits: properties.limits,
            reply: ReplyForm::Stdout,
        }),
    }
}

type ArgsAndEnv = (Vec<String>, Vec<(String, String)>);

fn read(
    kind: RequestKind,
    user_properties: &[(String, String)],
    properties: &mut Properties,
) -> Result<ArgsAndEnv, WireError> {
    properties.read(user_properties)?;
    if kind == RequestKind::LocalCode {
        return Err(code_on_local_code("module"));
    }
    let mut args = Vec::new();
    let mut env = Vec::new();
    for (name, value) in user_properties {
        if name == ARG {
            args.push(value.clone());
        } else if let Some(name) = name.strip_prefix(ENV_PREFIX) {
            env.push((name.to_owned(), value.clone()));
        }
    }
    check_args(&args)?;
    check_env(&env)?;
    Ok((args, env))
}

pub(super) fn encode(request: &Request) -> Result<(RequestKind, Bytes, UserProperties), WireError> {
    let Code::Module(module) = &request.code else { return Err(only_in_envelope("program")) };
    if !module.starts_with(&WASM_MAGIC) {
        return Err(WireError::malformed("module", "expected wasm"));
    }
    let mut written = properties::write(request);
    written.extend(request.args.iter().map(|arg| (ARG.to_owned(), arg.clone())));
    written.extend(request.env.iter().map(|(name, value)| (format!("{ENV_PREFIX}{name}"), value.clone())));
    Ok((RequestKind::InputCode, module.clone(), written))
}
