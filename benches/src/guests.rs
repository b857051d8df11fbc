//! The modules that are measured: guest examples, and some that are made here.

use anyhow::{Context, Result, bail};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasm_encoder::{
    BlockType, CodeSection, CustomSection, Encode, ExportKind, ExportSection, Function, FunctionSection,
    MemArg, MemorySection, MemoryType, Module, Section, TypeSection, ValType,
};

/// Never ends. It calls a function again and again, so that its count of fuel is kept up to date in memory.
const ENDLESS: &str = r#"
(module
  (memory (export "memory") 1)
  (func $count (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func (export "_start") (loop $for_ever (call $count) (br $for_ever))))
"#;

/// Does nothing.
pub const EMPTY: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// Cases of each function of an [`interpreter_like`] module.
const CASES: u32 = 64;

/// The built guest examples.
pub struct Guests {
    folder: PathBuf,
}

impl Guests {
    /// Beside this program, where `cargo xtask guests` puts them: `<target directory>/guests`.
    pub fn find() -> Result<Guests> {
        let program = std::env::current_exe()?;
        let target = program.parent().and_then(|profile| profile.parent());
        Ok(Guests { folder: target.context("this program lies outside cargo's folders")?.join("guests") })
    }

    /// The module or component of a guest example.
    pub fn load(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.folder.join(name).with_extension("wasm");
        if !file.is_file() {
            bail!("{} is not built: run `cargo xtask guests`", file.display());
        }
        Ok(std::fs::read(file)?)
    }
}

/// Runs until it is ended.
pub fn endless() -> Result<Vec<u8>> {
    Ok(wat::parse_str(ENDLESS)?)
}

/// The text of a guest that computes: it goes through a loop this many times.
pub fn computing(times: u32) -> String {
    format!(
        r#"(module
    (memory (export "memory") 1)
    (func $count (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
    (func (export "_start")
        (loop $again
            (call $count)
            (br_if $again (i32.lt_u (i32.load (i32.const 0)) (i32.const {times}))))))"#
    )
}

/// The text of a guest that sleeps for as long.
pub fn sleeping(time: Duration) -> String {
    let nanos = time.as_nanos();
    // A subscription at 0 to clock 1, the monotonic one, with its timeout at 24; the event goes to 64.
    format!(
        r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const {nanos}))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#
    )
}

/// The same module or component under a digest that nobody has seen: another section of no meaning at its end.
pub fn never_seen(module: &[u8]) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let section = CustomSection { name: "benchmark".into(), data: Cow::Borrowed(&number) };
    let mut bytes = module.to_vec();
    bytes.push(section.id());
    section.encode(&mut bytes);
    bytes
}

/// A module of at least this many bytes, each time the same, whose functions are what an interpreter's main loop is: a
/// switch in a loop over memory. It prints nothing and ends at once.
pub fn interpreter_like(bytes: usize) -> Vec<u8> {
    let functions = bytes.div_ceil(interpreter_loop(0).byte_len()) as u32;
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    let (mut indices, mut code) = (FunctionSection::new(), CodeSection::new());
    indices.function(0);
    let mut start = Function::new([]);
    start.instructions().end();
    code.function(&start);
    for seed in 0..functions {
        indices.function(1);
        code.function(&interpreter_loop(seed));
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("_start", ExportKind::Func, 0).export("memory", ExportKind::Memory, 0);
    let mut module = Module::new();
    module.section(&types).section(&indices).section(&memories).section(&exports).section(&code);
    module.finish()
}

/// Goes on while the byte that it has read is not the last case's.
fn interpreter_loop(seed: u32) -> Function {
    const PROGRAM_COUNTER: u32 = 0;
    let at = |offset: u32| MemArg { offset: u64::from(offset * 4), align: 2, memory_index: 0 };
    let mut function = Function::new([]);
    let mut body = function.instructions();
    body.loop_(BlockType::Empty);
    for _ in 0..CASES {
        body.block(BlockType::Empty);
    }
    let targets: Vec<u32> = (0..CASES - 1).collect();
    body.local_get(PROGRAM_COUNTER).i32_load8_u(MemArg { offset: 0, align: 0, memory_index: 0 });
    body.br_table(targets, CASES - 1);
    for case in 0..CASES {
        body.end();
        let operand = case.wrapping_mul(31).wrapping_add(seed.wrapping_mul(17)) % 4_096;
        body.i32_const(0).i32_const(0).i32_load(at(operand)).i32_const(operand as i32);
        match case % 4 {
            0 => body.i32_add(),
            1 => body.i32_xor(),
            2 => body.i32_mul(),
            _ => body.i32_rotl(),
        };
        body.i32_store(at(operand + 1));
        body.local_get(PROGRAM_COUNTER).i32_const(1).i32_add().local_set(PROGRAM_COUNTER);
        if case + 1 < CASES {
            // Out of the blocks of the cases that are still open, to the loop.
            body.br(CASES - 1 - case);
        }
    }
    body.end().local_get(PROGRAM_COUNTER).end();
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_here_is_valid() {
        let made = interpreter_like(20_000);
        assert!((20_000..30_000).contains(&made.len()), "{}", made.len());
        let texts = [EMPTY, &computing(7), &sleeping(Duration::from_millis(1))];
        for text in texts {
            wasmparser::validate(&wat::parse_str(text).unwrap()).unwrap();
        }
        for module in [endless().unwrap(), never_seen(&made)] {
            wasmparser::validate(&module).unwrap();
        }
        assert_ne!(never_seen(&made), never_seen(&made));
    }
}
