//! Sketches for an Arduino Uno, built as the Arduino IDE builds them, by Debian's compiler and core; and programs for
//! this machine.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};

use crate::{built, here, library};

/// Arduino's core for AVR boards, in Debian's package.
const CORE: &str = "/usr/share/arduino/hardware/arduino/avr";

/// What `platform.txt` and `boards.txt` there give both compilers for an Uno.
const BOARD: &[&str] = &[
    "-c",
    "-Os",
    "-flto",
    "-fno-fat-lto-objects",
    "-ffunction-sections",
    "-fdata-sections",
    "-mmcu=atmega328p",
    "-DF_CPU=16000000L",
    "-DARDUINO=10819",
    "-DARDUINO_AVR_UNO",
    "-DARDUINO_ARCH_AVR",
];

/// And the one for C++.
const CXX: &[&str] = &["-std=gnu++11", "-fpermissive", "-fno-exceptions", "-fno-threadsafe-statics"];

/// The core, as an archive.
static ARCHIVE: LazyLock<Result<PathBuf, String>> =
    LazyLock::new(|| archive().map_err(|error| format!("{error:#}")));

/// Builds a sketch with these definitions beside it, and returns its firmware.
pub fn sketch(file: &Path, name: &str, definitions: &[&str]) -> Result<PathBuf> {
    let archive = ARCHIVE.as_ref().map_err(|error| anyhow::Error::msg(error.clone()))?;
    let folder = built().join(name);
    fresh(&folder)?;
    let source = folder.join("sketch.cpp");
    // What the IDE puts in front of a sketch.
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    fs::write(&source, format!("#include <Arduino.h>\n#line 1 {file:?}\n{text}"))?;
    let sketch_folder = file.parent().context("a sketch lies in a folder")?;
    let mut compiler = compiler("avr-g++", &folder);
    compiler.args(CXX).args(["-Wall", "-Wextra", "-Werror"]).args(definitions);
    for include in [library().join("src"), here().join("stand_ins"), sketch_folder.into(), modules()?] {
        compiler.arg("-I").arg(include);
    }
    run(compiler.arg(source).args(sources(&library().join("src"), "cpp")?))?;

    let firmware = folder.join("sketch.elf");
    let mut linker = Command::new("avr-gcc");
    linker.args(["-Os", "-flto", "-fuse-linker-plugin", "-Wl,--gc-sections", "-mmcu=atmega328p", "-o"]);
    run(linker.arg(&firmware).args(sources(&folder, "o")?).arg(archive).arg("-lm"))?;
    Ok(firmware)
}

/// Builds a program for this machine from these sources.
pub fn program(compiler: &str, flags: &[&str], sources: &[PathBuf], name: &str) -> Result<PathBuf> {
    fs::create_dir_all(built())?;
    let program = built().join(name);
    // Not in the place of one that runs.
    let new = built().join(format!("{name}.new"));
    run(Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&new)
        .args(sources)
        .args(flags))?;
    fs::rename(new, &program)?;
    Ok(program)
}

/// The files of this ending in a folder and those below it.
pub fn sources(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path, ending)?);
        } else if path.extension() == Some(OsStr::new(ending)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn archive() -> Result<PathBuf> {
    let folder = built().join("core");
    fresh(&folder)?;
    let core = Path::new(CORE).join("cores/arduino");
    run(compiler("avr-gcc", &folder).args(["-w", "-std=gnu11"]).args(sources(&core, "c")?))?;
    // The limit is missing in this compiler's C++11; the core was written for a later one.
    let mut cxx = compiler("avr-g++", &folder);
    run(cxx.args(CXX).args(["-w", "-DDECIMAL_DIG=10"]).args(sources(&core, "cpp")?))?;
    let archive = folder.join("core.a");
    run(Command::new("avr-gcc-ar").arg("rcs").arg(&archive).args(sources(&folder, "o")?))?;
    Ok(archive)
}

/// A compiler that leaves its objects in this folder.
fn compiler(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command.current_dir(folder).args(BOARD);
    for include in ["cores/arduino", "variants/standard"] {
        command.arg(format!("-I{CORE}/{include}"));
    }
    command
}

/// The folder with `Module.h`: the guest `add`, in flash.
fn modules() -> Result<PathBuf> {
    static WRITTEN: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let write = || {
            let folder = built().join("modules");
            fs::create_dir_all(&folder)?;
            let guest = offload_tests::built::guest("add")?;
            let shown = Command::new("sha256sum").arg(&guest).output()?.stdout;
            let digest = String::from_utf8_lossy(&shown).split(' ').next().unwrap_or_default().to_owned();
            let bytes: Vec<String> = fs::read(guest)?.iter().map(u8::to_string).collect();
            let bytes = bytes.join(",");
            let text = format!(
                "const uint8_t MODULE[] PROGMEM = {{{bytes}}};\n#define DIGEST \"sha256:{digest}\"\n"
            );
            fs::write(folder.join("Module.h"), text)?;
            anyhow::Ok(folder)
        };
        write().map_err(|error| format!("{error:#}"))
    });
    WRITTEN.clone().map_err(anyhow::Error::msg)
}

fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir_all(folder)?)
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let output =
        command.output().with_context(|| format!("no {}: run `cargo xtask setup`", name.display()))?;
    ensure!(output.status.success(), "{}: {}", name.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
