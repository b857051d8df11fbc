//! What of core modules costs a compiler, added up over all modules that a component holds.

use super::{count, memory, not_wasm};
use crate::config::{Compiler, Limits};
use offload_protocol::error::WireError;
use wasmparser::{FunctionBody, Operator, Payload};

/// The counts so far.
pub struct Counts<'a> {
    compiler: &'a Compiler,
    limits: &'a Limits,
    max_tables: usize,
    types: usize,
    imports: usize,
    functions: usize,
    tables: usize,
    memories: usize,
    globals: usize,
    exports: usize,
    element_segments: usize,
    data_segments: usize,
}

impl<'a> Counts<'a> {
    /// Nothing counted yet. A module and a component may have different numbers of tables.
    pub fn new(compiler: &'a Compiler, limits: &'a Limits, max_tables: usize) -> Counts<'a> {
        Counts {
            compiler,
            limits,
            max_tables,
            types: 0,
            imports: 0,
            functions: 0,
            tables: 0,
            memories: 0,
            globals: 0,
            exports: 0,
            element_segments: 0,
            data_segments: 0,
        }
    }

    /// Counts one section, or one function, of a module.
    ///
    /// # Errors
    ///
    /// `compile` for a count over its limit, `memory` for a memory or a table that is too large from the start,
    /// `malformed` for bytes that cannot be read.
    pub fn add(&mut self, payload: &Payload<'_>) -> Result<(), WireError> {
        let limits = self.compiler;
        match payload {
            Payload::TypeSection(types) => add(&mut self.types, "types", types.count(), limits.types),
            Payload::ImportSection(imports) => {
                add(&mut self.imports, "imports", imports.count(), limits.imports)
            }
            Payload::FunctionSection(functions) => {
                add(&mut self.functions, "functions", functions.count(), limits.functions)
            }
            Payload::TableSection(tables) => {
                add(&mut self.tables, "tables", tables.count(), self.max_tables)?;
                for table in tables.clone() {
                    let initial = table.map_err(not_wasm)?.ty.initial;
                    if initial > self.limits.table_elements as u64 {
                        return Err(memory("table elements", initial, self.limits.table_elements as u64));
                    }
                }
                Ok(())
            }
            Payload::MemorySection(memories) => {
                add(&mut self.memories, "memories", memories.count(), limits.memories)?;
                for memory_type in memories.clone() {
                    let memory_type = memory_type.map_err(not_wasm)?;
                    let page = 1u64 << memory_type.page_size_log2.unwrap_or(16);
                    let initial = memory_type.initial.saturating_mul(page);
                    if initial > self.limits.memory.bytes() {
                        return Err(memory("bytes of memory", initial, self.limits.memory.bytes()));
                    }
                }
                Ok(())
            }
            Payload::GlobalSection(globals) => {
                add(&mut self.globals, "globals", globals.count(), limits.globals)
            }
            Payload::ExportSection(exports) => {
                add(&mut self.exports, "exports", exports.count(), limits.exports)
            }
            Payload::ElementSection(elements) => {
                let limit = limits.element_segments;
                add(&mut self.element_segments, "element segments", elements.count(), limit)
            }
            Payload::DataSection(data) => {
                add(&mut self.data_segments, "data segments", data.count(), limits.data_segments)
            }
            Payload::CodeSectionEntry(body) => {
                count("bytes in one function", body.range().len(), limits.function_body.as_usize())?;
                locals(body, limits.locals)?;
                nesting(body, limits.nesting)
            }
            _ => Ok(()),
        }
    }
}

/// Adds to a count that has a limit.
pub fn add(total: &mut usize, what: &str, found: u32, limit: usize) -> Result<(), WireError> {
    *total = total.saturating_add(found as usize);
    count(what, *total, limit)
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
