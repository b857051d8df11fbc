//! Form 3: one JSON object. Byte strings are base64 (standard alphabet, padded).

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::{
    Code, Limits, Rejected, ReplyForm, Request, RequestId, RequestKind, check_args, check_env,
    code_on_local_code, env_field, not_supported, too_many_values,
};
use crate::UserProperties;
use crate::answer::AnswerForm;
use crate::error::{WireError, cut};
use crate::json::{self, ReadError, Value};

/// The fields of which exactly one says what to run.
const CODE_FIELDS: [&str; 5] = ["module", "digest", "program", "source", "files"];

/// Fields of the contract that this gateway does not speak yet.
const UNSUPPORTED: [&str; 6] = ["digest", "source", "files", "makefile", "name", "target"];

pub(super) fn decode(kind: RequestKind, payload: &[u8]) -> Result<Request, Rejected> {
    // JSON's own white space lacks the form feed.
    let fields = match json::read(payload.trim_ascii_start()) {
        Ok(Value::Map(fields)) => fields,
        Ok(other) => return Err(unreadable(expected("envelope", "a map", &other))),
        Err(ReadError::Syntax(problem)) => return Err(unreadable(WireError::malformed("envelope", problem))),
        Err(ReadError::TooManyValues) => return Err(unreadable(too_many_values())),
    };
    // Before all else, so that an error in another field is answered under the id and in the form that were asked for.
    let id = find(&fields, "id", id);
    let reply = find(&fields, "reply", reply);
    let echoed = id.as_ref().ok().cloned().flatten();
    let form = match reply {
        Ok(Some(ReplyForm::Stdout)) => AnswerForm::Line,
        _ => AnswerForm::Json,
    };
    request(kind, fields, id, reply).map_err(|error| Rejected { form, id: echoed, error })
}

fn unreadable(error: WireError) -> Rejected {
    Rejected { form: AnswerForm::Json, id: None, error }
}

type Fields<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

fn request(
    kind: RequestKind,
    fields: Fields<'_>,
    id: Result<Option<RequestId>, WireError>,
    reply: Result<Option<ReplyForm>, WireError>,
) -> Result<Request, WireError> {
    let mut request =
        Request { id: id?, reply: reply?.unwrap_or_default(), ..Request::new(Code::DefaultProgram) };
    only_known_once(&fields)?;
    let mut code = None;
    for (name, value) in fields {
        match &*name {
            "module" if kind == RequestKind::LocalCode => return Err(code_on_local_code("module")),
            "module" => code = Some(Code::Module(bytes("module", value)?)),
            "program" => code = Some(Code::Program(text("program", value)?)),
            "args" => request.args = args(value)?,
            "env" => request.env = env(value)?,
            "stdin" => request.stdin = bytes("stdin", value)?,
            "fuel" => request.limits.fuel = Some(integer("fuel", value)?),
            "memory" => request.limits.memory = Some(integer("memory", value)?),
            "timeout_ms" => {
                request.limits.timeout = Some(Duration::from_millis(integer("timeout_ms", value)?));
            }
            // `id` and `reply` are read already; `only_known_once` let nothing else through.
            _ => {}
        }
    }
    request.code = code.ok_or_else(|| {
        WireError::malformed(CODE_FIELDS.join(", "), "expected exactly one of these fields, got none")
    })?;
    Ok(request)
}

/// Refuses fields that are unknown, not supported, or given twice, and more than one field that says what to run.
fn only_known_once(fields: &Fields<'_>) -> Result<(), WireError> {
    const SUPPORTED: [&str; 10] =
        ["id", "module", "program", "args", "env", "stdin", "fuel", "memory", "timeout_ms", "reply"];
    let mut code = None;
    for (index, (name, _)) in fields.iter().enumerate() {
        let name = &**name;
        // At most as many distinct names as there are fields get past this: the scan below is short.
        if !SUPPORTED.contains(&name) && !UNSUPPORTED.contains(&name) {
            return Err(WireError::malformed(cut(name, 64), "no such field"));
        }
        if fields[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(WireError::malformed(name, "given twice"));
        }
        if CODE_FIELDS.contains(&name)
            && let Some(other) = code.replace(name)
        {
            return Err(WireError::malformed(
                format_args!("{other}, {name}"),
                format_args!("expected exactly one of {}", CODE_FIELDS.join(", ")),
            ));
        }
    }
    match fields.iter().find(|(name, _)| UNSUPPORTED.contains(&&**name)) {
        Some((name, _)) => Err(not_supported(name)),
        None => Ok(()),
    }
}

