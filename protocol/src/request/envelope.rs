//! Forms 2 and 3: one map of fields, as CBOR or as JSON.

use std::time::Duration;

use bytes::Bytes;

use super::bounds::{check_bytes, check_number};
use super::modules::Action;
use super::source::{check_files, check_source, file_field, without_last_nuls};
use super::{
    Bounds, Build, Code, Files, Form, Incoming, ModulesRequest, Rejected, ReplyForm, Request, RequestId,
    RequestKind, Source, check_args, check_env, check_stream, code_on_local_code, env_field,
};
use crate::UserProperties;
use crate::answer::AnswerForm;
use crate::envelope::{Encoding, Fields, Shape, Value, expected};
use crate::error::{WireError, cut};
use crate::sealed::{self, Inner};

/// The fields of which exactly one says what to do.
const CODE_FIELDS: [&str; 6] = ["module", "digest", "program", "source", "files", "cancel"];

/// The other fields.
const FURTHER_FIELDS: [&str; 14] = [
    "id",
    "modules",
    "makefile",
    "name",
    "target",
    "args",
    "env",
    "stdin",
    "fuel",
    "memory",
    "timeout_ms",
    "reply",
    "stdout_offset",
    "stdout_length",
];

pub(super) fn decode(
    encoding: Encoding,
    kind: RequestKind,
    payload: &Bytes,
    bounds: &Bounds,
) -> Result<Incoming, Rejected> {
    let fields = read_fields(encoding, payload, bounds)?;
    if sealed::is_sealed(&fields) {
        return sealed::take(encoding, forms(encoding).1, fields).map(Incoming::Sealed);
    }
    request(encoding, kind, fields, bounds).map(Incoming::Clear)
}

/// Reads what was in a sealed request.
pub(super) fn decode_inner(
    encoding: Encoding,
    kind: RequestKind,
    payload: &Bytes,
    bounds: &Bounds,
) -> Result<Inner, Rejected> {
    let mut fields = read_fields(encoding, payload, bounds)?;
    let times: Vec<_> =
        fields.extract_if(.., |(name, _)| name == "sealed_at").map(|(_, value)| value).collect();
    let form = forms(encoding).1;
    let request =
        request(encoding, kind, fields, bounds).map_err(|rejected| Rejected { form, ..rejected })?;
    let sealed_at = || match <[Value<'_>; 1]>::try_from(times) {
        Ok([time]) => time.unsigned("sealed_at"),
        Err(_) => Err(WireError::malformed("sealed_at", "expected once in a sealed request")),
    };
    let checked = match (&request.id, request.reply) {
        (Some(id), ReplyForm::Envelope) if id.as_str().chars().count() >= sealed::MIN_ID => sealed_at(),
        (_, ReplyForm::Envelope) => {
            let least = sealed::MIN_ID;
            Err(WireError::malformed(
                "id",
                format_args!("expected at least {least} characters in a sealed request"),
            ))
        }
        _ => Err(WireError::malformed("reply", "a sealed request is answered with an envelope")),
    };
    let id = request.id.clone();
    let sealed_at = checked.map_err(|error| Rejected { form, id, error })?;
    Ok(Inner { request, sealed_at })
}

fn forms(encoding: Encoding) -> (Form, AnswerForm) {
    match encoding {
        Encoding::Json => (Form::Json, AnswerForm::Json),
        Encoding::Cbor => (Form::Cbor, AnswerForm::Cbor),
    }
}

fn read_fields<'a>(encoding: Encoding, payload: &'a Bytes, bounds: &Bounds) -> Result<Fields<'a>, Rejected> {
    let Bounds { args, env, files, .. } = *bounds;
    let shape_of = move |name: &str| match name {
        "args" => Shape::List(args),
        "env" => Shape::Map(env),
        "files" => Shape::Map(files),
        "sealed_at" | sealed::SEALED => Shape::Scalar,
        name if CODE_FIELDS.contains(&name) || FURTHER_FIELDS.contains(&name) => Shape::Scalar,
        name if sealed::BESIDE.contains(&name) => Shape::Scalar,
        _ => Shape::Skipped,
    };
    let form = forms(encoding).1;
    encoding.read(payload, shape_of, bounds.values()).map_err(|error| Rejected { form, id: None, error })
}

