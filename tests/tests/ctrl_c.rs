//! Ctrl-c in a program on a client's library has the gateway end the request: its slot is free for others.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use offload_tests::c_client::{CClient, STRICT};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::javascript_client::JavaScriptClient;
use offload_tests::sealing::{self, X25519, newest};
use offload_tests::{PATIENCE, built};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

/// One guest at a time, for longer than a test waits; the audit log shows when its request has come.
const ONE_GUEST: &str =
    "[workers]\ncount = 1\nslots = 1\n[limits]\nwall = \"10min\"\n[mirror]\nenabled = true\n";

/// Milliseconds that are longer than any test waits.
const FOR_EVER: &str = "500000";

#[tokio::test]
async fn python() -> Result<()> {
    let script = "import sys\n\
        from offload_client import Gateway\n\
        with Gateway(sys.argv[1]) as gateway:\n    \
            gateway.offload(sys.argv[2], [sys.argv[3]])\n";
    for python in [built::python()?, built::debians_python()?] {
        // A gateway that does not have the module yet.
        let deployment = Deployment::embedded(ONE_GUEST).await?;
        let url = format!("mqtt://{}", deployment.address());
        let mut command = Command::new(python);
        command.current_dir(folder("python/pyproject.toml")?).args(["-B", "-c", script, &url]).arg(sleep()?);
        ends_it(&deployment, &mut command).await?;
    }
    Ok(())
}

/// A task of asyncio that is cancelled, as ctrl-c cancels all of them; the gateway remembers it.
#[tokio::test]
async fn a_task_in_python() -> Result<()> {
    let script = "import asyncio, sys\n\
        from offload_client import AsyncGateway, Cancelled, NotFound\n\
        async def main():\n    \
            async with AsyncGateway(sys.argv[1]) as gateway:\n        \
                task = asyncio.create_task(gateway.run('sleep', [sys.argv[2]], id='task'))\n        \
                await asyncio.wait([task], timeout=0)\n        \
                try: await gateway.run('none')\n        \
                except NotFound: task.cancel()\n        \
                print((await gateway.run('add', ['5', '7'])).text, end='')\n        \
                try: await gateway.run('sleep', [sys.argv[2]], id='task')\n        \
                except Cancelled: print('cancelled')\n        \
                try: await gateway.cancel('task')\n        \
                except NotFound: print('not there')\n\
        asyncio.run(main())\n";
    let mut configuration = ONE_GUEST.to_owned();
    for name in ["add", "sleep"] {
        let file = built::guest(name)?;
        configuration += &format!("[[program]]\nname = \"{name}\"\nfile = {file:?}\n");
    }
    let deployment = Deployment::embedded(&configuration).await?;
    let mut command = Command::new(built::python()?);
    command.current_dir(folder("python/pyproject.toml")?).args(["-B", "-c", script]);
    command.arg(format!("mqtt://{}", deployment.address())).arg(FOR_EVER).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.context("it does not end")??;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "12\ncancelled\nnot there\n", "{output:?}");
    Ok(())
}

#[tokio::test]
async fn c() -> Result<()> {
    let deployment = Deployment::embedded(ONE_GUEST).await?;
    let client = CClient::build(STRICT)?;
    let mut command = Command::new(client.program("run"));
    command.env("OFFLOAD_PORT", deployment.address().port().to_string()).arg("127.0.0.1").arg(sleep()?);
    assert_eq!(ends_it(&deployment, &mut command).await?, Some(130));
    Ok(())
}

#[tokio::test]
async fn javascript() -> Result<()> {
    let deployment = Deployment::embedded(ONE_GUEST).await?;
    let client = JavaScriptClient::copy()?;
    let mut command = Command::new("node");
    command.arg(client.file("examples/ask.js")).arg(format!("mqtt://{}", deployment.address())).arg(sleep()?);
    assert_eq!(ends_it(&deployment, &mut command).await?, Some(130));
    Ok(())
}

/// What is sealed is cancelled sealed.
#[tokio::test]
async fn the_command_that_seals() -> Result<()> {
    let deployment = Deployment::embedded(ONE_GUEST).await?;
    let folder = tempfile::TempDir::new()?;
    let mut command = Command::new(built::program("offload-client")?);
    command.args(["--broker", &format!("mqtt://{}", deployment.address()), "send", "--seal"]);
    command.arg("--known-gateways").arg(folder.path().join("known")).arg(sleep()?);
    assert_eq!(ends_it(&deployment, &mut command).await?, Some(130));
    Ok(())
}

#[tokio::test]
async fn c_that_seals() -> Result<()> {
    let deployment = Deployment::embedded(ONE_GUEST).await?;
    let client = CClient::build(STRICT)?;
    let (_, keys) = sealing::device(deployment.address(), Version::V5, "d").await?;
    let key: String = newest(&keys, X25519)?.public.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = Command::new(client.program("run"));
    command.env("OFFLOAD_PORT", deployment.address().port().to_string()).env("OFFLOAD_SEAL_KEY", key);
    command.arg("127.0.0.1").arg(sleep()?);
    assert_eq!(ends_it(&deployment, &mut command).await?, Some(130));
    Ok(())
}

/// Starts a program that sends the module `sleep`, and interrupts it when the gateway has that. Returns its exit code.
async fn ends_it(deployment: &Deployment, command: &mut Command) -> Result<Option<i32>> {
    let mut watch = Device::connect(deployment.address(), Version::V5, "watch").await?;
    watch.subscribe("gateway/+/jobs").await?;
    let mut program = command.arg(FOR_EVER).kill_on_drop(true).spawn()?;
    let mut sealed = 0;
    loop {
        let line: Value = serde_json::from_slice(&watch.message().await?.payload)?;
        sealed += usize::from(line["event"] == "request" && line["code"] == "sealed");
        // Its digest comes first, which the gateway does not have.
        if sealed == 2 || (&line["event"], &line["code"]) == (&json!("request"), &json!("module")) {
            break;
        }
    }
    let id = program.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it has ended")?;
    kill_process(id, Signal::INT)?;
    let status = timeout(PATIENCE, program.wait()).await.context("it does not end")??;
    ensure!(!status.success(), "{status}");
    let mut other = deployment.device(Version::V5, "other").await?;
    assert_eq!(other.ask("localCode/other", "5 7").await?.text(), "12\n");
    Ok(status.code())
}

fn sleep() -> Result<PathBuf> {
    built::guest("sleep")
}

/// The folder of a client's file.
fn folder(file: &str) -> Result<PathBuf> {
    let mut folder = built::client(file)?;
    folder.pop();
    Ok(folder)
}
