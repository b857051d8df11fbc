//! `offload-rt passwd` as people and scripts start it.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use offload_tests::built;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

fn offload_rt(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(built::program("offload-rt")?);
    command.args(arguments);
    Ok(command)
}

fn start(mut command: Command) -> Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// Runs a command to its end.
async fn run(command: Command, stdin: &[u8]) -> Result<Output> {
    let mut child = start(command)?;
    let mut input = child.stdin.take().context("stdin is a pipe")?;
    // A program that does not read its input may be gone before it is written.
    let _ = input.write_all(stdin).await;
    drop(input);
    timeout(PATIENCE, child.wait_with_output()).await.context("it does not end")?.map_err(Into::into)
}

fn shown(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].iter().map(|bytes| String::from_utf8_lossy(bytes)).collect()
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

#[tokio::test]
async fn passwd_takes_a_password_from_a_pipe() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("passwords");
    let file = path(&file)?;
    let passwd = async |arguments: &[&str], stdin: &[u8]| {
        let output = run(offload_rt(&[&["passwd", file], arguments].concat())?, stdin).await?;
        anyhow::Ok((output.status.code(), shown(&output)))
    };
    let says = |code: i32, text: String| (Some(code), text + "\n");
    assert_eq!(passwd(&["dev1"], b"secret\n").await?, says(0, format!("added dev1 in {file}")));
    let first = fs::read_to_string(file)?;
    ensure!(first.starts_with("dev1:$argon2id$v=19$") && !first.contains("secret"), "{first}");
    assert_eq!(
        passwd(&["dev1"], b"other").await?,
        says(0, format!("changed the password of dev1 in {file}"))
    );
    ensure!(fs::read_to_string(file)? != first);
    assert_eq!(passwd(&["dev2"], b"\n").await?, says(1, "error: a password is not empty".into()));
    assert_eq!(
        passwd(&["dev2", "--delete"], b"").await?,
        says(1, format!("error: there is no user dev2 in {file}"))
    );
    assert_eq!(passwd(&["dev1", "--delete"], b"").await?, says(0, format!("removed dev1 in {file}")));
    assert_eq!(fs::read_to_string(file)?, "");
    let (code, text) = passwd(&["a:b"], b"secret").await?;
    ensure!(code == Some(1) && text.starts_with("error: a user name has 1 to 64 bytes"), "{text}");
    assert_eq!(passwd(&[], b"").await?.0, Some(2));
    Ok(())
}

/// A command on a pseudo-terminal, which util-linux's `script` makes.
struct Terminal {
    process: Child,
    printed: String,
}

impl Terminal {
    fn start(command: &str) -> Result<Terminal> {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", command, "/dev/null"]);
        Ok(Terminal { process: start(script)?, printed: String::new() })
    }

    /// Waits until it has printed `prompt` last, then types `keys`.
    async fn answer(&mut self, prompt: &str, keys: &[u8]) -> Result<()> {
        let output = self.process.stdout.as_mut().context("stdout is a pipe")?;
        while !self.printed.ends_with(prompt) {
            let mut bytes = [0; 4096];
            let count = timeout(PATIENCE, output.read(&mut bytes)).await.context("no prompt")??;
            ensure!(count > 0, "it ended without {prompt:?}: {}", self.printed);
            self.printed += &String::from_utf8_lossy(&bytes[..count]);
        }
        Ok(self.process.stdin.as_mut().context("stdin is a pipe")?.write_all(keys).await?)
    }

    /// The exit code, and all that was printed.
    async fn end(mut self) -> Result<(Option<i32>, String)> {
        // `script` would go on as long as there is something to type.
        let stdin = self.process.stdin.take();
        let output =
            timeout(PATIENCE, self.process.wait_with_output()).await.context("it does not end")??;
        drop(stdin);
        Ok((output.status.code(), self.printed + &String::from_utf8_lossy(&output.stdout)))
    }
}

#[tokio::test]
async fn passwd_asks_twice_on_a_terminal_and_shows_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("passwords");
    let program = built::program("offload-rt")?;
    let command = format!("{} passwd {} dev1", path(&program)?, path(&file)?);
    for (second, code, end) in [
        (&b"other\n"[..], 1, "error: the two passwords are not the same"),
        (b"\x03", 1, "error: interrupted"),
        (b"secret\n", 0, "added dev1 in "),
    ] {
        ensure!(!file.exists(), "a file was made for nothing");
        let mut terminal = Terminal::start(&command)?;
        terminal.answer("New password of dev1: ", b"secret\n").await?;
        terminal.answer("Once more: ", second).await?;
        let (exit_code, printed) = terminal.end().await?;
        ensure!(exit_code == Some(code) && printed.contains(end), "{exit_code:?} {printed}");
        ensure!(!printed.contains("secret") && !printed.contains("other"), "{printed}");
    }
    ensure!(fs::read_to_string(&file)?.starts_with("dev1:$argon2id$"));
    Ok(())
}
