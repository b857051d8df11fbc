//! Form 1: the payload is a wasm module or component; all else comes from user properties.

use bytes::Bytes;

use super::bounds::{check_bytes, check_number};
use super::properties::{self, Properties};
use super::{
    Bounds, Code, Form, Rejected, ReplyForm, Request, RequestKind, WASM_MAGIC, check_args, check_env,
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
    bounds: &Bounds,
) -> Result<Request, Rejected> {
    let mut properties = Properties::default();
    let read = read(kind, user_properties, bounds, &mut properties)
        .and_then(|read| check_bytes("module", payload.len(), bounds.module).map(|()| read));
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
            stdout_range: None,
        }),
    }
}

type ArgsAndEnv = (Vec<String>, Vec<(String, String)>);

fn read(
    kind: RequestKind,
    user_properties: &[(String, String)],
    bounds: &Bounds,
    properties: &mut Properties,
) -> Result<ArgsAndEnv, WireError> {
    properties.read(user_properties)?;
    if kind == RequestKind::LocalCode {
        return Err(code_on_local_code("module"));
    }
    let args = || user_properties.iter().filter(|(name, _)| name == ARG).map(|(_, value)| value);
    let env =
        || user_properties.iter().filter_map(|(name, value)| Some((name.strip_prefix(ENV_PREFIX)?, value)));
    check_number("args", args().count(), bounds.args)?;
    check_bytes("args", args().map(String::len).sum(), bounds.args_bytes)?;
    check_number("env", env().count(), bounds.env)?;
    check_bytes("env", env().map(|(name, value)| name.len() + value.len()).sum(), bounds.env_bytes)?;
    let args: Vec<String> = args().cloned().collect();
    let env: Vec<_> = env().map(|(name, value)| (name.to_owned(), value.clone())).collect();
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
