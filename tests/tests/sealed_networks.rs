//! Sealed requests where several gateways are in play: they go through routers and a master that see nothing of them,
//! and the gateways of one service on NATS open them all, and run each once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use offload_tests::built;
use offload_tests::device::{Device, Options, Properties, Version};
use offload_tests::envelope::{self, error_kind};
use offload_tests::gateway::{Gateway, Launch};
use offload_tests::guest::{self, RANDOM, TALKS_AND_SLEEPS};
use offload_tests::mosquitto::Mosquitto;
use offload_tests::nats::{self, Nats};
use offload_tests::network::Master;
use offload_tests::proxy::Proxy;
use offload_tests::sealing::{self, Encoding, Key, Sealed, X25519, XWING, inner, newest, seal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

const SECRET: &str = "71717-the-secret-71717";

fn add() -> Value {
    inner(json!({ "program": "add", "args": ["5", "7"] }))
}

fn random() -> Result<Value> {
    Ok(inner(json!({ "module": envelope::bytes(wat::parse_str(RANDOM)?) })))
}

/// The keys that the gateway at this address lists.
async fn keys(address: SocketAddr) -> Result<Vec<Key>> {
    let mut watcher = Device::connect(address, Version::V311, "watcher").await?;
    sealing::keys(&mut watcher).await
}

async fn device(address: SocketAddr, version: Version, id: &str) -> Result<Device> {
    let mut device = Device::connect(address, version, id).await?;
    device.subscribe(&format!("result/{id}")).await?;
    Ok(device)
}

/// A gateway that is the router of this site, behind whatever is at this address.
async fn router(master: &Master, gate: &str, way: SocketAddr, configuration: &str) -> Result<Gateway> {
    let flags = ["--listen", "127.0.0.1:0", "--gate", gate, "--master", &format!("mqtt://{way}")];
    let gateway = Gateway::start(&flags, configuration).await?;
    master.until(gate, "online").await?;
    Ok(gateway)
}

/// All bytes on both links of the master show nothing of code, arguments, input, `id` or answer; the answer opens on
/// the topic on which it is delivered at the asker's site, and on no other; what comes again is answered the same.
#[tokio::test]
async fn nobody_between_two_sites_sees_what_is_sealed() -> Result<()> {
    let master = Master::start().await?;
    let links = [Proxy::capturing(master.address()?).await?, Proxy::capturing(master.address()?).await?];
    let north = router(&master, "north", links[0].address(), "").await?;
    let south = router(&master, "south", links[1].address(), "").await?;
    let listed = keys(south.address()?).await?;
    let module = guest::module("echo")?;
    let mut secrets = vec![SECRET.as_bytes().to_vec(), module[..64].to_vec()];
    // Three bytes in base64 stand in one of three ways.
    secrets.extend((0..3).map(|skip| BASE64_STANDARD.encode(&SECRET[skip..skip + 12]).into_bytes()));
    let topic = "net/south/inputCode/plc";
    for version in [Version::V311, Version::V5] {
        let mut asker = device(north.address()?, version, "plc").await?;
        for (suite, encoding) in [
            (X25519, Encoding::Json),
            (X25519, Encoding::Cbor),
            (XWING, Encoding::Json),
            (XWING, Encoding::Cbor),
        ] {
            let asked = inner(json!({
                "module": envelope::bytes(&module), "args": [SECRET], "env": { "A": SECRET },
                "stdin": envelope::bytes(SECRET),
            }));
            let sealed = seal(&newest(&listed, suite)?, &asked, topic, encoding)?;
            let first = asker.ask(topic, sealed.payload()?).await?;
            let answer = sealed.open(&first)?;
            assert_eq!((&answer["id"], &answer["status"]), (&asked["id"], &json!("ok")), "{answer}");
            assert_eq!(envelope::bytes_of(&answer, "stdout")?, SECRET.as_bytes());
            let again = asker.ask(topic, sealed.payload()?).await?;
            assert_ne!(first.payload, again.payload, "sealed afresh");
            assert_eq!(sealed.open(&again)?, answer);
            secrets.push(asked["id"].as_str().context("an id")?.as_bytes().to_vec());
        }
    }
    let mut asker = device(north.address()?, Version::V5, "plc").await?;
    // What fails there fails sealed; a part of the output is cut there; the Response Topic is the asker's.
    let refused = inner(json!({ "program": SECRET }));
    let sealed = seal(&newest(&listed, X25519)?, &refused, topic, Encoding::Json)?;
    assert_eq!(error_kind(&sealed.ask(&mut asker, topic).await?), "not-found");
    let part = inner(json!({ "program": "add", "args": ["100", "23"], "stdout_offset": 1 }));
    let sealed = seal(&newest(&listed, X25519)?, &part, topic, Encoding::Json)?;
    let answer = sealed.ask(&mut asker, topic).await?;
    assert_eq!(
        (envelope::bytes_of(&answer, "stdout")?, &answer["stdout_total"]),
        (b"23\n".to_vec(), &json!(4))
    );
    asker.subscribe("result/plc/own").await?;
    let properties = Properties {
        response_topic: Some("result/plc/own".to_owned()),
        correlation_data: Some("mine".into()),
        ..Properties::user(&[("fuel", "1")])
    };
    let sealed = seal(&newest(&listed, XWING)?, &add(), topic, Encoding::Cbor)?;
    asker.publish_with(topic, sealed.payload()?, properties, false).await?;
    let message = asker.message().await?;
    assert_eq!(
        (message.topic.as_str(), message.correlation_data.as_deref()),
        ("result/plc/own", Some(&b"mine"[..]))
    );
    assert_eq!(sealed.open(&message)?["status"], "ok");
    // At home by the site's own name.
    let own = keys(north.address()?).await?;
    let sealed = seal(&newest(&own, X25519)?, &add(), "net/north/localCode/plc", Encoding::Json)?;
    assert_eq!(sealed.ask(&mut asker, "net/north/localCode/plc").await?["status"], "ok");
    for link in &links {
        let captured = link.captured();
        ensure!(captured.len() > 4 * module.len(), "only {} bytes were captured", captured.len());
        for secret in &secrets {
            let found = captured.windows(secret.len()).any(|window| window == secret);
            ensure!(!found, "the way shows {}", String::from_utf8_lossy(secret));
        }
    }
    Ok(())
}

/// What a router or a master changes, or takes elsewhere, is not opened: another topic, another form, another gate,
/// though that one has the key. It is answered in clear and without detail.
#[tokio::test]
async fn what_is_taken_elsewhere_on_the_way_is_not_opened() -> Result<()> {
    let master = Master::start().await?;
    let _south = router(&master, "south", master.address()?, "").await?;
    let other = router(&master, "other", master.address()?, "").await?;
    // As long as what it stands for, so that packets stay whole.
    for (from, to) in [("localCode/plc", "localCode/plx"), ("localCode/plc", "inputCode/plc")] {
        let way = Proxy::rewriting(master.address()?, &[(from, to)]).await?;
        let north = router(&master, "north", way.address(), "").await?;
        refused_in_clear(&north, &newest(&keys(other.address()?).await?, X25519)?, "other").await?;
    }
    let way =
        Proxy::rewriting(master.address()?, &[("to/south/", "to/other/"), ("from/other/", "from/south/")])
            .await?;
    let north = router(&master, "north", way.address(), "").await?;
    refused_in_clear(&north, &newest(&keys(other.address()?).await?, X25519)?, "south").await?;
    // In clear it would be run: nothing says whom it was for.
    let mut asker = device(north.address()?, Version::V5, "plc").await?;
    assert_eq!(asker.ask("net/south/localCode/plc", "5 7").await?.text(), "12\n");
    Ok(())
}

async fn refused_in_clear(north: &Gateway, key: &Key, gate: &str) -> Result<()> {
    let mut asker = device(north.address()?, Version::V5, "plc").await?;
    let topic = format!("net/{gate}/localCode/plc");
    let sealed = seal(key, &add(), &topic, Encoding::Json)?;
    let answer = sealed.read(&asker.ask(&topic, sealed.payload()?).await?)?;
    ensure!(error_kind(&answer) == "malformed" && answer["id"].is_null(), "{answer}");
    assert_eq!(answer["error"]["message"], "sealed: it cannot be opened");
    Ok(())
}

/// A sealed answer that the asker has no room for is replaced where it can be sealed, by an error that fits.
#[tokio::test]
async fn an_answer_over_the_askers_maximum_packet_size_is_replaced_sealed() -> Result<()> {
    let master = Master::start().await?;
    let north = router(&master, "north", master.address()?, "").await?;
    let south = router(&master, "south", master.address()?, "").await?;
    let listed = keys(south.address()?).await?;
    let topic = "net/south/inputCode/plc";
    let module = envelope::bytes(guest::module("echo")?);
    let options = Options { max_packet: 2_000, ..Options::default() };
    let mut asker = Device::connect_with(north.address()?, Version::V5, "plc", options).await?;
    asker.subscribe("result/plc").await?;
    for encoding in [Encoding::Json, Encoding::Cbor] {
        let large = inner(json!({ "module": module, "stdin": envelope::bytes([b'x'; 2_000]) }));
        let sealed = seal(&newest(&listed, X25519)?, &large, topic, encoding)?;
        let answer = sealed.ask(&mut asker, topic).await?;
        assert_eq!((&answer["id"], error_kind(&answer)), (&large["id"], "output"), "{answer}");
        // It was run, and a part of its output has room.
        let mut part = large.clone();
        part["stdout_length"] = 100.into();
        let part = seal(&newest(&listed, X25519)?, &part, topic, encoding)?;
        let answer = part.ask(&mut asker, topic).await?;
        assert_eq!((&answer["status"], &answer["stdout_total"]), (&json!("ok"), &json!(2_000)), "{answer}");
    }
    Ok(())
}

/// What nobody has opened is refused in clear: a key of another gateway, a gate that is not there.
#[tokio::test]
async fn what_nobody_has_opened_is_refused_in_clear() -> Result<()> {
    let master = Master::start().await?;
    let north = router(&master, "north", master.address()?, "").await?;
    let south = router(&master, "south", master.address()?, "").await?;
    let key = newest(&keys(south.address()?).await?, X25519)?;
    let own = newest(&keys(north.address()?).await?, X25519)?;
    let mut asker = device(north.address()?, Version::V5, "plc").await?;
    for (key, gate, kind) in [(&own, "south", "unauthorized"), (&key, "nowhere", "unreachable")] {
        let topic = format!("net/{gate}/localCode/plc");
        let sealed = seal(key, &add(), &topic, Encoding::Cbor)?;
        let answer = sealed.read(&asker.ask(&topic, sealed.payload()?).await?)?;
        assert_eq!((error_kind(&answer), answer["id"].is_null()), (kind, true), "{answer}");
    }
    Ok(())
}

/// `offload-client` with a file of known keys, at the broker of this gateway.
fn command(gateway: &Gateway, known: &Path, arguments: &[&str], more: &[&str]) -> Result<Command> {
    let mut command = Command::new(built::program("offload-client")?);
    command.args(["--host", "127.0.0.1", "--port", &gateway.address()?.port().to_string()]).args(arguments);
    command.args(["--gate", "south", "--seal", "--known-gateways"]).arg(known).args(more);
    command.env_remove("OFFLOAD_BROKER").kill_on_drop(true);
    Ok(command)
}

async fn said(mut command: Command) -> Result<(Option<i32>, String, String)> {
    let output = tokio::time::timeout(offload_tests::PATIENCE, command.output()).await??;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.code(), stdout, stderr))
}

