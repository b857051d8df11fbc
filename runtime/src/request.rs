//! The life of a request, from a delivery to its answer, top to bottom.
//!
//! [`Requests::deliver`] runs on the ingress's task and decides at once: it decodes the request, admits or refuses it,
//! knows it again if it has been run, and finds what it wants to run. A module that is not at hand is prepared, and
//! source is built and run, in a task of its own. Then the job waits for a worker, runs, and its answer is published
//! from the worker's thread. Whatever happens, the responder that came with the delivery is used exactly once.

mod comparison;
mod request_log;
mod ticket;

use crate::audit_log::{AuditLog, Message};
use crate::auth::access::{Access, Who};
use crate::client::Client;
use crate::config::{Answers, Limits, Offload};
use crate::deduplication::{Deduplicator, Key, Registration, ReplyTo};
use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::ingress::{Delivery, Sink};
use crate::log_sampling::sampled;
use crate::modules::{self, Artifact, Digest, Modules};
use crate::programs::{NamedProgram, Programs};
use crate::source::{Buildable, BuiltProgram, Mode, RequestTimes, SourceBackend};
use crate::stopping::stopping_error;
use crate::suspects::{Suspects, Watched};
use crate::telemetry;
use crate::wasm::engine::Tier;
use crate::wasm::folder::Folder;
use crate::wasm::guest::{Budget, Context, Input};
use crate::wasm::workers::{Job, RunOutcome, Waiting, Workers};
use bytes::Bytes;
use comparison::{Compared, Comparison};
use offload_policy::Load;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{self, Bounds, Code, Request, RequestId};
use offload_protocol::topic;
use request_log::RequestLog;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
pub use ticket::Repetition;
use ticket::{ReplyAddress, Ticket, expired_error};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// `argv[0]` of a module that came without a name.
const UNNAMED: &str = "program";

/// What a request holds in memory beside its payload, in bytes: an estimate, so that small ones count too.
const REQUEST_OVERHEAD: usize = 512;

/// All that requests need on their way.
pub struct Requests {
    parts: Parts,
    /// How much one may carry.
    bounds: Bounds,
    stopping: AtomicBool,
    /// The requests that wait for their module, or are run natively.
    tasks: TaskTracker,
    stop_tasks: CancellationToken,
    /// Ends comparisons: nobody waits for those.
    stop_comparing: CancellationToken,
}

/// The parts of the gateway that a request meets.
pub struct Parts {
    /// Who may ask for what.
    pub access: Arc<Access>,
    /// What it can name.
    pub programs: Programs,
    /// What it can carry, or has carried before.
    pub modules: Arc<Modules>,
    /// What builds and runs its source.
    pub native: Arc<SourceBackend>,
    /// What admits it, and runs it.
    pub workers: Arc<Workers>,
    /// What knows it again.
    pub deduplicator: Arc<Deduplicator<Repetition>>,
    /// What knows it again if it crashes the gateway; `None` where nobody sends it again by itself.
    pub suspects: Option<Arc<Suspects>>,
    /// What it may use.
    pub limits: Limits,
    /// Where its answer may go.
    pub answers: Answers,
    /// Where it is shown to whoever watches, if anywhere.
    pub audit_log: Option<Arc<AuditLog>>,
    /// Where modules are prepared and native programs are waited for.
    pub runtime: Handle,
}

/// What a request wants to run.
enum Executable {
    /// It can run at once.
    Ready(Prepared),
    /// A module that must be compiled, loaded or kept first; without its bytes it is one that was sent before.
    Module(Digest, Option<Bytes>),
    /// Source, to be built and run natively; or to be built as wasm, and prepared as a module.
    Source(Buildable, Mode),
}

impl Requests {
    /// The way of requests through these parts.
    pub fn new(parts: Parts) -> Requests {
        Requests {
            bounds: bounds(&parts.limits),
            parts,
            stopping: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop_tasks: CancellationToken::new(),
            stop_comparing: CancellationToken::new(),
        }
    }

