//! The clients, each in its language, do the same: one table of cases, run through the `conformance` program of each on
//! either kind of broker. What such a program reads and writes is in tests/README.md.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use offload_tests::arduino_client::ArduinoClient;
use offload_tests::c_client::{CClient, SANITIZED, STRICT};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest::TALKS_AND_SLEEPS;
use offload_tests::javascript_client::JavaScriptClient;
use offload_tests::proxy::Proxy;
use offload_tests::{PATIENCE, built, on_each_broker};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpSocket;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Source is built, two programs may be named, one guest runs at a time and few wait, and what has more functions than
/// any guest is not compiled. The audit log shows which request has come.
fn configuration() -> Result<String> {
    let (add, sleep) = (built::guest("add")?, built::guest("sleep")?);
    Ok(format!(
        r#"
native = "native"
[[program]]
name = "add"
file = {add:?}
[[program]]
name = "sleep"
file = {sleep:?}
[access]
programs = ["add", "sleep"]
[limits]
args_bytes = "1KiB"
stdout = "256KiB"
wall = "10min"
[workers]
count = 1
slots = 1
[queue]
per_principal = 16
total = 64
[compiler]
functions = 10_000
[mirror]
enabled = true
"#
    ))
}

/// Milliseconds that are longer than any test waits.
const FOR_EVER: &str = "500000";

/// Of a module that no gateway has.
fn missing_digest() -> String {
    format!("sha256:{}", "0".repeat(64))
}

on_each_broker! {
    rust with &configuration()?,
    arduino with &configuration()?,
    python with &configuration()?,
    python_with_debians_paho with &configuration()?,
    c_with_sanitizers with &configuration()?,
    c_under_valgrind with &configuration()?,
    javascript with &configuration()?,
}

/// What a client has of all that the table asks for.
#[derive(Clone, Copy)]
struct Abilities {
    /// Source goes to the gateway.
    source: bool,
    /// An answer's fuel, its time in the queue, and the whole of stderr; else the first line of stderr.
    counters: bool,
    /// Bytes of stdin.
    stdin: usize,
    /// Requests at once, of which some are `busy`.
    crowd: usize,
    /// Stdout comes as it is written.
    streams: bool,
}

const ALL: Abilities =
    Abilities { source: true, counters: true, stdin: 256 * 1024, crowd: 40, streams: true };

/// A sketch sends modules alone, its library keeps of an answer what fits, and each of its requests in flight is
/// another board's, with a queue of its own at the gateway.
const BOARDS: Abilities =
    Abilities { source: false, counters: false, stdin: 64 * 1024 - 1, crowd: 80, streams: false };

async fn rust(deployment: Deployment) -> Result<()> {
    conforms(deployment, ALL, vec![built::program("offload-client-conformance")?]).await
}

/// The library's own source, on this machine. That it does the same on a board is in `arduino/`.
async fn arduino(deployment: Deployment) -> Result<()> {
    let client = ArduinoClient::build()?;
    conforms(deployment, BOARDS, vec![client.program()]).await
}

async fn python(deployment: Deployment) -> Result<()> {
    conforms(deployment, ALL, vec![built::python()?, built::client("python/conformance.py")?]).await
}

async fn python_with_debians_paho(deployment: Deployment) -> Result<()> {
    conforms(deployment, ALL, vec![built::debians_python()?, built::client("python/conformance.py")?]).await
}

async fn c_with_sanitizers(deployment: Deployment) -> Result<()> {
    let c = CClient::build(SANITIZED)?;
    conforms(deployment, ALL, vec![c.program("conformance")]).await
}

async fn c_under_valgrind(deployment: Deployment) -> Result<()> {
    let c = CClient::build(STRICT)?;
    // A finding is an exit code of its own.
    let mut program: Vec<PathBuf> = vec!["valgrind".into()];
    program.extend(["--quiet", "--leak-check=full", "--error-exitcode=9"].map(PathBuf::from));
    program.push(c.program("conformance"));
    conforms(deployment, ALL, program).await
}