/// The key of a gate is told once, and kept; what is sealed to it runs there, and is cancelled there by its `id`.
#[tokio::test]
async fn the_command_asks_and_cancels_through_a_gate() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "").await?;
    let south = master.gateway("south", "[mirror]\nenabled = true\n").await?;
    let folder = TempDir::new()?;
    let known = folder.path().join("known");
    let add = ["add", "5", "7"];
    let (code, _, stderr) = said(command(&north, &known, &["send"], &add)?).await?;
    ensure!(code == Some(125) && stderr.contains("--gateway-key"), "{stderr}");
    let key = BASE64_STANDARD.encode(newest(&keys(south.address()?).await?, XWING)?.public);
    let told = command(&north, &known, &["send", "--gateway-key", &key], &add)?;
    assert_eq!(said(told).await?, (Some(0), "12\n".to_owned(), String::new()));
    for version in ["3.1.1", "5"] {
        let kept = command(&north, &known, &["-V", version, "send"], &add)?;
        assert_eq!(said(kept).await?, (Some(0), "12\n".to_owned(), String::new()));
    }
    let mut watch = Device::connect(south.address()?, Version::V5, "watch").await?;
    watch.subscribe("gateway/+/jobs").await?;
    let id = sealing::fresh_id();
    let sleep = built::guest("sleep")?;
    let more = [sleep.to_str().context("UTF-8")?, "500000"];
    let sending = tokio::spawn(said(command(&north, &known, &["send", "--id", &id], &more)?));
    // Its digest comes first, which the gateway does not have.
    let mut requests = 0;
    while requests < 2 {
        let line: Value = serde_json::from_slice(&watch.message().await?.payload)?;
        requests += usize::from(line["event"] == "request" && line["code"] == "sealed");
    }
    let in_clear = Command::new(built::program("offload-client")?)
        .args(["--host", "127.0.0.1", "--port", &north.address()?.port().to_string(), "-i", "x"])
        .args(["cancel", "--gate", "south", &id])
        .output()
        .await?;
    ensure!(String::from_utf8_lossy(&in_clear.stderr).contains("not-found"), "{in_clear:?}");
    let (code, _, stderr) = said(command(&north, &known, &["cancel"], &[&id])?).await?;
    ensure!(code == Some(0), "{stderr}");
    let (code, _, stderr) = sending.await??;
    ensure!(code == Some(125) && stderr.starts_with("error: cancelled"), "{code:?} {stderr}");
    Ok(())
}

