//! Which program or module a request means, and which backend runs it.

use super::answer::Refusal;
use super::backend::modules::Operation;
use super::backend::{Backend, Module, ReadyModule};
use super::decode::Asked;
use super::deduplicate::First;
use super::run::{Given, Run, budget};
use super::services::Services;
use super::settings::Settings;
use crate::auth::access::{Access, Who};
use crate::client::Client;
use crate::modules::{self, Content, Digest};
use crate::programs::NamedProgram;
use crate::source::{Buildable, Mode, RequestTimes};
use crate::stream::EndOfStream;
use crate::wasm::guest::Context;
use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{Code, Form, ModulesRequest, Request};

/// A request whose backend is known.
pub struct Resolved {
    pub backend: Backend,
    pub run: Run,
    /// As it came.
    pub original: Original,
    /// Of the module, if the request carries or names one.
    pub digest: Option<Digest>,
    /// Whether it is for a program that the gateway has.
    pub is_program: bool,
    /// Whether it came sealed.
    pub is_sealed: bool,
}

/// A message as it came.
pub struct Original {
    pub topic: String,
    pub payload: Bytes,
    pub user_properties: UserProperties,
    pub form: Form,
}

/// Finds what is to run.
pub fn resolve(
    first: First,
    services: &Services,
    settings: &Settings,
    access: &Access,
) -> Result<Resolved, Refusal> {
    let First { asked, pending, waiting, digest, watched } = first;
    let Asked {
        client,
        topic,
        destination,
        reply_id,
        arrived,
        request,
        sealed_until,
        payload,
        user_properties,
        ..
    } = asked;
    let Request { form, id, code, args, env, stdin, limits, .. } = request;
    let is_program = matches!(code, Code::Program(_) | Code::DefaultProgram);
    let found = match destination {
        Some(gate) => Ok(Backend::Remote { gate }),
        None => find(code, digest, &client, services, settings, access),
    };
    let backend = match found {
        // Differences are logged, of which a sealed request's would show what is in it.
        Ok(Backend::Native { source, .. }) if sealed_until.is_some() => {
            Backend::Native { source, compare: false }
        }
        Ok(backend) => backend,
        Err(error) => return Err(Refusal::of_waiting(pending, error, waiting)),
    };
    let stream = pending.stream.as_ref().map(|EndOfStream(stream)| stream.clone());
    let deadline = limits.timeout.and_then(|timeout| arrived.checked_add(timeout));
    let run = Run {
        client,
        pending,
        waiting,
        watched,
        timing: RequestTimes { arrived, deadline },
        budget: budget(&settings.limits, &limits),
        memory: limits.memory,
        given: Given { args, env, stdin, context: Context { reply_id, request_id: id }, stream },
    };
    let original = Original { topic, payload, user_properties, form };
    Ok(Resolved { backend, run, original, digest, is_program, is_sealed: sealed_until.is_some() })
}

/// `digest` is that of the module, if the request carries or names one.
fn find(
    code: Code,
    digest: Option<Digest>,
    client: &Client,
    services: &Services,
    settings: &Settings,
    access: &Access,
) -> Result<Backend, WireError> {
    let (Services { modules, .. }, Settings { programs, .. }) = (services, settings);
    match (code, digest) {
        (Code::Modules(asked), digest) => Ok(Backend::Modules(match (asked, digest) {
            (ModulesRequest::Store(module), Some(digest)) => Operation::Store(digest, module),
            (ModulesRequest::Store(module), None) => Operation::Store(Digest::of(&module), module),
            (ModulesRequest::Remove(digest), _) => Operation::Remove(digest),
            (ModulesRequest::List, _) => Operation::List,
        })),
        (Code::Module(module), Some(digest)) => match modules.ready(&digest) {
            Some(Err(error)) => Err(error),
            // One that its sender does not have yet is kept for it first.
            Some(Ok(artifact)) if modules.has(client, &digest) => Ok(ready(ReadyModule::unnamed(artifact))),
            _ => Ok(Backend::Wasm(Module::Unprepared(digest, Content::Sent(module)))),
        },
        (_, Some(digest)) => {
            if let Some(shared) = programs.by_digest(&digest) {
                return Ok(program(shared));
            }
            if let Some(artifact) = programs.preloaded(&digest) {
                return Ok(ready(ReadyModule::unnamed(artifact.clone())));
            }
            if !modules.has(client, &digest) {
                // Another gateway may have it.
                return match modules.are_shared() {
                    true => Ok(Backend::Wasm(Module::Unprepared(digest, Content::Elsewhere))),
                    false => Err(modules::not_found(&digest)),
                };
            }
            match modules.ready(&digest) {
                Some(outcome) => Ok(ready(ReadyModule::unnamed(outcome?))),
                None => {
                    let kept = modules.pin(client, &digest).ok_or_else(|| modules::not_found(&digest))?;
                    Ok(Backend::Wasm(Module::Unprepared(digest, kept)))
                }
            }
        }
        (Code::Program(name), _) => programs.get(&name).map(program).ok_or_else(|| {
            let known: Vec<&str> = programs.names().map(|name| &**name).collect();
            let known = known.join(", ");
            WireError::new(ErrorKind::NotFound, format!("no program `{name}`; there are: {known}"))
        }),
        (Code::Source(source), _) => find_source(client, Buildable::Source(source), services, access),
        (Code::Files(files), _) => find_source(client, Buildable::Files(files), services, access),
        _ => Ok(program(programs.default_program())),
    }
}

fn find_source(
    client: &Client,
    source: Buildable,
    services: &Services,
    access: &Access,
) -> Result<Backend, WireError> {
    let Services { modules, source_backend, .. } = services;
    match source_backend.mode(access.native(Who::from(client)))? {
        Mode::Native => Ok(Backend::Native { source, compare: false }),
        Mode::Compare => Ok(Backend::Native { source, compare: true }),
        Mode::Wasm => {
            if let Some(made) = source_backend.ready_wasm(client, &source) {
                let made = made?;
                if let Some(artifact) = modules.ready(&made.digest) {
                    return Ok(ready(ReadyModule::of_source(made, artifact?)));
                }
            }
            Ok(Backend::Wasm(Module::Unbuilt(source)))
        }
    }
}

fn program(program: &NamedProgram) -> Backend {
    let (name, artifact) = (program.name.clone(), program.artifact.clone());
    ready(ReadyModule { name, artifact, folder: None })
}

fn ready(module: ReadyModule) -> Backend {
    Backend::Wasm(Module::Ready(module))
}
