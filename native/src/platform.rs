//! What a build is for, and what follows from that.

use crate::bwrap_args::{BwrapArgs, FileInside};
use crate::compilers::Compilers;
use crate::diagnostics;
use crate::error::Error;
use crate::hints::Hints;
use crate::wasi::{self, Wasi};
use std::path::{Path, PathBuf};

/// Where this machine's compilers are, as `PATH` has it.
pub const TOOL_FOLDERS: &str = "/usr/local/bin:/usr/bin:/bin";

/// Puts a folder in front of this machine's compilers, in which one script, the file that is returned, has all these
/// names.
pub fn stand_in(bwrap: &mut BwrapArgs, folder: &str, names: &[&str], script: String) -> FileInside {
    bwrap.env("PATH", &format!("{folder}:{TOOL_FOLDERS}"));
    let (name, others) = names.split_first().expect("it has a name");
    for other in others {
        bwrap.add(["--symlink", name, &format!("{folder}/{other}")]);
    }
    (format!("{folder}/{name}"), "0555", script.into_bytes())
}

/// Where a tool of this machine's is.
pub fn tool(name: &str) -> Option<PathBuf> {
    TOOL_FOLDERS.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

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
    pub(crate) fn check(self, program: &[u8]) -> Result<(), Error> {
        let problem = match self {
            Platform::Native if program.starts_with(b"\x7fELF") => return Ok(()),
            Platform::Native => "what the build left is no executable program",
            Platform::Wasi(_) if program.starts_with(b"\0asm") => return Ok(()),
            Platform::Wasi(_) if program.starts_with(b"\x7fELF") => {
                "what the build left is no wasm: for WASI it has to call cc, gcc, clang or c++ by these names alone"
            }
            Platform::Wasi(_) => "what the build left is no wasm",
        };
        Err(self.failed(format!("error: {problem}").as_bytes(), &Hints::default()))
    }

    /// A build that failed, having said this.
    pub(crate) fn failed(self, output: &[u8], hints: &Hints<'_>) -> Error {
        let explained = hints.explain(&String::from_utf8_lossy(output), self);
        let output = explained.as_bytes();
        Error::Build { first: diagnostics::first_error(output), output: diagnostics::cleaned(output) }
    }
}
