//! A request with an `id` can be cancelled: it never starts, or is ended; all that waited for it hear of it, and it
//! stays cancelled.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use offload_tests::answer::refused;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest::TALKS_AND_SLEEPS;
use offload_tests::{PATIENCE, built, envelope, guest, on_each_broker};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

on_each_broker! {
    what_runs_is_ended_and_stays_cancelled,
    what_is_queued_never_starts with ONE_SLOT,
    a_cancel_passes_a_full_queue with SHORT_QUEUE,
    only_what_waits_or_runs_can_be_cancelled,
    native_builds_and_runs_are_killed with NATIVE,
    source_as_wasm_is_cancelled_too with AS_WASM,
    cancels_and_requests_may_come_in_any_number,
}

/// Long enough for a guest never to end by itself while a test runs.
const ENDLESS: &str = "[limits]\nfuel = 1_000_000_000_000\ncpu = \"10min\"\nwall = \"10min\"\n";
const ONE_SLOT: &str = "[limits]\nwall = \"10min\"\n[workers]\ncount = 1\nslots = 1\n";
const SHORT_QUEUE: &str =
    "[limits]\nwall = \"10min\"\n[workers]\ncount = 1\nslots = 1\n[queue]\nper_principal = 2\ntotal = 4\n";
const NATIVE: &str = "native = \"native\"\n[limits]\nwall = \"10min\"\n";
const AS_WASM: &str = "native = \"wasm\"\n[limits]\nfuel = 1_000_000_000_000\ncpu = \"10min\"\n";

/// An hour, in the milliseconds that the guest `sleep` takes.
const AN_HOUR: &str = "3600000";

fn sleeping(id: &str) -> Result<Value> {
    Ok(json!({ "id": id, "module": envelope::bytes(guest::module("sleep")?), "args": [AN_HOUR] }))
}

fn cancelling(id: &str) -> String {
    json!({ "cancel": id }).to_string()
}

/// The answers that come next, those to cancelling requests without an `id` last.
async fn answers(device: &mut Device, number: usize) -> Result<Vec<Value>> {
    let mut answers = Vec::new();
    for _ in 0..number {
        answers.push(envelope::read(&device.message().await?)?);
    }
    answers.sort_by_key(|answer| answer["id"].is_null());
    Ok(answers)
}

/// The next answer to this request. What a gateway has answered before a crash may be run again, and answered again.
async fn answer_to(device: &mut Device, id: &str) -> Result<Value> {
    loop {
        let answer = envelope::read(&device.message().await?)?;
        if answer["id"] == id {
            return Ok(answer);
        }
    }
}

fn ensure_cancelled(answer: &Value, id: &str) -> Result<()> {
    ensure!(answer["id"] == id && envelope::error_kind(answer) == "cancelled", "{answer}");
    ensure!(answer["status"] == "error" && answer["stdout"] == "", "{answer}");
    Ok(())
}

/// A guest that sleeps, and one that spins, with deliveries that have joined them.
async fn what_runs_is_ended_and_stays_cancelled(deployment: Deployment) -> Result<()> {
    let Deployment { gateway, mosquitto, .. } = deployment;
    let flags = mosquitto.as_ref().map_or(["--listen".to_owned(), "127.0.0.1:0".to_owned()], |mosquitto| {
        ["--broker".to_owned(), mosquitto.url()]
    });
    let gateway = gateway.restart(&flags.each_ref().map(String::as_str), ENDLESS).await?;
    let address = match &mosquitto {
        Some(mosquitto) => mosquitto.address(),
        None => gateway.address()?,
    };
    let spinning = json!({ "id": "spins", "module": envelope::bytes(guest::module("spin")?) });
    for version in [Version::V311, Version::V5] {
        let name = format!("{version:?}");
        let mut device = Device::connect(address, version, &name).await?;
        device.subscribe(&format!("result/{name}")).await?;
        let (input, local) = (format!("inputCode/{name}"), format!("localCode/{name}"));
        for (id, request) in [("sleeps", sleeping("sleeps")?), ("spins", spinning.clone())] {
            for _ in 0..3 {
                device.publish(&input, request.to_string()).await?;
            }
            // On either topic; more than one at once is as good as one.
            device.publish(&local, cancelling(id)).await?;
            let all = answers(&mut device, 4).await?;
            for answer in &all[..3] {
                ensure_cancelled(answer, id)?;
            }
            ensure!(all[3]["status"] == "ok" && all[3]["exit_code"] == 0, "{}", all[3]);
            // It is an outcome: a repetition gets it again, and does not run.
            let again = envelope::ask(&mut device, &input, &request).await?;
            ensure!(again == all[0], "{again}");
            let mut line = request.clone();
            line["reply"] = "stdout".into();
            refused(&device.ask(&input, line.to_string()).await?, "cancelled", "has cancelled it")?;
            let gone = envelope::ask(&mut device, &input, cancelling(id)).await?;
            ensure!(envelope::error_kind(&gone) == "not-found", "{gone}");
        }
    }
    Ok(())
}

