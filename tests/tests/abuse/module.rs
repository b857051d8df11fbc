//! The modules that are sent, as text.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Prints this text, in which WebAssembly's escapes may stand, and ends.
pub struct Printer<T: AsRef<str>>(pub T);

impl<T: AsRef<str>> Printer<T> {
    pub fn wasm(&self) -> Result<Vec<u8>> {
        let text = self.0.as_ref();
        let length = text.replace("\\n", "\n").len();
        Ok(wat::parse_str(format!(
            "(module
                (import \"wasi_snapshot_preview1\" \"fd_write\"
                    (func $write (param i32 i32 i32 i32) (result i32)))
                (memory (export \"memory\") 1)
                (data (i32.const 64) \"{text}\")
                (func (export \"_start\")
                    (i32.store (i32.const 0) (i32.const 64))
                    (i32.store (i32.const 4) (i32.const {length}))
                    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))))"
        ))?)
    }

    /// What requests name it by: as `sha256sum` prints it.
    pub fn digest(&self) -> Result<String> {
        let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin is a pipe")?.write_all(&self.wasm()?)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "sha256sum failed");
        let text = String::from_utf8(output.stdout)?;
        Ok(format!("sha256:{}", text.split(' ').next().unwrap_or_default()))
    }
}

/// The same module under another digest: a custom section is added, which nothing reads.
pub fn numbered(module: &[u8], number: u64) -> Vec<u8> {
    let mut numbered = module.to_vec();
    numbered.extend([0, 10, 1, b'n']);
    numbered.extend(number.to_be_bytes());
    numbered
}

/// Sleeps, and ends.
pub fn sleeper(seconds: u64) -> Result<Vec<u8>> {
    let nanoseconds = seconds * 1_000_000_000;
    Ok(wat::parse_str(format!(
        "(module
            (import \"wasi_snapshot_preview1\" \"poll_oneoff\"
                (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export \"memory\") 1)
            (func (export \"_start\")
                ;; A subscription to the monotonic clock, relative.
                (i32.store8 (i32.const 8) (i32.const 0))
                (i32.store (i32.const 16) (i32.const 1))
                (i64.store (i32.const 24) (i64.const {nanoseconds}))
                (drop (call $poll (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))))"
    ))?)
}

/// Grows its memory as far as it may at once, fills it, and ends before a slice would.
pub fn grow_and_fill() -> Result<Vec<u8>> {
    Ok(wat::parse_str(
        "(module
            (memory (export \"memory\") 1)
            (func (export \"_start\")
                (drop (memory.grow (i32.const 1007)))
                (memory.fill (i32.const 0) (i32.const 1) (i32.const 66060288))))",
    )?)
}

/// Calls the socket functions on descriptors that are none, again and again.
pub fn socket_calls() -> Result<Vec<u8>> {
    Ok(wat::parse_str(
        "(module
            (import \"wasi_snapshot_preview1\" \"sock_shutdown\"
                (func $shutdown (param i32 i32) (result i32)))
            (memory (export \"memory\") 1)
            (func (export \"_start\") (local $left i32)
                (local.set $left (i32.const 100000))
                (loop $again
                    (drop (call $shutdown (i32.const 0) (i32.const 1)))
                    (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))",
    )?)
}

/// Holds this many bytes of data, and ends at once.
pub fn with_data(bytes: usize) -> Result<Vec<u8>> {
    let (text, pages) = ("x".repeat(bytes), bytes.div_ceil(64 * 1024));
    Ok(wat::parse_str(format!(
        "(module (memory (export \"memory\") {pages}) (data (i32.const 0) \"{text}\") (func (export \"_start\")))"
    ))?)
}

/// Has this many functions of some 3 KB each, of which none is called: nearly all of its time is the compiler's.
pub fn functions(count: usize) -> Result<Vec<u8>> {
    const STEPS: usize = 300;
    let step = "(local.set 0 (i32.xor (i32.mul (local.get 0) (local.get 1)) (i32.load (local.get 0))))";
    let function = format!("(func (param i32 i32) (result i32) {} (local.get 0))", step.repeat(STEPS));
    Ok(wat::parse_str(format!(
        "(module (memory (export \"memory\") 1) {} (func (export \"_start\")))",
        function.repeat(count)
    ))?)
}

/// A component that goes down this many calls, then asks the host for a list: to place it, the host calls the
/// component's `realloc`, which recurses until its stack ends.
pub fn reentry(depth: u32) -> Result<Vec<u8>> {
    Ok(wat::parse_str(format!(
        "(component
            (import \"wasi:random/random@0.2.0\" (instance $random
                (export \"get-random-bytes\" (func (param \"len\" u64) (result (list u8))))))

            (core module $allocator
                (memory (export \"memory\") 1)
                (func $endless (param i32) (result i32)
                    (i32.add (i32.const 1) (call $endless (i32.add (local.get 0) (i32.const 1)))))
                (func (export \"realloc\") (param i32 i32 i32 i32) (result i32)
                    (call $endless (i32.const 0))))
            (core instance $allocator (instantiate $allocator))
            (alias core export $allocator \"memory\" (core memory $memory))
            (alias core export $allocator \"realloc\" (core func $realloc))

            (core func $ask (canon lower (func $random \"get-random-bytes\")
                (memory $memory) (realloc $realloc)))
            (core module $program
                (import \"host\" \"ask\" (func $ask (param i64 i32)))
                (func $down (param i32) (result i32)
                    (if (i32.eqz (local.get 0)) (then
                        (call $ask (i64.const 64) (i32.const 0))
                        (return (i32.const 0))))
                    (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1)))))
                (func (export \"run\") (result i32)
                    (drop (call $down (i32.const {depth})))
                    (i32.const 0)))
            (core instance $program (instantiate $program
                (with \"host\" (instance (export \"ask\" (func $ask))))))

            (func $run (result (result)) (canon lift (core func $program \"run\")))
            (instance $command (export \"run\" (func $run)))
            (export \"wasi:cli/run@0.2.0\" (instance $command)))"
    ))?)
}
