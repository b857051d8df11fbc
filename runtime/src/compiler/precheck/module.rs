//! A core module: is it a WASI preview 1 command?

use super::counts::Counts;
use super::{malformed, not_wasm};
use crate::config::{Compiler, Limits};
use crate::wasm::preview1;
use offload_protocol::error::WireError;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// The function that a WASI command starts at.
const START: &str = "_start";

/// See [`check`](super::check).
pub fn check(module: &[u8], compiler: &Compiler, limits: &Limits) -> Result<(), WireError> {
    let mut counts = Counts::new(compiler, limits, compiler.tables);
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
                            return Err(malformed(format!(
                                "imports `{}.{}`: a module gets the functions of {} and nothing else",
                                import.module,
                                import.name,
                                preview1::MODULE
                            )));
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