/// The only slot is taken, and the second one waits; when both are gone a third one runs.
async fn what_is_queued_never_starts(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "queue").await?;
    // The module is compiled first, so that the others go into the queue in their order.
    let first = json!({ "module": envelope::bytes(guest::module("sleep")?), "args": ["0"] });
    ensure!(envelope::ask(&mut device, "inputCode/queue", first).await?["status"] == "ok");
    device.publish("inputCode/queue", sleeping("runs")?.to_string()).await?;
    device.publish("inputCode/queue", sleeping("waits")?.to_string()).await?;
    device.publish("localCode/queue", cancelling("waits")).await?;
    let all = answers(&mut device, 2).await?;
    ensure_cancelled(&all[0], "waits")?;
    ensure!(all[0]["run_us"] == 0 && all[1]["status"] == "ok", "{all:?}");
    device.publish("localCode/queue", cancelling("runs")).await?;
    ensure_cancelled(&answers(&mut device, 2).await?[0], "runs")?;
    ensure!(device.ask("localCode/queue", "5 7").await?.text() == "12\n");
    Ok(())
}

/// What is cancelled gives its room back at once, and what makes room is let in where nothing else is.
async fn a_cancel_passes_a_full_queue(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "full").await?;
    // The module is compiled first, so that all that follow are queued or run.
    let digest = guest::digest(&guest::module("sleep")?).await?;
    let first = json!({ "module": envelope::bytes(guest::module("sleep")?), "args": ["0"] });
    ensure!(envelope::ask(&mut device, "inputCode/full", first).await?["status"] == "ok");
    let mut waiting = Vec::new();
    let asleep = |id: &str| json!({ "id": id, "digest": digest, "args": [AN_HOUR] }).to_string();
    let busy = loop {
        let id = format!("r{}", waiting.len());
        device.publish("localCode/full", asleep(&id)).await?;
        device.publish("localCode/full", json!({ "id": "probe", "program": "none" }).to_string()).await?;
        waiting.push(id);
        // What is not busy yet is answered `not-found`.
        let answer = envelope::read(&device.message().await?)?;
        if envelope::error_kind(&answer) == "busy" {
            break answer;
        }
    };
    if busy["id"] != "probe" {
        waiting.pop();
        ensure!(envelope::error_kind(&envelope::read(&device.message().await?)?) == "busy");
    }
    for id in waiting {
        device.publish("localCode/full", cancelling(&id)).await?;
        let all = answers(&mut device, 2).await?;
        ensure_cancelled(&all[0], &id)?;
        ensure!(all[1]["status"] == "ok", "{all:?}");
    }
    ensure!(device.ask("localCode/full", "5 7").await?.text() == "12\n");
    Ok(())
}

async fn only_what_waits_or_runs_can_be_cancelled(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "own").await?;
    let mut other = deployment.device(Version::V5, "other").await?;
    let add = json!({ "id": "done", "program": "add", "args": ["5", "7"] });
    let done = envelope::ask(&mut device, "localCode/own", &add).await?;
    device.publish("inputCode/own", sleeping("runs")?.to_string()).await?;
    device.acknowledged().await?;
    for id in ["never", "done"] {
        let answer = envelope::ask(&mut device, "localCode/own", cancelling(id)).await?;
        ensure!(envelope::error_kind(&answer) == "not-found", "{id}: {answer}");
    }
    // Another reply id is another request.
    let answer = envelope::ask(&mut other, "localCode/other", cancelling("runs")).await?;
    ensure!(envelope::error_kind(&answer) == "not-found", "{answer}");
    ensure!(envelope::ask(&mut device, "localCode/own", &add).await? == done, "its own answer stands");
    for (fields, words) in [
        (json!({ "cancel": "" }), "cancel: expected 1 to 64 bytes"),
        (json!({ "cancel": 7 }), "cancel: expected text"),
        (json!({ "cancel": "a", "program": "add" }), "expected exactly one of"),
    ] {
        let answer = envelope::ask(&mut device, "localCode/own", &fields).await?;
        ensure!(envelope::error_kind(&answer) == "malformed", "{answer}");
        ensure!(answer["error"]["message"].as_str().unwrap_or_default().contains(words), "{answer}");
    }
    // With an `id` of its own a cancelling request is repeated like any other: it is `ok` again.
    let named = json!({ "id": "c", "cancel": "runs" });
    device.publish("localCode/own", named.to_string()).await?;
    let mut both = answers(&mut device, 2).await?;
    both.sort_by_key(|answer| answer["id"] == "c");
    ensure_cancelled(&both[0], "runs")?;
    ensure!(both[1]["status"] == "ok", "{}", both[1]);
    ensure!(envelope::ask(&mut device, "localCode/own", &named).await? == both[1]);
    Ok(())
}

