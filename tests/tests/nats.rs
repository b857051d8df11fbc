//! Gateways on NATS: devices speak MQTT to any server, any gateway answers, and nothing that was acknowledged is lost
//! when a gateway dies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Options, PubAckReason, Version};
use offload_tests::gateway::{Gateway, Launch};
use offload_tests::guest::TALKS_AND_SLEEPS;
use offload_tests::nats::{self, Nats};
use offload_tests::{PATIENCE, built, envelope, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Time after which a request of a gateway that died is another one's; the least that is configurable.
const ACK_WAIT: &str = "ack_wait = \"1s\"";

async fn gateway(nats: &Nats, lines: &str) -> Result<Gateway> {
    Gateway::start(&["--broker", &nats.url()], &nats.table(lines)).await
}

/// A device whose session the servers keep.
async fn steady(nats: &Nats, node: usize, id: &str) -> Result<Device> {
    let options = Options { clean: false, ..Options::default() };
    let mut device = Device::connect_with(nats.mqtt(node), Version::V311, id, options).await?;
    device.subscribe(&format!("result/{id}")).await?;
    Ok(device)
}

/// The whole of the contract's way, on both servers: every QoS, an empty reply id, a module, a program by its name.
async fn devices_are_served(version: nats::Version) -> Result<()> {
    let nats = Nats::start(version).await?;
    let gateway = gateway(&nats, "").await?;
    assert_eq!(gateway.ready(), format!("serving via {}", nats.url()));
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "d1").await?;
    device.subscribe("result/d1").await?;
    for (number, qos) in [0, 1].into_iter().cycle().take(20).enumerate() {
        device.publish_at(qos, "localCode/d1", format!("{number} 1000")).await?;
        // One answer each: a request at QoS 1 is in two streams.
        assert_eq!(device.message().await?.text(), format!("{}\n", number + 1000), "QoS {qos}");
    }
    device.subscribe("result/").await?;
    let unnamed = device.ask("localCode/", "1 2").await?;
    assert_eq!((unnamed.topic.as_str(), unnamed.text().as_str()), ("result/", "3\n"));
    device.subscribe("result/site/d1").await?;
    assert_eq!(device.ask("localCode/site/d1", "1 3").await?.topic, "result/site/d1");

    let hello = device.ask("inputCode/d1", guest::module("hello")?).await?;
    assert!(hello.text().starts_with("hello"), "{}", hello.text());
    let request = json!({ "id": "a", "program": "add", "args": ["5", "7"] });
    let first = device.ask("localCode/d1", request.to_string()).await?;
    assert_eq!(envelope::read(&first)?["status"], "ok");
    assert_eq!(device.ask("localCode/d1", request.to_string()).await?.payload, first.payload);
    gateway.stop(Signal::TERM).await
}

#[tokio::test]
async fn devices_are_served_by_the_newest_server() -> Result<()> {
    devices_are_served(nats::Version::Newest).await
}

#[tokio::test]
async fn devices_are_served_by_debians_server() -> Result<()> {
    devices_are_served(nats::Version::Debian).await
}

/// A session that was away gets its answer, at QoS 1.
#[tokio::test]
async fn a_device_that_was_away_gets_its_answer() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let _gateway = gateway(&nats, "").await?;
    drop(steady(&nats, 0, "away").await?);
    let mut other = Device::connect(nats.mqtt(0), Version::V311, "other").await?;
    other.subscribe("result/away").await?;
    // Who is there sees when it is answered.
    other.ask("localCode/away", "20 3").await?;
    let options = Options { clean: false, ..Options::default() };
    let mut back = Device::connect_with(nats.mqtt(0), Version::V311, "away", options).await?;
    let answer = back.message().await?;
    assert_eq!((answer.text().as_str(), answer.qos), ("23\n", 1));
    Ok(())
}

/// Requests that came while there was no gateway are answered when there is one.
#[tokio::test]
async fn requests_wait_for_a_gateway() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    gateway(&nats, "").await?.stop(Signal::TERM).await?;
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "patient").await?;
    device.subscribe("result/patient").await?;
    device.publish("localCode/patient", "1 1").await?;
    assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    let _gateway = gateway(&nats, "").await?;
    assert_eq!(device.message().await?.text(), "2\n");
    Ok(())
}

