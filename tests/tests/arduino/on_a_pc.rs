//! The library on this machine, with sanitizers, over a connection that the cases play (`pc/cases.cpp`).

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{here, library, toolchain};

#[test]
fn its_cases_pass() -> Result<()> {
    let mut sources = toolchain::sources(&library().join("src"), "cpp")?;
    sources.push(here().join("pc/cases.cpp"));
    let includes =
        [library().join("extras/pc"), library().join("src")].map(|folder| format!("-I{}", folder.display()));
    let flags = [
        "-std=c++11",
        "-Og",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        &includes[0],
        &includes[1],
    ];
    let cases = toolchain::program("g++", &flags, &sources, "cases")?;
    let output = Command::new(cases).output()?;
    let shown = [&output.stdout[..], &output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&shown));
    Ok(())
}
