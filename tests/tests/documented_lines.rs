//! What `docs/protocol.md`, `docs/client.md` and `README.md` tell their readers to type, typed as it is printed.
//!
//! An example is a block of `sh` with a block of `text` right behind it: what a terminal shows then. `…` in there
//! stands for what differs from run to run. Nothing is rewritten: the tools are told by their own configuration where
//! the gateway under test is.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use offload_tests::built;
use offload_tests::deployment::Deployment;
use offload_tests::document::{self, blocks, examples};
use offload_tests::guest;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// In an expected line: anything.
const DIFFERS: char = '…';

/// By default a broker that is not the gateway's own brings no source.
const CONFIGURATION: &str = "native = \"native\"\n";

#[tokio::test]
async fn the_examples_of_the_protocol_on_the_embedded_broker() -> Result<()> {
    run("docs/protocol.md", &Deployment::embedded("").await?).await
}

#[tokio::test]
async fn the_examples_of_the_protocol_on_mosquitto() -> Result<()> {
    run("docs/protocol.md", &Deployment::on_mosquitto(CONFIGURATION).await?).await
}

#[tokio::test]
async fn the_examples_of_the_readme_on_the_embedded_broker() -> Result<()> {
    run("README.md", &Deployment::embedded("").await?).await
}

#[tokio::test]
async fn the_examples_of_the_readme_on_mosquitto() -> Result<()> {
    run("README.md", &Deployment::on_mosquitto(CONFIGURATION).await?).await
}

#[tokio::test]
async fn the_examples_of_the_clients_page_on_the_embedded_broker() -> Result<()> {
    run("docs/client.md", &Deployment::embedded("").await?).await
}

/// Each block of TOML is a configuration, or part of one, that passes.
#[tokio::test]
async fn the_configurations_of_the_readme_are_accepted() -> Result<()> {
    let folder = TempDir::new()?;
    // What they name.
    let mut keygen = Command::new(built::program("offload-rt")?);
    ensure!(keygen.args(["keygen", "keys"]).current_dir(folder.path()).output().await?.status.success());
    fs::write(folder.path().join("passwords"), "")?;
    for file in ["filter.wasm", "interpreter.wasm"] {
        fs::write(folder.path().join(file), guest::module("add")?)?;
    }
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let configurations: Vec<String> =
        blocks(&readme).filter(|block| block.language == "toml").map(|block| block.text).collect();
    ensure!(!configurations.is_empty(), "README.md has no configurations");
    for configuration in configurations {
        let file = folder.path().join("gateway.toml");
        fs::write(&file, &configuration)?;
        let mut check = Command::new(built::program("offload-rt")?);
        let checked = check.args(["config", "--check"]).arg(&file).output().await?;
        ensure!(checked.status.success(), "{configuration}{}", String::from_utf8_lossy(&checked.stderr));
    }
    Ok(())
}

/// The proposals that README lists are those of the engine.
#[tokio::test]
async fn the_proposals_of_the_readme_are_on_and_no_others() -> Result<()> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let (_, listed) =
        readme.split_once("as `offload-rt doctor` shows them: `").context("README lists them")?;
    let listed: Vec<&str> = listed.split('`').next().unwrap_or_default().split_whitespace().collect();
    let shown = Command::new(built::program("offload-rt")?).args(["doctor", "--json"]).output().await?;
    let checks: Vec<Value> = serde_json::from_slice(&shown.stdout)?;
    let proposals =
        checks.iter().find(|check| check["check"] == "wasm proposals").context("doctor shows them")?;
    let shown: Vec<&str> = proposals["found"].as_str().unwrap_or_default().split_whitespace().collect();
    assert_eq!(listed, shown);
    Ok(())
}

