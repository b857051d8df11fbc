//! What the library takes of an ATmega328P, and that all examples compile for one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{here, library, toolchain};

/// What it may take beside an empty sketch, in bytes: of 32 KB of flash, and of 2 KB of RAM. The buffer for the answer
/// is the caller's.
const FLASH: usize = 10 * 1024;
const RAM: usize = 500;

#[test]
fn the_library_leaves_a_small_board_most_of_its_memory() -> Result<()> {
    let built = |name: &str| {
        toolchain::sketch(&here().join(format!("sketches/{name}/{name}.ino")), &name.to_lowercase(), &[])
    };
    let (empty, full) = (size(&built("Empty")?)?, size(&built("Footprint")?)?);
    let (flash, ram) = (full.flash - empty.flash, full.ram - empty.ram);
    println!("the library takes {flash} of {FLASH} bytes of flash, and {ram} of {RAM} bytes of RAM");
    ensure!(flash <= FLASH, "{flash} bytes of flash");
    ensure!(ram <= RAM, "{ram} bytes of RAM");
    Ok(())
}

#[test]
fn its_examples_compile_and_fit() -> Result<()> {
    let examples = toolchain::sources(&library().join("examples"), "ino")?;
    ensure!(examples.len() >= 6, "{examples:?}");
    for file in examples {
        let name = file.file_stem().and_then(|name| name.to_str()).context("a name is not UTF-8")?;
        let size = size(&toolchain::sketch(&file, &format!("compiled-{name}"), &[])?)?;
        println!("{name} takes {} bytes of flash, and {} of RAM", size.flash, size.ram);
        // What a stack needs.
        ensure!(size.flash <= 32 * 1024 && size.ram <= 2048 - 512, "{name} is too large");
    }
    Ok(())
}

/// What the IDE finds the library by, and colours: each word is one of its headers.
#[test]
fn its_keywords_are_in_its_headers() -> Result<()> {
    let read = |file: &Path| std::fs::read_to_string(file).with_context(|| file.display().to_string());
    let headers: Vec<String> = toolchain::sources(&library().join("src"), "h")?
        .iter()
        .map(|file| read(file))
        .collect::<Result<_>>()?;
    let headers = headers.concat();
    for line in read(&library().join("keywords.txt"))?.lines() {
        let (word, kind) = line.split_once('\t').context("a word and its kind have a tab between them")?;
        ensure!(["KEYWORD1", "KEYWORD2", "LITERAL1"].contains(&kind), "{line}");
        ensure!(headers.contains(word), "no header has {word}");
    }
    Ok(())
}

/// Of a firmware, by `avr-size`.
struct Size {
    /// Code, constants, and the first values of variables.
    flash: usize,
    /// Variables.
    ram: usize,
}

fn size(firmware: &Path) -> Result<Size> {
    let output = Command::new("avr-size").arg(firmware).output().context("no avr-size")?;
    let shown = String::from_utf8(output.stdout)?;
    let row = shown.lines().nth(1).context("no second line")?;
    let columns: Vec<usize> = row.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let [text, data, bss, ..] = columns[..] else { anyhow::bail!("{shown}") };
    Ok(Size { flash: text + data, ram: data + bss })
}
