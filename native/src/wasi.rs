//! Building for WASI: the same commands and makefiles, with compilers of the same names that make wasm.

mod hints;
mod probe;

use crate::bwrap_args::{BwrapArgs, FileInside};
use crate::tools::{TOOL_FOLDERS, stand_in};
pub use hints::explained;
use std::fmt;

/// The folder of the compilers, inside.
const TOOLS: &str = "/wasi/bin";

/// The folder of [`LIBRARY`], inside.
const LIBRARIES: &str = "/wasi/lib";

/// The library of what wasi-libc does not have. `compile.sh` links with it.
const LIBRARY: &str = "libcompat.a";

/// What stands in for all compilers and tools, but for what [`compile`] fills in.
const COMPILE: &str = include_str!("wasi/compile.sh");

/// What is in [`LIBRARY`].
const COMPAT: &str = include_str!("wasi/compat.c");

/// What calls a `main` that the C library does not: `compile.sh` compiles it where it is needed.
const MAIN: &str = include_str!("wasi/main.c");

/// The names of [`COMPILE`]: what it does goes by them. The linker is not among them: clang finds its own, and another
/// compiler, called by its path, is not to find that.
const NAMES: [&str; 14] = [
    "cc", "c++", "c89", "c99", "gcc", "g++", "clang", "clang++", "tcc", "ar", "nm", "objcopy", "ranlib",
    "strip",
];

/// Variables that makefiles go by where they name no compiler.
const VARIABLES: [(&str, &str); 3] = [("CC", "cc"), ("CXX", "c++"), ("AR", "ar")];

/// Stack of a program, in bytes: what its local variables may take. wasm-ld's own 64 KiB are used up by a buffer or
/// two; but each guest's stack is cleared after it, so that more costs each run.
const STACK_SIZE: u32 = 256 << 10;

/// What builds for WASI need beside the toolchain, which [`crate::Sandbox::probe_wasi`] has found to be there.
#[derive(Clone)]
pub struct Wasi {
    compiler: String,
    library: Vec<u8>,
}

impl Wasi {
    /// What to install where [`crate::Sandbox::probe_wasi`] fails.
    pub const REMEDY: &str =
        "apt-get install clang lld llvm wasi-libc libclang-rt-dev-wasm32, and libc++-dev-wasm32 for C++";

    /// What shapes programs for WASI beside their source and the toolchain.
    pub fn recipe() -> [String; 3] {
        [compile(), COMPAT.to_owned(), MAIN.to_owned()]
    }

    /// The languages and the compiler.
    pub fn compiler(&self) -> &str {
        &self.compiler
    }

    /// Puts its tools in front of the machine's; returns the files that make them.
    pub(crate) fn equip(&self, bwrap: &mut BwrapArgs) -> Vec<FileInside> {
        for (variable, name) in VARIABLES {
            bwrap.env(variable, name);
        }
        vec![
            stand_in(bwrap, TOOLS, &NAMES, compile()),
            (format!("{LIBRARIES}/{LIBRARY}"), "0444", self.library.clone()),
            (format!("{LIBRARIES}/main.c"), "0444", MAIN.into()),
        ]
    }
}

/// Commands in which each line calls the compiler of [`NAMES`] that it means: `/usr/bin/gcc`, `clang-14` and
/// `x86_64-linux-gnu-gcc` make programs for this machine.
pub fn redirected(commands: &str) -> String {
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        let is_before = |word: &str| word.contains('=') || matches!(word.trim(), "" | "env");
        let first = words.iter_mut().find(|word| !is_before(word));
        if let Some(word) = first
            && let Some(name) = own_name(word.trim())
        {
            *word = name;
        }
        words.join(" ")
    };
    commands.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// The name among [`NAMES`] of a tool that is called by its folder, its version or the machine that it is for.
fn own_name(word: &str) -> Option<&'static str> {
    let name = TOOL_FOLDERS.split(':').find_map(|folder| word.strip_prefix(folder)?.strip_prefix('/'));
    let name = name.unwrap_or(word);
    let is_version = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '.');
    let name =
        name.rsplit_once('-').filter(|(_, version)| is_version(version)).map_or(name, |(name, _)| name);
    let name = name.rsplit('-').next().unwrap_or(name);
    NAMES.into_iter().find(|own| *own == name)
}

impl fmt::Debug for Wasi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wasi({})", self.compiler)
    }
}

/// [`COMPILE`] with all that it leaves open.
fn compile() -> String {
    COMPILE.replace("@STACK_SIZE@", &STACK_SIZE.to_string()).replace("@LIBRARIES@", LIBRARIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_call_the_compilers_that_make_wasm() {
        for (commands, expected) in [
            ("gcc a.c -o a", "gcc a.c -o a"),
            ("/usr/bin/gcc a.c -o /usr/bin/gcc", "gcc a.c -o /usr/bin/gcc"),
            ("env LANG=C \tclang++-14 a.cpp", "env LANG=C clang++ a.cpp"),
            (
                "x86_64-linux-gnu-gcc-12.1 -c a.c\n ar rcs a.a a.o\n/bin/c99 a.a",
                "gcc -c a.c\n ar rcs a.a a.o\nc99 a.a",
            ),
            ("./gcc a.c", "./gcc a.c"),
            ("mkdir -p gcc-12", "mkdir -p gcc-12"),
        ] {
            assert_eq!(redirected(commands), expected, "{commands}");
        }
    }
}