/// The status is retained by the servers, and says when the gateway has gone.
#[tokio::test]
async fn the_status_is_seen_by_mqtt() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let table = format!("name = \"on-nats\"\n{}", nats.table(""));
    let gateway = Gateway::start(&["--broker", &nats.url()], &table).await?;
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "watching").await?;
    device.subscribe("gateway/on-nats/status").await?;
    until(&mut device, "online").await?;
    gateway.signal(Signal::KILL)?;
    until(&mut device, "offline").await
}

async fn until(device: &mut Device, state: &str) -> Result<()> {
    while serde_json::from_slice::<Value>(&device.message().await?.payload)?["state"] != state {}
    Ok(())
}

/// An `id` that comes to several gateways at once is run by one of them, and all its answers have equal bytes.
#[tokio::test]
async fn an_id_is_run_once_on_all_gateways() -> Result<()> {
    const IDS: usize = 20;
    const REPEATED: usize = 6;
    let nats = Nats::start(nats::Version::Newest).await?;
    let gateways = [gateway(&nats, "").await?, gateway(&nats, "").await?, gateway(&nats, "").await?];
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "again").await?;
    device.subscribe("result/again").await?;
    let module = envelope::bytes(guest::module("sleep")?);
    for _ in 0..REPEATED {
        for id in 0..IDS {
            let request = json!({ "id": format!("{id}"), "module": module, "args": ["20"] });
            device.publish("inputCode/again", request.to_string()).await?;
        }
    }
    let mut answers: HashMap<String, HashSet<Vec<u8>>> = HashMap::new();
    for _ in 0..IDS * REPEATED {
        let answer = device.message().await?;
        let document = envelope::read(&answer)?;
        assert_eq!(document["status"], "ok", "{document}");
        let id = document["id"].as_str().context("there is an id")?.to_owned();
        answers.entry(id).or_default().insert(answer.payload.to_vec());
    }
    // The envelope says how long the run took, so a second run would not go unnoticed.
    assert_eq!(answers.len(), IDS);
    assert!(answers.values().all(|different| different.len() == 1), "{answers:?}");
    let other = json!({ "id": "0", "program": "add", "args": ["1", "1"] });
    for _ in 0..REPEATED {
        let refused = envelope::ask(&mut device, "localCode/again", &other).await?;
        assert_eq!(envelope::error_kind(&refused), "malformed", "{refused}");
    }
    for gateway in gateways {
        gateway.stop(Signal::TERM).await?;
    }
    Ok(())
}

/// A module that was sent to one gateway is there for another one, for whoever has sent it.
#[tokio::test]
async fn a_module_that_was_sent_once_serves_all_gateways() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let first = gateway(&nats, "").await?;
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "sender").await?;
    device.subscribe("result/sender").await?;
    let module = guest::module("hello")?;
    let sent = device.ask("inputCode/sender", module.clone()).await?;
    first.stop(Signal::TERM).await?;

    let _second = gateway(&nats, "").await?;
    let digest = digest(&module).await?;
    let request = json!({ "digest": digest, "reply": "stdout" });
    let named = device.ask("localCode/sender", request.to_string()).await?;
    assert_eq!(named.payload, sent.payload, "{}", named.text());
    let mut stranger = Device::connect(nats.mqtt(0), Version::V311, "stranger").await?;
    stranger.subscribe("result/stranger").await?;
    let refused = envelope::ask(&mut stranger, "localCode/stranger", json!({ "digest": digest })).await?;
    assert_eq!(envelope::error_kind(&refused), "not-found", "{refused}");
    Ok(())
}

/// A program that writes fifteen bytes, which are streamed, and sleeps for an hour.
fn talking(id: &str) -> Result<Value> {
    let module = envelope::bytes(wat::parse_str(TALKS_AND_SLEEPS)?);
    Ok(json!({ "id": id, "module": module, "reply": "stream" }))
}