    /// From now on requests are answered `busy`, and nothing is compared any more: the gateway drains.
    pub fn stop_taking(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop_comparing.cancel();
    }

    /// Answers the requests that still wait for their module, which will not run, and ends native programs.
    pub async fn stop_tasks(&self) {
        self.stop_tasks.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What names the request; `None` for one that runs each time it comes.
    fn identify(&self, client: &Client, reply_id: &str, id: Option<&RequestId>) -> Option<Key> {
        let id = id?.clone();
        let reply_to = match (reply_id, &client.flow) {
            ("", flow) if flow.is_empty() => return None,
            ("", flow) => ReplyTo::Connection(flow.clone()),
            (id, _) => ReplyTo::Id(id.into()),
        };
        Some(Key { principal: client.principal.clone(), reply_to, id })
    }

    /// What tells requests of one name apart. `digest` is that of the module, if the request carries or names one.
    fn fingerprint(&self, request: &Request, digest: Option<Digest>) -> Fingerprint {
        let code = match (&request.code, digest) {
            (_, Some(digest)) => Fingerprinter::new("wasm").part(&digest.0),
            (Code::Program(name), _) => Fingerprinter::new("program").part(name.as_bytes()),
            (Code::Source(source), _) => Fingerprinter::of_source(source),
            (Code::Files(files), _) => Fingerprinter::of_files(files),
            _ => Fingerprinter::new("program").part(self.parts.programs.default_program().name.as_bytes()),
        };
        let mut env: Vec<&(String, String)> = request.env.iter().collect();
        env.sort();
        let env: Vec<&[u8]> =
            env.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).collect();
        code.list(request.args.iter().map(String::as_bytes))
            .list(env.into_iter())
            .part(&request.stdin)
            .finish()
    }

    /// What knows the request again if it crashes the gateway: whoever runs the same again, under whatever name.
    /// Another program of the same name, and another gateway, are another matter.
    fn watch(&self, client: &Client, code: &Code, fingerprint: Option<Fingerprint>) -> Option<Watched> {
        let Parts { suspects, programs, .. } = &self.parts;
        let program = match code {
            Code::Program(name) => programs.get(name),
            Code::DefaultProgram => Some(programs.default_program()),
            _ => None,
        };
        let print = Fingerprinter::new("run")
            .part(env!("CARGO_PKG_VERSION").as_bytes())
            .part(client.key().as_bytes())
            .list(program.iter().map(|program| &program.artifact.digest.0[..]))
            .part(&fingerprint?.0);
        Some(suspects.as_ref()?.watch(print.finish()))
    }

    /// Whether this client may ask for this.
    fn permit(&self, client: &Client, code: &Code) -> Result<(), WireError> {
        let Parts { access, programs, .. } = &self.parts;
        let who = Who::from(client);
        let may_run = |program: &str| {
            let denied = || format!("this client may not run `{program}`; ask the operator");
            let permitted = access.may_run(who, program);
            if permitted { Ok(()) } else { Err(WireError::new(ErrorKind::Unauthorized, denied())) }
        };
        match code {
            Code::Program(name) => may_run(name),
            Code::DefaultProgram => may_run(&programs.default_program().name),
            Code::Digest(digest) => match programs.by_digest(digest) {
                Some(program) if access.may_run(who, &program.name) => Ok(()),
                _ => access.may_offload(who, Offload::Wasm),
            },
            Code::Module(_) => access.may_offload(who, Offload::Wasm),
            Code::Source(_) | Code::Files(_) => access.may_offload(who, Offload::Source),
        }
    }

