//! A core module: is it a WASI preview 1 command?

use super::counter::Counter;
use super::counts::Counts;
use super::refusal::{malformed, not_wasm};
use crate::config::{Compiler, Limits};
use crate::wasm::preview1;
use offload_protocol::error::WireError;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// The function that a WASI command starts at.
const START: &str = "_start";

/// See [`super::check`].
pub fn check(module: &[u8], compiler: &Compiler, limits: &Limits) -> Result<(), WireError> {
    let tables = Counter::new("tables", "tables", compiler.tables);
    let mut counts = Counts::new(compiler, limits, tables);
    // Which types take and return nothing; the types of all functions, imported ones first.
    let mut plain_types = Vec::new();
    let mut functions = Vec::new();
    let mut start = None;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(not_wasm)?;
        counts.add(&payload)?;
        match payload {
            Payload::TypeSection(types) => {
                for function in types.into_iter_err_on_gc_types() {
                    let function = function.map_err(not_wasm)?;
                    plain_types.push(function.params().is_empty() && function.results().is_empty());
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(not_wasm)?;
                    match import.ty {
                        TypeRef::Func(function) if import.module == preview1::MODULE => {
                            functions.push(function)
                        }
                        _ => {
                            let (module, name) = (import.module, import.name);
                            let reason = refusal(module, import.ty);
                            return Err(malformed(format!("imports `{module}.{name}`: {reason}")));
                        }
                    }
                }
            }
            Payload::FunctionSection(section) => {
                for function in section {
                    functions.push(function.map_err(not_wasm)?);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export.map_err(not_wasm)?;
                    if export.name == START && export.kind == ExternalKind::Func {
                        start = functions.get(export.index as usize).copied();
                    }
                }
            }
            _ => {}
        }
    }
    let takes_nothing = |function: u32| plain_types.get(function as usize).copied().unwrap_or(false);
    match start {
        Some(function) if takes_nothing(function) => Ok(()),
        Some(_) => Err(malformed(format!("`{START}` must take and return nothing"))),
        None => Err(malformed(format!("exports no function `{START}`: build it as a WASI command"))),
    }
}

/// Why there is nothing to import from a module of this name: what it is, where that is known, and how to do without.
fn refusal(module: &str, what: TypeRef) -> String {
    let known = match (module, what) {
        ("wasi_unstable", _) => {
            "WASI before its preview 1 is not offered: build it with newer tools, for wasm32-wasip1"
        }
        ("wasi", _) => "WASI's threads are not offered: build it without them, for wasm32-wasip1",
        ("go" | "gojs", _) => "it was built for JavaScript: build it with GOOS=wasip1",
        ("env", TypeRef::Func(_)) => {
            "the linker found it nowhere, and the gateway has WASI alone: link it in, and build it for WASI"
        }
        _ if module.starts_with("wasi:") => "this is the core of a component: make a component of it",
        _ => return format!("a module gets the functions of {} and nothing else", preview1::MODULE),
    };
    known.to_string()
}
