//! Modules by digest: sent once, then named.

use anyhow::Result;
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::envelope;
use offload_tests::gateway::Gateway;
use offload_tests::guest::digest;
use offload_tests::on_each_broker;
use offload_tests::{built, guest};
use serde_json::{Value, json};

on_each_broker! {
    a_digest_is_enough_the_second_time,
}

async fn answer(device: &mut Device, topic: &str, request: Value) -> Result<Value> {
    envelope::read(&device.ask(topic, request.to_string()).await?)
}

fn with_module(module: &Bytes) -> Value {
    json!({ "module": envelope::bytes(module) })
}

fn is_hello(answer: &Value) -> bool {
    answer["status"] == "ok"
        && envelope::bytes_of(answer, "stdout").is_ok_and(|out| out.starts_with(b"hello"))
}

async fn a_digest_is_enough_the_second_time(deployment: Deployment) -> Result<()> {
    let module = guest::module("hello")?;
    let by_digest = json!({ "digest": digest(&module).await? });
    let mut device = deployment.device(Version::V5, "sender").await?;
    let refused = answer(&mut device, "inputCode/sender", by_digest.clone()).await?;
    assert_eq!(envelope::error_kind(&refused), "not-found", "{refused}");
    assert!(is_hello(&answer(&mut device, "inputCode/sender", with_module(&module)).await?));
    for topic in ["inputCode/sender", "localCode/sender"] {
        assert!(is_hello(&answer(&mut device, topic, by_digest.clone()).await?), "{topic}");
    }
    // What is no module is not kept.
    let noise = Bytes::from_static(b"\0asm noise");
    let refused = answer(&mut device, "inputCode/sender", with_module(&noise)).await?;
    assert_eq!(envelope::error_kind(&refused), "malformed");
    let noise = json!({ "digest": digest(&noise).await? });
    assert_eq!(envelope::error_kind(&answer(&mut device, "inputCode/sender", noise).await?), "not-found");
    Ok(())
}

/// On an external broker the reply id stands in for the principal.
#[tokio::test]
async fn what_one_has_sent_another_cannot_name() -> Result<()> {
    let module = guest::module("hello")?;
    let by_digest = json!({ "digest": digest(&module).await? });
    for (shared, status) in [(false, "error"), (true, "ok")] {
        let deployment = Deployment::on_mosquitto(&format!("[modules]\nshared = {shared}\n")).await?;
        let mut one = deployment.device(Version::V5, "one").await?;
        let mut other = deployment.device(Version::V5, "other").await?;
        assert!(is_hello(&answer(&mut one, "inputCode/one", with_module(&module)).await?));
        let theirs = answer(&mut other, "inputCode/other", by_digest.clone()).await?;
        assert_eq!(theirs["status"], status, "{theirs}");
        if !shared {
            // The same words as for a module that nobody has sent.
            let unknown = json!({ "digest": format!("sha256:{}", "0".repeat(64)) });
            let unknown = answer(&mut other, "inputCode/other", unknown).await?;
            let words = |answer: &Value, digest: &str| answer["error"].to_string().replace(digest, "");
            let digest = by_digest["digest"].as_str().unwrap_or_default();
            assert_eq!(words(&theirs, digest), words(&unknown, &format!("sha256:{}", "0".repeat(64))));
        }
    }
    Ok(())
}

/// Who asks is the authenticated identity, or none: on a broker that authenticates nobody a user name is nobody's.
#[tokio::test]
async fn a_user_name_that_nobody_checks_is_no_principal() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut nobody = deployment.device(Version::V5, "nobody").await?;
    let module = guest::module("hello")?;
    assert!(is_hello(&answer(&mut nobody, "inputCode/nobody", with_module(&module)).await?));
    let broker = format!("mqtt://{}", deployment.address());
    let arguments = ["--broker", &broker, "-u", "alice", "-P", "secret", "send", &digest(&module).await?];
    let client = tokio::process::Command::new(built::program("offload-client")?).args(arguments).output();
    let sent = client.await?;
    assert_eq!(String::from_utf8_lossy(&sent.stdout), "hello!\n", "{sent:?}");
    Ok(())
}