/// Reads a field out of turn; `None` if it is absent or given twice (which is refused later).
fn find<T>(
    fields: &Fields<'_>,
    name: &str,
    read: impl FnOnce(&Value<'_>) -> Result<T, WireError>,
) -> Result<Option<T>, WireError> {
    let mut found = fields.iter().filter(|(given, _)| given == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => read(value).map(Some),
        _ => Ok(None),
    }
}

fn expected(field: impl Display, expected: &str, got: &Value<'_>) -> WireError {
    WireError::malformed(field, format_args!("expected {expected}, got {}", got.description()))
}

fn id(value: &Value<'_>) -> Result<RequestId, WireError> {
    match value {
        Value::Text(text) => RequestId::try_from(&**text),
        other => Err(expected("id", "text", other)),
    }
}

fn reply(value: &Value<'_>) -> Result<ReplyForm, WireError> {
    match value {
        Value::Text(text) if text == "envelope" => Ok(ReplyForm::Envelope),
        Value::Text(text) if text == "stdout" => Ok(ReplyForm::Stdout),
        Value::Text(_) => {
            Err(WireError::malformed("reply", "expected `envelope` or `stdout`, got another text"))
        }
        other => Err(expected("reply", "`envelope` or `stdout`", other)),
    }
}

fn text(field: impl Display, value: Value<'_>) -> Result<String, WireError> {
    match value {
        Value::Text(text) => Ok(text.into_owned()),
        other => Err(expected(field, "text", &other)),
    }
}

fn integer(field: &str, value: Value<'_>) -> Result<u64, WireError> {
    match value {
        Value::Unsigned(number) => Ok(number),
        other => Err(expected(field, "an unsigned 64-bit integer", &other)),
    }
}

fn bytes(field: &str, value: Value<'_>) -> Result<Bytes, WireError> {
    match value {
        Value::Text(text) => BASE64.decode(text.as_bytes()).map(Bytes::from).map_err(|problem| {
            WireError::malformed(field, format_args!("expected padded base64: {problem}"))
        }),
        other => Err(expected(field, "bytes as base64 text", &other)),
    }
}

fn args(value: Value<'_>) -> Result<Vec<String>, WireError> {
    let list = match value {
        Value::List(list) => list,
        other => return Err(expected("args", "a list of text", &other)),
    };
    let args = list
        .into_iter()
        .enumerate()
        .map(|(index, value)| text(format_args!("args[{index}]"), value))
        .collect::<Result<Vec<_>, _>>()?;
    check_args(&args)?;
    Ok(args)
}

fn env(value: Value<'_>) -> Result<Vec<(String, String)>, WireError> {
    let map = match value {
        Value::Map(map) => map,
        other => return Err(expected("env", "a map from text to text", &other)),
    };
    let env = map
        .into_iter()
        .map(|(name, value)| {
            let value = text(env_field(&name), value)?;
            Ok((name.into_owned(), value))
        })
        .collect::<Result<Vec<_>, WireError>>()?;
    check_env(&env)?;
    Ok(env)
}

/// The envelope as it is written; what is absent or empty is left out.
#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    args: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "as_map")]
    env: &'a [(String, String)],
    #[serde(skip_serializing_if = "String::is_empty")]
    stdin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'static str>,
}

fn as_map<S: Serializer>(env: &&[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(env.iter().map(|(name, value)| (name, value)))
}

pub(super) fn encode(request: &Request) -> Result<(RequestKind, Bytes, UserProperties), WireError> {
    let (kind, module, program) = match &request.code {
        Code::Module(module) => (RequestKind::InputCode, Some(BASE64.encode(module)), None),
        Code::Program(name) => (RequestKind::LocalCode, None, Some(name.as_str())),
        Code::DefaultProgram => {
            return Err(WireError::malformed("program", "an envelope names the program to run"));
        }
    };
    let Limits { fuel, memory, timeout } = request.limits;
    let timeout_ms = timeout
        .map(|timeout| u64::try_from(timeout.as_millis()))
        .transpose()
        .map_err(|_| WireError::malformed("timeout_ms", "expected at most 64 bits of milliseconds"))?;
    let envelope = Envelope {
        id: request.id.as_ref().map(RequestId::as_str),
        module,
        program,
        args: &request.args,
        env: &request.env,
        stdin: BASE64.encode(&request.stdin),
        fuel,
        memory,
        timeout_ms,
        reply: (request.reply == ReplyForm::Stdout).then_some("stdout"),
    };
    let payload = serde_json::to_vec(&envelope).expect("texts, lists and integers always serialize");
    Ok((kind, payload.into(), UserProperties::new()))
}
