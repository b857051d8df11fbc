//! A request: its forms on the wire, told apart by their bytes, and the one value that all of them become.
//!
//! One submodule a form, each with its `decode` and `encode`; the two envelopes share one.

mod bounds;
mod envelope;
mod legacy_args;
mod legacy_text;
mod modules;
mod properties;
mod raw_module;
mod source;

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

pub use self::bounds::Bounds;
pub use self::modules::{ModulesRequest, StoredModule, decode_list, encode_list};
pub use self::source::{Build, Files, Language, MAX_DEPTH, MAX_NAME, MAX_PATH, PLACEHOLDER, Source, UNNAMED};
use crate::UserProperties;
use crate::answer::AnswerForm;
pub use crate::digest::Digest;
use crate::envelope::{CBOR_TAG, Encoding};
use crate::error::{WireError, cut};
use crate::sealed::{Inner, SealedRequest};
pub use crate::topic::RequestKind;

/// What every wasm module and component starts with.
pub const WASM_MAGIC: [u8; 4] = *b"\0asm";

/// An `id` has at most this many bytes.
pub const MAX_ID: usize = 64;

/// The form that a request came in, or is to be sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A wasm module as it stands; the rest from user properties.
    RawModule,
    /// A CBOR envelope.
    Cbor,
    /// A JSON envelope.
    Json,
    /// Name, arguments, source and how to build it, as text; or a module in place of the latter two.
    LegacyText,
    /// The arguments of the gateway's default program, as text.
    LegacyArgs,
}

/// A request's own name: text of 1 to [`MAX_ID`] bytes; echoed, and the key by which repetitions are known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// From the field of this name.
    fn read(field: &str, id: &str) -> Result<Self, WireError> {
        match id.len() {
            1..=MAX_ID => Ok(Self(id.into())),
            length => {
                Err(WireError::malformed(field, format_args!("expected 1 to {MAX_ID} bytes, got {length}")))
            }
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has letters, digits, `_`, `-` and `.` alone, so that it can be a level of a topic.
    pub fn is_topic_level(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    }
}

impl TryFrom<&str> for RequestId {
    type Error = WireError;

    /// Fails with `malformed` on an empty text or one of more than [`MAX_ID`] bytes.
    fn try_from(id: &str) -> Result<Self, WireError> {
        Self::read("id", id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// A module or component that the request carries.
    Module(Bytes),
    /// A module or component that the gateway has, by its digest.
    Digest(Digest),
    /// Source to build natively.
    Source(Source),
    /// Several files to build natively.
    Files(Files),
    /// A program that the gateway has, by its name.
    Program(String),
    /// The program that the gateway's configuration names as the default.
    DefaultProgram,
    /// Nothing: the request is about the modules that its principal has at the gateway; only an envelope is.
    Modules(ModulesRequest),
    /// Nothing: the request of this client that has this `id`, and waits or runs, is cancelled.
    Cancel(RequestId),
    /// What is sealed to a gateway elsewhere: nobody on the way knows what it is. Its payload is carried as it came,
    /// and has no other encoding.
    Sealed,
}

/// What the request asks to be limited to; it may lower the gateway's limits, never raise them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Units of fuel, as wasmtime counts them.
    pub fuel: Option<u64>,
    /// Linear memory in bytes.
    pub memory: Option<u64>,
    /// Time from arrival to answer, in whole milliseconds on the wire.
    pub timeout: Option<Duration>,
}

/// What an envelope's `reply` asks for. The other forms are always answered with stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplyForm {
    /// An envelope in the request's encoding.
    #[default]
    Envelope,
    /// The bytes of stdout, or one error line.
    Stdout,
    /// An envelope, and before it what the program writes to stdout, as it is written. The request has an `id` that can
    /// be a level of a topic ([`RequestId::is_topic_level`]).
    Stream,
}

/// The part of stdout that an answer is to carry, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StdoutRange {
    /// Where it begins; 0 where only the length was given.
    pub offset: u64,
    /// How much of it; all that follows where none was given.
    pub length: Option<u64>,
}

