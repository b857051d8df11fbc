//! What operators do before a gateway takes its first request: look at the machine, and make modules ready.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::{built, envelope, guest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

async fn offload_rt(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(built::program("offload-rt")?).args(arguments).kill_on_drop(true).output().await?)
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path of a test")
}

/// A compiler that adds a line to a file each time.
fn counting_compiler(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (compiler, log) = (folder.join("compiler"), folder.join("compiled"));
    let program = built::program("offload-rt")?;
    fs::write(
        &compiler,
        format!("#!/bin/sh\necho >>'{}'\nexec '{}' \"$@\"\n", log.display(), program.display()),
    )?;
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o700))?;
    Ok((compiler, log))
}

#[tokio::test]
async fn what_was_compiled_ahead_is_not_compiled_again() -> Result<()> {
    let folder = TempDir::new()?;
    let (data, module) = (folder.path().join("data"), built::guest("primes")?);
    let output = offload_rt(&["compile", "--data-dir", utf8(&data), "--json", utf8(&module)]).await?;
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(said["digest"], guest::digest(&fs::read(&module)?).await?);
    assert_eq!(said["bytes"], fs::metadata(&module)?.len());

    let (compiler, log) = counting_compiler(folder.path())?;
    let configuration = format!("[compiler]\nprogram = {compiler:?}\n");
    let gateway = Gateway::start_in(folder, &["--listen", "127.0.0.1:0"], &configuration).await?;
    let at_start = fs::read(&log)?.len();
    let mut device = Device::connect(gateway.address()?, Version::V5, "ready").await?;
    device.subscribe("result/ready").await?;
    let request =
        json!({ "module": envelope::bytes(fs::read(&module)?), "args": ["30"], "reply": "envelope" });
    let answer = envelope::read(&device.ask("inputCode/ready", request.to_string()).await?)?;
    assert_eq!(answer["status"], "ok", "{answer}");
    assert_eq!(fs::read(&log)?.len(), at_start, "it was compiled again");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_compiled_is_said_and_the_rest_is_kept() -> Result<()> {
    let folder = TempDir::new()?;
    let (data, bad) = (folder.path().join("data"), folder.path().join("bad.wasm"));
    fs::write(&bad, "\0asm nothing")?;
    let good = built::guest("hello")?;
    let output = offload_rt(&["compile", "--data-dir", utf8(&data), utf8(&bad), utf8(&good)]).await?;
    let (printed, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.starts_with(&format!("error: program `{}`: ", bad.display())), "{errors}");
    assert!(printed.contains("hello.wasm") && printed.lines().count() == 1, "{printed}");

    let gateway = Gateway::start_in(folder, &["--listen", "127.0.0.1:0"], "").await?;
    let output = offload_rt(&["compile", "--data-dir", utf8(&gateway.data_dir()), utf8(&good)]).await?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(errors.contains("is in use by another gateway"), "{errors}");
    Ok(())
}

#[tokio::test]
async fn the_digest_of_what_is_preloaded_is_enough_for_everybody() -> Result<()> {
    let module = built::guest("primes")?;
    let deployment = Deployment::embedded(&format!("[modules]\npreload = [{module:?}]\n")).await?;
    let digest = guest::digest(&fs::read(&module)?).await?;
    for id in ["one", "other"] {
        let mut device = deployment.device(Version::V5, id).await?;
        let request = json!({ "digest": digest, "args": ["30"], "reply": "envelope" });
        let answer = envelope::read(&device.ask(&format!("inputCode/{id}"), request.to_string()).await?)?;
        assert_eq!(answer["status"], "ok", "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn the_doctor_says_what_is_missing_and_what_to_do() -> Result<()> {
    let output = offload_rt(&["doctor"]).await?;
    let table = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "this machine has all that the tests need: {table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe: {table:?}");
    assert!(table.contains("compiler for WASI   ") && table.contains("C and C++, "), "{table}");

    let folder = TempDir::new()?;
    let configuration = folder.path().join("offload.toml");
    fs::write(&configuration, "[sandbox]\nbubblewrap = \"/there/is/none\"\n")?;
    let output = offload_rt(&["doctor", "--json", "--config", utf8(&configuration)]).await?;
    assert_eq!(output.status.code(), Some(1));
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let of = |name: &str| checks.iter().find(|check| check["check"] == name).context("a check");
    assert_eq!(of("room for guests")?["state"], "ok");
    // Which of both it is, the kernel says; a gateway has either.
    let clearing = of("memory of guests")?;
    assert!(["ok", "less"].contains(&clearing["state"].as_str().unwrap_or_default()), "{clearing}");
    assert!(clearing["found"].as_str().unwrap_or_default().contains("PAGEMAP_SCAN"), "{clearing}");
    let bubblewrap = of("sandbox: bubblewrap")?;
    assert_eq!(bubblewrap["state"], "missing");
    assert!(bubblewrap["remedy"].as_str().unwrap_or_default().contains("bubblewrap"), "{bubblewrap}");
    // What stands on it is no cause of its own, and has no remedy.
    let missing = checks.iter().filter(|check| check["state"] == "missing").count();
    assert_eq!(missing, 1, "{checks:?}");
    let rest = of("sandbox: the rest")?;
    assert_eq!((&rest["state"], &rest["remedy"]), (&json!("untried"), &json!("")), "{rest}");
    assert!(rest["found"].as_str().unwrap_or_default().starts_with("namespaces, no-privileges, "), "{rest}");
    let output = offload_rt(&["doctor", "--config", utf8(&configuration)]).await?;
    let table = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> =
        table.lines().skip_while(|line| !line.starts_with("sandbox: bubblewrap")).collect();
    assert!(lines[1].trim_start().starts_with("→ apt-get install bubblewrap"), "{table}");
    assert_eq!(lines.iter().filter(|line| line.contains('→')).count(), 1, "{table}");
    Ok(())
}

/// Without bubblewrap the demonstration leaves out what needs it, and says so.
#[tokio::test]
async fn the_demonstration_says_what_it_leaves_out() -> Result<()> {
    let mut demo = Command::new(built::program("offload-rt")?);
    let output = demo.arg("demo").env("PATH", "/nonexistent").kill_on_drop(true).output().await?;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{said}");
    let refused = said.lines().find(|line| line.contains("C and its makefile")).context("its line")?;
    assert!(
        refused.starts_with("--  C and its makefile") && refused.contains("error: unauthorized"),
        "{said}"
    );
    assert!(!said.contains("All came back right"), "{said}");
    let left_out = "All else came back right. Left out (--): C and its makefile, which this machine cannot contain:\n\n  \
                    no bubblewrap: bwrap is not there (apt-get install bubblewrap, 0.8 or newer)\n\nNext, ";
    assert!(said.contains(left_out), "{said}");
    Ok(())
}