    /// Finds what to run. `digest` is that of the module, if the request carries or names one.
    fn find(&self, client: &Client, code: Code, digest: Option<Digest>) -> Result<Executable, WireError> {
        let Parts { programs, modules, .. } = &self.parts;
        let ready = |name: Arc<str>, artifact| Executable::Ready(Prepared { name, artifact, folder: None });
        let program = |program: &NamedProgram| ready(program.name.clone(), program.artifact.clone());
        match (code, digest) {
            (Code::Module(module), Some(digest)) => match modules.ready(&digest) {
                Some(Err(error)) => Err(error),
                // One that its sender does not have yet is kept for him first.
                Some(Ok(artifact)) if modules.has(client, &digest) => Ok(ready(UNNAMED.into(), artifact)),
                _ => Ok(Executable::Module(digest, Some(module))),
            },
            (_, Some(digest)) => {
                if let Some(shared) = programs.by_digest(&digest) {
                    return Ok(program(shared));
                }
                if let Some(artifact) = programs.preloaded(&digest) {
                    return Ok(ready(UNNAMED.into(), artifact.clone()));
                }
                if !modules.has(client, &digest) {
                    return Err(modules::not_found(&digest));
                }
                match modules.ready(&digest) {
                    Some(outcome) => Ok(ready(UNNAMED.into(), outcome?)),
                    None => Ok(Executable::Module(digest, None)),
                }
            }
            (Code::Program(name), _) => programs.get(&name).map(program).ok_or_else(|| {
                let known: Vec<&str> = programs.names().map(|name| &**name).collect();
                let known = known.join(", ");
                WireError::new(ErrorKind::NotFound, format!("no program `{name}`; there are: {known}"))
            }),
            (Code::Source(source), _) => self.find_source(client, Buildable::Source(source)),
            (Code::Files(files), _) => self.find_source(client, Buildable::Files(files)),
            _ => Ok(program(programs.default_program())),
        }
    }

    fn find_source(&self, client: &Client, source: Buildable) -> Result<Executable, WireError> {
        let Parts { access, modules, native, .. } = &self.parts;
        let mode = native.mode(access.native(Who::from(client)))?;
        if mode == Mode::Wasm
            && let Some(made) = native.ready_wasm(client, &source)
        {
            let made = made?;
            if let Some(artifact) = modules.ready(&made.digest) {
                return Ok(Executable::Ready(Prepared::of_source(made, artifact?)));
            }
        }
        Ok(Executable::Source(source, mode))
    }

    /// The gateway's limits, lowered to what the request asks for.
    fn budget(&self, request: &Request) -> Budget {
        let limits = &self.parts.limits;
        let memory = limits.memory.bytes();
        Budget {
            fuel: request.limits.fuel.map_or(limits.fuel, |fuel| fuel.min(limits.fuel)),
            cpu: limits.cpu.duration(),
            wall: limits.wall.duration(),
            memory: request.limits.memory.map_or(memory, |asked| asked.min(memory)) as usize,
            table_elements: limits.table_elements,
            stdout: limits.stdout.as_usize(),
            stderr: limits.stderr.as_usize(),
        }
    }

    fn admit(&self, client: &Client, size: usize) -> Result<Waiting, WireError> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(stopping_error());
        }
        let load = Load { requests: 1, bytes: size + REQUEST_OVERHEAD };
        let admitted = self.parts.workers.admit(&client.flow_key(), load);
        admitted.map_err(|busy| {
            let largest = self.parts.workers.largest_request();
            if load.bytes <= largest {
                return WireError::new(ErrorKind::Busy, busy.to_string());
            }
            // No queue is ever empty enough for it.
            let limit = largest.saturating_sub(REQUEST_OVERHEAD);
            let message =
                format!("request: {size} bytes, the limit is {limit} bytes (bytes and share of [queue])");
            WireError::new(ErrorKind::TooLarge, message)
        })
    }
}

impl Sink for Requests {
    fn delivered(&self) {
        self.parts.workers.dispatch();
    }

