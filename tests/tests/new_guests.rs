//! What `offload-client new` makes, in each language: it is built with that language's tools, which `cargo xtask setup`
//! installs, and its own cases hold at a gateway.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::gateway::Gateway;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// A module with an interpreter takes half a minute to build, and as long to compile, of a machine that does nothing
/// else.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test]
async fn rust() -> Result<()> {
    works("rust", &rust_environment().await?).await
}

#[tokio::test]
async fn c() -> Result<()> {
    works("c", &[]).await
}

#[tokio::test]
async fn zig() -> Result<()> {
    works("zig", &[]).await
}

#[tokio::test]
async fn go() -> Result<()> {
    works("go", &[]).await
}

#[tokio::test]
async fn python() -> Result<()> {
    works("python", &[]).await
}

#[tokio::test]
async fn javascript() -> Result<()> {
    works("javascript", &[]).await
}

/// Types what the command says is next, until the cases have run.
async fn works(lang: &str, environment: &[(&str, OsString)]) -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let folder = TempDir::new()?;
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        shell.env("OFFLOAD_BROKER", format!("mqtt://{}", gateway.address()?));
        shell.env("OFFLOAD_CONFIG", "/dev/null").env("PATH", path()?);
        shell.envs(environment.iter().map(|(name, value)| (name, value)));
        Ok::<_, anyhow::Error>(shell)
    };
    let made = shown(shell(&format!("offload-client new --no-build --lang {lang} sum"))?).await?;
    ensure!(made.ends_with("next: sh sum/build.sh, then sh sum/test.sh\n"), "{made}");
    if lang == "javascript" {
        // As `npm install` leaves it.
        symlink(built::node()?.join("guest/node_modules"), folder.path().join("sum/node_modules"))?;
    }
    shown(shell("sh sum/build.sh")?).await?;
    let cases = shown(shell("sh sum/test.sh")?).await?;
    ensure!(cases.lines().count() == 4 && cases.lines().all(|line| line.starts_with("ok: ")), "{cases}");
    // A case that does not hold is told, and fails.
    let broken = shell("sed -i 's/^expect 12 /expect 13 /' sum/test.sh && sh sum/test.sh")?;
    let failed = shown(broken).await.err().context("a wrong case holds")?.to_string();
    ensure!(failed.contains("FAILED: '' | sum 5 7: printed '12' and exited 0, not '13' and 0"), "{failed}");
    Ok(())
}

/// What a command prints on stdout, if it ends well.
async fn shown(mut command: Command) -> Result<String> {
    let output = timeout(PATIENCE, command.output()).await.context("it does not end")??;
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success(), "{}: {stdout}{stderr}", output.status);
    Ok(stdout.into_owned())
}

/// This workspace's programs, then what `cargo xtask setup` has from Python's registry: zig and Go too.
fn path() -> Result<OsString> {
    let python = built::python()?;
    let tools = python.parent().context("a program lies in a folder")?.to_owned();
    let path = built::search_path()?;
    let mut folders = std::env::split_paths(&path);
    let own = folders.next().context("the workspace's programs")?;
    Ok(std::env::join_paths([own, tools].into_iter().chain(folders))?)
}

/// What a compiler has to be told that builds its standard library itself, as Debian's does.
async fn rust_environment() -> Result<Vec<(&'static str, OsString)>> {
    let mut rustc = Command::new("rustc");
    let rustc = rustc.args(["--print", "target-libdir", "--target", "wasm32-wasip1"]).output().await;
    let has_target =
        |output: std::process::Output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir();
    if rustc.is_ok_and(has_target) {
        return Ok(Vec::new());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // Debian names the newer ones by their version only.
    let names: Vec<String> = std::iter::once("wasm-ld".to_owned())
        .chain((14..30).rev().map(|version| format!("wasm-ld-{version}")))
        .collect();
    let mut files = names.iter().flat_map(|name| {
        std::env::split_paths(&folders).map(move |folder| folder.join(name)).collect::<Vec<_>>()
    });
    let linker = files.find(|file| file.is_file()).context("no wasm-ld: run `cargo xtask setup`")?;
    let libraries = "/usr/lib/wasm32-wasi";
    let flags = format!(
        "-Clink-self-contained=no -Lnative={libraries} -Clink-arg={libraries}/crt1-command.o -Clink-arg=-lc"
    );
    Ok(vec![
        ("RUSTC", "/usr/bin/rustc".into()),
        // What lets a released compiler build its own standard library.
        ("RUSTC_BOOTSTRAP", "1".into()),
        ("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort".into()),
        ("CARGO_TARGET_WASM32_WASIP1_LINKER", linker.into()),
        ("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", flags.into()),
    ])
}
