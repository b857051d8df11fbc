//! The life of a request, from a delivery to its answer, top to bottom.
//!
//! [`Requests::deliver`] runs on the ingress's task and decides at once: it decodes the request, finds what it wants to
//! run, and admits or refuses it. A module that has not been seen is compiled in a task of its own. Then the job waits
//! for a worker, runs, and its answer is published from the worker's thread. Whatever happens, the responder that came
//! with the delivery is used exactly once.

use crate::config::{Answers, Limits};
use crate::ingress::{Client, Delivery, Outgoing, Responder, Sink};
use crate::modules::{Artifact, Digest, Modules};
use crate::programs::{Program, Programs};
use crate::telemetry;
use crate::wasm::guest::{Budget, Context, Input};
use crate::wasm::workers::{Job, Outcome, Workers};
use bytes::Bytes;
use offload_policy::Load;
use offload_protocol::answer::{Answer, AnswerForm, Outcome as Ending};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{self, Code, Request, RequestId};
use offload_protocol::topic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// `argv[0]` of a module that came without a name.
const UNNAMED: &str = "program";

/// What a request holds in memory beside its payload, in bytes: an estimate, so that small ones count too.
const REQUEST_OVERHEAD: usize = 512;

/// All that requests need on their way.
pub struct Requests {
    programs: Programs,
    modules: Arc<Modules>,
    workers: Arc<Workers>,
    limits: Limits,
    answers: Answers,
    runtime: Handle,
    stopping: AtomicBool,
    /// The requests that wait for their module.
    compiling: TaskTracker,
    stop_compiling: CancellationToken,
}

/// What a request wants to run.
enum Executable {
    /// It can run at once.
    Ready(Arc<str>, Arc<Artifact>),
    /// It must be compiled first.
    Module(Digest, Bytes),
}

impl Requests {
    /// The way of requests through these parts. `runtime` is where modules are compiled.
    pub fn new(
        programs: Programs,
        modules: Arc<Modules>,
        workers: Arc<Workers>,
        limits: Limits,
        answers: Answers,
        runtime: Handle,
    ) -> Requests {
        Requests {
            programs,
            modules,
            workers,
            limits,
            answers,
            runtime,
            stopping: AtomicBool::new(false),
            compiling: TaskTracker::new(),
            stop_compiling: CancellationToken::new(),
        }
    }