/// A request, whatever form it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The form on the wire.
    pub form: Form,
    /// The request's own name, if it has one.
    pub id: Option<RequestId>,
    /// What is to be run.
    pub code: Code,
    /// The program's arguments, without its name; none holds a NUL.
    pub args: Vec<String>,
    /// The environment, each name once; no name is empty or holds `=` or NUL, no value holds NUL.
    pub env: Vec<(String, String)>,
    /// What the program reads from stdin.
    pub stdin: Bytes,
    /// Limits lower than the gateway's.
    pub limits: RequestLimits,
    /// How to answer; [`ReplyForm::Stdout`] in every form but envelopes.
    pub reply: ReplyForm,
    /// The part of stdout to answer with; only an envelope asks for one.
    pub stdout_range: Option<StdoutRange>,
}

impl Request {
    /// A request to run `code`, by JSON envelope and answered with an envelope, with nothing else set.
    pub fn new(code: Code) -> Self {
        Self {
            form: Form::Json,
            id: None,
            code,
            args: Vec::new(),
            env: Vec::new(),
            stdin: Bytes::new(),
            limits: RequestLimits::default(),
            reply: ReplyForm::Envelope,
            stdout_range: None,
        }
    }

    /// The form in which this request is to be answered.
    pub fn answer_form(&self) -> AnswerForm {
        match (self.form, self.reply) {
            (Form::Json, ReplyForm::Envelope | ReplyForm::Stream) => AnswerForm::Json,
            (Form::Cbor, ReplyForm::Envelope | ReplyForm::Stream) => AnswerForm::Cbor,
            _ => AnswerForm::Line,
        }
    }
}

/// A payload that is no request, with all that is needed to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// How to answer.
    pub form: AnswerForm,
    /// The request's id, where it could be read.
    pub id: Option<RequestId>,
    /// Why.
    pub error: WireError,
}

/// What a message on a request topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request that everybody on the way can read.
    Clear(Request),
    /// One that is sealed.
    Sealed(SealedRequest),
}

/// As [`read`], where sealed requests are not opened: they fail with `malformed`.
pub fn decode(
    kind: RequestKind,
    payload: Bytes,
    user_properties: &[(String, String)],
    bounds: &Bounds,
) -> Result<Request, Rejected> {
    match read(kind, payload, user_properties, bounds)? {
        Incoming::Clear(request) => Ok(request),
        Incoming::Sealed(sealed) => Err(SealedRequest::unopened(sealed.form)),
    }
}

/// Reads what was in a sealed request: an envelope with an `id` of at least [`MIN_ID`](crate::sealed::MIN_ID)
/// characters, and when it was sealed. Fails as [`read`].
pub fn decode_inner(kind: RequestKind, plaintext: Bytes, bounds: &Bounds) -> Result<Inner, Rejected> {
    let encoding = if plaintext.starts_with(&CBOR_TAG) { Encoding::Cbor } else { Encoding::Json };
    envelope::decode_inner(encoding, kind, &plaintext, bounds)
}

/// Reads the payload of a message on a request topic. Fails with `malformed`, or with `too-large` where it carries more
/// than `bounds` or the form itself allow; the message names the field. No more is kept in memory than the payload and
/// what the bounds allow.
pub fn read(
    kind: RequestKind,
    payload: Bytes,
    user_properties: &[(String, String)],
    bounds: &Bounds,
) -> Result<Incoming, Rejected> {
    if payload.starts_with(&WASM_MAGIC) {
        return raw_module::decode(kind, payload, user_properties, bounds).map(Incoming::Clear);
    }
    if payload.starts_with(&CBOR_TAG) {
        return envelope::decode(Encoding::Cbor, kind, &payload, bounds);
    }
    if payload.trim_ascii_start().starts_with(b"{") {
        return envelope::decode(Encoding::Json, kind, &payload, bounds);
    }
    match kind {
        RequestKind::LocalCode => legacy_args::decode(&payload, user_properties, bounds).map(Incoming::Clear),
        RequestKind::InputCode if legacy_text::is_one(&payload) => {
            legacy_text::decode(&payload, user_properties, bounds).map(Incoming::Clear)
        }
        RequestKind::InputCode => {
            let problem =
                "expected a wasm module, an envelope, or source in four parts with `----` between them";
            let error = WireError::malformed("payload", problem);
            Err(Rejected { form: AnswerForm::Line, id: None, error })
        }
    }
}

