//! What is loaded into a worker's engine, and what it may import.

use super::artifact::Artifact;
use super::guest_state::GuestState;
use super::{context, metering, preview1, preview2};
use offload_protocol::error::{ErrorKind, WireError};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{self, Component, Type};
use wasmtime::{Engine, InstancePre, Linker, Module, Precompiled};
use wasmtime_wasi::p2::bindings::CommandPre;

/// What a command exports. One of another version 0.2 is found by this name too.
const RUN_INTERFACE: &str = "wasi:cli/run@0.2.12";

/// A command, loaded and linked: all that is left is to instantiate it.
#[derive(Clone)]
pub enum LinkedProgram {
    /// A core module with WASI preview 1.
    Module(InstancePre<GuestState>),
    /// A component with WASI 0.2.
    Component(CommandPre<GuestState>),
}

impl LinkedProgram {
    /// The engine that it is loaded into.
    pub fn engine(&self) -> &Engine {
        match self {
            LinkedProgram::Module(module) => module.module().engine(),
            LinkedProgram::Component(command) => command.engine(),
        }
    }
}

/// What guests of one engine may import.
pub struct Linkers {
    engine: Engine,
    modules: Linker<GuestState>,
    components: component::Linker<GuestState>,
}

impl Linkers {
    /// WASI preview 1 for modules; WASI 0.2 and the request's context for components.
    pub fn new(engine: Engine) -> wasmtime::Result<Linkers> {
        let mut modules = Linker::new(&engine);
        preview1::add_to_linker(&mut modules)?;
        metering::add_to_linker(&mut modules)?;
        let mut components = component::Linker::new(&engine);
        preview2::add_to_linker(&mut components)?;
        context::add_to_linker(&mut components)?;
        Ok(Linkers { engine, modules, components })
    }

    /// The engine that it is loaded into.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Loads an artifact and links it.
    ///
    /// # Errors
    ///
    /// `malformed` for imports that do not exist, `compile` for what does not fit into a slot: only here a component's
    /// instances are known, and with them how many memories and tables there are in all.
    pub fn load(&self, artifact: &Artifact) -> Result<LinkedProgram, WireError> {
        match Engine::detect_precompiled(&artifact.code) {
            Some(Precompiled::Component) => self.load_component(artifact),
            Some(Precompiled::Module) | None => self.load_module(artifact),
        }
    }

    fn load_module(&self, artifact: &Artifact) -> Result<LinkedProgram, WireError> {
        // SAFETY: the bytes of an `Artifact` came from our own compile child in this process's life, or from the
        // store, where they were authenticated after they had been read (see `ArtifactStore::load`).
        let module = unsafe { Module::deserialize(&self.engine, &artifact.code) }.map_err(unfit)?;
        self.modules.instantiate_pre(&module).map(LinkedProgram::Module).map_err(unlinkable)
    }

    fn load_component(&self, artifact: &Artifact) -> Result<LinkedProgram, WireError> {
        // SAFETY: as above.
        let component = unsafe { Component::deserialize(&self.engine, &artifact.code) }.map_err(unfit)?;
        let linked = self.components.instantiate_pre(&component);
        let command = linked.and_then(CommandPre::new).map_err(unlinkable)?;
        if !runs_as_a_command(&component) {
            let message =
                "its `run` of `wasi:cli/run` is no function without parameters whose result is `result`";
            return Err(WireError::new(ErrorKind::Malformed, message.to_string()));
        }
        Ok(LinkedProgram::Component(command))
    }
}

/// Whether the function that `CommandPre` has found has the type that it will be called by: `func() -> result`.
/// wasmtime itself checks it at each start.
fn runs_as_a_command(component: &Component) -> bool {
    let run = component
        .get_export_index(None, RUN_INTERFACE)
        .and_then(|interface| component.get_export(Some(&interface), "run"));
    let Some((ComponentItem::ComponentFunc(run), _)) = run else { return false };
    let mut results = run.results();
    let is_result =
        |ty| matches!(ty, Type::Result(result) if result.ok().is_none() && result.err().is_none());
    !run.async_() && run.params().len() == 0 && results.len() == 1 && results.next().is_some_and(is_result)
}

/// Of all that wasmtime checks when it loads an artifact, this is what ours can fail.
fn unfit(error: wasmtime::Error) -> WireError {
    /// The limits that wasmtime has from the configuration, by its words for what they are of.
    const KEYS: [(&str, &str); 3] = [
        ("core module instances", " (compiler.instances)"),
        ("linear memories", " (compiler.memories)"),
        ("tables", " (compiler.component_tables)"),
    ];
    let cause = error.root_cause().to_string();
    let key = KEYS.iter().find(|(what, _)| cause.contains(what)).map_or("", |(_, key)| key);
    WireError::new(ErrorKind::Compile, format!("does not fit into a slot{key}: {cause}"))
}

fn unlinkable(error: wasmtime::Error) -> WireError {
    WireError::new(ErrorKind::Malformed, format!("cannot be linked: {error:#}"))
}
