//! Sealed requests: what is in them only the gateway reads, and what is in their answers only who has asked.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use offload_tests::built;
use offload_tests::c_client::{CClient, STRICT};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Properties, Version};
use offload_tests::envelope::{self, error_kind};
use offload_tests::gateway::Gateway;
use offload_tests::guest::RANDOM;
use offload_tests::on_each_broker;
use offload_tests::proxy::Proxy;
use offload_tests::sealing::{
    self, Encoding, Key, Sealed, X25519, XWING, fresh_id, inner, newest, now, seal,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

on_each_broker! {
    a_sealed_request_is_answered_sealed,
    each_error_after_the_opening_is_sealed,
    what_is_changed_on_the_way_is_refused_without_detail,
    what_is_inside_has_its_own_rules,
    a_request_runs_once_whoever_delivers_it,
    the_clock_of_the_asker_is_near_that_of_the_gateway,
}

const TOPIC: &str = "localCode/d";
const ON_ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

fn add() -> Value {
    inner(json!({ "program": "add", "args": ["5", "7"] }))
}

fn random() -> Result<Value> {
    Ok(inner(json!({ "module": envelope::bytes(wat::parse_str(RANDOM)?) })))
}

/// Refused in clear, with an id of null and the same words whatever was wrong.
fn refused(sealed: &Sealed, message: &offload_tests::device::Message) -> Result<String> {
    let answer = sealed.read(message)?;
    ensure!(answer["id"].is_null() && answer["status"] == "error", "{answer}");
    Ok(format!("{}: {}", error_kind(&answer), answer["error"]["message"].as_str().context("a message")?))
}

/// Both suites, both encodings, both versions of MQTT; Correlation Data comes back; user properties count for nothing.
async fn a_sealed_request_is_answered_sealed(deployment: Deployment) -> Result<()> {
    for version in [Version::V311, Version::V5] {
        let (mut device, keys) = sealing::device(deployment.address(), version, "d").await?;
        for (suite, encoding) in [
            (X25519, Encoding::Json),
            (X25519, Encoding::Cbor),
            (XWING, Encoding::Json),
            (XWING, Encoding::Cbor),
        ] {
            let asked = add();
            let sealed = seal(&newest(&keys, suite)?, &asked, TOPIC, encoding)?;
            let answer = sealed.ask(&mut device, TOPIC).await?;
            assert_eq!((&answer["id"], &answer["status"]), (&asked["id"], &json!("ok")), "{answer}");
            assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"12\n");
        }
    }
    let (mut device, keys) = sealing::device(deployment.address(), Version::V5, "d").await?;
    let sealed = seal(&newest(&keys, X25519)?, &add(), TOPIC, Encoding::Json)?;
    let properties = Properties {
        user: vec![("fuel".to_owned(), "1".to_owned()), ("fuel".to_owned(), "2".to_owned())],
        response_topic: Some("result/d".to_owned()),
        correlation_data: Some("mine".into()),
    };
    device.publish_with(TOPIC, sealed.payload()?, properties, false).await?;
    let message = device.message().await?;
    assert_eq!(message.correlation_data.as_deref(), Some(&b"mine"[..]));
    assert_eq!(sealed.open(&message)?["status"], "ok");
    Ok(())
}

async fn each_error_after_the_opening_is_sealed(deployment: Deployment) -> Result<()> {
    let (mut device, keys) = sealing::device(deployment.address(), Version::V5, "d").await?;
    let key = newest(&keys, X25519)?;
    for (asked, kind) in [
        (inner(json!({ "program": "none of these" })), "not-found"),
        (inner(json!({ "program": "add", "other": 1 })), "malformed"),
        (inner(json!({ "source": "int main(){}", "makefile": "gcc <name>.c -o <name>" })), "malformed"),
        (inner(json!({ "program": "add", "args": ["5", "7"], "fuel": 1 })), "fuel"),
        (inner(json!({ "program": "add", "sealed_at": now() - 3_600_000 })), "expired"),
    ] {
        let sealed = seal(&key, &asked, TOPIC, Encoding::Json)?;
        let answer = sealed.ask(&mut device, TOPIC).await?;
        assert_eq!((error_kind(&answer), &answer["id"]), (kind, &asked["id"]), "{answer}");
    }
    Ok(())
}