/// The site of the asker has a broker that somebody else runs, and a bridge of ordinary topics beside. Rules hold at
/// both sites: those of the answering one are for what is inside.
#[tokio::test]
async fn a_device_on_an_external_broker_asks_another_site_sealed() -> Result<()> {
    let master = Master::start().await?;
    let mosquitto = Mosquitto::start().await?;
    let flags = ["--broker", &mosquitto.url(), "--gate", "north", "--master", master.url()];
    let asking = "[[access.rule]]\nusers = [\"plc\"]\npublish = [\"net/south/#\"]\n";
    let bridge = "[network]\nimport = [\"south/plant/#\"]\n";
    let _north = Gateway::start(&flags, &format!("{asking}{bridge}")).await?;
    master.until("north", "online").await?;
    let answering = "[[access.rule]]\nusers = [\"north/plc\"]\npublish = [\"+/#\"]\noffload = [\"wasm\"]\n";
    let bridge = "[network]\nexport = [\"plant/#\"]\n";
    let south = master.gateway("south", &format!("{answering}{bridge}")).await?;
    let listed = keys(south.address()?).await?;
    let topic = "net/south/inputCode/plc";
    let mut asker = device(mosquitto.address(), Version::V5, "plc").await?;
    let asked = random()?;
    let sealed = seal(&newest(&listed, XWING)?, &asked, topic, Encoding::Cbor)?;
    let answer = sealed.ask(&mut asker, topic).await?;
    assert_eq!(answer["status"], "ok", "{answer}");
    assert_eq!(sealed.ask(&mut asker, topic).await?, answer);
    let sealed_add = seal(&newest(&listed, X25519)?, &add(), topic, Encoding::Json)?;
    assert_eq!(error_kind(&sealed_add.ask(&mut asker, topic).await?), "unauthorized");
    let mut other = device(mosquitto.address(), Version::V5, "other").await?;
    let elsewhere = "net/south/inputCode/other";
    let sealed_add = seal(&newest(&listed, X25519)?, &add(), elsewhere, Encoding::Json)?;
    let refused = sealed_add.read(&other.ask(elsewhere, sealed_add.payload()?).await?)?;
    assert_eq!(error_kind(&refused), "unauthorized", "nobody has opened it: {refused}");
    // The same request, from a device of the other site: its `id` names it alone.
    let mut local = device(south.address()?, Version::V5, "plc").await?;
    let here = seal(&newest(&listed, X25519)?, &asked, "inputCode/plc", Encoding::Json)?;
    assert_eq!(here.ask(&mut local, "inputCode/plc").await?, answer);
    // A copy of a sealed request on an ordinary topic is an ordinary message.
    asker.subscribe("sites/#").await?;
    let publisher = Device::connect(south.address()?, Version::V5, "publisher").await?;
    publisher.publish("plant/a", sealed.payload()?).await?;
    let copy = asker.message().await?;
    assert_eq!((copy.topic.as_str(), copy.payload), ("sites/south/plant/a", sealed.payload()?));
    Ok(())
}