/// A digest is of a module that this principal sent before, or that the configuration shares.
#[tokio::test]
async fn what_the_configuration_offers_is_known_to_all() -> Result<()> {
    let module = guest::module("hello")?;
    let file = built::guest("hello")?;
    let configuration = format!("[[program]]\nname = \"greet\"\nfile = {:?}\n", file.display().to_string());
    let deployment = Deployment::on_mosquitto(&configuration).await?;
    let mut device = deployment.device(Version::V5, "anyone").await?;
    let by_digest = json!({ "digest": digest(&module).await? });
    assert!(is_hello(&answer(&mut device, "localCode/anyone", by_digest).await?));
    Ok(())
}

/// The compiler of the second gateway compiles nothing, so what it serves it has from the first.
#[tokio::test]
async fn a_restart_serves_known_modules_without_compiling() -> Result<()> {
    let (hello, sort) = (guest::module("hello")?, guest::module("sort")?);
    let gateway = Gateway::embedded("").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "device").await?;
    device.subscribe("result/device").await?;
    assert!(is_hello(&answer(&mut device, "inputCode/device", with_module(&hello)).await?));

    let gateway =
        gateway.restart(&["--listen", "127.0.0.1:0"], "[compiler]\nprogram = \"/bin/false\"\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "device").await?;
    device.subscribe("result/device").await?;
    let by_digest = json!({ "digest": digest(&hello).await? });
    assert!(is_hello(&answer(&mut device, "inputCode/device", by_digest).await?));
    let refused = answer(&mut device, "inputCode/device", with_module(&sort)).await?;
    assert_eq!(envelope::error_kind(&refused), "internal", "nothing can be compiled: {refused}");
    Ok(())
}

/// A quota of 1 MiB holds some of these modules, not all; those that went have to be sent again.
#[tokio::test]
async fn a_full_quota_forgets_what_was_used_least_recently() -> Result<()> {
    let deployment = Deployment::embedded("[modules]\nper_principal = \"1MiB\"\n").await?;
    let mut device = deployment.device(Version::V5, "many").await?;
    let module = |n: usize| -> Result<Bytes> {
        let data = format!("{n}").repeat(300_000);
        let text = format!("(module (memory 8) (data (i32.const 0) \"{data}\") (func (export \"_start\")))");
        Ok(wat::parse_str(text)?.into())
    };
    for n in 0..4 {
        let sent = answer(&mut device, "inputCode/many", with_module(&module(n)?)).await?;
        assert_eq!(sent["status"], "ok", "{sent}");
    }
    for (n, status) in [(0, "error"), (1, "ok"), (2, "ok"), (3, "ok")] {
        let by_digest = json!({ "digest": digest(&module(n)?).await? });
        let found = answer(&mut device, "inputCode/many", by_digest).await?;
        assert_eq!(found["status"], status, "{n}: {found}");
    }
    Ok(())
}

/// `offload-client` sends the digest first: the second time no module goes over the wire, as the broker's byte count
/// would show; here the gateway could not compile it.
#[tokio::test]
async fn the_client_sends_a_known_module_no_more() -> Result<()> {
    let client = built::program("offload-client")?;
    let hello = built::guest("hello")?;
    let send = |address: std::net::SocketAddr| {
        let mut command = tokio::process::Command::new(&client);
        command.args(["--broker", &format!("mqtt://{address}"), "send"]).arg(&hello);
        command
    };
    let gateway = Gateway::embedded("").await?;
    let first = send(gateway.address()?).output().await?;
    assert_eq!(String::from_utf8_lossy(&first.stdout), "hello!\n", "{first:?}");
    let configuration = "[compiler]\nprogram = \"/bin/false\"\n[limits]\nmodule = 8\n";
    let gateway = gateway.restart(&["--listen", "127.0.0.1:0"], configuration).await?;
    let second = send(gateway.address()?).output().await?;
    assert_eq!(String::from_utf8_lossy(&second.stdout), "hello!\n", "{second:?}");
    Ok(())
}