async fn javascript(deployment: Deployment) -> Result<()> {
    let client = JavaScriptClient::copy()?;
    conforms(deployment, ALL, vec!["node".into(), client.file("conformance.js")]).await
}

/// The table of cases. (`exit` and `internal` are missing: in an envelope the one is an exit code, and the other is the
/// gateway's fault.)
async fn conforms(deployment: Deployment, can: Abilities, program: Vec<PathBuf>) -> Result<()> {
    let proxy = Proxy::start(deployment.address()).await?;
    let mut watch = Watch::start(&deployment).await?;
    nobody_there(&program).await?;
    let mut client = Client::start(&program, json!({ "port": proxy.address().port() })).await?;
    answers(&mut client, can).await?;
    errors_by_kind(&mut client, can).await?;
    a_crowd(&mut client, &mut watch, can).await?;
    a_duplicate_id(&mut client).await?;
    cancelled(&mut client, &mut watch).await?;
    if can.streams {
        progress(&mut client).await?;
        if deployment.mosquitto.is_some() {
            pieces_of_a_stream(&mut client, &mut watch).await?;
        }
    }
    long_answers(&mut client, can).await?;
    a_connection_that_is_cut(&mut client, &mut watch, &proxy).await?;
    a_gateway_that_is_killed(&mut client, &mut watch, &proxy, deployment).await?;
    client.end().await
}

/// No broker is there: an error instead of a connection.
async fn nobody_there(program: &[PathBuf]) -> Result<()> {
    // Bound without listening: nobody else gets the port, and connections to it are refused.
    let nobody = TcpSocket::new_v4()?;
    nobody.bind("127.0.0.1:0".parse()?)?;
    let mut client = Client::spawn(program, json!({ "port": nobody.local_addr()?.port() })).await?;
    let said = client.line().await?;
    assert_eq!(said["error"]["kind"], "connection", "{said}");
    Ok(())
}

async fn answers(client: &mut Client, can: Abilities) -> Result<()> {
    let answer = client.ask(json!({ "program": "add", "args": ["5", "7"] })).await?;
    assert_eq!((&answer["status"], &answer["exit_code"]), (&json!("ok"), &json!(0)), "{answer}");
    assert_eq!(
        (&answer["stdout"], &answer["stderr"], &answer["id"]),
        (&json!("12\n"), &json!(""), &json!(null))
    );
    if can.counters {
        ensure!(answer["fuel"].as_u64() > Some(0) && answer["queue_us"].is_u64(), "{answer}");
    }
    // A module of its own: at first the gateway has no such digest, then it has.
    for input in ["one", "two"] {
        let echo = json!({ "file": built::guest("echo")?, "stdin": input, "id": format!("echo {input}") });
        let answer = client.ask(echo).await?;
        assert_eq!(
            (&answer["stdout"], &answer["id"]),
            (&json!(input), &json!(format!("echo {input}"))),
            "{answer}"
        );
    }
    let failed = client.ask(json!({ "program": "add", "args": ["5", "x"] })).await?;
    assert_eq!((&failed["status"], &failed["exit_code"]), (&json!("exit"), &json!(1)), "{failed}");
    ensure!(failed["stderr"].as_str().is_some_and(|said| said.contains("not a 64-bit integer")), "{failed}");
    if !can.source {
        return Ok(());
    }
    let source = client.file("product.c", PRODUCT)?;
    let answer = client.ask(json!({ "file": source, "args": ["6", "7"] })).await?;
    assert_eq!(answer["stdout"], "42\n", "{answer}");
    Ok(())
}

const PRODUCT: &str = "#include <stdio.h>\n#include <stdlib.h>\n\
    int main(int argc, char **argv) { printf(\"%d\\n\", atoi(argv[1]) * atoi(argv[2])); }\n";

