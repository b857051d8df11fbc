//! What of core modules costs a compiler, added up over all modules that a component holds.

use super::counter::Counter;
use super::refusal::{memory, not_wasm};
use crate::config::{Compiler, Limits};
use offload_protocol::error::WireError;
use wasmparser::{FunctionBody, Operator, Payload};

/// The counts so far.
pub struct Counts<'a> {
    compiler: &'a Compiler,
    limits: &'a Limits,
    types: Counter,
    imports: Counter,
    functions: Counter,
    tables: Counter,
    memories: Counter,
    globals: Counter,
    exports: Counter,
    element_segments: Counter,
    data_segments: Counter,
}

impl<'a> Counts<'a> {
    /// Nothing counted yet. A module and a component may have different numbers of tables.
    pub fn new(compiler: &'a Compiler, limits: &'a Limits, tables: Counter) -> Counts<'a> {
        Counts {
            compiler,
            limits,
            types: Counter::new("types", "types", compiler.types),
            imports: Counter::new("imports", "imports", compiler.imports),
            functions: Counter::new("functions", "functions", compiler.functions),
            tables,
            memories: Counter::new("memories", "memories", compiler.memories),
            globals: Counter::new("globals", "globals", compiler.globals),
            exports: Counter::new("exports", "exports", compiler.exports),
            element_segments: Counter::new("element_segments", "element segments", compiler.element_segments),
            data_segments: Counter::new("data_segments", "data segments", compiler.data_segments),
        }
    }

    /// Counts one section, or one function, of a module.
    ///
    /// # Errors
    ///
    /// `compile` for a count over its limit, `memory` for a memory or a table that is too large from the start,
    /// `malformed` for bytes that cannot be read.
    pub fn add(&mut self, payload: &Payload<'_>) -> Result<(), WireError> {
        match payload {
            Payload::TypeSection(types) => self.types.add(types.count()),
            Payload::ImportSection(imports) => self.imports.add(imports.count()),
            Payload::FunctionSection(functions) => self.functions.add(functions.count()),
            Payload::TableSection(tables) => {
                self.tables.add(tables.count())?;
                for table in tables.clone() {
                    let initial = table.map_err(not_wasm)?.ty.initial;
                    let limit = self.limits.table_elements as u64;
                    if initial > limit {
                        return Err(memory("table elements", initial, "table_elements", limit));
                    }
                }
                Ok(())
            }
            Payload::MemorySection(memories) => {
                self.memories.add(memories.count())?;
                for memory_type in memories.clone() {
                    let memory_type = memory_type.map_err(not_wasm)?;
                    let page = 1u64 << memory_type.page_size_log2.unwrap_or(16);
                    let initial = memory_type.initial.saturating_mul(page);
                    let limit = self.limits.memory.bytes();
                    if initial > limit {
                        return Err(memory("bytes of memory", initial, "memory", limit));
                    }
                }
                Ok(())
            }
            Payload::GlobalSection(globals) => self.globals.add(globals.count()),
            Payload::ExportSection(exports) => self.exports.add(exports.count()),
            Payload::ElementSection(elements) => self.element_segments.add(elements.count()),
            Payload::DataSection(data) => self.data_segments.add(data.count()),
            Payload::CodeSectionEntry(body) => {
                let limit = self.compiler.function_body.as_usize();
                Counter::new("function_body", "bytes in one function", limit).add(body.range().len())?;
                locals(body, self.compiler.locals)?;
                nesting(body, self.compiler.nesting)
            }
            _ => Ok(()),
        }
    }
}

fn locals(body: &FunctionBody<'_>, limit: usize) -> Result<(), WireError> {
    let mut locals = Counter::new("locals", "locals in one function", limit);
    for group in body.get_locals_reader().map_err(not_wasm)? {
        locals.add(group.map_err(not_wasm)?.0)?;
    }
    Ok(())
}

/// Depth of blocks in one function. Register allocation and the control-flow graph are worse than linear in it.
fn nesting(body: &FunctionBody<'_>, limit: usize) -> Result<(), WireError> {
    let (mut depth, mut deepest) = (0usize, 0);
    for operator in body.get_operators_reader().map_err(not_wasm)? {
        match operator.map_err(not_wasm)? {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            Operator::End => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Counter::new("nesting", "nested blocks", limit).add(deepest)
}
