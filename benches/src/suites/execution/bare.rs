//! Bare wasmtime with the workers' engine: pooled and kept resident, fuel and epochs on, linked beforehand, and WASI as
//! wasmtime-wasi has it, with arguments, input and a buffer for the output.

use super::Task;
use anyhow::{Result, ensure};
use offload_rt::config::Config;
use offload_rt::wasm::engine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::{self, Runtime};
use wasmtime::component::Component;
use wasmtime::{Engine, InstancePre, Linker, Module, Store, component};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, WasiCtxView, WasiView};

/// Slots of its pool, of which it uses one at a time.
const SLOTS: usize = 16;

/// An engine whose epoch moves on.
pub struct Bare {
    engine: Engine,
    modules: Linker<Host>,
    components: component::Linker<Host>,
    runtime: Runtime,
    fuel: u64,
    stdout: usize,
    stop: Arc<AtomicBool>,
    ticker: Option<JoinHandle<()>>,
}

/// A guest, compiled and linked.
pub struct Program {
    task: Task,
    code: Code,
}

enum Code {
    Module(InstancePre<Host>),
    Component(CommandPre<Host>),
}

struct Host(WasiP1Ctx);

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.0.ctx()
    }
}

impl Bare {
    pub fn start(config: &Config) -> Result<Bare> {
        let engine = engine::worker(SLOTS, &config.limits, &config.compiler)?;
        let mut modules = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, |host: &mut Host| &mut host.0)?;
        let mut components = component::Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut components)?;
        let stop = Arc::new(AtomicBool::new(false));
        let ticker = thread::spawn({
            let (engine, stop, slice) = (engine.clone(), stop.clone(), config.workers.slice.duration());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(slice);
                    engine.increment_epoch();
                }
            }
        });
        Ok(Bare {
            engine,
            modules,
            components,
            runtime: runtime::Builder::new_current_thread().enable_all().build()?,
            fuel: config.limits.fuel,
            stdout: config.limits.stdout.as_usize(),
            stop,
            ticker: Some(ticker),
        })
    }

    pub fn prepare(&self, task: Task, guest: &[u8]) -> Result<Program> {
        let code = if wasmparser::Parser::is_component(guest) {
            let component = Component::new(&self.engine, guest)?;
            Code::Component(CommandPre::new(self.components.instantiate_pre(&component)?)?)
        } else {
            Code::Module(self.modules.instantiate_pre(&Module::new(&self.engine, guest)?)?)
        };
        Ok(Program { task, code })
    }

    /// Runs one after the other for so long; how many.
    pub fn run(&self, program: &Program, length: Duration) -> Result<u64> {
        let end = Instant::now() + length;
        self.runtime.block_on(async {
            let mut count = 0;
            while Instant::now() < end {
                let stdout = self.run_once(program).await?;
                ensure!(stdout.contents() == program.task.stdout, "unexpected: {:?}", stdout.contents());
                count += 1;
            }
            Ok(count)
        })
    }

    async fn run_once(&self, Program { task, code }: &Program) -> Result<MemoryOutputPipe> {
        let stdout = MemoryOutputPipe::new(self.stdout);
        let mut wasi = WasiCtxBuilder::new();
        wasi.arg(task.name).args(task.args).stdin(MemoryInputPipe::new(task.stdin)).stdout(stdout.clone());
        let mut store = Store::new(&self.engine, Host(wasi.build_p1()));
        store.set_fuel(self.fuel)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        match code {
            Code::Module(module) => {
                let instance = module.instantiate_async(&mut store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                if let Err(error) = start.call_async(&mut store, ()).await {
                    ensure!(matches!(error.downcast_ref(), Some(I32Exit(0))), "{error:#}");
                }
            }
            Code::Component(command) => {
                let command = command.instantiate_async(&mut store).await?;
                let ended = command.wasi_cli_run().call_run(&mut store).await?;
                ensure!(ended.is_ok(), "the component failed");
            }
        }
        Ok(stdout)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
    }
}