async fn errors_by_kind(client: &mut Client, can: Abilities) -> Result<()> {
    let guest = |name: &str| built::guest(name);
    let many_functions = format!("(module {} (func (export \"_start\")))", "(func)".repeat(10_001));
    let many_functions = client.file("many.wasm", wat::parse_str(many_functions)?)?;
    let damaged = client.file("damaged.wasm", b"\0asm?")?;
    let broken = client.file("broken.c", "int main(void) { return x; }\n")?;
    for (kind, request) in [
        ("malformed", json!({ "file": damaged })),
        ("malformed", json!({ "program": "add", "id": "i".repeat(65) })),
        ("unauthorized", json!({ "program": "forbidden" })),
        ("not-found", json!({ "digest": missing_digest() })),
        ("too-large", json!({ "program": "add", "args": ["1".repeat(2000)] })),
        ("timeout", json!({ "file": guest("sleep")?, "args": ["60000"], "timeout_ms": 200 })),
        ("build", json!({ "file": broken })),
        ("compile", json!({ "file": many_functions })),
        ("trap", json!({ "file": guest("trap")? })),
        ("fuel", json!({ "file": guest("spin")?, "fuel": 1_000_000 })),
        ("memory", json!({ "file": guest("grow")?, "memory": 1_048_576 })),
        ("output", json!({ "file": guest("flood")? })),
    ] {
        if kind == "build" && !can.source {
            continue;
        }
        let result = client.ask(request.clone()).await?;
        assert_eq!(result["error"]["kind"], kind, "{request}: {result}");
        ensure!(result["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{result}");
    }
    Ok(())
}

/// Many in flight: whatever has room runs, the rest is `busy`, or `expired` where its time is short.
async fn a_crowd(client: &mut Client, watch: &mut Watch, can: Abilities) -> Result<()> {
    let first = watch.running(client, "first", FOR_EVER).await?;
    let late = json!({ "program": "add", "args": ["1", "1"], "timeout_ms": 50 });
    let expired = async {
        loop {
            // By another connection it may be there before the first one has started.
            let result = client.ask(late.clone()).await?;
            if result["status"] != "ok" {
                break anyhow::Ok(result);
            }
        }
    };
    let expired = timeout(PATIENCE, expired).await.context("nothing expires behind what runs")??;
    assert_eq!(expired["error"]["kind"], "expired", "{expired}");
    assert_eq!(client.cancel(first).await?["error"]["kind"], "cancelled");
    let mut crowd = Vec::new();
    for _ in 0..can.crowd {
        crowd.push(client.send(json!({ "program": "sleep", "args": ["30"] })).await?);
    }
    let (mut ran, mut busy) = (0, 0);
    for case in crowd {
        let result = client.result(case).await?;
        match result["error"]["kind"].as_str() {
            None => ran += 1,
            Some("busy") => busy += 1,
            Some(_) => panic!("{result}"),
        }
    }
    ensure!(ran > 0 && busy > 0, "{ran} ran, {busy} were refused");
    Ok(())
}

/// Repetitions join the run or get its answer again, down to the microseconds; another request of the same id is
/// refused.
async fn a_duplicate_id(client: &mut Client) -> Result<()> {
    let request = json!({ "file": built::guest("sleep")?, "args": ["100"], "id": "twice" });
    let (first, second) = (client.send(request.clone()).await?, client.send(request.clone()).await?);
    let (first, second) = (client.result(first).await?, client.result(second).await?);
    let later = client.ask(request.clone()).await?;
    assert_eq!(first["stdout"], "awake\n", "{first}");
    assert_eq!(
        (&first["run_us"], &first["run_us"]),
        (&second["run_us"], &later["run_us"]),
        "{second} {later}"
    );
    let mut other = request;
    other["args"] = json!(["101"]);
    assert_eq!(client.ask(other).await?["error"]["kind"], "malformed");
    Ok(())
}

/// Running, it is ended, so that there is room for others; queued, it never starts. The gateway remembers that.
async fn cancelled(client: &mut Client, watch: &mut Watch) -> Result<()> {
    let running = watch.running(client, "ended", FOR_EVER).await?;
    let queued = json!({ "program": "sleep", "args": [FOR_EVER], "id": "never started" });
    let queued = client.send(queued).await?;
    for case in [queued, running] {
        let result = client.cancel(case).await?;
        assert_eq!(result["error"]["kind"], "cancelled", "{result}");
    }
    let again = client.ask(json!({ "program": "sleep", "args": [FOR_EVER], "id": "ended" })).await?;
    assert_eq!(again["error"]["kind"], "cancelled", "{again}");
    let answer = client.ask(json!({ "program": "add", "args": ["5", "7"] })).await?;
    assert_eq!(answer["stdout"], "12\n", "{answer}");
    Ok(())
}

/// What a program writes comes while it runs, in order.
async fn progress(client: &mut Client) -> Result<()> {
    let file = client.folder.path().join("talks.wasm");
    std::fs::write(&file, wat::parse_str(TALKS_AND_SLEEPS)?)?;
    let case = client.send(json!({ "file": file, "id": "talks", "stream": true })).await?;
    let mut text = String::new();
    while text != "a line\nand more" {
        let part = client.result(case).await?;
        assert_eq!(part["offset"], text.len(), "{part}");
        text.push_str(part["piece"].as_str().with_context(|| part.to_string())?);
        ensure!(text.len() <= "a line\nand more".len(), "{text}");
    }
    assert_eq!(client.cancel(case).await?["error"]["kind"], "cancelled");
    Ok(())
}

/// They are passed on in order, each once, with what is missing between them. The test speaks for the gateway, which a
/// broker without rules lets it.
async fn pieces_of_a_stream(client: &mut Client, watch: &mut Watch) -> Result<()> {
    let request = json!({ "program": "sleep", "args": [FOR_EVER], "id": "streamed", "stream": true });
    let case = watch.sent(client, request).await?;
    for (offset, piece) in [(0, "one\n"), (4, "two\n"), (0, "one\n"), (20, "far\n")] {
        watch.0.publish_at(1, &format!("result/conformance/stream/streamed/{offset}"), piece).await?;
    }
    for (offset, piece) in [(0, "one\n"), (4, "two\n"), (20, "far\n")] {
        let shown = client.result(case).await?;
        assert_eq!(shown, json!({ "case": case, "offset": offset, "piece": piece }));
    }
    assert_eq!(client.cancel(case).await?["error"]["kind"], "cancelled");
    Ok(())
}

/// Whole, and in pieces for a receiver with a small buffer.
async fn long_answers(client: &mut Client, can: Abilities) -> Result<()> {
    let line = "0123456789abcdef\n";
    for (lines, piece) in
        [(12_000.min(can.stdin / line.len()), None), (600, Some(1000)), (1, Some(17)), (0, Some(10))]
    {
        let mut request = json!({ "file": built::guest("echo")?, "stdin": line, "stdin_repeat": lines });
        if let Some(piece) = piece {
            request["piece"] = piece.into();
        }
        let answer = client.ask(request).await?;
        ensure!(answer["stdout"] == line.repeat(lines), "{lines} lines in pieces of {piece:?}");
        assert_eq!(answer["id"], json!(null));
    }
    Ok(())
}

/// In mid-flight: the client connects again by itself, and what it sends again is not run again.
async fn a_connection_that_is_cut(client: &mut Client, watch: &mut Watch, proxy: &Proxy) -> Result<()> {
    let case = watch.running(client, "cut", "700").await?;
    proxy.cut();
    let first = client.result(case).await?;
    assert_eq!(first["stdout"], "awake\n", "{first}");
    let again = client.ask(json!({ "program": "sleep", "args": ["700"], "id": "cut" })).await?;
    assert_eq!(first["run_us"], again["run_us"], "it ran once");
    Ok(())
}

async fn a_gateway_that_is_killed(
    client: &mut Client,
    watch: &mut Watch,
    proxy: &Proxy,
    deployment: Deployment,
) -> Result<()> {
    let Deployment { gateway, mosquitto, .. } = deployment;
    let case = watch.running(client, "killed", "700").await?;
    let broker = mosquitto.as_ref().map(|mosquitto| mosquitto.url());
    let flags = broker.as_ref().map_or(["--listen", "127.0.0.1:0"], |url| ["--broker", url.as_str()]);
    let gateway: Gateway = gateway.crash(Signal::KILL, &flags, &configuration()?).await?;
    if mosquitto.is_none() {
        proxy.set_target(gateway.address()?);
    }
    let answer = client.result(case).await?;
    assert_eq!(answer["stdout"], "awake\n", "{answer}");
    let answer = client.ask(json!({ "program": "add", "args": ["40", "2"] })).await?;
    assert_eq!(answer["stdout"], "42\n", "{answer}");
    Ok(())
}

/// Whoever reads the gateway's audit log.
struct Watch(Device);

impl Watch {
    async fn start(deployment: &Deployment) -> Result<Watch> {
        let mut device = Device::connect(deployment.address(), Version::V5, "watch").await?;
        device.subscribe("gateway/+/jobs").await?;
        Ok(Watch(device))
    }

    /// Sends a request that sleeps, and waits until the gateway has it.
    async fn running(&mut self, client: &mut Client, id: &str, time: &str) -> Result<u64> {
        self.sent(client, json!({ "program": "sleep", "args": [time], "id": id })).await
    }

    /// The same with any request that has an id.
    async fn sent(&mut self, client: &mut Client, request: Value) -> Result<u64> {
        let id = request["id"].clone();
        let case = client.send(request).await?;
        loop {
            let line: Value = serde_json::from_slice(&self.0.message().await?.payload)?;
            if (&line["event"], &line["id"]) == (&json!("request"), &id) {
                return Ok(case);
            }
        }
    }
}

/// A client's `conformance` program.
struct Client {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// Results that nobody has asked for yet.
    results: Vec<Value>,
    last: u64,
    folder: TempDir,
}

impl Client {
    /// Starts it and has it connect.
    async fn start(program: &[PathBuf], connection: Value) -> Result<Client> {
        let mut client = Client::spawn(program, connection).await?;
        let said = client.line().await?;
        assert_eq!(said, json!({ "case": null }));
        Ok(client)
    }

    async fn spawn(program: &[PathBuf], mut connection: Value) -> Result<Client> {
        let (program, arguments) = program.split_first().context("a program")?;
        let mut process = Command::new(program)
            .args(arguments)
            // Compiled modules would be left behind in the sources.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        connection["host"] = "127.0.0.1".into();
        connection["client_id"] = "conformance".into();
        let stdin = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().context("stdout is a pipe")?).lines();
        let folder = TempDir::new()?;
        let mut client = Client { process, stdin, lines, results: Vec::new(), last: 0, folder };
        client.write(&connection).await?;
        Ok(client)
    }

    /// A file with these contents.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let file = self.folder.path().join(name);
        std::fs::write(&file, contents)?;
        Ok(file)
    }

    async fn write(&mut self, line: &Value) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is open")?;
        Ok(stdin.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn line(&mut self) -> Result<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.context("the client says nothing")??;
        let line = line.context("the client has ended")?;
        serde_json::from_str(&line).context(line)
    }

    /// Sends a request, and returns its case.
    async fn send(&mut self, mut request: Value) -> Result<u64> {
        self.last += 1;
        request["case"] = self.last.into();
        self.write(&request).await?;
        Ok(self.last)
    }

    /// Cancels it, and returns its result.
    async fn cancel(&mut self, case: u64) -> Result<Value> {
        self.write(&json!({ "cancel": case })).await?;
        self.result(case).await
    }

    async fn result(&mut self, case: u64) -> Result<Value> {
        loop {
            if let Some(at) = self.results.iter().position(|result| result["case"] == case) {
                return Ok(self.results.remove(at));
            }
            let result = self.line().await?;
            self.results.push(result);
        }
    }

    async fn ask(&mut self, request: Value) -> Result<Value> {
        let case = self.send(request).await?;
        self.result(case).await
    }

    /// Nothing more comes: it disconnects, and has nothing more to say.
    async fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = timeout(PATIENCE, self.process.wait()).await.context("the client does not end")??;
        ensure!(status.success(), "{status}");
        ensure!(self.results.is_empty() && self.lines.next_line().await?.is_none(), "a result too many");
        Ok(())
    }
}