/// A site that restarts, or whose way is lost, answers what it has run with what came of it.
#[tokio::test]
async fn a_site_that_crashes_runs_nothing_sealed_again() -> Result<()> {
    let master = Master::start().await?;
    let north = router(&master, "north", master.address()?, "").await?;
    let south = router(&master, "south", master.address()?, "").await?;
    let key = newest(&keys(south.address()?).await?, X25519)?;
    let topic = "net/south/inputCode/plc";
    let mut asker = device(north.address()?, Version::V5, "plc").await?;
    let sealed = seal(&key, &random()?, topic, Encoding::Json)?;
    let answer = sealed.ask(&mut asker, topic).await?;
    let flags = ["--listen", "127.0.0.1:0", "--gate", "south", "--master", master.url()];
    let _south = south.crash(Signal::KILL, &flags, "").await?;
    assert_eq!(sealed.ask(&mut asker, topic).await?, answer);
    let flags = ["--listen", "127.0.0.1:0", "--gate", "north", "--master", master.url()];
    let north = north.crash(Signal::KILL, &flags, "").await?;
    let mut asker = device(north.address()?, Version::V5, "plc").await?;
    assert_eq!(sealed.ask(&mut asker, topic).await?, answer);
    Ok(())
}

/// What a gateway of the group `plant` on an MQTT broker is configured with.
fn in_group(name: &str) -> String {
    format!("name = \"{name}\"\n[broker]\nshare = \"plant\"\n")
}

/// A gateway of the group, with this file of keys if there is one.
async fn on_share(mosquitto: &Mosquitto, name: &str, keys: Option<&Path>) -> Result<Gateway> {
    Gateway::start_in(folder_with(keys)?, &["--broker", &mosquitto.url()], &in_group(name)).await
}

/// One that is on its way, with the keys of this file.
fn joining_share(mosquitto: &Mosquitto, name: &str, keys: &Path) -> Result<Gateway> {
    let flags = ["--broker", &mosquitto.url()];
    Gateway::spawn(folder_with(Some(keys))?, &flags, &in_group(name), Launch::default())
}