fn request(
    encoding: Encoding,
    kind: RequestKind,
    fields: Fields<'_>,
    bounds: &Bounds,
) -> Result<Request, Rejected> {
    let (form, answer_form) = forms(encoding);
    // Before all else, so that an error in another field is answered under the id and in the form that were asked for.
    let id = find(&fields, "id", id);
    let reply = find(&fields, "reply", reply);
    let echoed = id.as_ref().ok().cloned().flatten();
    let answer_form = match reply {
        Ok(Some(ReplyForm::Stdout)) => AnswerForm::Line,
        _ => answer_form,
    };
    let request = || {
        let request = Request {
            form,
            id: id?,
            reply: reply?.unwrap_or_default(),
            ..Request::new(Code::DefaultProgram)
        };
        only_known_once(&fields)?;
        check_stream(&request)?;
        check_sizes(encoding, &fields, bounds)?;
        read(request, encoding, kind, fields)
    };
    request().map_err(|error| Rejected { form: answer_form, id: echoed, error })
}

/// Reads all fields but `id` and `reply`, which are in `request` already.
fn read(
    mut request: Request,
    encoding: Encoding,
    kind: RequestKind,
    fields: Fields<'_>,
) -> Result<Request, WireError> {
    let (mut makefile, mut name, mut target) = (None, None, None);
    let (mut code, mut modules) = (None, None);
    for (field, value) in fields {
        let field = &*field;
        match field {
            "module" | "source" | "files" if kind == RequestKind::LocalCode => {
                return Err(code_on_local_code(field));
            }
            "module" => code = Some(Code::Module(encoding.bytes(field, value)?)),
            "digest" => code = Some(Code::Digest(value.text(field)?.parse()?)),
            "program" => code = Some(Code::Program(value.text(field)?)),
            "cancel" => code = Some(Code::Cancel(id_of(field, &value)?)),
            // What else belongs to these comes in any order.
            "source" => {
                let build = Build::Makefile(String::new());
                code = Some(Code::Source(Source::new(b"", value.text(field)?.into(), build)));
            }
            "files" => {
                let files = files(encoding, value)?;
                code = Some(Code::Files(Files { files, makefile: None, target: None }));
            }
            "modules" => modules = Some(Action::read(&value.text(field)?)?),
            "makefile" => makefile = Some(value.text(field)?),
            "name" => name = Some(value.text(field)?),
            "target" => target = Some(value.text(field)?),
            "args" => request.args = args(value)?,
            "env" => request.env = env(value)?,
            "stdin" => request.stdin = encoding.bytes(field, value)?,
            "fuel" => request.limits.fuel = Some(value.unsigned(field)?),
            "memory" => request.limits.memory = Some(value.unsigned(field)?),
            "timeout_ms" => request.limits.timeout = Some(Duration::from_millis(value.unsigned(field)?)),
            "stdout_offset" => {
                request.stdout_range.get_or_insert_default().offset = value.unsigned(field)?;
            }
            "stdout_length" => {
                request.stdout_range.get_or_insert_default().length = Some(value.unsigned(field)?);
            }
            // `only_known_once` let nothing through that is not read already.
            _ => {}
        }
    }
    request.code = match (modules, code) {
        (Some(action), code) => Code::Modules(action.request(code)?),
        (None, Some(code)) => code,
        (None, None) => {
            let problem = "expected exactly one of these fields, got none";
            return Err(WireError::malformed(CODE_FIELDS.join(", "), problem));
        }
    };
    match &mut request.code {
        Code::Source(source) => {
            let makefile = makefile
                .take()
                .ok_or_else(|| WireError::malformed("makefile", "expected together with source, got none"))?;
            let name = name.take().unwrap_or_default();
            *source = Source::read(name.as_bytes(), source.text.clone(), &makefile)?;
        }
        Code::Files(files) => {
            files.makefile = makefile.take().map(|makefile| without_last_nuls(&makefile).to_owned());
            files.target = target.take();
            check_files(files)?;
        }
        _ => {}
    }
    for (field, left, owner) in
        [("makefile", makefile, "source or files"), ("name", name, "source"), ("target", target, "files")]
    {
        if left.is_some() {
            return Err(WireError::malformed(field, format_args!("expected only together with {owner}")));
        }
    }
    check_input(&request)?;
    Ok(request)
}