/// Each field changed or cut at each length, another topic, another gateway's key: always the same words.
async fn what_is_changed_on_the_way_is_refused_without_detail(deployment: Deployment) -> Result<()> {
    let (mut device, keys) = sealing::device(deployment.address(), Version::V311, "d").await?;
    let key = newest(&keys, X25519)?;
    let good = seal(&key, &add(), TOPIC, Encoding::Json)?;
    let mut words = Vec::new();
    let mut others = Vec::new();
    for field in ["sealed", "encapsulated"] {
        let bytes = BASE64_STANDARD.decode(good.outer[field].as_str().context("bytes")?)?;
        let cut = (0..bytes.len()).map(|end| bytes[..end].to_vec());
        let changed = (0..bytes.len()).map(|at| {
            let mut other = bytes.clone();
            other[at] ^= 1;
            other
        });
        let longer = [[&bytes[..], &[0]].concat()];
        for other in cut.chain(changed).chain(longer) {
            let mut outer = good.outer.clone();
            outer[field] = BASE64_STANDARD.encode(other).into();
            others.push(outer);
        }
    }
    for suite in [XWING, "x25519", ""] {
        let mut outer = good.outer.clone();
        outer["suite"] = suite.into();
        others.push(outer);
    }
    let mut more = good.outer.clone();
    more["id"] = fresh_id().into();
    others.push(more);
    for field in ["encapsulated", "key", "suite"] {
        let mut less = good.outer.clone();
        less.as_object_mut().context("a map")?.remove(field);
        others.push(less);
    }
    // Together, so that it takes no round trip for each.
    for outer in &others {
        device.publish(TOPIC, outer.to_string()).await?;
        words.push(refused(&good, &device.message().await?)?);
    }
    // Sealed for another topic, and another gateway's key under this one's name.
    let misplaced = seal(&key, &add(), "localCode/e", Encoding::Json)?;
    words.push(refused(&good, &device.ask(TOPIC, misplaced.payload()?).await?)?);
    let elsewhere = seal(&key, &inner(json!({ "program": "add" })), "inputCode/d", Encoding::Json)?;
    words.push(refused(&good, &device.ask(TOPIC, elsewhere.payload()?).await?)?);
    let stranger = Key { public: vec![9; 32], ..key.clone() };
    let to_another = seal(&stranger, &add(), TOPIC, Encoding::Json)?;
    words.push(refused(&good, &device.ask(TOPIC, to_another.payload()?).await?)?);
    ensure!(words.iter().all(|said| *said == words[0] && said.starts_with("malformed: ")), "{words:?}");
    let mut unknown = good.clone();
    unknown.outer["key"] = format!("sha256:{}", "0".repeat(64)).into();
    let said = refused(&good, &device.ask(TOPIC, unknown.payload()?).await?)?;
    ensure!(said.starts_with("unauthorized: "), "{said}");
    assert_eq!(good.ask(&mut device, TOPIC).await?["status"], "ok", "unchanged it opens");
    Ok(())
}

async fn what_is_inside_has_its_own_rules(deployment: Deployment) -> Result<()> {
    let (mut device, keys) = sealing::device(deployment.address(), Version::V5, "d").await?;
    let key = newest(&keys, X25519)?;
    let nested = seal(&key, &add(), TOPIC, Encoding::Json)?.outer;
    let without = |field: &str| {
        let mut inner = add();
        inner.as_object_mut().map(|fields| fields.remove(field));
        inner
    };
    for (asked, field) in [
        (nested, "encapsulated"),
        (inner(json!({ "program": "add", "reply": "stdout" })), "reply"),
        (inner(json!({ "program": "add", "id": "0123456789abcdefghijk" })), "id"),
        (inner(json!({ "program": "add", "id": "a".repeat(65) })), "id"),
        (without("id"), "id"),
        (without("sealed_at"), "sealed_at"),
        (inner(json!({ "program": "add", "sealed_at": "now" })), "sealed_at"),
    ] {
        let sealed = seal(&key, &asked, TOPIC, Encoding::Json)?;
        let answer = sealed.ask(&mut device, TOPIC).await?;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        ensure!(error_kind(&answer) == "malformed" && message.starts_with(field), "{field}: {answer}");
    }
    // No envelope: a form in clear.
    let sealed = seal(&key, &json!("5 7"), TOPIC, Encoding::Json)?;
    assert_eq!(error_kind(&sealed.ask(&mut device, TOPIC).await?), "malformed");
    let accepted = inner(json!({ "program": "add", "args": ["5", "7"], "reply": "envelope" }));
    let sealed = seal(&key, &accepted, TOPIC, Encoding::Json)?;
    assert_eq!(sealed.ask(&mut device, TOPIC).await?["status"], "ok");
    Ok(())
}