/// Sealed as far ahead as clocks may differ. A gateway that has just started with older keys answers `expired` to what
/// may have been sealed before.
fn add_ahead() -> Value {
    inner(json!({ "program": "add", "args": ["5", "7"], "sealed_at": sealing::now() + 60_000 }))
}

/// Asks so often that each gateway of a group gets some of it.
async fn ask_all(device: &mut Device, key: &Key) -> Result<()> {
    for _ in 0..8 {
        let sealed = seal(key, &add_ahead(), "localCode/d", Encoding::Json)?;
        let answer = sealed.ask(device, "localCode/d").await?;
        ensure!(answer["status"] == "ok", "{answer}");
    }
    Ok(())
}

/// Gateways of one `share` open what is sealed to the keys of the first. One without a file leaves it to the others;
/// one with another set does not start, and says what helps, until those that serve are gone.
#[tokio::test]
async fn gateways_of_one_share_have_one_set_of_keys() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let first = on_share(&mosquitto, "first", None).await?;
    let second = on_share(&mosquitto, "second", Some(&file(&first))).await?;
    let key = newest(&keys_that_are_listed(mosquitto.address()).await?, X25519)?;
    let mut asker = device(mosquitto.address(), Version::V311, "d").await?;
    ask_all(&mut asker, &key).await?;
    let without = on_share(&mosquitto, "without", None).await?;
    without.logged(&["sealed requests are left to the other gateways"]).await?;
    ask_all(&mut asker, &key).await?;
    drop(asker);
    let mut asker = device(mosquitto.address(), Version::V5, "d").await?;
    asker.subscribe("result/d/own").await?;
    for _ in 0..6 {
        let properties = Properties {
            response_topic: Some("result/d/own".to_owned()),
            correlation_data: Some("mine".into()),
            ..Properties::default()
        };
        let sealed = seal(&key, &add_ahead(), "localCode/d", Encoding::Cbor)?;
        asker.publish_with("localCode/d", sealed.payload()?, properties, false).await?;
        let message = asker.message().await?;
        let (topic, correlation) = (message.topic.as_str(), message.correlation_data.as_deref());
        assert_eq!((topic, correlation), ("result/d/own", Some(&b"mine"[..])));
        assert_eq!(sealed.open(&message)?["status"], "ok");
    }

    let folder = TempDir::new()?;
    rotate(&folder.path().join("data")).await?;
    let other = folder.path().join("data/sealing-keys");
    let mut refused = joining_share(&mosquitto, "other", &other)?;
    assert_eq!(refused.ended_with().await?.code(), Some(1));
    let log = refused.whole_log()?;
    let remedies = ["offload-rt keys list", "offload-rt keys rotate", "gateway/plant/keys", &key.fingerprint];
    for remedy in remedies {
        ensure!(log.contains(remedy), "{remedy}: {log}");
    }
    let elsewhere = in_group("elsewhere").replace("plant", "office");
    let elsewhere =
        Gateway::start_in(folder_with(Some(&other))?, &["--broker", &mosquitto.url()], &elsewhere).await?;
    elsewhere.stop(Signal::TERM).await?;
    ask_all(&mut asker, &key).await?;

    first.stop(Signal::TERM).await?;
    second.stop(Signal::TERM).await?;
    // Nobody who is left has the key.
    let sealed = seal(&key, &add(), "localCode/d", Encoding::Json)?;
    let refused = sealed.read(&asker.ask("localCode/d", sealed.payload()?).await?)?;
    assert_eq!(error_kind(&refused), "unauthorized", "{refused}");
    let other = joining_share(&mosquitto, "other", &other)?.when_ready().await?;
    other.logged(&["no gateway of the group has the keys that are noted", &key.fingerprint]).await?;
    let own = listed_by_command(&other.data_dir(), X25519).await?;
    ask_all(&mut asker, &own).await?;
    Ok(())
}

/// Of two that start at once with keys of their own, one serves.
#[tokio::test]
async fn of_two_that_start_at_once_with_other_keys_one_is_refused() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let folder = TempDir::new()?;
    let mut gateways = Vec::new();
    for name in ["one", "two"] {
        let data = folder.path().join(name);
        rotate(&data).await?;
        gateways.push(joining_share(&mosquitto, name, &data.join("sealing-keys"))?);
    }
    let (mut second, mut first) = (gateways.pop().context("two")?, gateways.pop().context("one")?);
    let refused_first = tokio::select! {
        ended = first.ended_with() => !ended?.success(),
        ended = second.ended_with() => { ensure!(!ended?.success()); false }
    };
    let (refused, serves) = if refused_first { (first, second) } else { (second, first) };
    ensure!(refused.whole_log()?.contains("is not its group's"), "{}", refused.whole_log()?);
    let serves = serves.when_ready().await?;
    let own = listed_by_command(&serves.data_dir(), X25519).await?;
    ask_all(&mut device(mosquitto.address(), Version::V5, "d").await?, &own).await
}

