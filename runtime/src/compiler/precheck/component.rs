//! A component: is it a WASI 0.2 command, and how much is in it, at all levels?

use super::counter::Counter;
use super::counts::Counts;
use super::interface;
use super::refusal::{malformed, not_wasm};
use crate::config::{Compiler, Limits};
use offload_protocol::error::{ErrorKind, WireError};
use wasmparser::{
    ComponentExternalKind, ComponentInstance, ComponentTypeRef, Encoding, Instance, Parser, Payload,
};

/// What is open where the walk has come to.
enum Level {
    Module,
    /// With the instances that instantiating it makes.
    Component {
        instances: usize,
    },
}

/// See [`super::check`].
pub fn check(component: &[u8], compiler: &Compiler, limits: &Limits) -> Result<(), WireError> {
    let tables = Counter::new("component_tables", "tables", compiler.component_tables);
    let mut counts = Counts::new(compiler, limits, tables);
    let mut nested = Counter::new("nested", "nested modules and components", compiler.nested);
    let mut definitions = Counter::new("definitions", "definitions", compiler.definitions);
    let mut adapters = Counter::new("adapters", "lifted and lowered functions", compiler.adapters);
    let mut levels: Vec<Level> = Vec::new();
    // Of those that were closed. Whatever is instantiated is one of them: none can be imported.
    let mut most_instances = 0;
    let mut exports = Exports::default();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(not_wasm)?;
        counts.add(&payload)?;
        let mut define = |found: u32| definitions.add(found);
        match payload {
            Payload::Version { encoding, .. } => {
                if !levels.is_empty() {
                    nested.add(1)?;
                }
                levels.push(match encoding {
                    Encoding::Module => Level::Module,
                    Encoding::Component => Level::Component { instances: 1 },
                });
            }
            Payload::End(_) => {
                if let Some(Level::Component { instances }) = levels.pop() {
                    most_instances = most_instances.max(instances);
                }
            }
            Payload::ComponentTypeSection(section) => define(section.count())?,
            Payload::CoreTypeSection(section) => define(section.count())?,
            Payload::ComponentAliasSection(section) => define(section.count())?,
            Payload::ComponentCanonicalSection(section) => {
                define(section.count())?;
                adapters.add(section.count())?;
            }
            Payload::InstanceSection(section) => {
                define(section.count())?;
                for instance in section {
                    if let Instance::Instantiate { .. } = instance.map_err(not_wasm)? {
                        instantiate(&mut levels, 1, compiler)?;
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                define(section.count())?;
                for instance in section {
                    if let ComponentInstance::Instantiate { .. } = instance.map_err(not_wasm)? {
                        // Which one it is would take the whole index space: the largest will do.
                        instantiate(&mut levels, most_instances, compiler)?;
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                define(section.count())?;
                for import in section {
                    let import = import.map_err(not_wasm)?;
                    let name = import.name.name;
                    match import.ty {
                        ComponentTypeRef::Component(_) | ComponentTypeRef::Module(_) => {
                            let message =
                                format!("imports `{name}`, which is code: put it into the component");
                            return Err(WireError::new(ErrorKind::Compile, message));
                        }
                        ComponentTypeRef::Type(_) => {}
                        _ if levels.len() > 1 => {}
                        _ => {
                            if let Some(reason) = interface::refusal(name) {
                                return Err(malformed(format!("imports `{name}`: {reason}")));
                            }
                        }
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                define(section.count())?;
                for export in section {
                    let export = export.map_err(not_wasm)?;
                    if levels.len() == 1 && export.kind == ComponentExternalKind::Instance {
                        exports.add(export.name.name);
                    }
                }
            }
            _ => {}
        }
    }
    exports.check()
}

/// What of WASI a component exports.
#[derive(Default)]
struct Exports {
    /// The interface of a command, in a version of WASI 0.2.
    runs: bool,
    /// The first that is another one.
    other: Option<String>,
}

impl Exports {
    fn add(&mut self, name: &str) {
        if name.starts_with("wasi:cli/run@") && interface::refusal(name).is_none() {
            self.runs = true;
        } else if name.starts_with("wasi:") && self.other.is_none() {
            self.other = Some(name.to_string());
        }
    }

    fn check(&self) -> Result<(), WireError> {
        if self.runs {
            return Ok(());
        }
        let other = self.other.as_ref().map(|name| format!(", but `{name}`")).unwrap_or_default();
        let refusal = self.other.as_ref().and_then(|name| interface::refusal(name));
        let remedy = refusal.as_deref().unwrap_or("build it as a WASI 0.2 command");
        Err(malformed(format!("exports no `wasi:cli/run@0.2`{other}: {remedy}")))
    }
}

/// Counts instances that the innermost open component makes. Components that instantiate each other twice double at
/// each level.
fn instantiate(levels: &mut [Level], made: usize, compiler: &Compiler) -> Result<(), WireError> {
    let Some(Level::Component { instances }) = levels.last_mut() else {
        return Err(malformed("a section of a component is in a module"));
    };
    *instances = instances.saturating_add(made);
    Counter::new("instances", "instances", compiler.instances).add(*instances)
}
