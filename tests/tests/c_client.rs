//! The client in C: its examples, what it allocates, its manual. What all clients do is in `client_conformance.rs`.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use offload_tests::c_client::{CClient, STRICT};
use offload_tests::deployment::Deployment;
use offload_tests::{PATIENCE, built};
use tokio::process::Command;
use tokio::time::timeout;

async fn run(mut command: Command) -> Result<Output> {
    command.kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.context("it does not end")?.context("it cannot be run")
}

/// An example with these arguments, and what it prints on each stream.
async fn example(
    c: &CClient,
    deployment: &Deployment,
    name: &str,
    arguments: &[&str],
) -> Result<(i32, String)> {
    let mut command = Command::new(c.program(name));
    command.arg("127.0.0.1").args(arguments).env("OFFLOAD_PORT", deployment.address().port().to_string());
    let output = run(command).await?;
    let shown = [&output.stdout[..], &output.stderr].concat();
    Ok((output.status.code().context("it has ended by itself")?, String::from_utf8(shown)?))
}

/// Blocking use, and an event loop with many requests in flight.
#[tokio::test]
async fn the_examples_do_what_they_say() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let c = CClient::build(STRICT)?;
    let sleep = built::guest("sleep")?;
    let sleep = sleep.to_str().context("a path is not UTF-8")?;
    for (name, arguments, code, shown) in [
        ("run", &["add", "5", "7"][..], 0, "12\n"),
        ("run", &[sleep, "1"], 0, "awake\n"),
        ("run", &["add", "5", "x"], 1, "add: not a 64-bit integer: x\n"),
        ("run", &["none"], 1, "error: not-found: no program `none`; there are: add\n"),
        ("run", &["none.wasm"], 1, "error: cannot read none.wasm\n"),
        ("events", &["1000"], 0, "500500\n"),
    ] {
        let said = example(&c, &deployment, name, arguments).await?;
        assert_eq!(said, (code, shown.to_owned()), "{name} {arguments:?}");
    }
    Ok(())
}

/// No allocation after `offload_open` but for answers; libmosquitto's own are not counted.
#[tokio::test]
async fn it_allocates_for_answers_alone() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let c = CClient::build(STRICT)?;
    let source = built::client("../tests/c/allocations.c")?;
    let header = built::client("c/offload_client.h")?;
    let program = c.program("allocations");
    let mut compiler = Command::new("cc");
    compiler.arg("-I").args(header.parent()).arg("-o").arg(&program).arg(source);
    compiler.arg(c.program("liboffload_client.a")).args(["-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc"]);
    let compiled = run({
        compiler.args(["-lmosquitto", "-lsodium"]);
        compiler
    })
    .await?;
    ensure!(compiled.status.success(), "{compiled:?}");
    let mut command = Command::new(program);
    command.arg(deployment.address().port().to_string());
    let counted = run(command).await?;
    assert_eq!(String::from_utf8(counted.stdout)?, "open 1, send 0, answers 20\n");
    Ok(())
}

/// The manual has no mistake that mandoc finds, and every function.
#[tokio::test]
async fn the_manual_is_whole() -> Result<()> {
    let manual = built::client("c/offload_client.3")?;
    let mut lint = Command::new("mandoc");
    lint.args(["-T", "lint", "-W", "warning"]).arg(&manual);
    let linted = run(lint).await?;
    ensure!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    let text = std::fs::read_to_string(manual)?;
    let header = std::fs::read_to_string(built::client("c/offload_client.h")?)?;
    for line in header.lines().filter(|line| line.contains(" offload_") || line.contains("*offload_")) {
        let Some((before, _)) = line.split_once('(') else { continue };
        let name = before.rsplit([' ', '*']).next().unwrap_or_default();
        if name.starts_with("offload_") && !line.starts_with(' ') {
            ensure!(text.contains(name), "{name} is not in the manual");
        }
    }
    Ok(())
}