/// Keys are renewed on one gateway and copied to the other while requests come: all are answered, sealed to the old key
/// and to the new one. A gateway that has been left behind does not start.
#[tokio::test]
async fn keys_of_a_share_are_renewed_while_requests_come() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let first = on_share(&mosquitto, "first", None).await?;
    let second = on_share(&mosquitto, "second", Some(&file(&first))).await?;
    let old = newest(&keys_that_are_listed(mosquitto.address()).await?, X25519)?;
    let mut asker = device(mosquitto.address(), Version::V311, "d").await?;
    let behind = folder_with(Some(&file(&first)))?;
    ask_all(&mut asker, &old).await?;
    rotate(&first.data_dir()).await?;
    first.hang_up().await?;
    let new = listed_by_command(&first.data_dir(), X25519).await?;
    let mut watcher = Device::connect(mosquitto.address(), Version::V311, "w").await?;
    watcher.subscribe("gateway/plant/keys").await?;
    while !watcher.message().await?.text().contains(&new.fingerprint) {}
    for key in [&old, &new] {
        ask_all(&mut asker, key).await?;
    }
    // A copy takes the place of the other file at once.
    let copy = second.data_dir().join("copied-keys");
    std::fs::copy(file(&first), &copy)?;
    std::fs::rename(copy, file(&second))?;
    second.hang_up().await?;
    first.stop(Signal::TERM).await?;
    for key in [&old, &new] {
        ask_all(&mut asker, key).await?;
    }
    let flags = ["--broker", &mosquitto.url()];
    let mut refused = Gateway::spawn(behind, &flags, &in_group("behind"), Launch::default())?;
    ensure!(!refused.ended_with().await?.success());
    ensure!(refused.whole_log()?.contains(&new.fingerprint), "{}", refused.whole_log()?);
    Ok(())
}

/// The newest key of this suite, as the command shows it.
async fn listed_by_command(data_dir: &Path, suite: &str) -> Result<Key> {
    let mut command = Command::new(built::program("offload-rt")?);
    let output = command.args(["keys", "list", "--json", "--data-dir"]).arg(data_dir).output().await?;
    let lines = String::from_utf8(output.stdout)?;
    let keys: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
    newest(&sealing::read_keys(&json!({ "keys": keys? }))?, suite)
}

/// A gateway on NATS, with this file of keys if there is one.
async fn on_nats(nats: &Nats, broker: &str, name: &str, keys: Option<&Path>) -> Result<Gateway> {
    let table = format!("name = \"{name}\"\n{}", nats.table("ack_wait = \"1s\""));
    Gateway::start_in(folder_with(keys)?, &["--broker", broker], &table).await
}

fn folder_with(keys: Option<&Path>) -> Result<TempDir> {
    let folder = TempDir::new()?;
    if let Some(keys) = keys {
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700))?;
        std::fs::copy(keys, data.join("sealing-keys"))?;
    }
    Ok(folder)
}

/// Where a gateway has its keys.
fn file(gateway: &Gateway) -> std::path::PathBuf {
    gateway.data_dir().join("sealing-keys")
}

/// With one set of keys each gateway opens what comes, and none runs what another one has run; NATS sees nothing of it.
#[tokio::test]
async fn gateways_on_nats_run_a_sealed_request_once() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let link = Proxy::capturing(nats.client(0)).await?;
    let broker = format!("nats://{}", link.address());
    let first = on_nats(&nats, &broker, "first", None).await?;
    let keys_file = file(&first);
    let mut gateways = vec![on_nats(&nats, &broker, "second", Some(&keys_file)).await?, first];
    let listed = keys(nats.mqtt(0)).await?;
    let mut device = device(nats.mqtt(0), Version::V311, "d").await?;
    let topic = "inputCode/d";
    let module = guest::module("echo")?;
    let mut secrets = vec![SECRET.as_bytes().to_vec(), module[..64].to_vec()];
    let echo = inner(json!({ "module": envelope::bytes(&module), "stdin": envelope::bytes(SECRET) }));
    let sealed = seal(&newest(&listed, X25519)?, &echo, topic, Encoding::Json)?;
    assert_eq!(envelope::bytes_of(&sealed.ask(&mut device, topic).await?, "stdout")?, SECRET.as_bytes());
    let mut outcomes = Vec::new();
    for number in 0..6 {
        let mut asked = random()?;
        let suite = if number % 2 == 0 { X25519 } else { XWING };
        let sealed = seal(&newest(&listed, suite)?, &asked, topic, Encoding::Json)?;
        // Together: they come to several gateways.
        for _ in 0..4 {
            device.publish(topic, sealed.payload()?).await?;
        }
        let mut answers = HashSet::new();
        for _ in 0..4 {
            answers.insert(sealed.open(&device.message().await?)?.to_string());
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
        secrets.push(asked["id"].as_str().context("an id")?.as_bytes().to_vec());
        // Sealed again later, it is the same one.
        asked["sealed_at"] = (sealing::now() + 1000).into();
        let later = seal(&newest(&listed, X25519)?, &asked, topic, Encoding::Cbor)?;
        outcomes.push((later, answers.into_iter().next().context("an answer")?));
    }
    for (sealed, answer) in &outcomes {
        assert_eq!(&sealed.ask(&mut device, topic).await?.to_string(), answer);
    }
    // One that knows nothing of its own but the group's keys.
    let third = on_nats(&nats, &broker, "third", Some(&keys_file)).await?;
    gateways.remove(0).signal(Signal::KILL)?;
    gateways.remove(0).stop(Signal::TERM).await?;
    for (sealed, answer) in &outcomes {
        assert_eq!(&sealed.ask(&mut device, topic).await?.to_string(), answer);
    }
    drop(third);
    let captured = link.captured();
    ensure!(captured.len() > 10_000, "only {} bytes were captured", captured.len());
    for secret in &secrets {
        let found = captured.windows(secret.len()).any(|window| window == secret);
        ensure!(!found, "NATS sees {}", String::from_utf8_lossy(secret));
    }
    Ok(())
}