/// The same bytes, the same id sealed again, another client that delivers them; a request in clear has other ids.
async fn a_request_runs_once_whoever_delivers_it(deployment: Deployment) -> Result<()> {
    let (mut device, keys) = sealing::device(deployment.address(), Version::V5, "d").await?;
    let key = newest(&keys, X25519)?;
    let topic = "inputCode/d";
    let mut asked = random()?;
    let sealed = seal(&key, &asked, topic, Encoding::Json)?;
    let first = device.ask(topic, sealed.payload()?).await?;
    let answer = sealed.open(&first)?;
    assert_eq!(answer["status"], "ok", "{answer}");
    let again = device.ask(topic, sealed.payload()?).await?;
    assert_ne!(first.payload, again.payload, "sealed afresh");
    assert_eq!(sealed.open(&again)?, answer);
    let thief = Device::connect(deployment.address(), Version::V5, "thief").await?;
    thief.publish(topic, sealed.payload()?).await?;
    assert_eq!(sealed.open(&device.message().await?)?, answer);
    // Later, in another suite: it is the same request.
    asked["sealed_at"] = (now() + 1000).into();
    let later = seal(&newest(&keys, XWING)?, &asked, topic, Encoding::Cbor)?;
    assert_eq!(later.ask(&mut device, topic).await?, answer);
    // Another one of this id is refused.
    asked["args"] = json!(["other"]);
    let other = seal(&key, &asked, topic, Encoding::Json)?;
    assert_eq!(error_kind(&other.ask(&mut device, topic).await?), "malformed");
    // One in clear is neither joined nor refused.
    let clear = json!({ "id": asked["id"], "module": asked["module"], "args": ["other"] });
    let clear = envelope::ask(&mut device, topic, clear).await?;
    assert_eq!(clear["status"], "ok");
    assert_ne!(clear["stdout"], answer["stdout"]);
    // What was not run is not remembered: it can be run later.
    let mut unknown = inner(json!({ "program": "none" }));
    let refused = seal(&key, &unknown, topic, Encoding::Json)?;
    assert_eq!(error_kind(&refused.ask(&mut device, topic).await?), "not-found");
    unknown["program"] = "add".into();
    unknown["args"] = json!(["5", "7"]);
    assert_eq!(seal(&key, &unknown, topic, Encoding::Json)?.ask(&mut device, topic).await?["status"], "ok");
    Ok(())
}

