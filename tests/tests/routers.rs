//! Sites that a master joins: a device of one asks another, and is answered at home, whatever becomes of the master,
//! the other site and the way to it.

use anyhow::{Context, Result};
use offload_tests::answer::refused_in_envelope;
use offload_tests::cable::Cable;
use offload_tests::device::{Device, Options, Properties, PubAckReason, Version};
use offload_tests::envelope;
use offload_tests::gateway::Gateway;
use offload_tests::guest::{SLEEPS, TALKS_AND_SLEEPS};
use offload_tests::mosquitto::Mosquitto;
use offload_tests::network::{Keys, Master, table, table_until};
use offload_tests::password_file::set_password;
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use tempfile::TempDir;

/// Computes for some milliseconds: far longer than a slice.
const COMPUTES: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start") (local $left i32)
        (local.set $left (i32.const 30000000))
        (loop $again
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $again (local.get $left)))))"#;

/// A device that listens on its own result topic.
async fn device(gateway: &Gateway, version: Version, id: &str) -> Result<Device> {
    let mut device = Device::connect(gateway.address()?, version, id).await?;
    device.subscribe(&format!("result/{id}")).await?;
    Ok(device)
}

/// What comes back for this message.
async fn answer(device: &mut Device, topic: &str, payload: impl Into<bytes::Bytes>) -> Result<String> {
    device.publish(topic, payload).await?;
    Ok(device.message().await?.text().trim_end().to_owned())
}

/// `net/<gate>/localCode/<id>` and `net/<gate>/inputCode/<id>` are requests to the site `<gate>`, answered on the
/// asking site's `result/<id>` in the form that was asked. `net/<own gate>/…` is answered here.
#[tokio::test]
async fn a_device_asks_another_site_and_is_answered_at_home() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "").await?;
    let south = master.gateway("south", "").await?;
    for version in [Version::V311, Version::V5] {
        let mut asker = device(&north, version, "plc").await?;
        assert_eq!(answer(&mut asker, "net/south/localCode/plc", "5 7").await?, "12");
        assert_eq!(answer(&mut asker, "net/north/localCode/plc", "5 8").await?, "13");
        let envelope = json!({ "program": "add", "args": ["1", "2"], "id": "e1" }).to_string();
        asker.publish("net/south/inputCode/plc", envelope).await?;
        let answered = asker.message().await?;
        assert_eq!(answered.topic, "result/plc");
        let answered = envelope::read(&answered)?;
        assert_eq!((&answered["status"], &answered["id"]), (&json!("ok"), &json!("e1")));
        assert_eq!(envelope::bytes_of(&answered, "stdout")?, b"3\n");
        // Code that this one brings.
        let module = wat::parse_str(SLEEPS)?;
        asker.publish("net/south/inputCode/plc", module).await?;
        assert_eq!(asker.message().await?.payload.len(), 8);
        let refused =
            answer(&mut asker, "net/south/localCode/plc", json!({ "program": "x" }).to_string()).await?;
        assert!(refused.contains("not-found"), "{refused}");
    }
    // The other way round, with what MQTT 5 has beside.
    let mut asker = device(&south, Version::V5, "press").await?;
    let properties = Properties {
        correlation_data: Some("c1".into()),
        response_topic: Some("result/press".to_owned()),
        ..Properties::user(&[("id", "p1")])
    };
    asker.publish_with("net/north/localCode/press", "20 3", properties, false).await?;
    let answered = asker.message().await?;
    assert_eq!((answered.text().trim_end(), answered.property("status")), ("23", Some("ok")));
    assert_eq!(answered.property("id"), Some("p1"));
    assert_eq!(answered.correlation_data.as_deref(), Some(&b"c1"[..]));
    // A part of the output.
    let part = json!({ "program": "add", "args": ["100", "23"], "id": "r", "stdout_offset": 1 }).to_string();
    asker.publish("net/north/localCode/press", part).await?;
    let answered = envelope::read(&asker.message().await?)?;
    assert_eq!(envelope::bytes_of(&answered, "stdout")?, b"23\n");
    assert_eq!(answered["stdout_total"], 4);
    Ok(())
}