/// Waits for all that [`talking`] writes, which then runs.
async fn talks(device: &mut Device, answers: &str, id: &str, qos: u8) -> Result<()> {
    let mut stdout = Vec::new();
    while stdout != b"a line\nand more" {
        let part = device.message().await?;
        ensure!(part.topic == format!("{answers}/stream/{id}/{}", stdout.len()), "{}", part.topic);
        ensure!(part.qos == qos, "at QoS {}", part.qos);
        stdout.extend_from_slice(&part.payload);
    }
    Ok(())
}

fn cancelling(id: &str) -> Value {
    json!({ "cancel": id })
}

fn ensure_cancelled(answer: &Value, id: &str) -> Result<()> {
    ensure!(answer["id"] == id && envelope::error_kind(answer) == "cancelled", "{answer}");
    Ok(())
}

/// What a program writes comes while it runs, at the request's QoS.
#[tokio::test]
async fn stdout_comes_as_it_is_written() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let _gateway = gateway(&nats, "[limits]\nwall = \"10min\"").await?;
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "talker").await?;
    device.subscribe("result/talker").await?;
    device.subscribe("result/talker/stream/#").await?;
    for (id, qos) in [("zero", 0), ("one", 1)] {
        device.publish_at(qos, "inputCode/talker", talking(id)?.to_string()).await?;
        talks(&mut device, "result/talker", id, qos).await?;
        device.publish("localCode/talker", cancelling(id).to_string()).await?;
        let mut answers =
            [envelope::read(&device.message().await?)?, envelope::read(&device.message().await?)?];
        answers.sort_by_key(|answer| answer["id"].is_null());
        ensure_cancelled(&answers[0], id)?;
        ensure!(answers[1]["status"] == "ok", "{answers:?}");
        // A repetition is not streamed again.
        ensure_cancelled(&envelope::ask(&mut device, "inputCode/talker", talking(id)?).await?, id)?;
    }
    let unnamed =
        envelope::ask(&mut device, "inputCode/talker", json!({ "reply": "stream", "program": "add" }));
    assert_eq!(envelope::error_kind(&unnamed.await?), "malformed");
    Ok(())
}

