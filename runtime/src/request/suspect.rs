//! Whether the request has crashed the gateway. One that may have runs alone; one that has is set aside.

use super::answer::{Refusal, expired_error};
use super::backend::{Backend, Module};
use super::resolve::Resolved;
use super::run::Run;
use super::services::Services;
use super::tasks::Tasks;
use crate::deadline::reached;
use crate::set_aside::{Asker, Document, Evidence, Limits};
use crate::stopping::stopping_error;
use crate::suspects::{Suspects, Watched};
use crate::telemetry;
use crate::wasm::engine::Tier;
use offload_protocol::request::Form;
use offload_protocol::topic;
use std::sync::Arc;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;
use x509_cert::der::DateTime;

/// Sets a request aside that has crashed the gateway, if it is to run in the gateway's own process; it is answered when
/// that is durable. Returns any other.
pub fn set_poison_aside(resolved: Resolved, services: &Services, tasks: &Tasks) -> Option<Resolved> {
    let Some(suspects) = &services.suspects else { return Some(resolved) };
    let watched = executions(&resolved, suspects);
    let poison = watched.iter().filter_map(|execution| Some((execution.poison()?, execution)));
    let Some((crashes, poison)) = poison.max_by_key(|(crashes, _)| *crashes) else { return Some(resolved) };
    let poison = suspects.watch(*poison.fingerprint());
    let (set_aside, modules) = (services.set_aside.clone(), services.modules.clone());
    tasks.spawn(async move {
        let code = code(&resolved);
        let document = document(&resolved, code, &watched, crashes, poison.reference());
        let Resolved { backend, run, original, digest } = resolved;
        let module = match (backend, digest) {
            (Backend::Wasm(Module::Unprepared(_, Some(module))), _) => Some(module),
            (_, Some(digest)) => modules.module(&run.client, &digest).await,
            (_, None) => None,
        };
        let what = format!(
            "a request of `{}` on `{}` with {}",
            telemetry::bounded(run.client.key()),
            telemetry::bounded(&original.topic),
            telemetry::bounded(&document.code)
        );
        let (reference, fingerprint) = (document.reference.clone(), *poison.fingerprint());
        let kept = tokio::task::spawn_blocking(move || {
            let (payload, module) = (&original.payload[..], module.as_deref());
            set_aside.keep(&Evidence { document, fingerprint, payload, module })
        });
        // Whoever sends it again and again is heard of once.
        let is_new = poison.tell_once();
        match kept.await {
            Ok(Ok(number)) if is_new => tracing::error!(
                reference,
                crashes,
                "{what} has crashed the gateway while nothing else ran: it is not run any more, and set aside; \
                 `offload-rt jobs show {number}` shows it, `retry` has it run again"
            ),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(
                reference,
                crashes,
                "{what} has crashed the gateway while nothing else ran: it is not run any more, and it cannot be set \
                 aside: {error}"
            ),
            Err(panic) => tracing::error!(reference, %panic, "{what} cannot be set aside"),
        }
        run.refuse(poison.poison_error()).answer();
    });
    None
}

/// Waits until a suspect may run alone; any other may run at once. Refuses it if its time runs out, or the gateway
/// stops, before that.
pub async fn isolate(mut run: Run, stop: &CancellationToken) -> Result<Run, Refusal> {
    let Some(mut watched) = run.watched.take() else { return Ok(run) };
    let alone = tokio::select! {
        alone = watched.alone(&run.client) => alone,
        () = reached(run.timing.deadline.map(Into::into)) => return Err(run.refuse(expired_error())),
        () = stop.cancelled() => return Err(run.refuse(stopping_error())),
    };
    if let Some(alone) = alone {
        watched.admit(alone);
    }
    run.watched = Some(watched);
    Ok(run)
}

/// What of this request is executed in the gateway's own process: its run, and the loading of its module where that is
/// still to be done.
fn executions(resolved: &Resolved, suspects: &Arc<Suspects>) -> Vec<Watched> {
    let Backend::Wasm(module) = &resolved.backend else { return Vec::new() };
    let run = resolved.run.watched.as_ref().map(|watched| suspects.watch(*watched.fingerprint()));
    let loads = match module {
        Module::Unprepared(digest, _) => {
            let load = |tier| suspects.watch_load(digest, tier);
            [Tier::Optimized, Tier::Baseline].map(load).into()
        }
        Module::Ready(_) | Module::Unbuilt(_) => Vec::new(),
    };
    run.into_iter().chain(loads).collect()
}

/// What it runs, in words.
fn code(resolved: &Resolved) -> String {
    match (&resolved.backend, resolved.digest) {
        (_, Some(digest)) => format!("module {digest}"),
        (Backend::Wasm(Module::Ready(module)), None) => format!("program {}", module.name),
        _ => "source".to_owned(),
    }
}

fn document(
    resolved: &Resolved,
    code: String,
    watched: &[Watched],
    crashes: u8,
    reference: String,
) -> Document {
    let Resolved { run, original, .. } = resolved;
    let own_topic = topic::result(&run.given.context.reply_id);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let address = &run.pending.address;
    Document {
        set_aside: DateTime::from_unix_duration(now).map_or_else(|_| String::new(), |now| now.to_string()),
        crashes,
        reference,
        fingerprints: watched.iter().map(|watched| watched.fingerprint().to_hex()).collect(),
        gateway: env!("CARGO_PKG_VERSION").to_owned(),
        client: Asker::of(&run.client),
        topic: original.topic.clone(),
        form: form(original.form).to_owned(),
        id: run.pending.id.as_ref().map(|id| id.as_str().to_owned()),
        code,
        response_topic: (address.topic != own_topic).then(|| address.topic.clone()),
        correlation_data: address.correlation_data.as_ref().map(|data| data.to_vec()),
        user_properties: original.user_properties.clone(),
        limits: Limits::of(&run.budget),
        payload_bytes: original.payload.len() as u64,
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