/// A request about modules runs nothing that could be given anything.
fn check_input(request: &Request) -> Result<(), WireError> {
    let given = [
        ("args", !request.args.is_empty()),
        ("env", !request.env.is_empty()),
        ("stdin", !request.stdin.is_empty()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((field, _)) if matches!(request.code, Code::Modules(_)) => {
            Err(WireError::malformed(field, "expected only together with code to run"))
        }
        _ => Ok(()),
    }
}

/// Refuses fields that are unknown or given twice, and more than one field that says what to run.
fn only_known_once(fields: &Fields<'_>) -> Result<(), WireError> {
    let mut code = None;
    for (index, (name, _)) in fields.iter().enumerate() {
        let name = &**name;
        // At most as many distinct names as there are fields get past this: the scan below is short.
        if !CODE_FIELDS.contains(&name) && !FURTHER_FIELDS.contains(&name) {
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
    Ok(())
}

/// Refuses what is too much, before any of it is copied. What a field must not hold at all has no size.
fn check_sizes(encoding: Encoding, fields: &Fields<'_>, bounds: &Bounds) -> Result<(), WireError> {
    let value = |name: &str| fields.iter().find(|(given, _)| given == name).map(|(_, value)| value);
    let number = |name: &str| match value(name) {
        Some(Value::List(list)) => list.len(),
        Some(Value::Map(map)) => map.len(),
        Some(Value::TooMany(number)) => *number,
        _ => 0,
    };
    let text = |value: Option<&Value<'_>>| if let Some(Value::Text(text)) = value { text.len() } else { 0 };
    let bytes = |name: &str| value(name).map_or(0, |value| encoding.length(value));
    let list = |name: &str| match value(name) {
        Some(Value::List(list)) => list.iter().map(|value| text(Some(value))).sum(),
        _ => 0,
    };
    let map = |name: &str, length: &dyn Fn(&Value<'_>) -> usize| match value(name) {
        Some(Value::Map(map)) => map.iter().map(|(name, value)| name.len() + length(value)).sum(),
        _ => 0,
    };
    let source = text(value("source")) + map("files", &|value| encoding.length(value));
    check_bytes("module", bytes("module"), bounds.module)?;
    check_bytes("source", source + text(value("makefile")), bounds.source)?;
    check_number("files", number("files"), bounds.files)?;
    check_number("args", number("args"), bounds.args)?;
    check_bytes("args", list("args"), bounds.args_bytes)?;
    check_number("env", number("env"), bounds.env)?;
    check_bytes("env", map("env", &|value| text(Some(value))), bounds.env_bytes)?;
    check_bytes("stdin", bytes("stdin"), bounds.stdin)
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

fn id(value: &Value<'_>) -> Result<RequestId, WireError> {
    id_of("id", value)
}

fn id_of(field: &str, value: &Value<'_>) -> Result<RequestId, WireError> {
    match value {
        Value::Text(text) => RequestId::read(field, text),
        other => Err(expected(field, "text", other)),
    }
}

fn reply(value: &Value<'_>) -> Result<ReplyForm, WireError> {
    match value {
        Value::Text(text) if text == "envelope" => Ok(ReplyForm::Envelope),
        Value::Text(text) if text == "stdout" => Ok(ReplyForm::Stdout),
        Value::Text(text) if text == "stream" => Ok(ReplyForm::Stream),
        Value::Text(_) => {
            Err(WireError::malformed("reply", "expected `envelope`, `stdout` or `stream`, got another text"))
        }
        other => Err(expected("reply", "`envelope`, `stdout` or `stream`", other)),
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
        .map(|(index, value)| value.text(format_args!("args[{index}]")))
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
            let value = value.text(env_field(&name))?;
            Ok((name.into_owned(), value))
        })
        .collect::<Result<Vec<_>, WireError>>()?;
    check_env(&env)?;
    Ok(env)
}

fn files(encoding: Encoding, value: Value<'_>) -> Result<Vec<(String, Bytes)>, WireError> {
    let map = match value {
        Value::Map(map) => map,
        other => return Err(expected("files", "a map from paths to bytes", &other)),
    };
    map.into_iter()
        .map(|(path, value)| {
            let contents = encoding.bytes(&file_field(&path), value)?;
            Ok((path.into_owned(), contents))
        })
        .collect()
}

pub(super) fn encode<'a>(
    encoding: Encoding,
    request: &'a Request,
    sealed_at: Option<u64>,
) -> Result<(RequestKind, Bytes, UserProperties), WireError> {
    check_stream(request)?;
    let mut fields = Fields::new();
    // What is absent or empty is left out.
    let mut push = |name: &'static str, value: Option<Value<'a>>| {
        fields.extend(value.map(|value| (name.into(), value)));
    };
    push("id", request.id.as_ref().map(|id| text(id.as_str())));
    let kind = match &request.code {
        Code::Module(module) => {
            push("module", Some(Value::Bytes(module.clone())));
            RequestKind::InputCode
        }
        Code::Digest(digest) => {
            push("digest", Some(Value::Text(digest.to_string().into())));
            RequestKind::LocalCode
        }
        Code::Program(name) => {
            push("program", Some(text(name)));
            RequestKind::LocalCode
        }
        Code::Cancel(id) => {
            push("cancel", Some(text(id.as_str())));
            RequestKind::LocalCode
        }
        Code::Source(source) => {
            check_source(source)?;
            let code = str::from_utf8(&source.text).map_err(|_| {
                WireError::malformed("source", "expected UTF-8; only legacy text carries other")
            })?;
            push("source", Some(text(code)));
            push("makefile", Some(text(source.build.as_str())));
            push("name", Some(text(&source.name)));
            RequestKind::InputCode
        }
        Code::Files(files) => {
            check_files(files)?;
            let contents = files
                .files
                .iter()
                .map(|(path, contents)| (path.as_str().into(), Value::Bytes(contents.clone())));
            push("files", Some(Value::Map(contents.collect())));
            push("makefile", files.makefile.as_deref().map(text));
            push("target", files.target.as_deref().map(text));
            RequestKind::InputCode
        }
        Code::DefaultProgram => {
            return Err(WireError::malformed("program", "an envelope names the program to run"));
        }
        Code::Sealed => return Err(WireError::malformed("sealed", "it is carried as it came")),
        Code::Modules(modules) => {
            check_input(request)?;
            push("modules", Some(text(modules.action())));
            match modules {
                ModulesRequest::List => RequestKind::LocalCode,
                ModulesRequest::Store(module) => {
                    push("module", Some(Value::Bytes(module.clone())));
                    RequestKind::InputCode
                }
                ModulesRequest::Remove(digest) => {
                    push("digest", Some(Value::Text(digest.to_string().into())));
                    RequestKind::LocalCode
                }
            }
        }
    };
    let timeout = request.limits.timeout.map(|timeout| u64::try_from(timeout.as_millis()));
    let timeout = timeout
        .transpose()
        .map_err(|_| WireError::malformed("timeout_ms", "expected at most 64 bits of milliseconds"))?;
    let args = || Value::List(request.args.iter().map(|arg| text(arg)).collect());
    let env = || Value::Map(request.env.iter().map(|(name, value)| (name.into(), text(value))).collect());
    push("args", (!request.args.is_empty()).then(args));
    push("env", (!request.env.is_empty()).then(env));
    push("stdin", (!request.stdin.is_empty()).then(|| Value::Bytes(request.stdin.clone())));
    push("fuel", request.limits.fuel.map(Value::Unsigned));
    push("memory", request.limits.memory.map(Value::Unsigned));
    push("timeout_ms", timeout.map(Value::Unsigned));
    let reply = match request.reply {
        ReplyForm::Envelope => None,
        ReplyForm::Stdout => Some("stdout"),
        ReplyForm::Stream => Some("stream"),
    };
    push("reply", reply.map(text));
    push("stdout_offset", request.stdout_range.map(|range| Value::Unsigned(range.offset)));
    push("stdout_length", request.stdout_range.and_then(|range| range.length).map(Value::Unsigned));
    push("sealed_at", sealed_at.map(Value::Unsigned));
    Ok((kind, encoding.write(fields), UserProperties::new()))
}

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}