    /// From now on requests are answered `busy`: the gateway drains.
    pub fn stop_taking(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Answers the requests that still wait for their module: they will not run.
    pub async fn stop_compiling(&self) {
        self.stop_compiling.cancel();
        self.compiling.close();
        self.compiling.wait().await;
    }

    /// Finds what to run.
    fn find(&self, code: &Code) -> Result<Executable, WireError> {
        let program = |program: &Program| Executable::Ready(program.name.clone(), program.artifact.clone());
        match code {
            Code::DefaultProgram => Ok(program(self.programs.default_program())),
            Code::Program(name) => self.programs.get(name).map(program).ok_or_else(|| {
                let known = self.programs.names();
                WireError::new(ErrorKind::NotFound, format!("no program `{name}`; there are: {known}"))
            }),
            Code::Module(module) => {
                let digest = Digest::of(module);
                match self.modules.ready(&digest) {
                    Some(outcome) => Ok(Executable::Ready(UNNAMED.into(), outcome?)),
                    None => Ok(Executable::Module(digest, module.clone())),
                }
            }
            Code::Digest(_) => Err(not_supported("digest")),
            Code::Source(_) => Err(not_supported("source")),
            Code::Files(_) => Err(not_supported("files")),
        }
    }

    fn check_sizes(&self, request: &Request) -> Result<(), WireError> {
        let limits = &self.limits;
        let module = match &request.code {
            Code::Module(module) => module.len(),
            Code::Digest(_) | Code::Source(_) | Code::Files(_) | Code::Program(_) | Code::DefaultProgram => 0,
        };
        let args: usize = request.args.iter().map(String::len).sum();
        let env: usize = request.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        for (what, found, limit) in [
            ("module: ", module, limits.module.as_usize()),
            ("args: number ", request.args.len(), limits.args),
            ("args: ", args, limits.args_bytes.as_usize()),
            ("env: number ", request.env.len(), limits.env),
            ("env: ", env, limits.env_bytes.as_usize()),
            ("stdin: ", request.stdin.len(), limits.stdin.as_usize()),
        ] {
            if found > limit {
                let unit = if what.ends_with("number ") { "" } else { " bytes" };
                let message = format!("{what}{found}{unit}, the limit is {limit}{unit}");
                return Err(WireError::new(ErrorKind::TooLarge, message));
            }
        }
        Ok(())
    }

    /// The gateway's limits, lowered to what the request asks for.
    fn budget(&self, request: &Request) -> Budget {
        let limits = &self.limits;
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
}

impl Sink for Requests {
    fn deliver(&self, delivery: Delivery) {
        let arrived = Instant::now();
        let Delivery { client, topic, payload, properties, retained, responder } = delivery;
        let Some(asked) = topic::parse_request(&topic) else { return responder.ignore() };
        if retained {
            tracing::info!(topic = %telemetry::bounded(&topic), "a retained message is no request: ignored");
            return responder.ignore();
        }

        // Where the answer goes.
        let route = |topic: String| {
            let max_payload = self.answers.max_payload(&topic);
            Route { topic, correlation_data: properties.correlation_data.clone(), max_payload }
        };
        let own_result = || topic::result(asked.reply_id);
        let permitted = |wanted: &String| {
            topic::is_response_permitted(wanted, asked.reply_id, &self.answers.response_topics)
        };
        let (route, misdirected) = match properties.response_topic {
            Some(wanted) if !permitted(&wanted) => (route(own_result()), true),
            Some(wanted) => (route(wanted), false),
            None => (route(own_result()), false),
        };

        // What is asked.
        let size = payload.len();
        let request = match request::decode(asked.kind, payload, &properties.user_properties) {
            Ok(request) => request,
            Err(rejected) => {
                let ticket = Ticket { responder, route, form: rejected.form, id: None };
                return ticket.answer(rejected.into());
            }
        };
        let mut ticket = Ticket { responder, route, form: request.answer_form(), id: request.id.clone() };
        if misdirected {
            let message = "answers to this client cannot go to its Response Topic";
            return ticket.fail(WireError::new(ErrorKind::Unauthorized, message));
        }

        // May it run?
        let executable = match self.check_sizes(&request).and_then(|()| self.find(&request.code)) {
            Ok(executable) => executable,
            Err(error) => return ticket.fail(error),
        };
        if self.stopping.load(Ordering::SeqCst) {
            return ticket.fail(stopping_error());
        }
        let load = Load { requests: 1, bytes: size + REQUEST_OVERHEAD };
        if let Err(busy) = self.workers.admit(client.key(), load) {
            return ticket.fail(WireError::new(ErrorKind::Busy, busy.to_string()));
        }
        ticket.responder.accepted();

        // It runs, now or when its module is compiled.
        let admitted = Admitted {
            ticket,
            client,
            load,
            arrived,
            deadline: request.limits.timeout.and_then(|timeout| arrived.checked_add(timeout)),
            budget: self.budget(&request),
            reply_id: asked.reply_id.into(),
            args: request.args,
            env: request.env,
            stdin: request.stdin,
        };
        match executable {
            Executable::Ready(name, artifact) => self.workers.submit(admitted.into_job(name, artifact)),
            Executable::Module(digest, module) => {
                let (modules, workers) = (self.modules.clone(), self.workers.clone());
                let stop = self.stop_compiling.clone();
                let waiting = compile(modules, workers, digest, module, admitted, stop);
                self.compiling.spawn_on(waiting, &self.runtime);
            }
        }
    }
}

/// Compiles an admitted request's module and submits it, unless its time runs out first. The compile goes on even
/// then: the next request for this module will find it done.
async fn compile(
    modules: Arc<Modules>,
    workers: Arc<Workers>,
    digest: Digest,
    module: Bytes,
    admitted: Admitted,
    stop: CancellationToken,
) {
    let client = admitted.client.clone();
    let compiled = tokio::spawn(async move { modules.compile(&client, digest, module).await });
    let expired = async {
        match admitted.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    let error = tokio::select! {
        joined = compiled => match joined {
            Ok(Ok(artifact)) => return workers.submit(admitted.into_job(UNNAMED.into(), artifact)),
            Ok(Err(error)) => error,
            Err(panic) => telemetry::internal_error(&format!("compile: {panic}")),
        },
        () = expired => expired_error(),
        () = stop.cancelled() => stopping_error(),
    };
    let Admitted { ticket, client, load, .. } = admitted;
    ticket.fail(error);
    // Only now: whoever waits for the gateway to be idle waits for the answer too.
    workers.withdraw(client.key(), load);
}

/// A request that counts as waiting.
struct Admitted {
    ticket: Ticket,
    client: Client,
    load: Load,
    arrived: Instant,
    deadline: Option<Instant>,
    budget: Budget,
    reply_id: Arc<str>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Bytes,
}

impl Admitted {
    fn into_job(self, name: Arc<str>, artifact: Arc<Artifact>) -> Job {
        let ticket = self.ticket;
        let context = Context { reply_id: self.reply_id, request_id: ticket.id.clone() };
        Job {
            key: self.client.key().clone(),
            load: self.load,
            artifact,
            input: Input { name, args: self.args, env: self.env, stdin: self.stdin, context },
            budget: self.budget,
            arrived: self.arrived,
            deadline: self.deadline,
            done: Box::new(move |outcome| ticket.finish(outcome)),
        }
    }
}

/// Where an answer goes, beside the topic that the request came on.
struct Route {
    topic: String,
    correlation_data: Option<Bytes>,
    max_payload: Option<usize>,
}

/// What is needed to answer a request; used once.
struct Ticket {
    responder: Box<dyn Responder>,
    route: Route,
    form: AnswerForm,
    id: Option<RequestId>,
}

impl Ticket {
    fn finish(self, outcome: Outcome) {
        match outcome {
            Outcome::Ran { ended, run, queued } => {
                let answer = Answer {
                    id: self.id.clone(),
                    outcome: match ended.result {
                        Ok(code) => Ending::Exited(code),
                        Err(error) => Ending::Failed(error),
                    },
                    stdout: ended.stdout,
                    stderr: ended.stderr,
                    fuel: ended.fuel,
                    run_us: micros(run),
                    queue_us: micros(queued),
                };
                self.answer(answer);
            }
            Outcome::Expired => self.fail(expired_error()),
            Outcome::NotStarted => self.fail(stopping_error()),
            Outcome::Stopped => self.fail(telemetry::internal_error("stopped while a guest ran")),
        }
    }

    fn fail(self, error: WireError) {
        let answer = Answer::failed(self.id.clone(), error);
        self.answer(answer);
    }

    fn answer(self, answer: Answer) {
        let Route { topic, correlation_data, max_payload } = self.route;
        self.responder.answer(Outgoing { topic, answer, form: self.form, correlation_data, max_payload });
    }
}

fn not_supported(field: &str) -> WireError {
    WireError::malformed(field, "not supported by this gateway yet")
}

fn stopping_error() -> WireError {
    WireError::new(ErrorKind::Busy, "the gateway is stopping, try again after 5 s")
}

fn expired_error() -> WireError {
    WireError::new(ErrorKind::Expired, "the request's timeout ran out before it could start")
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
