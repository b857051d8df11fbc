//! `offload-rt` and `offload-client` as people start them.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use offload_tests::built;
use offload_tests::deployment::Deployment;
use offload_tests::gateway::Gateway;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// The client's exit code for its own errors.
const ERROR: i32 = 125;
/// And for a timeout.
const TIMEOUT: i32 = 124;

/// Runs a program to its end.
async fn run(program: &Path, arguments: &[&str], stdin: &[u8]) -> Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("stdin is a pipe")?;
    // A program that does not read its input may be gone before it is written.
    let _ = input.write_all(stdin).await;
    drop(input);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    Ok(output.with_context(|| format!("{} {arguments:?} does not end", program.display()))??)
}

async fn offload_rt(arguments: &[&str]) -> Result<Output> {
    run(&built::program("offload-rt")?, arguments, b"").await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

#[tokio::test]
async fn serve_says_where_and_ends_well_when_told_to() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let gateway = Gateway::embedded("").await?;
        assert_ne!(gateway.address()?.port(), 0);
        gateway.stop(signal).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_data_directory_has_one_gateway_at_a_time() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let data = gateway.data_dir();
    let second = offload_rt(&["serve", "--listen", "127.0.0.1:0", "--data-dir", path(&data)?]).await?;
    assert!(!second.status.success());
    assert!(second.stdout.is_empty(), "{}", text(&second.stdout));
    assert!(text(&second.stderr).contains(path(&data)?), "{}", text(&second.stderr));
    gateway.stop(Signal::TERM).await
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_its_place() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("bad.toml");
    let data = folder.path().join("data");
    for (configuration, line, told) in [
        ("[limits]\nmemroy = \"64MiB\"\n", 2, "memory"),
        ("name = \"box\"\n\n[limits]\nwall = \"10 parsecs\"\n", 4, "wall"),
        ("[workers]\ncount = 0\n", 2, "count"),
        ("[limits]\nfuel = \n", 2, ""),
    ] {
        std::fs::write(&file, configuration)?;
        let arguments =
            ["serve", "--config", path(&file)?, "--data-dir", path(&data)?, "--listen", "127.0.0.1:0"];
        let refused = offload_rt(&arguments).await?;
        let error = text(&refused.stderr);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{configuration}");
        assert!(error.contains(&format!("bad.toml:{line}")), "{configuration}: {error}");
        assert!(error.contains(told), "{configuration}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn the_effective_configuration_can_be_used_as_a_file() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("printed.toml");
    let printed = offload_rt(&["config"]).await?;
    ensure!(printed.status.success(), "{}", text(&printed.stderr));
    std::fs::write(&file, &printed.stdout)?;
    let again = offload_rt(&["config", "--config", path(&file)?]).await?;
    assert_eq!(text(&again.stdout), text(&printed.stdout), "{}", text(&again.stderr));
    Ok(())
}

#[tokio::test]
async fn only_loopback_is_served() -> Result<()> {
    let folder = TempDir::new()?;
    let refused = offload_rt(&["serve", "--listen", "0.0.0.0:0", "--data-dir", path(folder.path())?]).await?;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(!refused.stderr.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_demonstration_comes_out_right() -> Result<()> {
    let demo = offload_rt(&["demo"]).await?;
    assert!(demo.status.success(), "{}{}", text(&demo.stdout), text(&demo.stderr));
    assert!(!demo.stdout.is_empty());
    Ok(())
}

/// The client, and a gateway for it.
struct Sending {
    deployment: Deployment,
}

impl Sending {
    async fn new() -> Result<Sending> {
        Ok(Sending { deployment: Deployment::embedded("").await? })
    }

    async fn send(&self, arguments: &[&str], stdin: &[u8]) -> Result<Output> {
        let broker = format!("mqtt://{}", self.deployment.address());
        let mut all = vec!["--broker", &broker, "send"];
        all.extend(arguments);
        run(&built::program("offload-client")?, &all, stdin).await
    }
}

/// Checks exit code, stdout and stderr of a client.
fn ended(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(found, (Some(code), stdout.to_owned(), stderr.to_owned()));
}

#[tokio::test]
async fn the_client_runs_a_wat_file_and_programs_in_every_language() -> Result<()> {
    let sending = Sending::new().await?;
    let wat = built::guest_examples().join("add/add.wat");
    ended(&sending.send(&[path(&wat)?, "--args", "5", "-7"], b"").await?, 0, "-2\n", "");
    let c = built::guest("primes")?;
    ended(&sending.send(&[path(&c)?, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    let rust = built::guest("word-count")?;
    let arguments = ["--stdin", "-", "--env", "IGNORE=a", path(&rust)?];
    ended(&sending.send(&arguments, b"b a b").await?, 0, "2 b\n", "");
    Ok(())
}

#[tokio::test]
async fn the_client_runs_a_program_by_its_name() -> Result<()> {
    let sending = Sending::new().await?;
    ended(&sending.send(&["add", "--args", "5", "7"], b"").await?, 0, "12\n", "");
    let unknown = sending.send(&["no-such-program"], b"").await?;
    assert_eq!(unknown.status.code(), Some(ERROR));
    assert!(text(&unknown.stderr).starts_with("error: not-found: "), "{}", text(&unknown.stderr));
    Ok(())
}

#[tokio::test]
async fn the_client_runs_a_module_by_its_digest_once_it_was_sent() -> Result<()> {
    let sending = Sending::new().await?;
    let module = built::guest("primes")?;
    let digest = tool("sha256sum", &[path(&module)?]).await?;
    let digest = format!("sha256:{}", digest.split(' ').next().context("a digest comes first")?);
    let unknown = sending.send(&[&digest, "--args", "--count", "100"], b"").await?;
    assert_eq!(unknown.status.code(), Some(ERROR));
    assert!(text(&unknown.stderr).starts_with("error: not-found: "), "{}", text(&unknown.stderr));
    // The second time it is the client that asks by digest first.
    for _ in 0..2 {
        ended(&sending.send(&[path(&module)?, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    }
    ended(&sending.send(&[&digest, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    Ok(())
}

#[tokio::test]
async fn the_client_has_source_built_as_it_is_told() -> Result<()> {
    let sending = Sending::new().await?;
    let primes = built::guest_examples().join("primes/primes.c");
    ended(&sending.send(&[path(&primes)?, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    let folder = TempDir::new()?;
    let source = folder.path().join("answer.c");
    std::fs::write(&source, "int main(void) { return ANSWER; }\n")?;
    let command = ["--build", "gcc -DANSWER=42 <name>.c -o <name>", path(&source)?];
    ended(&sending.send(&command, b"").await?, 42, "", "");
    let makefile = folder.path().join("Makefile");
    std::fs::write(&makefile, "all:\n\tgcc -DANSWER=43 <name>.c -o <name>\n")?;
    let makefile = ["--makefile", path(&makefile)?, path(&source)?];
    ended(&sending.send(&makefile, b"").await?, 43, "", "");
    let undefined = sending.send(&[path(&source)?], b"").await?;
    assert_eq!((undefined.status.code(), text(&undefined.stdout)), (Some(ERROR), String::new()));
    let error = text(&undefined.stderr);
    assert!(error.starts_with("error: build: ") && error.contains("answer.c:1"), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_client_passes_on_exit_code_and_stderr() -> Result<()> {
    let sending = Sending::new().await?;
    let json_filter = built::guest("json-filter")?;
    let output = sending.send(&["--stdin", "-", path(&json_filter)?, "--args", "/b"], b"{}").await?;
    ended(&output, 2, "", "json-filter: nothing at /b\n");
    let exit_code = built::guest("exit-code")?;
    ended(&sending.send(&[path(&exit_code)?, "--args", "124"], b"").await?, 124, "", "");
    Ok(())
}

#[tokio::test]
async fn the_client_tells_errors_and_timeouts() -> Result<()> {
    let sending = Sending::new().await?;
    let trap = sending.send(&[path(&built::guest("trap")?)?], b"").await?;
    assert_eq!(trap.status.code(), Some(ERROR));
    assert!(text(&trap.stderr).starts_with("error: trap: "), "{}", text(&trap.stderr));
    let spin = built::guest("spin")?;
    let fuel = sending.send(&["--fuel", "1000000", path(&spin)?], b"").await?;
    assert_eq!(fuel.status.code(), Some(ERROR));
    assert!(text(&fuel.stderr).starts_with("error: fuel: "), "{}", text(&fuel.stderr));
    let timeout = sending.send(&["--timeout", "1s", path(&spin)?], b"").await?;
    assert_eq!(timeout.status.code(), Some(TIMEOUT));
    assert!(text(&timeout.stderr).starts_with("error: timeout: "), "{}", text(&timeout.stderr));
    let grow = sending.send(&["--memory", "1MiB", path(&built::guest("grow")?)?], b"").await?;
    assert_eq!(grow.status.code(), Some(ERROR));
    assert!(text(&grow.stderr).starts_with("error: memory: "), "{}", text(&grow.stderr));
    Ok(())
}

#[tokio::test]
async fn the_client_prints_json() -> Result<()> {
    let sending = Sending::new().await?;
    let good: Value =
        serde_json::from_slice(&sending.send(&["--json", "add", "--args", "1"], b"").await?.stdout)?;
    assert_eq!((&good["status"], &good["exit_code"]), (&"ok".into(), &0.into()), "{good}");
    let trap = sending.send(&["--json", path(&built::guest("trap")?)?], b"").await?;
    let bad: Value = serde_json::from_slice(&trap.stdout)?;
    assert_eq!((&bad["status"], &bad["error"]["kind"]), (&"error".into(), &"trap".into()), "{bad}");
    Ok(())
}

#[tokio::test]
async fn the_client_says_when_nobody_is_there() -> Result<()> {
    // Bound, so that no other test's gateway gets the port, but never listened on.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let broker = format!("mqtt://{}", socket.local_addr()?);
    let client = built::program("offload-client")?;
    let output = run(&client, &["--broker", &broker, "send", "--timeout", "1s", "add"], b"").await?;
    assert!(matches!(output.status.code(), Some(ERROR | TIMEOUT)), "{output:?}");
    assert!(text(&output.stderr).contains("error: "), "{}", text(&output.stderr));
    Ok(())
}

/// With either version of MQTT.
#[tokio::test]
async fn the_tools_of_mosquitto_are_clients_too() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let port = deployment.address().port().to_string();
    for version in ["mqttv311", "mqttv5"] {
        let (request, result) = (format!("localCode/{version}"), format!("result/{version}"));
        // Subscribes in a session that stays, so that the answer waits for the one who comes for it.
        let session = ["-p", &port, "-V", version, "-i", version, "-c", "-q", "1", "-t", &result];
        let expiry: &[&str] = if version == "mqttv5" { &["-x", "300"] } else { &[] };
        tool("mosquitto_sub", &[&session[..], expiry, &["-E"]].concat()).await?;
        tool("mosquitto_pub", &["-p", &port, "-V", version, "-q", "1", "-t", &request, "-m", "5 7"]).await?;
        let answer = tool("mosquitto_sub", &[&session[..], expiry, &["-C", "1"]].concat()).await?;
        assert_eq!(answer.trim_end(), "12");
        let both = ["-p", &port, "-V", version, "-t", &request, "-e", &result, "-m", "20 22"];
        assert_eq!(tool("mosquitto_rr", &both).await?.trim_end(), "42");
    }
    Ok(())
}

/// What the tool prints; it has to succeed.
async fn tool(name: &str, arguments: &[&str]) -> Result<String> {
    let output = run(Path::new(name), arguments, b"").await.context("run `cargo xtask setup`")?;
    ensure!(output.status.success(), "{name} {arguments:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}
