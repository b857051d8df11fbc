//! Cheap counts over a module before a compiler sees it.
//!
//! Validation accepts modules that take a compiler minutes and gigabytes: half a million empty functions, fifty
//! thousand data segments, twenty thousand nested blocks. Counting them costs a walk over the bytes; the child's
//! limits catch what no count foresees.

use crate::config::{Compiler, Limits};
use crate::wasm::preview1;
use offload_protocol::error::{ErrorKind, WireError};
use wasmparser::{BinaryReaderError, ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef};

/// The function that a WASI command starts at.
const START: &str = "_start";

/// Refuses what is no WASI command, and what would cost a compiler more than the configuration allows.
///
/// # Errors
///
/// `malformed` for bytes that are not a preview 1 command, `compile` for a count over its limit, `memory` for a module
/// that could never start within the guest's limits.
pub fn check(module: &[u8], compiler: &Compiler, limits: &Limits) -> Result<(), WireError> {
    // Which types take and return nothing; the types of all functions, imported ones first.
    let mut plain_types = Vec::new();
    let mut functions = Vec::new();
    let mut start = None;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(not_wasm)? {
            Payload::Version { encoding: wasmparser::Encoding::Component, .. } => {
                return Err(malformed(
                    "a component: this gateway takes core modules (WASI preview 1 commands)",
                ));
            }
            Payload::TypeSection(types) => {
                count("types", types.count(), compiler.types)?;
                for function in types.into_iter_err_on_gc_types() {
                    let function = function.map_err(not_wasm)?;
                    plain_types.push(function.params().is_empty() && function.results().is_empty());
                }
            }
            Payload::ImportSection(imports) => {
                count("imports", imports.count(), compiler.imports)?;
                for import in imports.into_imports() {
                    let import = import.map_err(not_wasm)?;
                    match import.ty {
                        TypeRef::Func(function) if import.module == preview1::MODULE => {
                            functions.push(function)
                        }
                        _ => {
                            return Err(malformed(format!(
                                "imports `{}.{}`: a guest gets the functions of {} and nothing else",
                                import.module,
                                import.name,
                                preview1::MODULE
                            )));
                        }
                    }
                }
            }
            Payload::FunctionSection(section) => {
                count("functions", section.count(), compiler.functions)?;
                for function in section {
                    functions.push(function.map_err(not_wasm)?);
                }
            }
            Payload::TableSection(tables) => {
                count("tables", tables.count(), compiler.tables)?;
                for table in tables {
                    let table = table.map_err(not_wasm)?;
                    if table.ty.initial > limits.table_elements as u64 {
                        return Err(memory("table elements", table.ty.initial, limits.table_elements as u64));
                    }
                }
            }
            Payload::MemorySection(memories) => {
                count("memories", memories.count(), compiler.memories)?;
                for memory_type in memories {
                    let memory_type = memory_type.map_err(not_wasm)?;
                    let page = 1u64 << memory_type.page_size_log2.unwrap_or(16);
                    let initial = memory_type.initial.saturating_mul(page);
                    if initial > limits.memory.bytes() {
                        return Err(memory("bytes of memory", initial, limits.memory.bytes()));
                    }
                }
            }
            Payload::GlobalSection(globals) => count("globals", globals.count(), compiler.globals)?,
            Payload::ExportSection(exports) => {
                count("exports", exports.count(), compiler.exports)?;
                for export in exports {
                    let export = export.map_err(not_wasm)?;
                    if export.name == START && export.kind == ExternalKind::Func {
                        start = functions.get(export.index as usize).copied();
                    }
                }
            }
            Payload::ElementSection(elements) => {
                count("element segments", elements.count(), compiler.element_segments)?;
            }
            Payload::DataSection(data) => {
                count("data segments", data.count(), compiler.data_segments)?;
            }
            Payload::CodeSectionEntry(body) => {
                count("bytes in one function", body.range().len(), compiler.function_body.as_usize())?;
                locals(&body, compiler.locals)?;
                nesting(&body, compiler.nesting)?;
            }
            _ => {}
        }
    }
    let takes_nothing = |function: u32| plain_types.get(function as usize).copied().unwrap_or(false);
    match start {
        Some(function) if takes_nothing(function) => {}
        Some(_) => return Err(malformed(format!("`{START}` must take and return nothing"))),
        None => {
            return Err(malformed(format!("exports no function `{START}`: build it as a WASI command")));
        }
    }
    Ok(())
}