    fn deliver(&self, delivery: Delivery) {
        let arrived = Instant::now();
        let Parts { modules, native, workers, deduplicator, answers, audit_log, runtime, .. } = &self.parts;
        let Delivery { client, topic, payload, properties, retained, responder } = delivery;
        let Some(asked) = topic::parse_request(&topic) else { return responder.ignore() };
        if retained {
            sampled!(info, topic = %telemetry::bounded(&topic), "a retained message is no request: ignored");
            return responder.ignore();
        }

        // Where the answer goes.
        let route = |topic: String| {
            let max_payload = answers.max_payload(&topic);
            ReplyAddress { topic, correlation_data: properties.correlation_data.clone(), max_payload }
        };
        let own_result = || topic::result(asked.reply_id);
        let permitted =
            |wanted: &String| topic::is_response_permitted(wanted, asked.reply_id, &answers.response_topics);
        let (route, misdirected) = match properties.response_topic {
            Some(wanted) if !permitted(&wanted) => (route(own_result()), true),
            Some(wanted) => (route(wanted), false),
            None => (route(own_result()), false),
        };

        // What is asked.
        let size = payload.len();
        let seen = audit_log.as_ref().map(|audit_log| {
            let (client, topic, payload) = (client.clone(), topic.clone(), payload.clone());
            (audit_log, Message { client, topic, payload })
        });
        let decoded = request::decode(asked.kind, payload, &properties.user_properties, &self.bounds);
        let log = RequestLog::begin(&client, &topic, size, decoded.as_ref().ok(), arrived);
        let audit_entry = seen.map(|(audit_log, seen)| audit_log.request(&seen, decoded.as_ref().ok()));
        let request = match decoded {
            Ok(request) => request,
            Err(rejected) => {
                let form = rejected.form;
                let ticket = Ticket { responder, route, form, id: None, repeatable: None, audit_entry, log };
                return ticket.answer(rejected.into());
            }
        };
        let (form, id) = (request.answer_form(), request.id.clone());
        let mut ticket = Ticket { responder, route, form, id, repeatable: None, audit_entry, log };
        if misdirected {
            let message = "answers to this client cannot go to its Response Topic";
            return ticket.fail(WireError::new(ErrorKind::Unauthorized, message));
        }

        // May it come in?
        let permitted = self.permit(&client, &request.code);
        let waiting = match permitted.and_then(|()| self.admit(&client, size)) {
            Ok(waiting) => waiting,
            Err(error) => return ticket.fail(error),
        };
        ticket.responder.accepted();

        // Has it been here before?
        let digest = match &request.code {
            Code::Module(module) => Some(Digest::of(module)),
            Code::Digest(digest) => Some(*digest),
            _ => None,
        };
        let key = self.identify(&client, asked.reply_id, request.id.as_ref());
        let is_watched = self.parts.suspects.is_some();
        let fingerprint = (key.is_some() || is_watched).then(|| self.fingerprint(&request, digest));
        let watched = self.watch(&client, &request.code, fingerprint);
        let (ticket, waiting) = match key.zip(fingerprint) {
            None => (ticket, waiting),
            Some((key, fingerprint)) => {
                match deduplicator.begin(&key, fingerprint, Repetition { ticket, waiting }, arrived) {
                    Registration::First(Repetition { mut ticket, waiting }) => {
                        ticket.repeatable = Some((deduplicator.clone(), key, client.account.clone()));
                        (ticket, waiting)
                    }
                    Registration::InFlight => return,
                    Registration::Done(Repetition { ticket, waiting }, answer) => {
                        ticket.answer(answer);
                        return drop(waiting);
                    }
                    Registration::Conflict(Repetition { ticket, waiting }) => {
                        ticket
                            .fail(WireError::malformed("id", "another request had this id a short time ago"));
                        return drop(waiting);
                    }
                }
            }
        };

        // It runs, now or when its module is prepared.
        let budget = self.budget(&request);
        let Request { code, args, env, stdin, limits, .. } = request;
        let executable = match self.find(&client, code, digest) {
            Ok(executable) => executable,
            Err(error) => return ticket.fail(error),
        };
        let is_run_here = !matches!(executable, Executable::Source(_, Mode::Native | Mode::Compare));
        if is_run_here && let Some(watched) = &watched {
            let what = || {
                let code = digest.map_or_else(|| "no module".to_owned(), |digest| format!("module {digest}"));
                let (client, topic) = (telemetry::bounded(client.key()), telemetry::bounded(&topic));
                format!("a request of `{client}` on `{topic}` with {code}")
            };
            if let Err(error) = watched.refuse_poison(what) {
                ticket.fail(error);
                return drop(waiting);
            }
        }
        let deadline = limits.timeout.and_then(|timeout| arrived.checked_add(timeout));
        let admitted = Admitted {
            ticket,
            client,
            waiting,
            watched,
            timing: RequestTimes { arrived, deadline },
            budget,
            memory: limits.memory,
            reply_id: asked.reply_id.into(),
            args,
            env,
            stdin,
        };
        let stop = self.stop_tasks.clone();
        match executable {
            Executable::Ready(prepared) if admitted.is_suspect() => {
                self.tasks.spawn_on(submit_prepared(workers.clone(), admitted, prepared, stop), runtime);
            }
            Executable::Ready(prepared) => workers.submit(admitted.into_job(prepared)),
            Executable::Module(digest, module) => {
                let (client, modules) = (admitted.client.clone(), modules.clone());
                let preparing = async move {
                    let artifact = modules.prepare(&client, digest, module).await?;
                    Ok(Prepared { name: UNNAMED.into(), artifact, folder: None })
                };
                self.tasks.spawn_on(prepare(preparing, workers.clone(), admitted, stop), runtime);
            }
            Executable::Source(source, Mode::Wasm) => {
                let client = admitted.client.clone();
                let preparing = build_as_wasm(native.clone(), modules.clone(), client, source);
                self.tasks.spawn_on(prepare(preparing, workers.clone(), admitted, stop), runtime);
            }
            Executable::Source(source, Mode::Native) => {
                self.tasks.spawn_on(run_natively(native.clone(), source, admitted, stop, None), runtime);
            }
            Executable::Source(source, Mode::Compare) => {
                let (native, modules, workers) = (native.clone(), modules.clone(), workers.clone());
                let comparison = Comparison {
                    native: native.clone(),
                    modules,
                    workers,
                    stop: self.stop_comparing.clone(),
                };
                let run = run_natively(native, source, admitted, stop, Some(comparison));
                self.tasks.spawn_on(run, runtime);
            }
        }
    }
}

