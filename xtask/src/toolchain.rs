//! Compilers that make wasm of C and of Rust: which of the known ways this machine offers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cargo, find, first_line, succeeds};

/// The target of all guests: WASI preview 1 commands.
const RUST_TARGET: &str = "wasm32-wasip1";

/// The target of what a page runs: without a system, so that it imports nothing.
const PAGE_TARGET: &str = "wasm32-unknown-unknown";

/// Where Debian's wasi-libc keeps its libraries.
const DEBIAN_WASI_LIBRARIES: &str = "/usr/lib/wasm32-wasi";

/// A way to compile C.
pub enum C {
    /// clang with a WASI C library, as Debian packages them.
    Clang,
    /// The zig compiler as a Python package: everything in one, for all other systems.
    Zig {
        /// The Python that has it.
        python: PathBuf,
    },
}

impl C {
    /// The first way that really compiles a program: what is missing is most often a library, not the compiler.
    pub fn find() -> Option<C> {
        let python = find("python3").or_else(|| find("python"));
        let ways = [Some(C::Clang), python.map(|python| C::Zig { python })];
        ways.into_iter().flatten().find(C::works)
    }

    fn works(&self) -> bool {
        let folder = std::env::temp_dir().join(format!("offload-xtask-{}", std::process::id()));
        let (source, output) = (folder.join("probe.c"), folder.join("probe.wasm"));
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            std::fs::write(&source, "#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n")
        });
        let works = written.is_ok() && succeeds(self.compile(&output).arg(&source));
        // It is in the folder for temporary files: what cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&folder);
        works
    }

    /// The command that compiles and links the sources still to be added to it.
    pub fn compile(&self, output: &Path) -> Command {
        let mut command = match self {
            C::Clang => {
                let mut clang = Command::new("clang");
                clang.args(["--target=wasm32-wasi", "-nostdlibinc", "-isystem", "/usr/include/wasm32-wasi"]);
                clang
            }
            C::Zig { python } => {
                let mut zig = Command::new(python);
                zig.args(["-m", "ziglang", "cc", "--target=wasm32-wasi"]);
                zig
            }
        };
        command.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wl,--strip-all", "-o"]).arg(output);
        command
    }

    /// For people.
    pub fn describe(&self) -> String {
        match self {
            C::Clang => first_line(Command::new("clang").arg("--version")).unwrap_or_default(),
            C::Zig { python } => format!("zig, by {}", python.display()),
        }
    }
}

/// A way to compile Rust.
pub enum Rust {
    /// The target's standard library came with the toolchain.
    Installed,
    /// Debian's compiler builds the standard library from its own sources: no download of a target is needed.
    Debian {
        /// LLVM's linker.
        linker: PathBuf,
    },
}

impl Rust {
    /// The first way that has all its parts.
    pub fn find() -> Option<Rust> {
        Self::find_installed().or_else(Self::find_debian)
    }

    fn find_installed() -> Option<Rust> {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let libraries = first_line(rustc.args(["--print", "target-libdir", "--target", RUST_TARGET]))?;
        Path::new(&libraries).is_dir().then_some(Rust::Installed)
    }

    fn find_debian() -> Option<Rust> {
        let root = first_line(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
        let sources = Path::new(&root).join("lib/rustlib/src/rust/library/Cargo.lock");
        let start = Path::new(DEBIAN_WASI_LIBRARIES).join("crt1-command.o");
        // Debian names the newer ones by their version only.
        let linker = find("wasm-ld")
            .or_else(|| (14..30).rev().find_map(|version| find(&format!("wasm-ld-{version}"))))?;
        (sources.is_file() && start.is_file()).then_some(Rust::Debian { linker })
    }

    /// Builds all programs of a workspace, in release mode, and returns the folder that they are in.
    pub fn build(&self, workspace: &Path, target_dir: &Path) -> Result<PathBuf> {
        let mut build = self.cargo(workspace, RUST_TARGET, target_dir);
        build.args(["--workspace", "--bins"]);
        if let Rust::Debian { .. } = self {
            let libraries = DEBIAN_WASI_LIBRARIES;
            let flags = [
                "-Clink-self-contained=no".to_owned(),
                format!("-Lnative={libraries}"),
                format!("-Clink-arg={libraries}/crt1-command.o"),
                "-Clink-arg=-lc".to_owned(),
            ];
            build.env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", flags.join(" "));
        }
        crate::process::run(&mut build).context("the Rust guests cannot be built")?;
        Ok(target_dir.join(RUST_TARGET).join("release"))
    }

    /// Builds a package's library as a module that imports nothing, in release mode, and returns the folder that it is
    /// in.
    pub fn build_module(&self, workspace: &Path, package: &str, target_dir: &Path) -> Result<PathBuf> {
        let mut build = self.cargo(workspace, PAGE_TARGET, target_dir);
        // What a page has no use for is half of the module.
        build.args(["--package", package, "--lib"]).env("CARGO_PROFILE_RELEASE_STRIP", "true");
        let hint =
            format!("{package} cannot be built; rustup has its target by: rustup target add {PAGE_TARGET}");
        crate::process::run(&mut build).context(hint)?;
        Ok(target_dir.join(PAGE_TARGET).join("release"))
    }

    /// The command that builds what is still to be added to it.
    fn cargo(&self, workspace: &Path, target: &str, target_dir: &Path) -> Command {
        let mut build = cargo(workspace);
        build
            .args(["build", "--release", "--locked", "--quiet", "--target", target, "--target-dir"])
            .arg(target_dir);
        if let Rust::Debian { linker } = self {
            build.arg("-Zbuild-std=std,panic_abort");
            build.env("RUSTC", DEBIAN_RUSTC);
            // What lets a released compiler build its own standard library.
            build.env("RUSTC_BOOTSTRAP", "1");
            let target = target.replace('-', "_").to_uppercase();
            build.env(format!("CARGO_TARGET_{target}_LINKER"), linker);
        }
        build
    }

    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Rust::Installed => format!("the toolchain's own {RUST_TARGET}"),
            Rust::Debian { linker } => {
                let version = first_line(Command::new(DEBIAN_RUSTC).arg("--version")).unwrap_or_default();
                format!(
                    "{DEBIAN_RUSTC} ({version}) builds the standard library, linked by {}",
                    linker.display()
                )
            }
        }
    }
}

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
