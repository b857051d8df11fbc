//! A request that has only to be run: what all backends need of it.

use super::answer::{PendingAnswer, Refusal};
use super::backend::ReadyModule;
use crate::client::Client;
use crate::config::Limits;
use crate::source::RequestTimes;
use crate::stream::Stream;
use crate::suspects::Watched;
use crate::wasm::folder::Folder;
use crate::wasm::guest::{Budget, Context, Input};
use crate::wasm::workers::{Job, Waiting};
use bytes::Bytes;
use offload_protocol::error::WireError;
use offload_protocol::request::RequestLimits;
use std::sync::Arc;

/// A request on its way to a backend.
pub struct Run {
    pub client: Client,
    pub pending: PendingAnswer,
    /// It counts as waiting until it starts.
    pub waiting: Waiting,
    /// What knows it again if it crashes the gateway.
    pub watched: Option<Watched>,
    pub timing: RequestTimes,
    pub budget: Budget,
    /// The memory that it asks for; a native program's own limit is another than a guest's.
    pub memory: Option<u64>,
    pub given: Given,
}

/// What a request gives its program.
pub struct Given {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub stdin: Bytes,
    pub context: Context,
    pub stream: Option<Arc<Stream>>,
}

impl Run {
    /// Whether it ran when the gateway crashed.
    pub fn is_suspect(&self) -> bool {
        self.watched.as_ref().is_some_and(Watched::is_suspect)
    }

    /// What the workers take: the request with its module, and the way back.
    pub fn into_job(self, module: ReadyModule) -> Job {
        let ReadyModule { name, artifact, folder } = module;
        let Run { pending, waiting, watched, timing, budget, given, .. } = self;
        let cancellation = pending.cancellation().cloned();
        let (key, load) = waiting.into_job();
        Job {
            key,
            load,
            artifact,
            input: Arc::new(given.into_input(name, folder)),
            budget,
            arrived: timing.arrived,
            deadline: timing.deadline,
            watched,
            cancellation,
            was_lost: false,
            done: Box::new(move |outcome| pending.finish(outcome)),
        }
    }

    /// It is not run, for this reason.
    pub fn refuse(self, error: WireError) -> Refusal {
        Refusal::of_waiting(self.pending, error, self.waiting)
    }
}

impl Given {
    /// For a program of this name that finds this folder.
    pub fn into_input(self, name: Arc<str>, folder: Option<Arc<Folder>>) -> Input {
        let Given { args, env, stdin, context, stream } = self;
        Input { name, args, env, stdin, folder, context, stream }
    }
}

/// The gateway's limits, lowered to what the request asks for.
pub fn budget(limits: &Limits, asked: &RequestLimits) -> Budget {
    let memory = limits.memory.bytes();
    Budget {
        fuel: asked.fuel.map_or(limits.fuel, |fuel| fuel.min(limits.fuel)),
        cpu: limits.cpu.duration(),
        wall: limits.wall.duration(),
        memory: asked.memory.map_or(memory, |asked| asked.min(memory)) as usize,
        table_elements: limits.table_elements,
        stdout: limits.stdout.as_usize(),
        stderr: limits.stderr.as_usize(),
    }
}
