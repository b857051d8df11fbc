//! The guest examples: what each is expected to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;

use crate::built;

/// Text of a guest that prints a line and the beginning of another one, and sleeps for an hour.
pub const TALKS_AND_SLEEPS: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 256) "a line\nand more")
    (func (export "_start")
        (i32.store (i32.const 160) (i32.const 256))
        (i32.store (i32.const 164) (i32.const 15))
        (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))
        ;; A subscription at 0 to clock 1 (monotonic), timeout at 24; the event goes to 64, their number to 128.
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 3600000000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#;

/// Text of a guest that sleeps for half a second, and prints eight random bytes.
pub const SLEEPS: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 500000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
        (drop (call $random (i32.const 256) (i32.const 8)))
        (i32.store (i32.const 160) (i32.const 256))
        (i32.store (i32.const 164) (i32.const 8))
        (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))))"#;

/// Text of a guest that prints eight random bytes: no two runs print the same.
pub const RANDOM: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (drop (call $random (i32.const 256) (i32.const 8)))
        (i32.store (i32.const 160) (i32.const 256))
        (i32.store (i32.const 164) (i32.const 8))
        (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))))"#;

/// A program with its cases.
pub struct Guest {
    /// The folder's name.
    pub name: String,
    /// The built module.
    pub module: Bytes,
    /// What it has to do.
    pub cases: Vec<Case>,
}

/// One `[[case]]` of a `cases.toml`; `guest-examples/README.md` describes its fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Of a project: the program to run, where it is not the makefile's first.
    pub target: Option<String>,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    stdin: String,
    #[serde(default = "once")]
    stdin_repeat: usize,
    /// Limit in units of fuel.
    pub fuel: Option<u64>,
    /// Limit in bytes.
    pub memory: Option<u64>,
    /// Limit in milliseconds.
    pub timeout_ms: Option<u64>,
    stdout: Option<String>,
    #[serde(default = "once")]
    stdout_repeat: usize,
    /// What it must write to stderr; anything if `None`.
    pub stderr: Option<String>,
    #[serde(default)]
    exit_code: i32,
    error: Option<String>,
}

/// How a case has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// By itself.
    Exit {
        /// With this code.
        code: i32,
        /// Having printed this.
        stdout: Vec<u8>,
    },
    /// With an error of this kind.
    Error(String),
}

fn once() -> usize {
    1
}

impl Case {
    /// The whole input.
    pub fn stdin(&self) -> Vec<u8> {
        self.stdin.repeat(self.stdin_repeat).into_bytes()
    }

    /// How it has to end.
    pub fn expected(&self) -> Expected {
        match &self.error {
            Some(kind) => Expected::Error(kind.clone()),
            None => {
                let stdout = self.stdout.as_deref().unwrap_or_default();
                Expected::Exit {
                    code: self.exit_code,
                    stdout: stdout.repeat(self.stdout_repeat).into_bytes(),
                }
            }
        }
    }

    /// Whether it asks for limits of its own.
    pub fn has_limits(&self) -> bool {
        self.fuel.is_some() || self.memory.is_some() || self.timeout_ms.is_some()
    }

    fn check(&self) -> Result<()> {
        let ended = self.stdout.is_some() || self.stderr.is_some() || self.exit_code != 0;
        ensure!(
            self.error.is_some() != ended,
            "{}: either what it prints or an error is expected",
            self.name
        );
        ensure!(self.error.is_some() || self.stdout.is_some(), "{}: stdout is missing", self.name);
        Ok(())
    }
}

/// All guests, by name.
pub fn all() -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(built::guest_examples())? {
        let entry = entry?;
        let cases = entry.path().join("cases.toml");
        if cases.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let cases = read_cases(&cases)?;
            guests.push(Guest { module: module(&name)?, name, cases });
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!guests.is_empty(), "there are no guests");
    Ok(guests)
}

/// The module of one guest.
pub fn module(name: &str) -> Result<Bytes> {
    Ok(fs::read(built::guest(name)?)?.into())
}

/// What requests name a module by: as `sha256sum` prints it, so that the digest is not the project's own idea of it.
pub async fn digest(module: &[u8]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("module");
    fs::write(&file, module)?;
    let output = tokio::process::Command::new("sha256sum").arg(&file).output().await?;
    let text = String::from_utf8(output.stdout)?;
    Ok(format!("sha256:{}", text.split(' ').next().unwrap_or_default()))
}

/// The cases in a `cases.toml`.
pub fn read_cases(file: &Path) -> Result<Vec<Case>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cases {
        case: Vec<Case>,
    }
    let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let Cases { case } = toml::from_str(&text).with_context(|| format!("{}", file.display()))?;
    case.iter().try_for_each(Case::check).with_context(|| format!("{}", file.display()))?;
    Ok(case)
}
