//! `offload-rt passwd` and `offload-rt keygen` as people and scripts start them.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use offload_tests::built;
use offload_tests::gateway::Gateway;
use offload_tests::mosquitto::Mosquitto;
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
    assert_eq!(passwd(&["dev2"], b"\n").await?, says(1, "error: the password is empty".into()));
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

#[tokio::test]
async fn keygens_files_let_a_gateway_and_a_device_meet_at_a_broker() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys");
    let keygen = async |flags: &str| {
        let arguments: Vec<&str> = ["keygen", path(&keys)?].into_iter().chain(flags.split(' ')).collect();
        let output = run(offload_rt(&arguments)?, b"").await?;
        anyhow::Ok((output.status.code(), shown(&output)))
    };
    let (code, said) = keygen("--host 127.0.0.1 --device gateway").await?;
    ensure!(
        code == Some(0) && said.contains("[tls]") && said.contains("mosquitto_pub -h 127.0.0.1"),
        "{said}"
    );
    let (code, said) = keygen("--device dev1").await?;
    ensure!(code == Some(0) && said.starts_with("used "), "{said}");
    let (code, said) = keygen("--device dev1").await?;
    ensure!(code == Some(0) && said.contains("kept ") && !said.contains("--force"), "{said}");

    let file = |name: &str| keys.join(name).display().to_string();
    let mosquitto = Mosquitto::start_with(&format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true",
        file("ca.pem"),
        file("server.pem"),
        file("server.key")
    ))
    .await?;
    let url = format!("mqtts://{}", mosquitto.address());
    let gateway = Gateway::start(
        &["--broker", &url],
        &format!(
            "[broker]\nurl = \"mqtts://127.0.0.1\"\ncafile = {:?}\ncert = {:?}\nkey = {:?}\n",
            file("ca.pem"),
            file("gateway.pem"),
            file("gateway.key")
        ),
    )
    .await?;
    assert_eq!(gateway.ready(), format!("serving via {url}"));
    let mut send = Command::new(built::program("offload-client")?);
    let [ca, certificate, key] = ["ca.pem", "dev1.pem", "dev1.key"].map(file);
    send.args(["--broker", &url, "--cafile", &ca, "--cert", &certificate, "--key", &key]);
    send.args(["send", "add", "--args", "5", "7"]);
    let output = run(send, b"").await?;
    ensure!(output.status.success() && output.stdout == b"12\n", "{}", shown(&output));

    let mut local = Command::new(built::python()?);
    // Compiled modules would be left behind in the sources.
    local.arg("-B").arg(built::client("python/examples/local.py")?);
    local.args(["-h", "127.0.0.1", "-p", &mosquitto.address().port().to_string()]);
    local.args(["--cafile", &ca, "--cert", &certificate, "--key", &key, "--count", "1", "5", "7"]);
    let output = run(local, b"").await?;
    ensure!(output.status.success() && output.stdout == b"12\n", "{}", shown(&output));
    Ok(())
}