fn locals(body: &FunctionBody<'_>, limit: usize) -> Result<(), WireError> {
    let mut total = 0u64;
    for group in body.get_locals_reader().map_err(not_wasm)? {
        total += u64::from(group.map_err(not_wasm)?.0);
        count("locals in one function", total, limit)?;
    }
    Ok(())
}

/// Depth of blocks in one function. Register allocation and the control-flow graph are worse than linear in it.
fn nesting(body: &FunctionBody<'_>, limit: usize) -> Result<(), WireError> {
    let mut depth = 0usize;
    for operator in body.get_operators_reader().map_err(not_wasm)? {
        match operator.map_err(not_wasm)? {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => {
                depth += 1;
                count("nested blocks", depth, limit)?;
            }
            Operator::End => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn count(what: &str, found: impl TryInto<usize>, limit: usize) -> Result<(), WireError> {
    if found.try_into().map_or(true, |found| found > limit) {
        let message = format!("the module has more than {limit} {what}");
        return Err(WireError::new(ErrorKind::Compile, message));
    }
    Ok(())
}

fn malformed(message: impl Into<String>) -> WireError {
    WireError::new(ErrorKind::Malformed, message)
}

fn memory(what: &str, found: u64, limit: u64) -> WireError {
    WireError::new(ErrorKind::Memory, format!("the module starts with {found} {what}, the limit is {limit}"))
}

fn not_wasm(error: BinaryReaderError) -> WireError {
    malformed(format!("not valid wasm: {} (at offset {:#x})", error.message(), error.offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_wat(text: &str) -> Result<(), WireError> {
        check(&wat::parse_str(text).unwrap(), &Compiler::default(), &Limits::default())
    }

    fn kind(text: &str) -> ErrorKind {
        check_wat(text).unwrap_err().kind
    }

    fn command(body: &str) -> String {
        format!("(module (func (export \"_start\") {body}))")
    }

    #[test]
    fn a_command_passes() {
        check_wat(&command("")).unwrap();
        check_wat(include_str!("../../../guest-examples/add/add.wat")).unwrap();
    }

    #[test]
    fn what_is_no_command_is_malformed() {
        for (bytes, expected) in [
            (&b"\0asm"[..], "not valid wasm"),
            (b"\0asm\x01\0\0\0\xff", "not valid wasm"),
            (b"\0asm\x01\0\0\0", "_start"),
            (b"\0asm\x0d\0\x01\0", "component"),
        ] {
            let error = check(bytes, &Compiler::default(), &Limits::default()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(error.message.contains(expected), "{error}");
        }
        let error =
            check_wat("(module (import \"env\" \"system\" (func)) (func (export \"_start\")))").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.message.contains("`env.system`"), "{error}");
    }

    #[test]
    fn bombs_are_counted() {
        let functions = "(func)".repeat(500_000);
        assert_eq!(kind(&format!("(module {functions} (func (export \"_start\")))")), ErrorKind::Compile);
        let segments = "(data (i32.const 0) \"x\")".repeat(50_000);
        let segments = format!("(module (memory 1) {segments} (func (export \"_start\")))");
        assert_eq!(kind(&segments), ErrorKind::Compile);
        let nested = format!("{}{}", "(if (i32.const 1) (then ".repeat(5_000), "))".repeat(5_000));
        assert_eq!(kind(&command(&nested)), ErrorKind::Compile);
        let sequence = "(if (i32.const 1) (then))".repeat(20_000);
        check_wat(&command(&sequence)).unwrap();
    }

    #[test]
    fn a_start_that_takes_or_returns_something_is_malformed() {
        assert_eq!(kind("(module (func (export \"_start\") (param i32)))"), ErrorKind::Malformed);
        assert_eq!(
            kind("(module (func (export \"_start\") (result i32) i32.const 1))"),
            ErrorKind::Malformed
        );
    }

    #[test]
    fn tables_memories_and_locals_are_counted() {
        assert_eq!(
            kind("(module (table 1 funcref) (table 1 funcref) (func (export \"_start\")))"),
            ErrorKind::Compile
        );
        assert_eq!(kind("(module (memory 1) (memory 1) (func (export \"_start\")))"), ErrorKind::Compile);
        assert_eq!(kind(&command(&format!("(local {})", "i32 ".repeat(10_001)))), ErrorKind::Compile);
    }

    #[test]
    fn what_cannot_start_is_refused_before_it_is_compiled() {
        assert_eq!(kind("(module (memory 65536) (func (export \"_start\")))"), ErrorKind::Memory);
        assert_eq!(kind("(module (table 10000000 funcref) (func (export \"_start\")))"), ErrorKind::Memory);
    }
}
