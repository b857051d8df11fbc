//! The workers, fed as an ingress feeds them: what was submitted is attended to by the thread that brought it, where it
//! is short and a worker is free.

use super::Task;
use anyhow::{Context as _, Result, bail, ensure};
use offload_policy::Load;
use offload_protocol::request::Digest;
use offload_rt::config::Config;
use offload_rt::data_dir::DataDir;
use offload_rt::ingress::Client;
use offload_rt::modules::{Artifact, Modules};
use offload_rt::wasm::engine::Tier;
use offload_rt::wasm::guest::{Budget, Context, Ended, Input};
use offload_rt::wasm::workers::{Job, Key, RunOutcome, Workers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

/// Time without any job done after which they count as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// The workers of a gateway without its ingress.
pub struct Fed {
    workers: Arc<Workers>,
    modules: Arc<Modules>,
    budget: Budget,
    runtime: Runtime,
    _data_dir: DataDir,
    _folder: TempDir,
}

/// What is submitted again and again.
pub struct Prepared {
    task: Task,
    artifact: Arc<Artifact>,
    input: Arc<Input>,
}

/// What the outcomes come to.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    /// One was not what it must be.
    wrong: AtomicBool,
}

impl Fed {
    pub fn start(config: &Config) -> Result<Fed> {
        let folder = tempfile::tempdir()?;
        let data_dir = DataDir::open(&folder.path().join("data"))?;
        let modules = Arc::new(Modules::open(config, &data_dir, None)?);
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let workers = Workers::start(config, modules.baseline_linkers(), &[], None, runtime.handle())?;
        let limits = &config.limits;
        let budget = Budget {
            fuel: limits.fuel,
            cpu: limits.cpu.duration(),
            wall: limits.wall.duration(),
            memory: limits.memory.as_usize(),
            table_elements: limits.table_elements,
            stdout: limits.stdout.as_usize(),
            stderr: limits.stderr.as_usize(),
        };
        Ok(Fed { workers: Arc::new(workers), modules, budget, runtime, _data_dir: data_dir, _folder: folder })
    }

    pub fn prepare(&self, task: Task, guest: &[u8]) -> Result<Prepared> {
        let client = Client { principal: None, flow: "bench".into(), account: "bench".into(), web: false };
        let digest = Digest::of(guest);
        let compiled = self.modules.compile(&client, digest, Some(guest.to_vec().into()), Tier::Optimized);
        let artifact = match self.runtime.block_on(compiled) {
            Ok(artifact) => artifact,
            Err(error) => bail!("{}: {error}", task.name),
        };
        let input = Arc::new(Input {
            name: task.name.into(),
            args: task.args.iter().map(|&arg| arg.to_owned()).collect(),
            env: Vec::new(),
            stdin: task.stdin.into(),
            folder: None,
            context: Context { reply_id: "bench".into(), request_id: None },
            stream: None,
        });
        Ok(Prepared { task, artifact, input })
    }

    /// Keeps `in_flight` jobs waiting or running for this long; returns how many were done.
    pub fn run(&self, prepared: &Prepared, in_flight: usize, length: Duration) -> Result<u64> {
        let end = Instant::now() + length;
        let tally = Arc::new(Tally::default());
        let key = Key::new("bench".into(), "bench".into());
        let mut submitted = 0;
        loop {
            let done = tally.done.load(Ordering::Acquire);
            ensure!(!tally.wrong.load(Ordering::Relaxed), "a guest did not print what it must");
            if Instant::now() >= end {
                if done == submitted {
                    return Ok(done);
                }
            } else {
                while submitted < done + in_flight as u64 {
                    self.submit(prepared, &key, &tally)?;
                    submitted += 1;
                }
            }
            self.workers.dispatch();
            if tally.done.load(Ordering::Acquire) == done {
                let waiting_since = Instant::now();
                thread::park_timeout(PATIENCE);
                ensure!(waiting_since.elapsed() < PATIENCE, "no job was done for {PATIENCE:?}");
            }
        }
    }

    fn submit(
        &self,
        Prepared { task, artifact, input }: &Prepared,
        key: &Key,
        tally: &Arc<Tally>,
    ) -> Result<()> {
        let admitted = self.workers.admit(key, Load { requests: 1, bytes: 0 });
        let (key, load) = admitted.ok().context("the queue is full")?.into_job();
        let (tally, expected, feeder) = (tally.clone(), task.stdout, thread::current());
        self.workers.submit(Job {
            key,
            load,
            artifact: artifact.clone(),
            input: input.clone(),
            budget: self.budget,
            arrived: Instant::now(),
            deadline: None,
            watched: None,
            cancellation: None,
            was_lost: false,
            done: Box::new(move |outcome| {
                let ended = matches!(&outcome, RunOutcome::Ran { ended: Ended { result: Ok(0), stdout, .. }, .. }
                    if stdout == expected);
                if !ended {
                    tally.wrong.store(true, Ordering::Relaxed);
                }
                tally.done.fetch_add(1, Ordering::Release);
                feeder.unpark();
            }),
        });
        Ok(())
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.workers.stop();
    }
}