async fn the_clock_of_the_asker_is_near_that_of_the_gateway(deployment: Deployment) -> Result<()> {
    let (mut device, keys) = sealing::device(deployment.address(), Version::V5, "d").await?;
    let key = newest(&keys, X25519)?;
    for (offset, is_in_time) in [(-610_000, false), (-500_000, true), (50_000, true), (70_000, false)] {
        let sealed_at = now().saturating_add_signed(offset);
        let asked = inner(json!({ "program": "add", "args": ["5", "7"], "sealed_at": sealed_at }));
        let answer = seal(&key, &asked, TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?;
        let expected = if is_in_time { "" } else { "expired" };
        assert_eq!(error_kind(&answer), expected, "{offset} {answer}");
    }
    Ok(())
}

/// With the journal it is known across any end what was run; without it nothing that was sealed before is run.
#[tokio::test]
async fn what_was_sealed_is_not_run_again_after_a_restart() -> Result<()> {
    for signal in [Signal::KILL, Signal::TERM] {
        let gateway = Gateway::embedded("").await?;
        let (mut device, keys) = sealing::device(gateway.address()?, Version::V5, "d").await?;
        let asked = random()?;
        let sealed = seal(&newest(&keys, X25519)?, &asked, "inputCode/d", Encoding::Json)?;
        let first = sealed.ask(&mut device, "inputCode/d").await?;
        let gateway = gateway.crash(signal, &ON_ANY_PORT, "").await?;
        let (mut device, keys_after) = sealing::device(gateway.address()?, Version::V5, "d").await?;
        assert_eq!(keys_after, keys);
        assert_eq!(sealed.ask(&mut device, "inputCode/d").await?, first);
    }
    for other in ["batch", "off"] {
        let configuration = format!("durability = \"{other}\"\n");
        let gateway = Gateway::embedded(&configuration).await?;
        let (mut device, keys) = sealing::device(gateway.address()?, Version::V5, "d").await?;
        let key = newest(&keys, X25519)?;
        let early = seal(&key, &add(), TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?;
        assert_eq!(error_kind(&early), "expired", "{other}");
        // Another process with a journal knows nothing of what that one has run.
        let gateway = gateway.restart(&ON_ANY_PORT, "").await?;
        let (mut device, _) = sealing::device(gateway.address()?, Version::V5, "d").await?;
        let early = seal(&key, &add(), TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?;
        assert_eq!(error_kind(&early), "expired", "{other}");
    }
    Ok(())
}

/// A request that was acknowledged and had no answer when the gateway was killed is opened again, and answered sealed.
#[tokio::test]
async fn what_was_acknowledged_is_opened_again() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let (mut device, keys) = sealing::device(gateway.address()?, Version::V5, "d").await?;
    let module = envelope::bytes(offload_tests::guest::module("sleep")?);
    let asked = inner(json!({ "module": module, "args": ["2000"] }));
    let sealed = seal(&newest(&keys, X25519)?, &asked, "inputCode/d", Encoding::Json)?;
    device.publish("inputCode/d", sealed.payload()?).await?;
    device.acknowledged().await?;
    let gateway = gateway.crash(Signal::KILL, &ON_ANY_PORT, "").await?;
    let (mut device, _) = sealing::device(gateway.address()?, Version::V5, "d").await?;
    device.publish("inputCode/d", sealed.payload()?).await?;
    let answer = sealed.open(&device.message().await?)?;
    assert_eq!((&answer["id"], &answer["status"]), (&asked["id"], &json!("ok")), "{answer}");
    gateway.logged(&["requests that an earlier process has accepted are run again"]).await?;
    Ok(())
}

/// No one of the ids is forgotten before its time: beyond them requests are answered `busy`, sealed.
#[tokio::test]
async fn a_full_store_answers_busy() -> Result<()> {
    let gateway = Gateway::embedded("[idempotency]\nsealed = 4\n").await?;
    let (mut device, keys) = sealing::device(gateway.address()?, Version::V5, "d").await?;
    let key = newest(&keys, X25519)?;
    let first = seal(&key, &add(), TOPIC, Encoding::Json)?;
    let answer = first.ask(&mut device, TOPIC).await?;
    assert_eq!(seal(&key, &add(), TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?["status"], "ok");
    let full = seal(&key, &add(), TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?;
    assert_eq!(error_kind(&full), "busy", "half of it is for others: {full}");
    assert_eq!(first.ask(&mut device, TOPIC).await?, answer);
    Ok(())
}

/// Runs a command of the gateway on its data directory.
async fn offload_rt(gateway: &Gateway, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(built::program("offload-rt")?);
    let output = command.args(arguments).arg("--data-dir").arg(gateway.data_dir()).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The old key opens for its grace time, the status lists both, newest first; then the old one is retired. What is
/// under way when the keys are renewed is answered.
#[tokio::test]
async fn keys_are_renewed_without_losing_a_request() -> Result<()> {
    let gateway = Gateway::embedded("[status]\ninterval = \"100ms\"\n").await?;
    let (mut device, keys) = sealing::device(gateway.address()?, Version::V5, "d").await?;
    let old = newest(&keys, X25519)?;
    let module = envelope::bytes(offload_tests::guest::module("sleep")?);
    let slow = inner(json!({ "module": module, "args": ["1000"] }));
    let under_way = seal(&old, &slow, "inputCode/d", Encoding::Json)?;
    device.publish("inputCode/d", under_way.payload()?).await?;
    device.acknowledged().await?;
    let rotated = offload_rt(&gateway, &["keys", "rotate", "--json"]).await?;
    let new: Value = serde_json::from_str(rotated.lines().next().context("a key")?)?;
    gateway.hang_up().await?;
    assert_eq!(under_way.open(&device.message().await?)?["status"], "ok");
    // It would come back, and take the connection of the next one.
    drop(device);
    let (mut device, keys) = sealing::device(gateway.address()?, Version::V5, "d").await?;
    let newest_key = newest(&keys, X25519)?;
    // The status that is retained is renewed within its interval.
    let newest_key = if newest_key == old {
        let mut watcher = Device::connect(gateway.address()?, Version::V5, "w").await?;
        watcher.subscribe("gateway/+/status").await?;
        loop {
            let listed = sealing::read_keys(&serde_json::from_slice(&watcher.message().await?.payload)?)?;
            if newest(&listed, X25519)? != old {
                assert_eq!(listed.len(), 4, "{listed:?}");
                break newest(&listed, X25519)?;
            }
        }
    } else {
        newest_key
    };
    assert_eq!(newest_key.fingerprint, new["fingerprint"]);
    for key in [&old, &newest_key] {
        let answer = seal(key, &add(), TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?;
        assert_eq!(answer["status"], "ok");
    }
    let listed = offload_rt(&gateway, &["keys", "list"]).await?;
    let states: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(states, ["current", "current", "replaced,", "replaced,"], "{listed}");
    ensure!(!listed.contains(BASE64_STANDARD.encode(&old.public).as_str()));
    gateway.reload("[keys]\ngrace = \"0s\"\n").await?;
    let retired = seal(&old, &add(), TOPIC, Encoding::Json)?;
    let said = refused(&retired, &device.ask(TOPIC, retired.payload()?).await?)?;
    ensure!(said.starts_with("unauthorized: "), "{said}");
    assert_eq!(
        seal(&newest_key, &add(), TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?["status"],
        "ok"
    );
    Ok(())
}

/// Gateways of a group have one file of keys: what was sealed for one opens at the other.
#[tokio::test]
async fn a_group_shares_its_keys() -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let configuration = format!("[keys]\npath = \"{}\"\n", folder.path().join("group-keys").display());
    let first = Gateway::embedded(&configuration).await?;
    let second = Gateway::embedded(&configuration).await?;
    let (_, keys) = sealing::device(first.address()?, Version::V5, "d").await?;
    let (mut device, others) = sealing::device(second.address()?, Version::V5, "d").await?;
    assert_eq!(keys, others);
    // The second one has not made the keys: before its start they may have been used.
    let early = seal(&newest(&keys, X25519)?, &add(), TOPIC, Encoding::Json)?.ask(&mut device, TOPIC).await?;
    assert_eq!(error_kind(&early), "expired");
    let asked = inner(json!({ "program": "add", "args": ["5", "7"], "sealed_at": now() + 59_000 }));
    let sealed = seal(&newest(&keys, X25519)?, &asked, TOPIC, Encoding::Json)?;
    let answer = sealed.ask(&mut device, TOPIC).await?;
    ensure!(["", "expired"].contains(&error_kind(&answer)), "{answer}");
    Ok(())
}

/// Words that must not be seen: an argument, a variable, an input and what is printed.
const SECRET: &str = "a-word-that-nobody-else-says";

/// What goes over the network, what the gateway logs and shows, and what it has on the disk, show nothing of it.
#[tokio::test]
async fn nothing_but_the_gateway_sees_what_is_sealed() -> Result<()> {
    let configuration = "[mirror]\nenabled = true\npayloads = true\n";
    let folder = tempfile::TempDir::new()?;
    let filter = [("OFFLOAD_LOG", "trace")];
    let launch = offload_tests::gateway::Launch { variables: &filter, ..Default::default() };
    let gateway = Gateway::launch(folder, &ON_ANY_PORT, configuration, launch).await?;
    let proxy = Proxy::capturing(gateway.address()?).await?;
    let mut watcher = Device::connect(gateway.address()?, Version::V5, "w").await?;
    watcher.subscribe("gateway/#").await?;
    let (mut device, keys) = sealing::device(proxy.address(), Version::V5, "d").await?;
    let module = offload_tests::guest::module("echo")?;
    let mut secrets = vec![SECRET.as_bytes().to_vec()];
    // Three bytes in base64 stand in one of three ways.
    secrets.extend((0..3).map(|skip| BASE64_STANDARD.encode(&SECRET[skip..skip + 12]).into_bytes()));
    secrets.push(module[..64].to_vec());
    for encoding in [Encoding::Json, Encoding::Cbor] {
        for suite in [X25519, XWING] {
            let asked = inner(json!({
                "module": envelope::bytes(&module), "args": [SECRET], "env": { "A": SECRET },
                "stdin": envelope::bytes(SECRET),
            }));
            let sealed = seal(&newest(&keys, suite)?, &asked, "inputCode/d", encoding)?;
            let answer = sealed.ask(&mut device, "inputCode/d").await?;
            assert_eq!(envelope::bytes_of(&answer, "stdout")?, SECRET.as_bytes(), "{answer}");
            secrets.push(asked["id"].as_str().context("an id")?.as_bytes().to_vec());
        }
    }
    let unknown = inner(json!({ "program": SECRET }));
    let sealed = seal(&newest(&keys, X25519)?, &unknown, TOPIC, Encoding::Json)?;
    assert_eq!(error_kind(&sealed.ask(&mut device, TOPIC).await?), "not-found");
    let seen = |what: &str, bytes: &[u8]| -> Result<()> {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            ensure!(!found, "{what} shows {}", String::from_utf8_lossy(secret));
        }
        Ok(())
    };
    let mut lines = 0;
    while lines < 10 {
        let message = watcher.message().await?;
        seen("the audit log", &message.payload)?;
        lines += usize::from(message.topic.ends_with("/jobs"));
    }
    let captured = proxy.captured();
    ensure!(captured.len() > 4 * module.len(), "only {} bytes were captured", captured.len());
    seen("the network", &captured)?;
    let data_dir = gateway.data_dir();
    gateway.logged(&["a sealed request"]).await?;
    seen("the log", gateway.whole_log()?.as_bytes())?;
    gateway.signal(Signal::KILL)?;
    for folder in ["journal", "set-aside"] {
        look_into(&data_dir.join(folder), &seen)?;
    }
    Ok(())
}

fn look_into(folder: &Path, seen: &dyn Fn(&str, &[u8]) -> Result<()>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            look_into(&path, seen)?;
        } else {
            seen(&path.display().to_string(), &std::fs::read(&path)?)?;
        }
    }
    Ok(())
}

/// `offload-client`, with a file of known gateways.
async fn client(address: std::net::SocketAddr, known: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(built::program("offload-client")?);
    command.args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "send", "--seal"]);
    command
        .arg("--known-gateways")
        .arg(known)
        .args(arguments)
        .env_remove("OFFLOAD_BROKER")
        .kill_on_drop(true);
    Ok(tokio::time::timeout(offload_tests::PATIENCE, command.output()).await??)
}

/// The key of a gateway that is met first is taken and kept; another one is refused until it is named.
#[tokio::test]
async fn the_command_keeps_the_key_of_a_gateway() -> Result<()> {
    let seldom = "[status]\ninterval = \"1h\"\n";
    let gateway = Gateway::embedded(seldom).await?;
    let address = gateway.address()?;
    let folder = tempfile::TempDir::new()?;
    let known = folder.path().join("new/known_gateways");
    let first = client(address, &known, &["add", "5", "7"]).await?;
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    ensure!(first.status.success() && first.stdout == b"12\n", "{said}");
    ensure!(said.contains("taken on trust: sha256:"), "{said}");
    let kept = std::fs::read_to_string(&known)?;
    for version in ["5", "3.1.1"] {
        let again = client(address, &known, &["-V", version, "add", "5", "8"]).await?;
        let said = String::from_utf8_lossy(&again.stderr);
        ensure!(again.status.success() && again.stdout == b"13\n" && said.is_empty(), "{version} {said}");
    }
    let module = built::guest("add")?;
    let by_module = client(address, &known, &[module.to_str().context("UTF-8")?, "5", "9"]).await?;
    ensure!(by_module.stdout == b"14\n", "{}", String::from_utf8_lossy(&by_module.stderr));
    // Renewed, with no grace.
    let rotated = offload_rt(&gateway, &["keys", "rotate", "--json"]).await?;
    gateway.reload(&format!("{seldom}[keys]\ngrace = \"0s\"\n")).await?;
    let refused = client(address, &known, &["add", "5", "7"]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(125) && refused.stdout.is_empty(), "{said}");
    ensure!(said.starts_with("error: unauthorized: ") && said.contains("--fingerprint"), "{said}");
    assert_eq!(std::fs::read_to_string(&known)?, kept);
    let new: Value = serde_json::from_str(rotated.lines().last().context("a key")?)?;
    let print = new["fingerprint"].as_str().context("a fingerprint")?;
    // The status that lists it is renewed with the keys, and not within its interval alone.
    let mut watcher = Device::connect(address, Version::V5, "w").await?;
    watcher.subscribe("gateway/+/status").await?;
    while !watcher.message().await?.text().contains(print) {}
    let named = client(address, &known, &["--fingerprint", print, "add", "5", "7"]).await?;
    ensure!(named.stdout == b"12\n", "{}", String::from_utf8_lossy(&named.stderr));
    assert_eq!(client(address, &known, &["add", "5", "7"]).await?.stdout, b"12\n");
    let unknown = format!("sha256:{}", "0".repeat(64));
    let unknown = client(address, &known, &["--fingerprint", &unknown, "add", "5", "7"]).await?;
    assert_eq!(unknown.status.code(), Some(125));
    Ok(())
}

/// The same in C: what it computes is RFC 9180's, a program and a module run sealed, another gateway's key is refused.
#[tokio::test]
async fn the_client_in_c_seals() -> Result<()> {
    let c = CClient::build(STRICT)?;
    ensure!(Command::new(c.program("seal_vectors")).status().await?.success(), "not RFC 9180");
    let gateway = Gateway::embedded("").await?;
    let proxy = Proxy::capturing(gateway.address()?).await?;
    let (_, keys) = sealing::device(gateway.address()?, Version::V5, "d").await?;
    let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = hex(&newest(&keys, X25519)?.public);
    let module = built::guest("add")?;
    let run = async |what: &str, key: &str| -> Result<Output> {
        let mut command = Command::new(c.program("run"));
        command.args(["127.0.0.1", what, "71717", "7"]).kill_on_drop(true);
        command.env("OFFLOAD_PORT", proxy.address().port().to_string()).env("OFFLOAD_SEAL_KEY", key);
        Ok(tokio::time::timeout(offload_tests::PATIENCE, command.output()).await??)
    };
    for what in ["add", module.to_str().context("UTF-8")?] {
        let output = run(what, &key).await?;
        ensure!(output.stdout == b"71724\n", "{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // What is no key ends the program before anything goes in clear.
    for no_key in ["", "12", &key[1..], &format!("{key}0"), &"x".repeat(64)] {
        let output = run("add", no_key).await?;
        ensure!(output.status.code() == Some(2) && output.stdout.is_empty(), "{no_key}: {output:?}");
    }
    let captured = proxy.captured();
    for secret in ["71717", "71724", "\0asm"] {
        let found = captured.windows(secret.len()).any(|window| window == secret.as_bytes());
        ensure!(!found, "{secret:?} goes over the network in clear");
    }
    let refused = run("add", &hex(&[9; 32])).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("unauthorized"), "{said}");
    Ok(())
}
