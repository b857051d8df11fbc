//! A request that has crashed the gateway twice, alone, is not run: it is set aside, and then answered.

use super::backend::modules::Operation;
use super::backend::{Backend, Module};
use super::resolve::Resolved;
use super::services::Services;
use super::tasks::Tasks;
use crate::modules::{Content, Modules};
use crate::set_aside::{Asker, Document, Evidence, JobError, Limits, SetAside};
use crate::suspects::{Suspects, Watched};
use crate::telemetry;
use crate::wasm::engine::Tier;
use offload_protocol::request::Form;
use offload_protocol::topic;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::task::{JoinError, spawn_blocking};
use x509_cert::der::DateTime;

/// What of a request has crashed the gateway.
struct Poison {
    watched: Watched,
    /// How often, while nothing else ran.
    crashes: u8,
    /// Whatever else of the request is executed in the gateway's process.
    executions: Vec<Watched>,
}

/// Sets a request aside that has crashed the gateway, if it is to run in the gateway's own process. It is answered when
/// that is durable. Returns any other.
pub fn set_poison_aside(resolved: Resolved, services: &Services, tasks: &Tasks) -> Option<Resolved> {
    let Some(poison) = services.suspects.as_ref().and_then(|suspects| poison(&resolved, suspects)) else {
        return Some(resolved);
    };
    tasks.spawn(set_aside(resolved, poison, services.set_aside.clone(), services.modules.clone()));
    None
}

async fn set_aside(resolved: Resolved, poison: Poison, set_aside: Arc<SetAside>, modules: Arc<Modules>) {
    let document = document(&resolved, &poison);
    let what = format!(
        "a request of `{}` on `{}` with {}",
        telemetry::bounded(document.client.name()),
        telemetry::bounded(&document.topic),
        telemetry::bounded(&document.code)
    );
    let Resolved { backend, run, original, digest, .. } = resolved;
    let module = match (backend, digest) {
        (Backend::Wasm(Module::Unprepared(_, Content::Sent(module))), _)
        | (Backend::Modules(Operation::Store(_, module)), _) => Some(module),
        (_, Some(digest)) => modules.module(&run.client, &digest).await,
        (_, None) => None,
    };
    let fingerprint = *poison.watched.fingerprint();
    // Of what was sealed no file shows the content.
    let module = module.filter(|_| run.pending.way_back.seal.is_none());
    let kept = spawn_blocking(move || {
        let (payload, module) = (&original.payload[..], module.as_deref());
        set_aside.keep(&Evidence { document, fingerprint, payload, module })
    });
    tell(&what, &poison, kept.await);
    run.refuse(poison.watched.poison_error()).answer();
}

/// Tells the log. Whoever sends it again and again is heard of once.
fn tell(what: &str, poison: &Poison, kept: Result<Result<u64, JobError>, JoinError>) {
    let (reference, crashes) = (poison.watched.reference(), poison.crashes);
    let kept =
        kept.map_err(|panic| panic.to_string()).and_then(|kept| kept.map_err(|error| error.to_string()));
    let outcome = match kept {
        Ok(_) if !poison.watched.tell_once() => return,
        Ok(number) => format!(
            "set aside; `offload-rt jobs show {number}` shows it, `offload-rt jobs retry {number}` has it run again"
        ),
        Err(error) => format!("cannot be set aside: {error}"),
    };
    tracing::error!(
        reference,
        crashes,
        "{what} has crashed the gateway while nothing else ran: it is not run any more, and {outcome}"
    );
}

/// What has crashed the gateway of what this request has executed in the gateway's own process: its run, or the loading
/// of its module where that is still to be done.
fn poison(resolved: &Resolved, suspects: &Arc<Suspects>) -> Option<Poison> {
    // The way of nearly all.
    if suspects.is_clear() {
        return None;
    }
    let loads = match &resolved.backend {
        Backend::Wasm(Module::Unprepared(digest, _)) | Backend::Modules(Operation::Store(digest, _)) => {
            [Tier::Optimized, Tier::Baseline].map(|tier| suspects.watch_load(digest, tier)).into()
        }
        Backend::Wasm(Module::Ready(_) | Module::Unbuilt(_)) => Vec::new(),
        Backend::Modules(Operation::List | Operation::Remove(_)) => return None,
        Backend::Native { .. } | Backend::Remote { .. } => return None,
    };
    let run = resolved.run.watched.as_ref().map(|watched| suspects.watch(*watched.fingerprint()));
    let executions: Vec<Watched> = run.into_iter().chain(loads).collect();
    let crashes = |execution: &Watched| Some((execution.poison()?, *execution.fingerprint()));
    let (crashes, fingerprint) = executions.iter().find_map(crashes)?;
    Some(Poison { watched: suspects.watch(fingerprint), crashes, executions })
}

fn document(resolved: &Resolved, poison: &Poison) -> Document {
    let Resolved { run, original, .. } = resolved;
    let own_topic = topic::result(&run.given.context.reply_id);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let way_back = &run.pending.way_back;
    let is_sealed = way_back.seal.is_some();
    let prints = poison.executions.iter().map(|execution| execution.fingerprint().to_hex());
    Document {
        set_aside: DateTime::from_unix_duration(now).map_or_else(|_| String::new(), |now| now.to_string()),
        crashes: poison.crashes,
        reference: poison.watched.reference(),
        fingerprints: prints.collect(),
        gateway: env!("CARGO_PKG_VERSION").to_owned(),
        client: Asker::of(&run.client),
        topic: original.topic.clone(),
        form: form(original.form).to_owned(),
        id: way_back.id.as_ref().filter(|_| !is_sealed).map(|id| id.as_str().to_owned()),
        code: if is_sealed { "what is sealed".to_owned() } else { code(resolved) },
        response_topic: (way_back.address.topic != own_topic).then(|| way_back.address.topic.clone()),
        correlation_data: way_back.address.correlation_data.as_ref().map(|data| data.to_vec()),
        user_properties: original.user_properties.clone(),
        limits: Limits::of(&run.budget),
        payload_bytes: original.payload.len() as u64,
    }
}

/// What it runs, in words.
fn code(resolved: &Resolved) -> String {
    match (&resolved.backend, resolved.digest) {
        (_, Some(digest)) => format!("module {digest}"),
        (Backend::Wasm(Module::Ready(module)), None) => format!("program {}", module.name),
        _ => "source".to_owned(),
    }
}

fn form(form: Form) -> &'static str {
    match form {
        Form::RawModule => "raw module",
        Form::Cbor => "CBOR envelope",
        Form::Json => "JSON envelope",
        Form::LegacyText => "legacy text",
        Form::LegacyArgs => "legacy args",
    }
}
