//! What a build is for, and what follows from that.

use crate::bwrap_args::{BwrapArgs, FileInside};
use crate::compilers::Compilers;
use crate::wasi::{self, Wasi};

/// What a build is for.
#[derive(Clone, Copy, Debug)]
pub enum Platform<'a> {
    /// This machine: [`crate::Sandbox::run`] runs it.
    Native,
    /// WASI: the program is a wasm module.
    Wasi(&'a Wasi),
}

impl Platform<'_> {
    /// Has the build find its compilers, those for this machine by choice; returns the files that it needs for that.
    pub(crate) fn equip(self, compilers: Compilers, bwrap: &mut BwrapArgs) -> Vec<FileInside> {
        match self {
            Platform::Native => compilers.equip(bwrap),
            Platform::Wasi(wasi) => wasi.equip(bwrap),
        }
    }

    /// The three letters in a program's first four bytes.
    pub(crate) fn format(self) -> &'static str {
        match self {
            Platform::Native => "ELF",
            Platform::Wasi(_) => "asm",
        }
    }

    /// Commands that call a compiler, by whatever name, as they call the platform's.
    pub(crate) fn redirected(self, commands: &str) -> String {
        match self {
            Platform::Native => commands.to_owned(),
            Platform::Wasi(_) => wasi::redirected(commands),
        }
    }

    /// Refuses what no machine of this kind could run: started natively, it would look like a fault of the sandbox.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn check(self, program: &[u8]) -> Result<(), &'static str> {
        match self {
            Platform::Native if program.starts_with(b"\x7fELF") => Ok(()),
            Platform::Native => Err("what the build left is no executable program"),
            Platform::Wasi(_) if program.starts_with(b"\0asm") => Ok(()),
            Platform::Wasi(_) if program.starts_with(b"\x7fELF") => Err(
                "what the build left is no wasm: for WASI it has to call cc, gcc, clang or c++ by these names alone",
            ),
            Platform::Wasi(_) => Err("what the build left is no wasm"),
        }
    }
}
