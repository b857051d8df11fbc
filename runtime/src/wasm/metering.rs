//! Fuel for bulk operations in baseline code.
//!
//! An operation on a range (`memory.fill`, `table.copy`, …) costs a unit for each byte or element in what Cranelift
//! compiles, and one unit in all in what Winch does (wasmtime 48). So that a request ends the same whichever code it
//! meets, a module is rewritten before Winch compiles it. In front of each such operation stand
//!
//! - a call of a function that the gateway imports into it, which takes the fuel: the length is on top of the stack,
//!   and is what the function takes and returns;
//! - an empty loop: at its header compiled code checks whether fuel or slice are used up, as optimized code does at
//!   each bulk operation.

use super::guest_state::GuestState;
use std::borrow::Cow;
use std::convert::Infallible;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, EntityType, Function, ImportSection, Instruction, Module, SectionId, TypeSection,
    ValType,
};
use wasmparser::{
    CustomSectionReader, FunctionBody, ImportSectionReader, KnownCustom, Operator, Parser, Payload, TypeRef,
    TypeSectionReader,
};
use wasmtime::{Caller, FrameInfo, Linker};

/// The import module of the function that takes the fuel. No module that a client sends can import from it: the
/// pre-check lets nothing through but WASI.
pub const MODULE: &str = "offload:metering";

const CHARGE: &str = "charge";

/// What the call of `charge` costs, and the operation itself would not have.
const CALL_FUEL: u64 = 1;

/// Lets metered modules take their fuel.
pub fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, CHARGE, |mut caller: Caller<'_, GuestState>, length: i32| {
        let left = caller.get_fuel()?;
        // Nothing is left of what is overdrawn: to set it would be to forgive the debt.
        if left > 0 {
            caller.set_fuel((left + CALL_FUEL).saturating_sub(u64::from(length as u32)))?;
        }
        wasmtime::Result::Ok(length)
    })?;
    Ok(())
}

/// The function's index in the module as it was sent.
pub fn index_as_sent(frame: &FrameInfo) -> u32 {
    let is_metered = frame.module().imports().any(|import| import.module() == MODULE);
    frame.func_index() - u32::from(is_metered)
}

/// The valid module with its bulk operations metered; the same bytes if it has none.
///
/// # Errors
///
/// For modules of proposals that wasm-encoder does not know.
pub fn metered(module: &[u8]) -> Result<Cow<'_, [u8]>, Error<Infallible>> {
    let (mut metering, has_bulk_operations) = Metering::survey(module)?;
    if !has_bulk_operations {
        return Ok(Cow::Borrowed(module));
    }
    let mut rewritten = Module::new();
    metering.parse_core_module(&mut rewritten, Parser::new(0), module)?;
    Ok(Cow::Owned(rewritten.finish()))
}

/// Whether the operation's fuel goes by its last operand.
fn is_bulk(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryCopy { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableCopy { .. }
            | Operator::TableFill { .. }
            | Operator::TableInit { .. }
            | Operator::TableGrow { .. }
    )
}

/// Where the function that takes the fuel goes.
struct Metering {
    /// Index of its type, the last one.
    charge_type: u32,
    /// Its own index: the last import, so the module's own functions move on by one.
    charge: u32,
}