/// A sealed cancel that any gateway takes: of what waits in the stream, which never starts, and of what another one
/// runs, which is ended. Both stay cancelled, on each gateway.
#[tokio::test]
async fn a_sealed_cancel_reaches_all_gateways_on_nats() -> Result<()> {
    const RUNS: &str = "inputCode/d";
    const OTHER: &str = "localCode/d";
    let nats = Nats::start(nats::Version::Newest).await?;
    let one_at_once = nats.table("ack_wait = \"1s\"\nin_flight = 1\n[limits]\nwall = \"10min\"");
    let flags = ["--broker", &nats.url()];
    let full = Gateway::start(&flags, &one_at_once).await?;
    let key = newest(&keys(nats.mqtt(0)).await?, X25519)?;
    let mut device = device(nats.mqtt(0), Version::V311, "d").await?;
    let module = envelope::bytes(wat::parse_str(TALKS_AND_SLEEPS)?);
    let asked = [(); 2].map(|()| inner(json!({ "module": module })));
    let [runs, waits] = asked.each_ref().map(|asked| seal(&key, asked, RUNS, Encoding::Json));
    let (runs, waits) = (runs?, waits?);
    let cancelling = |id: &Value, topic| seal(&key, &inner(json!({ "cancel": id })), topic, Encoding::Json);
    // The gateway has no room for the second one.
    for sealed in [&runs, &waits] {
        device.publish(RUNS, sealed.payload()?).await?;
        device.acknowledged().await?;
    }
    let waiting = cancelling(&asked[1]["id"], OTHER)?.ask(&mut device, OTHER).await?;
    assert_eq!(waiting["status"], "ok", "{waiting}");
    for id in [&asked[1]["id"], &json!(sealing::fresh_id())] {
        let gone = cancelling(id, OTHER)?.ask(&mut device, OTHER).await?;
        assert_eq!(error_kind(&gone), "not-found", "{gone}");
    }
    let in_clear = envelope::ask(&mut device, OTHER, json!({ "cancel": asked[0]["id"] })).await?;
    assert_eq!(error_kind(&in_clear), "not-found", "{in_clear}");
    let other = Gateway::start_in(folder_with(Some(&file(&full)))?, &flags, &one_at_once).await?;
    let never_begun = waits.open(&device.message().await?)?;
    assert_eq!(error_kind(&never_begun), "cancelled", "{never_begun}");

    // The one that runs it takes no other on this topic: the cancel is the other one's.
    let cancel = cancelling(&asked[0]["id"], RUNS)?;
    cancels(&mut device, RUNS, &cancel, &runs).await?;
    for gateway in [full, other] {
        // Whichever is left.
        for sealed in [&runs, &waits] {
            let again = sealed.ask(&mut device, RUNS).await?;
            assert_eq!(error_kind(&again), "cancelled", "{again}");
        }
        gateway.stop(Signal::TERM).await?;
    }
    Ok(())
}

/// Publishes this cancel, and waits for both answers.
async fn cancels(device: &mut Device, topic: &str, cancel: &Sealed, cancelled: &Sealed) -> Result<()> {
    device.publish(topic, cancel.payload()?).await?;
    let (mut ended, mut confirmed) = (None, None);
    while ended.is_none() || confirmed.is_none() {
        let message = device.message().await?;
        match cancelled.open(&message) {
            Ok(answer) => ended = Some(answer),
            Err(_) => confirmed = Some(cancel.open(&message)?),
        }
    }
    ensure!(ended.as_ref().map(error_kind) == Some("cancelled"), "{ended:?}");
    ensure!(confirmed.as_ref().is_some_and(|answer| answer["status"] == "ok"), "{confirmed:?}");
    Ok(())
}

