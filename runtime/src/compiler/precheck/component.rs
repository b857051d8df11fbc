//! A component: is it a WASI 0.2 command, and how much is in it, at all levels?

use super::counts::{Counts, add};
use super::{count, malformed, not_wasm};
use crate::config::{Compiler, Limits};
use crate::wasm::context;
use offload_protocol::error::{ErrorKind, WireError};
use wasmparser::{
    ComponentExternalKind, ComponentInstance, ComponentTypeRef, Encoding, Instance, Parser, Payload,
};

/// What the name of an import of the whole component starts with.
const IMPORTS: [&str; 2] = ["wasi:", context::PACKAGE];

/// The interface that a command exports, in any version of WASI 0.2.
const RUN: &str = "wasi:cli/run@0.2.";

/// What is open where the walk has come to.
enum Level {
    Module,
    /// With the instances that instantiating it makes.
    Component {
        instances: usize,
    },
}

/// See [`check`](super::check).
pub fn check(component: &[u8], compiler: &Compiler, limits: &Limits) -> Result<(), WireError> {
    let mut counts = Counts::new(compiler, limits, compiler.component_tables);
    let (mut nested, mut definitions, mut adapters) = (0, 0, 0);
    let mut levels: Vec<Level> = Vec::new();
    // Of those that were closed. Whatever is instantiated is one of them: none can be imported.
    let mut most_instances = 0;
    let mut runs = false;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(not_wasm)?;
        counts.add(&payload)?;
        let mut define = |found| add(&mut definitions, "definitions", found, compiler.definitions);
        match payload {
            Payload::Version { encoding, .. } => {
                if !levels.is_empty() {
                    add(&mut nested, "nested modules and components", 1, compiler.nested)?;
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
                add(&mut adapters, "lifted and lowered functions", section.count(), compiler.adapters)?;
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
                        _ if IMPORTS.iter().any(|known| name.starts_with(known)) => {}
                        _ => {
                            return Err(malformed(format!(
                                "imports `{name}`: a component gets the interfaces of {} and nothing else",
                                IMPORTS.join(" and ")
                            )));
                        }
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                define(section.count())?;
                for export in section {
                    let export = export.map_err(not_wasm)?;
                    runs |= levels.len() == 1
                        && export.kind == ComponentExternalKind::Instance
                        && export.name.name.starts_with(RUN);
                }
            }
            _ => {}
        }
    }
    if !runs {
        return Err(malformed("exports no `wasi:cli/run@0.2`: build it as a WASI 0.2 command"));
    }
    Ok(())
}

/// Counts instances that the innermost open component makes. Components that instantiate each other twice double at
/// each level.
fn instantiate(levels: &mut [Level], made: usize, compiler: &Compiler) -> Result<(), WireError> {
    let Some(Level::Component { instances }) = levels.last_mut() else {
        return Err(malformed("a section of a component is in a module"));
    };
    *instances = instances.saturating_add(made);
    count("instances", *instances, compiler.instances)
}
