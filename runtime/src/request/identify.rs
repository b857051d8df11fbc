//! What a request is known by when it comes again: by its `id` to the deduplicator, by what it runs to the
//! suspects.

use super::admit::Accepted;
use super::answer::PendingAnswer;
use super::decode::Asked;
use crate::client::Client;
use crate::deduplication::{Key, ReplyTo};
use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::modules::Digest;
use crate::programs::Programs;
use crate::suspects::{Suspects, Watched};
use crate::wasm::workers::Waiting;
use offload_protocol::request::{Code, ModulesRequest, RequestId};
use std::sync::Arc;

/// A request that can be told from others.
pub struct Identified {
    pub asked: Asked,
    pub pending: PendingAnswer,
    pub waiting: Waiting,
    /// Of the module, if the request carries or names one.
    pub digest: Option<Digest>,
    /// Its name, and what tells it from others of this name; `None` for one that runs each time it comes.
    pub name: Option<(Key, Fingerprint)>,
    /// Its run, where it is known what crashes the gateway.
    pub watched: Option<Watched>,
}

/// Names the request, and takes its fingerprint where somebody asks for that.
pub fn identify(accepted: Accepted, programs: &Programs, suspects: Option<&Arc<Suspects>>) -> Identified {
    let Accepted { asked, pending, waiting } = accepted;
    let Asked { client, reply_id, request, sealed_until, .. } = &asked;
    let digest = digest(&request.code);
    let key = request.id.as_ref().and_then(|id| match sealed_until {
        // Its id names it alone, whoever has delivered it.
        Some(_) => Some(Key { principal: None, reply_to: ReplyTo::Sealed, id: id.clone() }),
        None => key(client, reply_id, id),
    });
    let fingerprint = (key.is_some() || suspects.is_some())
        .then(|| fingerprint(&asked, digest, &programs.default_program().name));
    // What runs elsewhere crashes nothing here.
    let watched = suspects
        .zip(fingerprint)
        .filter(|_| asked.destination.is_none())
        .map(|(suspects, fingerprint)| watch(suspects, client, &request.code, fingerprint, programs));
    Identified { name: key.zip(fingerprint), asked, pending, waiting, digest, watched }
}

/// Of the module that a request carries or names.
pub(super) fn digest(code: &Code) -> Option<Digest> {
    match code {
        Code::Module(module) | Code::Modules(ModulesRequest::Store(module)) => Some(Digest::of(module)),
        Code::Digest(digest) | Code::Modules(ModulesRequest::Remove(digest)) => Some(*digest),
        _ => None,
    }
}

/// What tells a request from others of its name; the same one of another site is another one.
fn fingerprint(asked: &Asked, digest: Option<Digest>, default_program: &str) -> Fingerprint {
    let print = Fingerprint::of_request(&asked.request, digest, default_program);
    match &asked.destination {
        Some(gate) => Fingerprinter::new("routed").part(gate.as_bytes()).part(&print.0).finish(),
        None => print,
    }
}

/// What names the request; `None` for one that nobody can repeat.
pub(super) fn key(client: &Client, reply_id: &Arc<str>, id: &RequestId) -> Option<Key> {
    let reply_to = match (&**reply_id, &client.flow) {
        ("", flow) if flow.is_empty() => return None,
        ("", flow) => ReplyTo::Connection(flow.clone()),
        _ => ReplyTo::Id(reply_id.clone()),
    };
    Some(Key { principal: client.principal.clone(), reply_to, id: id.clone() })
}

/// What knows the request again if it crashes the gateway: whoever runs the same again, under whatever name. Another
/// program of the same name, and another version of the gateway, are another matter.
fn watch(
    suspects: &Arc<Suspects>,
    client: &Client,
    code: &Code,
    fingerprint: Fingerprint,
    programs: &Programs,
) -> Watched {
    let program = match code {
        Code::Program(name) => programs.get(name),
        Code::DefaultProgram => Some(programs.default_program()),
        _ => None,
    };
    let print = Fingerprinter::new("run")
        .part(env!("CARGO_PKG_VERSION").as_bytes())
        .part(client.key().as_bytes())
        .list(program.iter().map(|program| &program.artifact.digest.0[..]))
        .part(&fingerprint.0);
    suspects.watch(print.finish())
}