impl Metering {
    fn survey(module: &[u8]) -> Result<(Metering, bool), wasmparser::Error> {
        let mut metering = Metering { charge_type: 0, charge: 0 };
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(types) => {
                    for group in types {
                        metering.charge_type += group?.types().len() as u32;
                    }
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let is_function = matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                        metering.charge += u32::from(is_function);
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    for operator in body.get_operators_reader()? {
                        if is_bulk(&operator?) {
                            return Ok((metering, true));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok((metering, false))
    }

    fn import_charge(&self, imports: &mut ImportSection) {
        imports.import(MODULE, CHARGE, EntityType::Function(self.charge_type));
    }
}

impl Reencode for Metering {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        Ok(if function < self.charge { function } else { function.saturating_add(1) })
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: TypeSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_type_section(self, types, section)?;
        types.ty().function([ValType::I32], [ValType::I32]);
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_import_section(self, imports, section)?;
        self.import_charge(imports);
        Ok(())
    }

    /// A module that imports nothing has no section for it. (One with code has types, and they come first.)
    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), Error> {
        if after == Some(SectionId::Type) && before != Some(SectionId::Import) {
            let mut imports = ImportSection::new();
            self.import_charge(&mut imports);
            module.section(&imports);
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error> {
        let mut function: Function = self.new_function_with_parsed_locals(&body)?;
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            if is_bulk(&operator) {
                function
                    .instruction(&Instruction::Call(self.charge))
                    .instruction(&Instruction::Loop(BlockType::Empty))
                    .instruction(&Instruction::End);
            }
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        Ok(())
    }

    /// Names are for messages about traps. Nothing reads the other sections, and positions in code that they hold are
    /// wrong now.
    fn parse_custom_section(
        &mut self,
        module: &mut Module,
        section: CustomSectionReader<'_>,
    ) -> Result<(), Error> {
        if let KnownCustom::Name(names) = section.as_known()
            // Validation does not look into it.
            && let Ok(names) = self.custom_name_section(names)
        {
            module.section(&names);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::{self, Tier};
    use super::super::guest::tests::{budget, run_without_ticks};
    use super::*;
    use crate::config::{Compiler, Limits};
    use offload_protocol::error::ErrorKind;

    /// How a command with this body ends with so much fuel, and what of it it has used.
    fn run(text: &str, tier: Tier, fuel: u64) -> (Result<i32, ErrorKind>, String, u64) {
        let wasm = wat::parse_str(text).unwrap();
        let (engine, wasm) = match tier {
            Tier::Optimized => {
                (engine::worker(1, &Limits::default(), &Compiler::default()).unwrap(), wasm.into())
            }
            Tier::Baseline => (engine::baseline().unwrap(), metered(&wasm).unwrap()),
        };
        let (ended, _) = run_without_ticks(engine, tier, &wasm, budget(fuel));
        let message = ended.result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        (ended.result.map_err(|error| error.kind), message, ended.fuel)
    }

    /// All bulk operations, with lengths that compilers see and that they do not.
    const BULK: &str = r#"(module
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 1) (table $t 10 100 funcref) (table $u 10 funcref)
        (data $d "0123456789") (elem $e func $twice $twice) (elem declare func $twice)
        (global $length (mut i32) (i32.const 7))
        (func $twice (param i32) (result i32) (i32.add (local.get 0) (local.get 0)))
        (func (export "_start") (local $i i32)
            (memory.fill (i32.const 0) (i32.const 1) (i32.const 30))
            (memory.fill (i32.const 0) (i32.const 1) (i32.const 0))
            (memory.fill (i32.const 0) (i32.const 1) (global.get $length))
            (loop $again
                (memory.copy (i32.const 0) (i32.const 9) (call $twice (global.get $length)))
                (memory.init $d (i32.const 0) (i32.const 1) (i32.const 5))
                (drop (call $yield))
                (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
            (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 2))
            (table.copy $t $t (i32.const 1) (i32.const 0) (i32.const 2))
            (table.fill $u (i32.const 0) (ref.func $twice) (global.get $length))
            (if (i32.eq (table.grow $t (ref.func $twice) (i32.const 20)) (i32.const 10))
                (then (drop (call_indirect $t (param i32) (result i32) (i32.const 1) (i32.const 29)))))
            (data.drop $d)
            (memory.fill (i32.const 0) (i32.const 1) (i32.const 300))))"#;

    #[test]
    fn either_code_takes_the_same_fuel_for_bulk_operations() {
        let (result, message, fuel) = run(BULK, Tier::Optimized, 10_000);
        assert_eq!((result, message), (Ok(0), String::new()));
        assert!((480..600).contains(&fuel), "mostly bytes: {fuel}");
        // With too little it is used up in either, wherever that is; with all it needs it is at the end.
        for limit in (0..fuel + 10).step_by(7).chain([fuel - 1, fuel, fuel + 1]) {
            let baseline = run(BULK, Tier::Baseline, limit);
            assert_eq!(baseline, run(BULK, Tier::Optimized, limit), "of {limit} units");
            assert_eq!(
                baseline.0,
                if limit > fuel { Ok(0) } else { Err(ErrorKind::Fuel) },
                "of {limit} units"
            );
        }
        let out_of_bounds = "(module (memory 1) (func (export \"_start\")
            (memory.fill (i32.const 65535) (i32.const 1) (i32.const 2))))";
        for tier in [Tier::Baseline, Tier::Optimized] {
            let (result, message, _) = run(out_of_bounds, tier, 1_000);
            assert_eq!(result, Err(ErrorKind::Trap));
            assert!(message.ends_with("in function 0"), "{tier:?}: {message}");
        }
    }

    #[test]
    fn a_module_without_bulk_operations_stays_as_it_is() {
        let module = wat::parse_str(include_str!("../../../guest-examples/add/add.wat")).unwrap();
        assert!(matches!(metered(&module), Ok(Cow::Borrowed(_))));
    }
}