/// Processes whose command line holds this.
fn processes(words: &str) -> Result<usize> {
    let holds = |process: &Path| {
        std::fs::read(process.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(words))
    };
    let mut number = 0;
    for entry in std::fs::read_dir("/proc")? {
        number += usize::from(holds(&entry?.path()));
    }
    Ok(number)
}

/// Until there is a process with this in its command line, or none.
async fn wait_for(words: &str, is_there: bool) -> Result<()> {
    let waiting = async {
        while (processes(words)? > 0) != is_there {
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    timeout(PATIENCE, waiting).await.with_context(|| format!("a process with {words}: {}", !is_there))?
}

/// A build, and a program, that never end.
async fn native_builds_and_runs_are_killed(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "native").await?;
    let port = deployment.address().port();
    let (build, run) = (format!("build-to-cancel-{port}"), format!("run-to-cancel-{port}"));
    let builds = json!({
        "id": "builds",
        "files": { "a.c": envelope::bytes("int main(void) { return 0; }") },
        "makefile": format!("all:\n\tsh -c 'sleep 3600; : {build}'\n"),
    });
    let source = "#include <unistd.h>\nint main(void) { for (;;) pause(); }";
    let runs = json!({
        "id": "runs", "source": source, "name": "p", "makefile": "gcc <name>.c -o <name>", "args": [run],
    });
    for (id, request, words) in [("builds", builds, &build), ("runs", runs, &run)] {
        device.publish("inputCode/native", request.to_string()).await?;
        wait_for(words, true).await?;
        ensure!(device.message_there().is_none(), "{id} has ended by itself");
        device.publish("localCode/native", cancelling(id)).await?;
        ensure_cancelled(&answers(&mut device, 2).await?[0], id)?;
        wait_for(words, false).await?;
    }
    Ok(())
}

async fn source_as_wasm_is_cancelled_too(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "aswasm").await?;
    let source = "int main(void) { for (;;) __asm__ volatile (\"\"); }";
    for id in ["built", "building"] {
        let request = json!({
            "id": id, "source": source, "name": "p", "makefile": "gcc <name>.c -o <name>", "args": [id],
        });
        device.publish("inputCode/aswasm", request.to_string()).await?;
        device.acknowledged().await?;
        device.publish("localCode/aswasm", cancelling(id)).await?;
        ensure_cancelled(&answers(&mut device, 2).await?[0], id)?;
    }
    Ok(())
}

/// Ten thousand that find nothing, and a storm of requests, repetitions and cancels of the same few ids: each delivery
/// has its answer, and the gateway answers others afterwards.
async fn cancels_and_requests_may_come_in_any_number(deployment: Deployment) -> Result<()> {
    const NOTHING: usize = 10_000;
    const IN_FLIGHT: usize = 100;
    const ROUNDS: usize = 100;
    let not_found = |message: &Message| -> Result<()> {
        let answer = envelope::read(message)?;
        ensure!(envelope::error_kind(&answer) == "not-found", "{answer}");
        Ok(())
    };
    let mut device = deployment.device(Version::V311, "storm").await?;
    let mut answered = 0;
    for number in 0..NOTHING {
        device.publish("localCode/storm", cancelling(&format!("n{number}"))).await?;
        // No broker holds more for a device than it likes.
        while number - answered >= IN_FLIGHT {
            not_found(&device.message().await?)?;
            answered += 1;
        }
    }
    while answered < NOTHING {
        not_found(&device.message().await?)?;
        answered += 1;
    }
    let module = envelope::bytes(guest::module("sleep")?);
    let mut owed = 0;
    for round in 0..ROUNDS {
        let id = format!("s{}", round % 7);
        let request = json!({ "id": id, "module": module, "args": [(round % 7).to_string()] }).to_string();
        for payload in [&request, &cancelling(&id), &request, &cancelling(&id)] {
            device.publish("inputCode/storm", payload.clone()).await?;
            owed += 1;
        }
    }
    for _ in 0..owed {
        let answer = envelope::read(&device.message().await?)?;
        let kind = envelope::error_kind(&answer);
        ensure!(["", "cancelled", "not-found"].contains(&kind), "{answer}");
        ensure!(!answer["id"].is_null() || kind != "cancelled", "{answer}");
    }
    ensure!(device.ask("localCode/storm", "5 7").await?.text() == "12\n");
    Ok(())
}