/// A gateway on a network and a device without TLS, as README has them, in a network of their own.
#[tokio::test]
async fn a_device_without_tls_gets_in_as_the_readme_says() -> Result<()> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let gateway = document::commands(&readme, "--listen 0.0.0.0:1883")?;
    let device = document::commands(&readme, "mosquitto_rr -h gateway.local")?;
    let folder = TempDir::new()?;
    let here = folder.path().to_str().context("a path is not UTF-8")?;
    fs::write(folder.path().join("hosts"), "127.0.0.1 localhost gateway.local\n")?;
    let script = "mkfifo out; sh -c \"$0\" > out 2> log & exec 3< out; read done <&3; read ready <&3; \
                  echo $done; echo $ready; sh -c \"$1\"; cat log >&2";
    let mut shell = Command::new("bwrap");
    shell
        .args(["--dev-bind", "/", "/", "--tmpfs", "/var/lib", "--bind", here, here, "--chdir", here])
        .args(["--ro-bind", &format!("{here}/hosts"), "/etc/hosts", "--setenv", "HOME", here])
        .args(["--unsetenv", "XDG_CONFIG_HOME", "--unsetenv", "XDG_STATE_HOME"])
        .args(["--unshare-net", "--unshare-pid", "--proc", "/proc", "--die-with-parent"])
        .args(["sh", "-c", script, &gateway, &device])
        .env("PATH", built::search_path()?)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, shell.output()).await.context("it does not end")??;
    let shown = String::from_utf8_lossy(&output.stdout);
    let expected = "added dev1 in passwords\nlistening on mqtt://0.0.0.0:1883\n12\n";
    assert_eq!(shown.trim_end(), expected.trim_end(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs a document's examples, from top to bottom.
async fn run(document: &str, deployment: &Deployment) -> Result<()> {
    let text = fs::read_to_string(repository().join(document))?;
    let examples = examples(&text);
    ensure!(!examples.is_empty(), "{document} has no examples");
    let reader = Reader::new(deployment)?;
    for example in examples {
        let shown = reader.types(&example.commands).await?;
        ensure!(
            fits(&example.output, &shown),
            "{document}:{}: this is printed:\n{}\nand this is shown:\n{shown}",
            example.line,
            example.output
        );
    }
    Ok(())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Somebody in a folder that looks like the repository, after `cargo xtask guests`.
struct Reader {
    folder: TempDir,
    path: OsString,
    broker: String,
}

impl Reader {
    fn new(deployment: &Deployment) -> Result<Reader> {
        let folder = TempDir::new()?;
        let here = |name: &str| folder.path().join(name);
        fs::create_dir(here("target"))?;
        let guests = built::guest("hello")?;
        symlink(guests.parent().context("a file lies in a folder")?, here("target/guests"))?;
        symlink(built::guest_examples().canonicalize()?, here("guest-examples"))?;
        fs::create_dir(here("tests"))?;
        symlink(built::projects().canonicalize()?, here("tests/projects"))?;
        let address = deployment.address();
        for tool in ["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"] {
            fs::write(here(tool), format!("-h {}\n-p {}\n", address.ip(), address.port()))?;
        }
        Ok(Reader { folder, path: built::search_path()?, broker: format!("mqtt://{address}") })
    }

    /// What the terminal shows, whatever the exit code.
    async fn types(&self, commands: &str) -> Result<String> {
        let terminal = self.folder.path().join("terminal");
        let output = File::create(&terminal)?;
        let mut shell = Command::new("sh")
            .args(["-c", commands])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env("OFFLOAD_BROKER", &self.broker)
            .env("XDG_CONFIG_HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        timeout(PATIENCE, shell.wait())
            .await
            .with_context(|| format!("this does not end:\n{commands}"))??;
        Ok(String::from_utf8_lossy(&fs::read(&terminal)?).into_owned())
    }
}

/// Whether the output is as expected, but for empty lines at its end.
fn fits(expected: &str, output: &str) -> bool {
    let (expected, output) = (expected.trim_end(), output.trim_end());
    expected.lines().count() == output.lines().count()
        && expected.lines().zip(output.lines()).all(|(expected, line)| line_fits(expected, line))
}

fn line_fits(expected: &str, line: &str) -> bool {
    let Some((start, rest)) = expected.split_once(DIFFERS) else { return expected == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    let mut ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    ends.any(|at| line_fits(rest, &line[at..]))
}

#[test]
fn only_what_is_left_out_may_differ() {
    for (expected, output) in [("12\n", "12\n\n"), ("a…c\n", "abbc\n"), ("…", "any"), ("a…b…c", "a-bcb-c")]
    {
        assert!(fits(expected, output), "{expected}{output}");
    }
    for (expected, output) in
        [("12\n", "13\n"), ("12\n", "12\n13\n"), ("12\n13\n", "12\n"), ("a…c\n", "ab\n"), ("a…c\n", "a\nc\n")]
    {
        assert!(!fits(expected, output), "{expected}{output}");
    }
}