/// A cancel that any gateway takes: of what waits in the stream, which never starts, and of what another one runs,
/// which is ended. Both stay cancelled.
async fn a_cancel_reaches_all_gateways(version: nats::Version) -> Result<()> {
    const ONE: &str = "in_flight = 1\n[limits]\nwall = \"10min\"";
    let nats = Nats::start(version).await?;
    let full = gateway(&nats, ONE).await?;
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "c").await?;
    device.subscribe("result/c").await?;
    device.subscribe("result/c/stream/#").await?;
    device.publish("inputCode/c", talking("runs")?.to_string()).await?;
    talks(&mut device, "result/c", "runs", 1).await?;
    // The gateway has no room for more on this topic.
    device.publish("inputCode/c", talking("waits")?.to_string()).await?;
    for _ in 0..2 {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    let answer = envelope::ask(&mut device, "localCode/c", cancelling("waits")).await?;
    ensure!(answer["status"] == "ok", "{answer}");
    for id in ["waits", "never"] {
        let answer = envelope::ask(&mut device, "localCode/c", cancelling(id)).await?;
        ensure!(envelope::error_kind(&answer) == "not-found", "{id}: {answer}");
    }
    let other = gateway(&nats, ONE).await?;
    ensure_cancelled(&envelope::read(&device.message().await?)?, "waits")?;

    // The one that runs it takes no other on this topic: the cancel is the other one's.
    let named = json!({ "id": "by name", "cancel": "runs" });
    device.publish("inputCode/c", named.to_string()).await?;
    let mut answers = [envelope::read(&device.message().await?)?, envelope::read(&device.message().await?)?];
    answers.sort_by_key(|answer| answer["id"] == "by name");
    ensure_cancelled(&answers[0], "runs")?;
    ensure!(answers[1]["status"] == "ok", "{answers:?}");
    for gateway in [full, other] {
        // Whichever is left.
        for id in ["runs", "waits"] {
            ensure_cancelled(&envelope::ask(&mut device, "inputCode/c", talking(id)?).await?, id)?;
            let gone = envelope::ask(&mut device, "localCode/c", cancelling(id)).await?;
            ensure!(envelope::error_kind(&gone) == "not-found", "{gone}");
        }
        ensure!(envelope::ask(&mut device, "localCode/c", &named).await? == answers[1]);
        gateway.stop(Signal::TERM).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_cancel_reaches_all_gateways_of_the_newest_server() -> Result<()> {
    a_cancel_reaches_all_gateways(nats::Version::Newest).await
}

#[tokio::test]
async fn a_cancel_reaches_all_gateways_of_debians_server() -> Result<()> {
    a_cancel_reaches_all_gateways(nats::Version::Debian).await
}

/// Modules are listed, and removed, for all gateways.
#[tokio::test]
async fn modules_are_those_of_all_gateways() -> Result<()> {
    /// As many requests in a row come to each of two gateways.
    const ENOUGH: usize = 10;
    let nats = Nats::start(nats::Version::Newest).await?;
    let first = gateway(&nats, "").await?;
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "owner").await?;
    device.subscribe("result/owner").await?;
    let list = json!({ "modules": "list" });
    let listed = async |device: &mut Device| -> Result<Value> {
        let answer = envelope::ask(device, "localCode/owner", &list).await?;
        Ok(serde_json::from_slice(&envelope::bytes_of(&answer, "stdout")?)?)
    };
    assert_eq!(listed(&mut device).await?, json!([]));
    let module = guest::module("hello")?;
    let store = json!({ "modules": "store", "module": envelope::bytes(&module) });
    let stored = envelope::ask(&mut device, "inputCode/owner", &store).await?;
    let stored: Value = serde_json::from_slice(&envelope::bytes_of(&stored, "stdout")?)?;
    let other = device.ask("inputCode/owner", guest::module("sleep")?).await?;
    ensure!(!other.text().starts_with("error: malformed"), "{}", other.text());
    assert_eq!(listed(&mut device).await?.as_array().map(Vec::len), Some(2));

    let second = gateway(&nats, "").await?;
    first.stop(Signal::TERM).await?;
    let there = listed(&mut device).await?;
    let digest = &stored[0]["digest"];
    let found = there.as_array().context("a list")?.iter().find(|module| module["digest"] == *digest);
    assert_eq!(found.context("the module is there")?["bytes"], stored[0]["bytes"]);
    let mut stranger = Device::connect(nats.mqtt(0), Version::V311, "stranger").await?;
    stranger.subscribe("result/stranger").await?;
    let nothing = envelope::ask(&mut stranger, "localCode/stranger", &list).await?;
    assert_eq!(envelope::bytes_of(&nothing, "stdout")?, b"[]");

    // Several gateways have a copy; whichever removes it, soon none has it.
    let run = json!({ "digest": digest });
    assert_eq!(envelope::ask(&mut device, "localCode/owner", &run).await?["status"], "ok");
    let third = gateway(&nats, "").await?;
    for _ in 0..ENOUGH {
        assert_eq!(envelope::ask(&mut device, "localCode/owner", &run).await?["status"], "ok");
    }
    let remove = json!({ "modules": "remove", "digest": digest });
    assert_eq!(envelope::ask(&mut device, "localCode/owner", &remove).await?["status"], "ok");
    let gone = async {
        let mut refused = 0;
        while refused < ENOUGH {
            let answer = envelope::ask(&mut device, "localCode/owner", &run).await?;
            refused = if envelope::error_kind(&answer) == "not-found" { refused + 1 } else { 0 };
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(PATIENCE, gone).await.context("a gateway has its copy still")??;
    let again = envelope::ask(&mut device, "localCode/owner", &remove).await?;
    assert_eq!(envelope::error_kind(&again), "not-found");
    assert_eq!(listed(&mut device).await?.as_array().map(Vec::len), Some(1));
    assert_eq!(envelope::ask(&mut device, "inputCode/owner", store).await?["status"], "ok");
    assert_eq!(listed(&mut device).await?.as_array().map(Vec::len), Some(2));
    for gateway in [second, third] {
        gateway.stop(Signal::TERM).await?;
    }
    Ok(())
}

/// Two gateways that are sent one module at the same time store it once: nothing is left of what the slower one stored.
#[tokio::test]
async fn what_two_gateways_store_at_once_is_stored_once() -> Result<()> {
    const MODULES: usize = 40;
    let nats = Nats::start(nats::Version::Newest).await?;
    let gateways = [gateway(&nats, "").await?, gateway(&nats, "").await?];
    let mut device = Device::connect(nats.mqtt(0), Version::V311, "owner").await?;
    device.subscribe("result/owner").await?;
    for number in 0..MODULES {
        let module = wat::parse_str(format!(
            "(module (memory (export \"memory\") 1) (func (export \"_start\")) (global i32 (i32.const {number})))"
        ))?;
        let store = json!({ "modules": "store", "module": envelope::bytes(&module) }).to_string();
        for _ in 0..2 {
            device.publish("inputCode/owner", store.clone()).await?;
        }
    }
    for _ in 0..2 * MODULES {
        let answer = envelope::read(&device.message().await?)?;
        ensure!(answer["status"] == "ok", "{answer}");
    }
    for gateway in gateways {
        // What it stores is stored when it has ended.
        gateway.stop(Signal::TERM).await?;
    }
    let stored = async |which| nats.subjects("OBJ_offload-rt-modules", which).await;
    let (names, chunks) =
        (stored("$O.offload-rt-modules.M.>").await?, stored("$O.offload-rt-modules.C.>").await?);
    assert_eq!((names.len(), chunks.len()), (MODULES, MODULES), "each has one chunk");
    Ok(())
}

/// As `sha256sum` says it.
async fn digest(bytes: &[u8]) -> Result<String> {
    let folder = TempDir::new()?;
    let file = folder.path().join("module");
    std::fs::write(&file, bytes)?;
    let output = Command::new("sha256sum").arg(&file).stderr(Stdio::inherit()).output().await?;
    let text = String::from_utf8(output.stdout)?;
    Ok(format!("sha256:{}", text.split_whitespace().next().context("there is a digest")?))
}

/// A gateway that is killed in the middle: the other one answers what it had, with and without an `id`.
#[tokio::test]
async fn a_gateway_that_dies_has_its_requests_answered_by_another() -> Result<()> {
    const REQUESTS: usize = 40;
    let nats = Nats::start(nats::Version::Newest).await?;
    let dying = gateway(&nats, ACK_WAIT).await?;
    let mut device = steady(&nats, 0, "asking").await?;
    // It has the module before the load comes.
    let module = envelope::bytes(guest::module("sleep")?);
    let request = |id: &str, ms: &str| json!({ "id": id, "module": module, "args": [ms] }).to_string();
    device.ask("inputCode/asking", request("warm", "1")).await?;
    let mut missing = HashSet::new();
    for number in 0..REQUESTS {
        let id = format!("request {number}");
        device.publish("inputCode/asking", request(&id, "500")).await?;
        missing.insert(id);
    }
    for _ in 0..=REQUESTS {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    dying.signal(Signal::KILL)?;
    let _heir = gateway(&nats, ACK_WAIT).await?;
    all_answered(&mut device, missing).await.map(drop)
}

/// Waits until all are answered, and checks that one `id` has one answer. Returns the answers.
async fn all_answered(
    device: &mut Device,
    mut missing: HashSet<String>,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut answers: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while !missing.is_empty() {
        let answer = device.message().await.with_context(|| format!("never answered: {missing:?}"))?;
        // The first request has no id: it may be answered once more.
        if answer.payload == *"2\n" {
            continue;
        }
        let document = envelope::read(&answer)?;
        ensure!(document["status"] == "ok", "{document}");
        let id = document["id"].as_str().context("there is an id")?.to_owned();
        missing.remove(&id);
        let known = answers.entry(id).or_insert_with(|| answer.payload.to_vec());
        ensure!(*known == answer.payload, "{document} was answered otherwise before");
    }
    Ok(answers)
}

/// Three servers and three gateways under load; a server and a gateway are killed at once: all that was acknowledged
/// is answered, and each `id` with equal bytes.
#[tokio::test]
async fn a_server_and_a_gateway_die_at_once() -> Result<()> {
    const REQUESTS: usize = 300;
    let mut nats = Nats::cluster(nats::Version::Newest, 3).await?;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(gateway(&nats, ACK_WAIT).await?);
    }
    // On a server that stays: these devices know one address.
    let mut device = steady(&nats, 1, "steady").await?;
    device.ask("localCode/steady", "1 1").await?;
    device.acknowledged().await?;
    let module = envelope::bytes(guest::module("sleep")?);
    let mut missing = HashSet::new();
    for number in 0..REQUESTS {
        let id = format!("{number}");
        let request = json!({ "id": id, "module": module, "args": ["20"] });
        device.publish("inputCode/steady", request.to_string()).await?;
        missing.insert(id);
        if number == REQUESTS / 3 {
            gateways.remove(0).signal(Signal::KILL)?;
            nats.kill(0).await?;
        }
    }
    for _ in 0..REQUESTS {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    let answers = all_answered(&mut device, missing.clone()).await?;
    // Whoever asks again gets the same, from whichever gateway.
    nats.resume(0).await?;
    for id in &missing {
        let request = json!({ "id": id, "module": module, "args": ["20"] });
        device.publish("inputCode/steady", request.to_string()).await?;
    }
    let again = all_answered(&mut device, missing).await?;
    assert_eq!(answers, again);
    Ok(())
}

/// Requests of one device that are not answered yet, beside what gateways take at once: enough for three.
const OUTSTANDING: usize = 64;

/// Asks a service again and again, for as long as it may; counts the answers.
async fn ask_on(address: SocketAddr, answered: Arc<AtomicUsize>) -> Result<()> {
    let mut device = Device::connect(address, Version::V311, "busy").await?;
    device.subscribe("result/busy").await?;
    let request = json!({ "program": "sleep", "args": ["250"], "reply": "stdout" }).to_string();
    for _ in 0..OUTSTANDING {
        device.publish("localCode/busy", request.clone()).await?;
    }
    loop {
        let answer = device.message().await?.text();
        ensure!(!answer.starts_with("error"), "{answer}");
        answered.fetch_add(1, Ordering::Relaxed);
        device.publish("localCode/busy", request.clone()).await?;
    }
}

/// Throughput grows with the gateways. Services of one, two and three gateways are asked at the same time, so that a
/// slow machine is slow for all of them, for programs that sleep, so that it need not be fast.
#[tokio::test]
async fn throughput_grows_with_the_gateways() -> Result<()> {
    const ANSWERED_BY_ONE: usize = 96;
    let program = built::guest("sleep")?;
    let sleeping = format!("[[program]]\nname = \"sleep\"\nfile = \"{}\"", program.display());
    let mut services = Vec::new();
    let mut asking = JoinSet::new();
    for count in 1..=3 {
        let nats = Nats::start(nats::Version::Newest).await?;
        let mut gateways = Vec::new();
        for _ in 0..count {
            gateways.push(gateway(&nats, &format!("in_flight = 8\n{sleeping}")).await?);
        }
        let answered = Arc::new(AtomicUsize::new(0));
        asking.spawn(ask_on(nats.mqtt(0), answered.clone()));
        services.push((nats, gateways, answered));
    }
    let counts = || [0, 1, 2].map(|service: usize| services[service].2.load(Ordering::Relaxed));
    // Each has come to its pace by then.
    let until = async |reached: &dyn Fn([usize; 3]) -> bool, asking: &mut JoinSet<Result<()>>| {
        loop {
            let now = counts();
            if reached(now) {
                return anyhow::Ok(now);
            }
            tokio::select! {
                Some(ended) = asking.join_next() => ended??,
                () = sleep(Duration::from_millis(1)) => {}
            }
        }
    };
    let before = until(&|counts| counts.iter().all(|count| *count >= OUTSTANDING), &mut asking).await?;
    let after = until(&|counts| counts[0] >= before[0] + ANSWERED_BY_ONE, &mut asking).await?;
    let [one, two, three] = [0, 1, 2].map(|service| after[service] - before[service]);
    ensure!(10 * two >= 18 * one && 10 * three >= 26 * one, "{one}, {two} and {three} answers");
    Ok(())
}

/// What is in JetStream and contradicts the configuration ends the gateway, with the command that helps.
#[tokio::test]
async fn what_contradicts_the_configuration_is_refused_with_the_remedy() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    gateway(&nats, "").await?.stop(Signal::TERM).await?;
    for (lines, problem, remedy) in [
        (
            "ack_wait = \"7s\"",
            "nats.ack_wait",
            "nats consumer edit '$MQTT_msgs' offload-rt-localCode --wait 7s",
        ),
        ("replicas = 3", "nats.replicas", "nats stream edit KV_offload-rt-outcomes --replicas 3"),
        ("\n[broker]\nshare = \"second\"", "another stream (offload-rt)", "nats stream rm"),
    ] {
        let launch = Launch::default();
        let flags = ["--broker", &nats.url()];
        let mut refused = Gateway::spawn(TempDir::new()?, &flags, &nats.table(lines), launch)?;
        ensure!(!refused.ended_with().await?.success(), "{lines}");
        let log = refused.whole_log()?;
        ensure!(log.contains(problem) && log.contains(remedy), "{lines}: {log}");
    }
    let table = format!("[idempotency]\nretention = \"5min\"\n{}", nats.table(""));
    let mut refused = Gateway::spawn(TempDir::new()?, &["--broker", &nats.url()], &table, Launch::default())?;
    ensure!(!refused.ended_with().await?.success());
    let log = refused.whole_log()?;
    ensure!(log.contains("nats stream edit KV_offload-rt-outcomes --max-age 300s"), "{log}");
    Ok(())
}

/// The client's command works on NATS as on any broker.
#[tokio::test]
async fn the_command_sends_by_the_mqtt_listener() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let _gateway = gateway(&nats, "").await?;
    let mut command = Command::new(built::program("offload-client")?);
    let broker = format!("mqtt://{}", nats.mqtt(0));
    let output = command
        .args(["--broker", &broker, "-V", "3.1.1", "send", "add", "--args", "5", "7"])
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"12\n");
    Ok(())
}

/// The permissions of `docs/security.md`: a device asks as itself alone, and the gateway needs no more than that.
#[tokio::test]
async fn a_device_asks_as_itself_alone() -> Result<()> {
    const USERS: &str = r#"
accounts { OFFLOAD { jetstream: enabled, users = [
  { user: gateway, password: secret, permissions: {
      publish: ["$JS.>", "$MQTT.>", "$KV.offload-rt-outcomes.>", "$KV.offload-rt-sealed.>", "$KV.offload-rt-keys.>", "$O.offload-rt-modules.>", "result.>", "gateway.>"]
      subscribe: ["_INBOX.>", "$MQTT.>", "gateway.>"] } }
  { user: d1, password: one, permissions: {
      publish: ["localCode.d1", "inputCode.d1"], subscribe: ["result.d1", "$MQTT.sub.>"] } }
  { user: d2, password: two, permissions: {
      publish: ["localCode.d2", "inputCode.d2"], subscribe: ["result.d2", "$MQTT.sub.>"] } }
] } }
"#;
    let nats = Nats::start_with(nats::Version::Newest, 1, USERS).await?;
    let folder = TempDir::new()?;
    std::fs::write(folder.path().join("password"), "secret\n")?;
    let user = "[broker]\nusername = \"gateway\"\npassword_file = \"password\"\n";
    let table = format!("{user}{}", nats.table(""));
    let _gateway = Gateway::start_in(folder, &["--broker", &nats.url()], &table).await?;
    let as_user = |name, password| Options { credentials: Some((name, password)), ..Options::default() };
    let mut first = Device::connect_with(nats.mqtt(0), Version::V311, "one", as_user("d1", "one")).await?;
    let mut second = Device::connect_with(nats.mqtt(0), Version::V311, "two", as_user("d2", "two")).await?;
    first.subscribe("result/d1").await?;
    second.subscribe("result/d2").await?;
    ensure!(first.subscribe("result/d2").await.is_err(), "it may hear the other one's answers");
    first.publish("localCode/d2", "6 6").await?;
    assert_eq!(first.ask("localCode/d1", "1 2").await?.text(), "3\n");
    // Its own answer is the first that the other one hears.
    assert_eq!(second.ask("localCode/d2", "2 2").await?.text(), "4\n");
    let module = guest::module("hello")?;
    ensure!(first.ask("inputCode/d1", module).await?.text().starts_with("hello"));
    Ok(())
}
