//! What `docs/protocol.md` and `README.md` tell their readers to type, typed as it is printed.
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
        let client = built::program("offload-client")?;
        let programs = client.parent().context("a file lies in a folder")?.to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path)))?;
        Ok(Reader { folder, path, broker: format!("mqtt://{address}") })
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

/// Commands, and what they show.
#[derive(Debug, PartialEq)]
struct Example {
    /// Where the commands begin.
    line: usize,
    commands: String,
    output: String,
}

/// A document's examples; its other blocks are left out.
fn examples(document: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut commands = None;
    let mut lines = document.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.is_empty() {
                commands = None;
            }
            continue;
        };
        let block = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let block = block.map(|line| format!("{line}\n")).collect::<String>();
        match (language, commands.take()) {
            ("sh", _) => commands = Some((number + 2, block)),
            ("text", Some((line, commands))) => found.push(Example { line, commands, output: block }),
            _ => {}
        }
    }
    found
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
fn an_example_is_commands_and_what_they_show_right_behind() {
    let document =
        "```sh\nnot this\n```\nwords\n```text\nnor this\n```\n\n```sh\na\nb\n```\n\n```text\nc\n```\n";
    let example = Example { line: 10, commands: "a\nb\n".into(), output: "c\n".into() };
    assert_eq!(examples(document), [example]);
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