/// Writes a request: the topic it goes to, the payload and the user properties. Fails with `malformed`, naming the
/// field, where the request's form cannot carry it or the contract forbids it; what is written is read back the same.
pub fn encode(request: &Request) -> Result<(RequestKind, Bytes, UserProperties), WireError> {
    check_args(&request.args)?;
    check_env(&request.env)?;
    if !matches!(request.form, Form::Cbor | Form::Json) {
        if request.reply != ReplyForm::Stdout {
            return Err(only_in_envelope("reply"));
        }
        if !request.stdin.is_empty() {
            return Err(only_in_envelope("stdin"));
        }
        if request.stdout_range.is_some() {
            return Err(only_in_envelope("stdout_offset"));
        }
    }
    match request.form {
        Form::RawModule => raw_module::encode(request),
        Form::Cbor => envelope::encode(Encoding::Cbor, request, None),
        Form::Json => envelope::encode(Encoding::Json, request, None),
        Form::LegacyText => legacy_text::encode(request),
        Form::LegacyArgs => legacy_args::encode(request),
    }
}

/// A stream goes to a topic that holds the `id`.
fn check_stream(request: &Request) -> Result<(), WireError> {
    if request.reply != ReplyForm::Stream || request.id.as_ref().is_some_and(RequestId::is_topic_level) {
        return Ok(());
    }
    let problem = "a stream needs one of letters, digits, `_`, `-` and `.`";
    Err(WireError::malformed("id", problem))
}

/// Writes what is to be sealed: an envelope, CBOR where the request's form is that and else JSON, that says when. Fails
/// as [`encode`].
pub fn encode_inner(request: &Request, sealed_at: u64) -> Result<(RequestKind, Bytes), WireError> {
    check_args(&request.args)?;
    check_env(&request.env)?;
    let encoding = if request.form == Form::Cbor { Encoding::Cbor } else { Encoding::Json };
    let (kind, payload, _) = envelope::encode(encoding, request, Some(sealed_at))?;
    Ok((kind, payload))
}

fn only_in_envelope(field: &str) -> WireError {
    WireError::malformed(field, "only an envelope carries it")
}

fn code_on_local_code(field: impl fmt::Display) -> WireError {
    WireError::malformed(field, "localCode runs programs that the gateway has; code goes to inputCode")
}

/// WASI hands arguments to programs as NUL-terminated strings.
fn check_args(args: &[String]) -> Result<(), WireError> {
    match args.iter().position(|arg| arg.contains('\0')) {
        Some(index) => Err(WireError::malformed(format_args!("args[{index}]"), "expected text without NUL")),
        None => Ok(()),
    }
}

/// WASI hands the environment to programs as NUL-terminated `NAME=value` strings.
fn check_env(env: &[(String, String)]) -> Result<(), WireError> {
    let mut names = HashSet::with_capacity(env.len());
    for (name, value) in env {
        let field = || env_field(name);
        if name.is_empty() {
            return Err(WireError::malformed("env", "expected names that are not empty"));
        }
        if name.contains(['=', '\0']) {
            return Err(WireError::malformed(field(), "expected a name without `=` and NUL"));
        }
        if value.contains('\0') {
            return Err(WireError::malformed(field(), "expected text without NUL"));
        }
        if !names.insert(name) {
            return Err(WireError::malformed(field(), "given twice"));
        }
    }
    Ok(())
}

/// An environment variable as a message names it; no name is so long that what is wrong falls off the line.
fn env_field(name: &str) -> String {
    format!("env.{}", cut(name, 64))
}

#[cfg(test)]
mod tests;