/// A request at another site wakes its gateway once: nobody there is woken only to carry bytes to another thread.
#[tokio::test]
async fn a_request_wakes_one_thread_of_the_other_site() -> Result<()> {
    const REQUESTS: u64 = 100;
    let master = Master::start().await?;
    let north = master.gateway("north", "").await?;
    let south = master.gateway("south", "").await?;
    let mut asker = device(&north, Version::V5, "plc").await?;
    let mut fewest = u64::MAX;
    // Whatever else the machine does may wake it as well: the quietest round counts. The first ones load the program.
    for _ in 0..5 {
        let before = wake_ups(south.id()?)?;
        for _ in 0..REQUESTS {
            assert_eq!(answer(&mut asker, "net/south/localCode/plc", "5 7").await?, "12");
        }
        fewest = fewest.min(wake_ups(south.id()?)? - before);
    }
    assert!(fewest < REQUESTS * 3 / 2, "{fewest} wake-ups for {REQUESTS} requests");
    Ok(())
}

/// How often threads of this process that serve connections have waited, all together.
fn wake_ups(process: u32) -> Result<u64> {
    let mut waits = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:").is_some_and(|name| name.starts_with("tokio")) {
            waits += field("voluntary_ctxt_switches:").context("the kernel counts them")?.parse::<u64>()?;
        }
    }
    Ok(waits)
}

/// `unreachable`: no such gate, or it did not come back before what the buffer allows (age in the message).
#[tokio::test]
async fn a_gate_that_is_not_there_is_unreachable() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "[network]\nbuffer_age = \"6s\"").await?;
    let south = master.gateway("south", "").await?;
    let mut asker = device(&north, Version::V5, "plc").await?;
    let nowhere = answer(&mut asker, "net/nowhere/localCode/plc", "5 7").await?;
    assert_eq!(nowhere, "error: unreachable: there is no gate `nowhere`");
    south.stop(Signal::TERM).await?;
    master.until("south", "left").await?;
    let away = answer(&mut asker, "net/south/localCode/plc", "5 7").await?;
    assert!(away.starts_with("error: unreachable: the gate `south` did not come back within 6."), "{away}");
    // A master that was started again does not know it, and the gateway does.
    let master = master.crash().await?;
    master.until("north", "online").await?;
    let away = answer(&mut asker, "net/south/localCode/plc", "5 7").await?;
    assert!(away.starts_with("error: unreachable: the gate `south` did not come back within 6."), "{away}");
    // Its time ran out before that.
    let short = json!({ "program": "add", "args": ["1", "2"], "timeout_ms": 300 }).to_string();
    asker.publish("net/south/localCode/plc", short).await?;
    let expired = envelope::read(&asker.message().await?)?;
    assert_eq!(expired["error"]["kind"], "expired", "{expired}");
    Ok(())
}

/// `timeout_ms` goes on counting on the way.
#[tokio::test]
async fn a_timeout_holds_at_the_other_site() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "").await?;
    let _south = master.gateway("south", "").await?;
    let mut asker = device(&north, Version::V5, "plc").await?;
    let request = json!({ "module": envelope::bytes(wat::parse_str(SLEEPS)?), "timeout_ms": 100 });
    asker.publish("net/south/inputCode/plc", request.to_string()).await?;
    let answered = envelope::read(&asker.message().await?)?;
    let kind = answered["error"]["kind"].as_str().context("it failed")?;
    assert!(["timeout", "expired"].contains(&kind), "{answered}");
    Ok(())
}

/// A site that was away for less than the buffer allows answers what was asked meanwhile, and so does one that the way
/// was lost to while it ran, with the same answer for the same `id`.
#[tokio::test]
async fn what_waits_for_a_site_is_answered_when_it_is_back() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "").await?;
    let south = master.gateway("south", "").await?;
    let mut asker = device(&north, Version::V5, "plc").await?;
    let request = json!({ "module": envelope::bytes(wat::parse_str(SLEEPS)?), "id": "once" }).to_string();
    asker.publish("net/south/inputCode/plc", request.clone()).await?;
    // The master dies with all that it had on its way.
    let master = master.crash().await?;
    let first = envelope::read(&asker.message().await?)?;
    assert_eq!(first["status"], "ok", "{first}");
    asker.publish("net/south/inputCode/plc", request).await?;
    let again = envelope::read(&asker.message().await?)?;
    assert_eq!(again["stdout"], first["stdout"]);

    let flags = ["--listen", "127.0.0.1:0", "--gate", "south", "--master", master.url()];
    let south = south.crash(Signal::KILL, &flags, "").await?;
    assert_eq!(answer(&mut asker, "net/south/localCode/plc", "5 7").await?, "12");
    drop(south);
    master.until("south", "lost").await?;
    asker.publish("net/south/localCode/plc", "6 7").await?;
    let _south = master.gateway("south", "").await?;
    assert_eq!(asker.message().await?.text(), "13\n");
    Ok(())
}