/// How much a request may carry.
fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        module: limits.module.as_usize(),
        source: limits.source.as_usize(),
        files: limits.files,
        args: limits.args,
        args_bytes: limits.args_bytes.as_usize(),
        env: limits.env,
        env_bytes: limits.env_bytes.as_usize(),
        stdin: limits.stdin.as_usize(),
    }
}

/// What is left to be submitted.
struct Prepared {
    /// The program's `argv[0]`.
    name: Arc<str>,
    /// What runs.
    artifact: Arc<Artifact>,
    /// What it finds, where it was built from source.
    folder: Option<Arc<Folder>>,
}

impl Prepared {
    fn of_source(made: BuiltProgram, artifact: Arc<Artifact>) -> Prepared {
        Prepared { name: made.program.path().into(), artifact, folder: made.folder }
    }
}

/// Prepares an admitted request's module and submits it, unless its time runs out first. Preparing goes on even then:
/// the next request for this module will find it done.
async fn prepare(
    preparing: impl Future<Output = Result<Prepared, WireError>> + Send + 'static,
    workers: Arc<Workers>,
    admitted: Admitted,
    stop: CancellationToken,
) {
    let stopped = stop.clone();
    let prepared = tokio::spawn(async move {
        stopped.run_until_cancelled(preparing).await.unwrap_or_else(|| Err(stopping_error()))
    });
    let error = tokio::select! {
        joined = prepared => match joined {
            Ok(Ok(prepared)) => return submit_prepared(workers, admitted, prepared, stop).await,
            Ok(Err(error)) => error,
            Err(panic) => telemetry::internal_error(&format!("compile: {panic}")),
        },
        () = expired(admitted.timing.deadline) => expired_error(),
        () = stop.cancelled() => stopping_error(),
    };
    admitted.ticket.fail(error);
    drop(admitted.waiting);
}