/// A request that the gateway has kept through a crash can be cancelled by the next one, as soon as it answers; and
/// what was answered `ok` outlives another crash.
#[tokio::test]
async fn a_request_can_be_cancelled_after_a_crash_and_stays_cancelled() -> Result<()> {
    let on_any_port = ["--listen", "127.0.0.1:0"];
    let gateway = Gateway::embedded(ENDLESS).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "d").await?;
    for id in ["a", "b"] {
        device.publish("inputCode/d", sleeping(id)?.to_string()).await?;
        device.acknowledged().await?;
    }
    let gateway = gateway.crash(Signal::KILL, &on_any_port, ENDLESS).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "d").await?;
    device.subscribe("result/d").await?;
    device.publish("localCode/d", cancelling("b")).await?;
    let all = answers(&mut device, 2).await?;
    ensure_cancelled(&all[0], "b")?;
    ensure!(all[1]["status"] == "ok", "{}", all[1]);
    let gateway = gateway.crash(Signal::KILL, &on_any_port, ENDLESS).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "d").await?;
    device.subscribe("result/d").await?;
    device.publish("inputCode/d", sleeping("b")?.to_string()).await?;
    ensure_cancelled(&answer_to(&mut device, "b").await?, "b")?;
    // The other one still runs.
    device.publish("localCode/d", cancelling("a")).await?;
    ensure_cancelled(&answer_to(&mut device, "a").await?, "a")
}

/// The command, waiting for an answer of this gateway.
fn client(gateway: &Gateway, arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(built::program("offload-client")?);
    let broker = format!("mqtt://{}", gateway.address()?);
    command.args(["--broker", &broker]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// Exit code, stdout and stderr.
async fn ended(child: Child) -> Result<(Option<i32>, String, String)> {
    let output = timeout(PATIENCE, child.wait_with_output()).await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code(), text(output.stdout), text(output.stderr)))
}

/// Waits until a request of this name and this reply id runs, by cancelling it: there is no other way to see that.
async fn cancelled_by_the_command(gateway: &Gateway, reply_id: &str, id: &str) -> Result<()> {
    loop {
        let (code, stdout, stderr) = ended(client(gateway, &["-i", reply_id, "cancel", id])?).await?;
        if code == Some(0) {
            ensure!(stdout.is_empty() && stderr.is_empty(), "{stdout} {stderr}");
            return Ok(());
        }
        ensure!(code == Some(125) && stderr.starts_with("error: not-found: "), "{code:?} {stderr}");
    }
}

#[tokio::test]
async fn the_command_cancels_what_another_one_waits_for() -> Result<()> {
    let gateway = Gateway::embedded(ENDLESS).await?;
    let sleep = built::guest("sleep")?;
    let file = sleep.to_str().context("a path is not UTF-8")?;
    let waiting = client(&gateway, &["-i", "press-4", "send", "--id", "long", file, AN_HOUR])?;
    cancelled_by_the_command(&gateway, "press-4", "long").await?;
    let cancelled = "error: cancelled: another request of this client has cancelled it\n";
    ensure!(ended(waiting).await? == (Some(125), String::new(), cancelled.to_owned()));
    let (code, stdout, _) = ended(client(&gateway, &["-i", "press-4", "cancel", "long", "--json"])?).await?;
    let answer: Value = serde_json::from_str(&stdout)?;
    ensure!(code == Some(125) && envelope::error_kind(&answer) == "not-found", "{answer}");
    let (code, _, stderr) = ended(client(&gateway, &["cancel", "long"])?).await?;
    ensure!(code == Some(125) && stderr.starts_with("error: malformed: -i: "), "{stderr}");
    Ok(())
}

/// What ctrl-c has cancelled frees the only slot; the guest prints a line, by which it is seen to run.
#[tokio::test]
async fn ctrl_c_cancels() -> Result<()> {
    let gateway = Gateway::embedded(ONE_SLOT).await?;
    let folder = TempDir::new()?;
    let file = folder.path().join("talks.wat");
    std::fs::write(&file, TALKS_AND_SLEEPS)?;
    let file = file.to_str().context("a path is not UTF-8")?;
    let mut talking = client(&gateway, &["send", "--stream", file])?;
    let mut printed = [0; 7];
    timeout(PATIENCE, talking.stdout.as_mut().context("it is a pipe")?.read_exact(&mut printed)).await??;
    ensure!(&printed == b"a line\n");
    let id = talking.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it runs")?;
    kill_process(id, Signal::INT)?;
    let (code, stdout, stderr) = ended(talking).await?;
    ensure!(code == Some(130) && "and more".starts_with(&stdout), "{code:?} {stdout:?}");
    ensure!(stderr.ends_with("error: interrupted: the request was cancelled\n"), "{stderr}");
    ensure!(ended(client(&gateway, &["send", "add", "5", "7"])?).await?.1 == "12\n");
    Ok(())
}