/// A request that was accepted for another site outlives the gateway that took it.
#[tokio::test]
async fn a_request_for_another_site_outlives_a_crash_of_its_own() -> Result<()> {
    let master = Master::start().await?;
    let configuration = "[network]\nbuffer_age = \"1h\"";
    let north = master.gateway("north", configuration).await?;
    let south = master.gateway("south", "").await?;
    south.stop(Signal::TERM).await?;
    master.until("south", "left").await?;
    let options = Options { clean: false, ..Options::default() };
    let mut asker = Device::connect_with(north.address()?, Version::V5, "plc", options).await?;
    asker.subscribe("result/plc").await?;
    asker.publish("net/south/localCode/plc", "5 7").await?;
    asker.acknowledged().await?;
    drop(asker);
    let address = north.address()?.to_string();
    let flags = ["--listen", &address, "--gate", "north", "--master", master.url()];
    let north = north.crash(Signal::KILL, &flags, configuration).await?;
    let _south = master.gateway("south", "").await?;
    let mut asker = Device::connect_with(north.address()?, Version::V5, "plc", options).await?;
    assert_eq!(asker.message().await?.text(), "12\n");
    Ok(())
}

/// A full buffer answers `busy`.
#[tokio::test]
async fn a_full_buffer_is_busy() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "[network]\nbuffer_requests = 4\nbuffer_age = \"1h\"").await?;
    let south = master.gateway("south", "").await?;
    let west = master.gateway("west", "").await?;
    south.stop(Signal::TERM).await?;
    master.until("south", "left").await?;
    let mut asker = device(&north, Version::V5, "plc").await?;
    for _ in 0..3 {
        asker.publish("net/south/localCode/plc", "5 7").await?;
    }
    let busy = asker.message().await?.text();
    assert!(busy.starts_with("error: busy: 2 requests wait for the gate `south`"), "{busy}");
    // The others have their part.
    assert_eq!(answer(&mut asker, "net/west/localCode/plc", "5 7").await?, "12");
    drop(west);
    Ok(())
}