/// Submits what is prepared: a suspect when nothing else runs, unless its time runs out first, and all others at once.
async fn submit_prepared(
    workers: Arc<Workers>,
    mut admitted: Admitted,
    prepared: Prepared,
    stop: CancellationToken,
) {
    if let Some(mut watched) = admitted.watched.take() {
        let alone = tokio::select! {
            alone = watched.alone(&admitted.client) => Ok(alone),
            () = expired(admitted.timing.deadline) => Err(expired_error()),
            () = stop.cancelled() => Err(stopping_error()),
        };
        match alone {
            Ok(Some(alone)) => watched.admit(alone),
            Ok(None) => {}
            Err(error) => {
                admitted.ticket.fail(error);
                return drop(admitted.waiting);
            }
        }
        admitted.watched = Some(watched);
    }
    workers.submit(admitted.into_job(prepared));
    workers.dispatch();
}

/// Returns at a request's deadline, if it has one.
async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Builds source as wasm, and prepares that.
async fn build_as_wasm(
    native: Arc<SourceBackend>,
    modules: Arc<Modules>,
    client: Client,
    source: Buildable,
) -> Result<Prepared, WireError> {
    let made = native.wasm(&client, &source).await?;
    let artifact = artifact_of(&modules, &client, &made).await?;
    Ok(Prepared::of_source(made, artifact))
}

/// What source was built into becomes an artifact as any module does; but nobody can name it by digest.
async fn artifact_of(
    modules: &Arc<Modules>,
    client: &Client,
    made: &BuiltProgram,
) -> Result<Arc<Artifact>, WireError> {
    let module = Bytes::copy_from_slice(made.program.bytes());
    modules.compile(client, made.digest, Some(module), Tier::Baseline).await
}

/// Builds an admitted request's source and runs the program; when it is answered, runs it again to compare, if it is to
/// be.
async fn run_natively(
    native: Arc<SourceBackend>,
    source: Buildable,
    admitted: Admitted,
    stop: CancellationToken,
    comparison: Option<Comparison>,
) {
    let Admitted { ticket, client, waiting, watched, timing, budget, memory, reply_id, args, env, stdin } =
        admitted;
    let context = Context { reply_id, request_id: ticket.id.clone() };
    let input = Input { name: UNNAMED.into(), args, env, stdin, folder: None, context };
    let comparison = comparison.map(|comparison| (comparison, input.clone()));
    let outcome = tokio::select! {
        outcome = native.run(&client, &source, input, &budget, memory, timing) => outcome,
        () = stop.cancelled() => Ok(RunOutcome::Stopped),
    };
    match (outcome, comparison) {
        (Ok(RunOutcome::Ran { ended, run, queued }), Some((comparison, input))) => {
            ticket.finish(RunOutcome::Ran { ended: ended.clone(), run, queued });
            let compared = Compared { client, source, input, budget, waiting, watched, native: ended };
            comparison.run(compared).await;
        }
        (Ok(outcome), _) => {
            ticket.finish(outcome);
            drop(waiting);
        }
        (Err(error), _) => {
            ticket.fail(error);
            drop(waiting);
        }
    }
}

/// A request that counts as waiting.
struct Admitted {
    ticket: Ticket,
    client: Client,
    waiting: Waiting,
    watched: Option<Watched>,
    timing: RequestTimes,
    budget: Budget,
    /// What it asks for; a native program's own limit is another than a guest's.
    memory: Option<u64>,
    reply_id: Arc<str>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Bytes,
}

impl Admitted {
    /// Whether it ran when the gateway crashed.
    fn is_suspect(&self) -> bool {
        self.watched.as_ref().is_some_and(Watched::is_suspect)
    }

    fn into_job(self, Prepared { name, artifact, folder }: Prepared) -> Job {
        let ticket = self.ticket;
        let (key, load) = self.waiting.into_job();
        let context = Context { reply_id: self.reply_id, request_id: ticket.id.clone() };
        Job {
            key,
            load,
            artifact,
            input: Input { name, args: self.args, env: self.env, stdin: self.stdin, folder, context },
            budget: self.budget,
            arrived: self.timing.arrived,
            deadline: self.timing.deadline,
            watched: self.watched,
            done: Box::new(move |outcome| ticket.finish(outcome)),
        }
    }
}