/// A gateway without the group's file leaves sealed requests to those that have it; one with another set does not
/// start, and says what helps.
#[tokio::test]
async fn a_set_of_keys_that_differs_is_refused_with_the_remedy() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let first = on_nats(&nats, &nats.url(), "first", None).await?;
    let without = on_nats(&nats, &nats.url(), "without", None).await?;
    without.logged(&["sealed requests are left to the other gateways"]).await?;
    let key = newest(&keys_that_are_listed(nats.mqtt(0)).await?, X25519)?;
    let mut device = device(nats.mqtt(0), Version::V311, "d").await?;
    for _ in 0..10 {
        let sealed = seal(&key, &add(), "localCode/d", Encoding::Json)?;
        assert_eq!(sealed.ask(&mut device, "localCode/d").await?["status"], "ok");
    }
    let folder = TempDir::new()?;
    let other = folder.path().join("data/sealing-keys");
    rotate(&folder.path().join("data")).await?;
    let mut refused = Gateway::spawn(
        folder_with(Some(&other))?,
        &["--broker", &nats.url()],
        &nats.table("ack_wait = \"1s\""),
        Launch::default(),
    )?;
    ensure!(!refused.ended_with().await?.success());
    let log = refused.whole_log()?;
    for remedy in ["offload-rt keys rotate", "nats kv del offload-rt-keys keys", &key.fingerprint] {
        ensure!(log.contains(remedy), "{remedy}: {log}");
    }
    drop(first);
    Ok(())
}

/// The first status that lists keys: a gateway without any lists none.
async fn keys_that_are_listed(address: SocketAddr) -> Result<Vec<Key>> {
    let mut watcher = Device::connect(address, Version::V311, "status-watcher").await?;
    watcher.subscribe("gateway/+/status").await?;
    loop {
        let status = serde_json::from_slice(&watcher.message().await?.payload)?;
        if let Ok(listed) = sealing::read_keys(&status)
            && !listed.is_empty()
        {
            return Ok(listed);
        }
    }
}

async fn rotate(data_dir: &Path) -> Result<()> {
    let mut command = Command::new(built::program("offload-rt")?);
    let output = command.args(["keys", "rotate", "--data-dir"]).arg(data_dir).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Keys are renewed on one gateway and copied to the other while requests come: all are answered, sealed to the old key
/// and to the new one. A gateway that has been left behind does not start.
#[tokio::test]
async fn keys_of_a_group_are_renewed_while_requests_come() -> Result<()> {
    let nats = Nats::start(nats::Version::Newest).await?;
    let first = on_nats(&nats, &nats.url(), "first", None).await?;
    let second = on_nats(&nats, &nats.url(), "second", Some(&file(&first))).await?;
    let old = newest(&keys(nats.mqtt(0)).await?, X25519)?;
    let mut device = device(nats.mqtt(0), Version::V311, "d").await?;
    let behind = folder_with(Some(&file(&first)))?;
    let ask = async |device: &mut Device, key: &Key| -> Result<Value> {
        let sealed = seal(key, &add(), "localCode/d", Encoding::Json)?;
        sealed.ask(device, "localCode/d").await
    };
    assert_eq!(ask(&mut device, &old).await?["status"], "ok");
    rotate(&first.data_dir()).await?;
    first.hang_up().await?;
    let mut watcher = Device::connect(nats.mqtt(0), Version::V311, "w").await?;
    watcher.subscribe("gateway/+/status").await?;
    let new = loop {
        let status = serde_json::from_slice(&watcher.message().await?.payload)?;
        let key = newest(&sealing::read_keys(&status)?, X25519)?;
        if key != old {
            break key;
        }
    };
    // The other gateway has heard of the key, and leaves what is sealed to it.
    for _ in 0..5 {
        for key in [&old, &new] {
            assert_eq!(ask(&mut device, key).await?["status"], "ok");
        }
    }
    // A copy takes the place of the other file at once.
    let copy = second.data_dir().join("copied-keys");
    std::fs::copy(file(&first), &copy)?;
    std::fs::rename(copy, file(&second))?;
    second.hang_up().await?;
    for _ in 0..10 {
        for key in [&old, &new] {
            assert_eq!(ask(&mut device, key).await?["status"], "ok");
        }
    }
    let mut refused = Gateway::spawn(
        behind,
        &["--broker", &nats.url()],
        &nats.table("ack_wait = \"1s\""),
        Launch::default(),
    )?;
    ensure!(!refused.ended_with().await?.success());
    ensure!(refused.whole_log()?.contains(&new.fingerprint), "{}", refused.whole_log()?);
    Ok(())
}