/// Who may ask: the asking site's rules say which gates, the answering site's rules name `<gate>/<principal>`.
#[tokio::test]
async fn permissions_are_needed_at_both_ends() -> Result<()> {
    let master = Master::start().await?;
    let folder = TempDir::new()?;
    let passwords = folder.path().join("passwords");
    for user in ["plc", "panel"] {
        set_password(&passwords, user, user).await?;
    }
    let path = passwords.display();
    let asking = format!(
        "[access]\npasswords = \"{path}\"\n[[access.rule]]\nusers = [\"plc\", \"panel\"]\npublish = [\"net/south/#\"]"
    );
    let answering = "
        [[access.rule]]
        users = [\"#\"]
        publish = [\"#\"]
        offload = [\"wasm\"]
        programs = [\"*\"]
        [[access.rule]]
        users = [\"north/plc\"]
        publish = [\"localCode/+\"]
        programs = [\"add\"]";
    let north = master.gateway("north", &asking).await?;
    // One of the gateways is not open to all: rules hold.
    let _south = master.gateway("south", &format!("{answering}\n[access]\npasswords = \"{path}\"")).await?;
    let _west = master.gateway("west", "").await?;
    let user = |name| Options { credentials: Some((name, name)), ..Options::default() };
    let mut plc = Device::connect_with(north.address()?, Version::V5, "plc", user("plc")).await?;
    plc.subscribe("result/plc").await?;
    assert_eq!(answer(&mut plc, "net/south/localCode/plc", "5 7").await?, "12");
    let module = json!({ "module": envelope::bytes(wat::parse_str(SLEEPS)?) }).to_string();
    plc.publish("net/south/inputCode/plc", module).await?;
    let refused = envelope::read(&plc.message().await?)?;
    refused_in_envelope(refused, "unauthorized", "no rule of this site lets `north/plc` ask here")?;
    let mut panel = Device::connect_with(north.address()?, Version::V5, "panel", user("panel")).await?;
    panel.subscribe("result/panel").await?;
    let refused = answer(&mut panel, "net/south/localCode/panel", "5 7").await?;
    assert!(
        refused.starts_with("error: unauthorized: no rule of this site lets `north/panel` ask here"),
        "{refused}"
    );
    for _ in 0..2 {
        assert_eq!(plc.acknowledged().await?, PubAckReason::Success);
    }
    // No rule for that gate, and another's reply id: no request at all.
    for topic in ["net/west/localCode/plc", "net/south/localCode/panel"] {
        plc.publish(topic, "5 7").await?;
        assert_eq!(plc.acknowledged().await?, PubAckReason::NotAuthorized, "{topic}");
    }
    Ok(())
}

/// Join, ping, time-out and leave are visible: at the master, and at the gateways.
#[tokio::test]
async fn the_gates_are_listed() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "name = \"n\"").await?;
    let south = master.gateway("south", "").await?;
    let of_master = ["--master", master.url()];
    let loaded = table_until(&of_master, |table| table["gates"]["south"]["load"]["workers"].is_u64()).await?;
    assert_eq!(loaded["gates"]["north"]["state"], "online");
    assert!(
        loaded["gates"]["north"]["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:"))
    );
    drop(south);
    master.until("south", "lost").await?;
    let url = format!("mqtt://{}", north.address()?);
    let seen = table_until(&["--broker", &url], |table| table["gates"]["south"]["state"] == "lost").await?;
    assert_eq!(
        (&seen["name"], &seen["gate"], &seen["masters"][0]["joined"]),
        (&json!("n"), &json!("north"), &json!(true))
    );
    let of_north = ["--broker", url.as_str()];
    master.kill().await?;
    let alone = table_until(&of_north, |table| table["masters"][0]["joined"] == false).await?;
    assert_eq!(alone["gates"], json!({}));
    let nobody =
        table(&["--master", "mqtt://127.0.0.1:1"]).await.err().context("somebody answers")?.to_string();
    assert!(nobody.contains("does `offload-rt master` run there?"), "{nobody}");
    Ok(())
}

/// Without TLS on loopback only.
#[tokio::test]
async fn a_master_that_others_reach_has_certificates() -> Result<()> {
    for flags in [["--listen", "0.0.0.0:0"], ["--listen", "[::]:0"]] {
        let refused = Master::start_with(TempDir::new()?, &flags).await.err().context("it listens")?;
        assert!(refused.to_string().contains("any machine could join"), "{refused}");
    }
    Ok(())
}

/// A site whose broker is an external one asks others too, where a rule says so.
#[tokio::test]
async fn a_device_of_an_external_broker_asks_another_site() -> Result<()> {
    let master = Master::start().await?;
    let mosquitto = Mosquitto::start().await?;
    let flags = ["--broker", &mosquitto.url(), "--gate", "north", "--master", master.url()];
    let rule = "[[access.rule]]\nusers = [\"plc\"]\npublish = [\"net/south/#\"]";
    let _north = Gateway::start(&flags, rule).await?;
    // As others see it the network is not on loopback alone.
    let answering =
        "[[access.rule]]\nusers = [\"north/plc\"]\npublish = [\"localCode/+\"]\nprograms = [\"add\"]";
    let _south = master.gateway("south", answering).await?;
    master.until("north", "online").await?;
    let mut asker = Device::connect(mosquitto.address(), Version::V5, "plc").await?;
    asker.subscribe("result/+").await?;
    assert_eq!(answer(&mut asker, "net/south/localCode/plc", "5 7").await?, "12");
    assert_eq!(answer(&mut asker, "net/north/localCode/plc", "5 8").await?, "13");
    let refused = answer(&mut asker, "net/south/localCode/panel", "5 7").await?;
    assert!(
        refused.starts_with("error: unauthorized: this client may not ask the gate `south`"),
        "{refused}"
    );
    Ok(())
}

/// Ordinary topics are shared by rule, from and to each kind of broker, and never in circles.
#[tokio::test]
async fn ordinary_topics_are_shared_by_rule() -> Result<()> {
    let master = Master::start().await?;
    let share = |other: &str| {
        format!("[network]\nexport = [\"plant/#\", \"other/#\"]\nimport = [\"{other}/plant/#\"]")
    };
    let mosquitto = Mosquitto::start().await?;
    let flags = ["--broker", &mosquitto.url(), "--gate", "north", "--master", master.url()];
    let _north = Gateway::start(&flags, &share("south")).await?;
    let south = master.gateway("south", &share("north")).await?;
    master.until("north", "online").await?;
    // Both have heard of each other.
    let url = format!("mqtt://{}", south.address()?);
    for broker in [&url, &mosquitto.url()] {
        table_until(&["--broker", broker], |table| {
            ["north", "south"].iter().all(|gate| table["gates"][gate]["state"] == "online")
        })
        .await?;
    }
    let mut far = Device::connect(south.address()?, Version::V5, "far").await?;
    let mut near = Device::connect(mosquitto.address(), Version::V5, "near").await?;
    for device in [&mut far, &mut near] {
        device.subscribe("sites/#").await?;
        device.subscribe("plant/#").await?;
    }
    near.publish("plant/oil", "80").await?;
    near.publish("other/oil", "81").await?;
    near.publish("plant/end", "82").await?;
    for (topic, payload) in [("sites/north/plant/oil", "80"), ("sites/north/plant/end", "82")] {
        let heard = far.message().await?;
        assert_eq!((heard.topic.as_str(), heard.text().as_str()), (topic, payload));
    }
    far.publish("plant/press", "7").await?;
    assert_eq!(far.message().await?.topic, "plant/press", "its own site has it, too");
    for topic in ["plant/oil", "plant/end", "sites/south/plant/press"] {
        assert_eq!(near.message().await?.topic, topic, "and nothing came back");
    }
    Ok(())
}

/// Of two masters the second takes over.
#[tokio::test]
async fn a_second_master_takes_over() -> Result<()> {
    let first = Master::start().await?;
    let second = Master::start().await?;
    let start = async |gate: &str| -> Result<Gateway> {
        let flags =
            ["--listen", "127.0.0.1:0", "--gate", gate, "--master", first.url(), "--master", second.url()];
        let gateway = Gateway::start(&flags, "").await?;
        first.until(gate, "online").await?;
        second.until(gate, "online").await?;
        Ok(gateway)
    };
    let north = start("north").await?;
    let _south = start("south").await?;
    let mut asker = device(&north, Version::V5, "plc").await?;
    assert_eq!(answer(&mut asker, "net/south/localCode/plc", "5 7").await?, "12");
    let request = json!({ "module": envelope::bytes(wat::parse_str(SLEEPS)?) }).to_string();
    asker.publish("net/south/inputCode/plc", request).await?;
    first.kill().await?;
    let answered = envelope::read(&asker.message().await?)?;
    assert_eq!(answered["status"], "ok", "{answered}");
    assert_eq!(answer(&mut asker, "net/south/localCode/plc", "6 7").await?, "13");
    Ok(())
}

/// With TLS each end has a certificate, and the gate is what the certificate says.
#[tokio::test]
async fn by_tls_a_gate_is_what_its_certificate_says() -> Result<()> {
    let keys = Keys::make(&["127.0.0.1"], &["north", "south"]).await?;
    let master = keys.master("127.0.0.1:0").await?;
    assert!(master.url().starts_with("mqtts://127.0.0.1:"), "{}", master.url());
    let start = async |gate: &str, certificate: &str, more: &str| {
        let flags = ["--listen", "127.0.0.1:0", "--gate", gate, "--master", master.url()];
        Gateway::start(&flags, &keys.network(certificate, more)).await
    };
    // By TLS a network is not one of this machine alone: it takes rules.
    let asking = "[[access.rule]]\nanonymous = true\npublish = [\"net/+/#\"]";
    let answering = "[[access.rule]]\nusers = [\"north/\"]\npublish = [\"localCode/#\"]\nprograms = [\"*\"]";
    let north = start("north", "north", asking).await?;
    let south = start("south", "south", answering).await?;
    let flags = keys.flags(master.url(), "north");
    table_until(&flags, |table| {
        ["north", "south"].iter().all(|gate| table["gates"][gate]["state"] == "online")
    })
    .await?;
    let mut asker = device(&north, Version::V5, "plc").await?;
    assert_eq!(answer(&mut asker, "net/south/localCode/plc", "5 7").await?, "12");
    let mut asker = device(&south, Version::V5, "plc").await?;
    asker.publish("net/north/localCode/plc", "5 7").await?;
    assert_eq!(asker.acknowledged().await?, PubAckReason::NotAuthorized);
    // One that wants to be another than its certificate says does not get in.
    let impostor = start("west", "north", "").await?;
    impostor.logged(&["no connection to the master", "the certificate is not that of the gate west"]).await?;
    let seen = table(&flags).await?;
    assert!(seen["gates"]["west"].is_null(), "{seen}");
    // Who asks in another way than the master is to be asked is told how.
    let plain = master.url().replace("mqtts://", "mqtt://");
    let told = table(&["--master", &plain]).await.err().context("it is shown")?.to_string();
    assert!(told.contains("TLS answers on this port: try mqtts://"), "{told}");
    let others = Keys::make(&["127.0.0.1"], &["north"]).await?;
    let told = table(&others.flags(master.url(), "north")).await.err().context("it is shown")?.to_string();
    assert!(told.contains("is the CA file the right one?"), "{told}");
    Ok(())
}

/// A saturated gateway hands requests on to one that is less busy, never in circles, and what that refuses runs here.
#[tokio::test]
async fn a_saturated_gateway_hands_requests_on() -> Result<()> {
    hands_on(SLEEPS, 2).await
}

/// One whose slots are many has started all requests, and is as late with each of them.
#[tokio::test]
async fn a_gateway_whose_guests_wait_for_slices_hands_requests_on() -> Result<()> {
    hands_on(COMPUTES, 512).await
}

/// Whether a gateway with one worker and this many slots hands on requests for this program.
async fn hands_on(program_text: &str, slots: usize) -> Result<()> {
    let master = Master::start().await?;
    let folder = TempDir::new()?;
    let program = folder.path().join("sleeps.wat");
    std::fs::write(&program, program_text)?;
    let configuration = |overflow: &str, slots: usize| {
        let file = program.display();
        format!(
            "[network]\noverflow = [\"{overflow}\"]\n[workers]\ncount = 1\nslots = {slots}\n\
             [mirror]\nenabled = true\n[[program]]\nname = \"sleeps\"\nfile = \"{file}\"\n"
        )
    };
    let edge = master.gateway("edge", &configuration("cloud", slots)).await?;
    let cloud = master.gateway("cloud", &configuration("edge", 512)).await?;
    let url = format!("mqtt://{}", edge.address()?);
    table_until(&["--broker", &url], |table| table["gates"]["cloud"]["load"]["workers"].is_u64()).await?;
    let mut watcher = Device::connect(cloud.address()?, Version::V5, "watcher").await?;
    watcher.subscribe("gateway/+/jobs").await?;
    let mut asker = device(&edge, Version::V5, "plc").await?;
    let requests = 24;
    for number in 0..requests {
        let request = json!({ "program": "sleeps", "id": number.to_string() }).to_string();
        asker.publish("localCode/plc", request).await?;
    }
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..requests {
        let answered = envelope::read(&asker.message().await?)?;
        assert_eq!(answered["status"], "ok", "{answered}");
        ids.insert(answered["id"].as_str().context("it has an id")?.to_owned());
    }
    assert_eq!(ids.len(), requests);
    let line: serde_json::Value = serde_json::from_slice(&watcher.message().await?.payload)?;
    assert_eq!((&line["event"], &line["client"]), (&json!("request"), &json!("edge/")), "{line}");
    Ok(())
}

/// A link that is cut while a request runs, and mended, loses no request and no answer. The other site is in a network
/// namespace of its own; neither side is told of the cut.
#[tokio::test]
async fn a_cut_between_sites_loses_nothing() -> Result<()> {
    let cable = Cable::new()?;
    let near = cable.near().to_string();
    let keys = Keys::make(&["127.0.0.1", &near], &["north", "south"]).await?;
    let master = keys.master("0.0.0.0:0").await?;
    let port = master.address()?.port();
    let fast = "keep_alive = \"5s\"\nbuffer_age = \"1h\"\n";
    let asking = "[[access.rule]]\nanonymous = true\npublish = [\"net/+/#\"]";
    let url = format!("mqtts://127.0.0.1:{port}");
    let flags = ["--listen", "127.0.0.1:0", "--gate", "north", "--master", &url];
    let north = Gateway::start(&flags, &keys.network("north", &format!("{fast}{asking}"))).await?;
    let answering = "[[access.rule]]\nusers = [\"north/#\"]\npublish = [\"+/#\"]\nprograms = [\"*\"]\noffload = [\"wasm\"]";
    let _south = keys.gateway_behind(&cable, "south", port, &format!("{fast}{answering}")).await?;
    let of_master = keys.flags(&url, "north");
    let is = |state: &'static str| move |table: &serde_json::Value| table["gates"]["south"]["state"] == state;
    table_until(&of_master, is("online")).await?;

    let mut asker = device(&north, Version::V5, "plc").await?;
    let module = envelope::bytes(wat::parse_str(SLEEPS)?);
    let before = json!({ "module": module, "id": "before" }).to_string();
    asker.publish("net/south/inputCode/plc", before.clone()).await?;
    cable.set("down").await?;
    let during = json!({ "program": "add", "args": ["5", "7"], "id": "during" }).to_string();
    asker.publish("net/south/localCode/plc", during).await?;
    table_until(&of_master, is("lost")).await?;
    cable.set("up").await?;
    let mut answers = BTreeMap::new();
    while answers.len() < 2 {
        let answered = envelope::read(&asker.message().await?)?;
        assert_eq!(answered["status"], "ok", "{answered}");
        answers
            .insert(answered["id"].as_str().context("it has an id")?.to_owned(), answered["stdout"].clone());
    }
    asker.publish("net/south/inputCode/plc", before).await?;
    let again = envelope::read(&asker.message().await?)?;
    assert_eq!(again["stdout"], answers["before"], "the same answer again");
    Ok(())
}

/// What a program at another site writes comes while it runs. A cancel ends it there, on either topic; its only slot is
/// free then.
#[tokio::test]
async fn a_stream_comes_from_another_site_and_a_cancel_goes_there() -> Result<()> {
    let master = Master::start().await?;
    let north = master.gateway("north", "").await?;
    let one_slot = "[limits]\nwall = \"10min\"\n[workers]\ncount = 1\nslots = 1";
    let _south = master.gateway("south", one_slot).await?;
    let mut asker = device(&north, Version::V311, "plc").await?;
    asker.subscribe("result/plc/stream/#").await?;
    for (id, topic) in [("a", "net/south/localCode/plc"), ("b", "localCode/plc")] {
        let module = envelope::bytes(wat::parse_str(TALKS_AND_SLEEPS)?);
        let request = json!({ "id": id, "module": module, "reply": "stream" });
        asker.publish("net/south/inputCode/plc", request.to_string()).await?;
        let mut stdout = Vec::new();
        while stdout != b"a line\nand more" {
            let part = asker.message().await?;
            assert_eq!(part.topic, format!("result/plc/stream/{id}/{}", stdout.len()));
            stdout.extend_from_slice(&part.payload);
        }
        asker.publish(topic, json!({ "cancel": id }).to_string()).await?;
        let mut answers =
            [envelope::read(&asker.message().await?)?, envelope::read(&asker.message().await?)?];
        answers.sort_by_key(|answer| answer["id"].is_null());
        refused_in_envelope(answers[0].clone(), "cancelled", "has cancelled it")?;
        assert_eq!((&answers[0]["id"], &answers[1]["status"]), (&json!(id), &json!("ok")), "{answers:?}");
        assert_eq!(answer(&mut asker, "net/south/localCode/plc", "5 7").await?, "12");
        // It stays so, here and there.
        let again = envelope::ask(&mut asker, "net/south/inputCode/plc", request).await?;
        refused_in_envelope(again, "cancelled", "has cancelled it")?;
    }
    Ok(())
}

/// A cancel of a request that was handed on goes to the gate that has it, and is not held up by that.
#[tokio::test]
async fn a_request_that_was_handed_on_is_cancelled_where_it_is() -> Result<()> {
    const REQUESTS: usize = 12;
    let master = Master::start().await?;
    let folder = TempDir::new()?;
    let program = folder.path().join("sleeps.wat");
    std::fs::write(&program, TALKS_AND_SLEEPS)?;
    let configuration = |overflow: &str, slots: usize| {
        let file = program.display();
        format!(
            "[network]\noverflow = {overflow}\n[workers]\ncount = 1\nslots = {slots}\n\
             [limits]\nwall = \"10min\"\n[[program]]\nname = \"sleeps\"\nfile = \"{file}\"\n"
        )
    };
    let edge = master.gateway("edge", &configuration("[\"cloud\"]", 1)).await?;
    let _cloud = master.gateway("cloud", &configuration("[]", 512)).await?;
    let url = format!("mqtt://{}", edge.address()?);
    table_until(&["--broker", &url], |table| table["gates"]["cloud"]["load"]["workers"].is_u64()).await?;
    let mut asker = device(&edge, Version::V5, "plc").await?;
    for number in 0..REQUESTS {
        let request = json!({ "program": "sleeps", "id": number.to_string() }).to_string();
        asker.publish("localCode/plc", request).await?;
    }
    let of_master = ["--master", master.url()];
    table_until(&of_master, |table| table["gates"]["cloud"]["load"]["running"].as_u64() > Some(0)).await?;
    for number in 0..REQUESTS {
        asker.publish("localCode/plc", json!({ "cancel": number.to_string() }).to_string()).await?;
    }
    for _ in 0..2 * REQUESTS {
        let answered = envelope::read(&asker.message().await?)?;
        match answered["id"].is_null() {
            true => assert_eq!(answered["status"], "ok", "{answered}"),
            false => refused_in_envelope(answered, "cancelled", "has cancelled it")?,
        }
    }
    table_until(&of_master, |table| table["gates"]["cloud"]["load"]["running"] == 0).await?;
    assert_eq!(answer(&mut asker, "localCode/plc", "5 7").await?, "12");
    Ok(())
}

/// Three sites, two of them in network namespaces of their own, and a master: under load one's link is cut and mended,
/// and the master is killed and started again meanwhile. All is answered, and each `id` once.
#[tokio::test]
async fn a_load_between_three_sites_outlives_a_cut_and_the_master() -> Result<()> {
    const REQUESTS: usize = 60;
    let cables = [Cable::new()?, Cable::new()?];
    let nears = [cables[0].near().to_string(), cables[1].near().to_string()];
    let keys = Keys::make(&["127.0.0.1", &nears[0], &nears[1]], &["north", "south", "west"]).await?;
    let master = keys.master("0.0.0.0:0").await?;
    let port = master.address()?.port();
    let url = format!("mqtts://127.0.0.1:{port}");
    let fast = "keep_alive = \"5s\"\nbuffer_age = \"1h\"\n";
    let asking = format!("{fast}[[access.rule]]\nanonymous = true\npublish = [\"net/+/#\"]");
    let flags = ["--listen", "127.0.0.1:0", "--gate", "north", "--master", &url];
    let north = Gateway::start(&flags, &keys.network("north", &asking)).await?;
    let answering = format!(
        "{fast}[[access.rule]]\nusers = [\"north/#\"]\npublish = [\"+/#\"]\nprograms = [\"*\"]\noffload = [\"wasm\"]"
    );
    let _south = keys.gateway_behind(&cables[0], "south", port, &answering).await?;
    let _west = keys.gateway_behind(&cables[1], "west", port, &answering).await?;
    let of_master = keys.flags(&url, "north");
    let are = |south: &'static str, west: &'static str| {
        move |table: &serde_json::Value| {
            table["gates"]["south"]["state"] == south && table["gates"]["west"]["state"] == west
        }
    };
    table_until(&of_master, are("online", "online")).await?;

    let mut asker = device(&north, Version::V5, "plc").await?;
    let module = envelope::bytes(wat::parse_str(SLEEPS)?);
    let request = |number: usize| {
        let gate = if number.is_multiple_of(2) { "south" } else { "west" };
        let envelope = json!({ "module": module, "id": number.to_string() }).to_string();
        (format!("net/{gate}/inputCode/plc"), envelope)
    };
    for number in 0..REQUESTS {
        if number == REQUESTS / 3 {
            cables[0].set("down").await?;
        }
        let (topic, envelope) = request(number);
        asker.publish(&topic, envelope).await?;
    }
    // The old one has not noticed the cut, and the new one has never seen the site.
    master.kill().await?;
    let _master = keys.master(&format!("0.0.0.0:{port}")).await?;
    table_until(&of_master, |table| table["gates"]["west"]["state"] == "online").await?;
    cables[0].set("up").await?;
    table_until(&of_master, are("online", "online")).await?;
    let answers = all_answered(&mut asker, REQUESTS).await?;
    for number in 0..REQUESTS {
        let (topic, envelope) = request(number);
        asker.publish(&topic, envelope).await?;
    }
    assert_eq!(all_answered(&mut asker, REQUESTS).await?, answers, "the same answers again");
    Ok(())
}

/// As many answers with an `id`, all `ok`, by their `id`s.
async fn all_answered(asker: &mut Device, count: usize) -> Result<BTreeMap<String, serde_json::Value>> {
    let mut answers = BTreeMap::new();
    while answers.len() < count {
        let answered = envelope::read(&asker.message().await?)?;
        assert_eq!(answered["status"], "ok", "{answered}");
        let id = answered["id"].as_str().context("it has an id")?.to_owned();
        let before = answers.insert(id, answered["stdout"].clone());
        assert_eq!(before, None, "answered twice: {answered}");
    }
    Ok(answers)
}
