//! Who is let in on the embedded broker, and who may do what there.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::answer::error_line_problems;
use offload_tests::device::{Device, Options, PubAckReason, Version};
use offload_tests::gateway::Gateway;
use offload_tests::{PATIENCE, built, guest};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// What is denied is acknowledged so in MQTT 5; 3.1.1 has no word for it.
const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// A folder with a password file of these users, whose passwords are their names backwards.
async fn users(names: &[&str]) -> Result<TempDir> {
    let folder = TempDir::new()?;
    for name in names {
        add_user(folder.path(), name).await?;
    }
    Ok(folder)
}

async fn add_user(folder: &Path, name: &str) -> Result<()> {
    let file = folder.join("passwords");
    let mut child = Command::new(built::program("offload-rt")?)
        .arg("passwd")
        .args([file.as_os_str(), name.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let password: String = name.chars().rev().collect();
    child.stdin.take().context("stdin is a pipe")?.write_all(format!("{password}\n").as_bytes()).await?;
    ensure!(timeout(PATIENCE, child.wait()).await??.success(), "passwd failed");
    Ok(())
}

/// A gateway that knows these users, with more configuration.
async fn gateway(folder: &TempDir, configuration: &str) -> Result<Gateway> {
    let passwords = folder.path().join("passwords");
    Gateway::embedded(&format!("[access]\npasswords = {passwords:?}\n{configuration}")).await
}

fn with(name: &'static str, password: &'static str) -> Options {
    Options { credentials: Some((name, password)), ..Options::default() }
}

async fn connect(gateway: &Gateway, version: Version, client_id: &str, options: Options) -> Result<Device> {
    Device::connect_with(gateway.address()?, version, client_id, options).await
}

async fn refusal(gateway: &Gateway, version: Version, client_id: &str, options: Options) -> Result<String> {
    match connect(gateway, version, client_id, options).await {
        Ok(_) => anyhow::bail!("{client_id} was let in"),
        Err(error) => Ok(error.to_string()),
    }
}

/// A principal may publish to `inputCode/<id>` and `localCode/<id>` and subscribe to `result/<id>`, where `<id>` is its user
/// name, its client id, or empty. Denied is 0x87 in MQTT 5, 0x80 on a 3.1.1 SUBACK, a logged drop for a 3.1.1 publish.
#[tokio::test]
async fn a_client_has_its_own_topics_and_no_others() -> Result<()> {
    let folder = users(&["plc", "other"]).await?;
    let gateway = gateway(&folder, "").await?;
    for version in VERSIONS {
        let mut device = connect(&gateway, version, "press-4", with("plc", "clp")).await?;
        for (result, request) in [
            ("result/plc", "localCode/plc"),
            ("result/press-4", "localCode/press-4"),
            ("result/", "localCode/"),
        ] {
            device.subscribe(result).await?;
            assert_eq!(device.ask(request, "5 7").await?.text(), "12\n", "{request}");
            device.acknowledged().await?;
        }
        for filter in ["result/other", "result/+", "#", "gateway/#", "result/#", "$SYS/#"] {
            let refused = device.subscribe(filter).await.expect_err(filter).to_string();
            let code = if version == Version::V5 { "NotAuthorized" } else { "Failure" };
            ensure!(refused.contains(code), "{filter}: {refused}");
        }
        for topic in ["localCode/other", "inputCode/other", "sensors/plc", "result/plc"] {
            device.publish(topic, "1 1").await?;
            let expected =
                if version == Version::V5 { PubAckReason::NotAuthorized } else { PubAckReason::Success };
            assert_eq!(device.acknowledged().await?, expected, "{topic}");
        }
        // None of these was answered: the next answer is that of the next request.
        assert_eq!(device.ask("localCode/plc", "20 1").await?.text(), "21\n");
    }
    Ok(())
}

/// Who has no password, or a wrong one, stays outside, and is told why.
#[tokio::test]
async fn strangers_are_kept_out() -> Result<()> {
    let folder = users(&["plc"]).await?;
    let gateway = gateway(&folder, "").await?;
    for (options, in_5, in_311) in [
        (with("plc", "wrong"), "BadUserNamePassword", "BadUserNamePassword"),
        (with("nobody", "clp"), "BadUserNamePassword", "BadUserNamePassword"),
        (Options::default(), "NotAuthorized", "NotAuthorized"),
        // A will is checked when its client connects.
        (Options { will: Some("localCode/other"), ..with("plc", "clp") }, "NotAuthorized", "NotAuthorized"),
    ] {
        let refused = refusal(&gateway, Version::V5, "stranger", options).await?;
        ensure!(refused.contains(in_5), "{options:?}: {refused}");
        let refused = refusal(&gateway, Version::V311, "stranger", options).await?;
        ensure!(refused.contains(in_311), "{options:?}: {refused}");
    }
    Ok(())
}

/// A client id that is another's user name is refused, and a client id belongs to the identity that uses it.
#[tokio::test]
async fn nobody_goes_by_anothers_name() -> Result<()> {
    let folder = users(&["plc", "other"]).await?;
    let gateway = gateway(&folder, "").await?;
    let refused = refusal(&gateway, Version::V5, "plc", with("other", "rehto")).await?;
    ensure!(refused.contains("ClientIdentifierNotValid"), "{refused}");
    connect(&gateway, Version::V5, "plc", with("plc", "clp")).await?;

    let mut device = connect(&gateway, Version::V5, "press-4", with("plc", "clp")).await?;
    device.subscribe("result/press-4").await?;
    let refused = refusal(&gateway, Version::V5, "press-4", with("other", "rehto")).await?;
    ensure!(refused.contains("NotAuthorized"), "{refused}");
    // Whose it is was not disturbed.
    assert_eq!(device.ask("localCode/press-4", "5 7").await?.text(), "12\n");
    Ok(())
}

/// Rules grant topics, kinds of code and programs to those whom they name.
#[tokio::test]
async fn rules_grant_the_rest() -> Result<()> {
    let folder = users(&["panel", "sensor", "builder"]).await?;
    let rules = r##"
        offload = []
        programs = []
        [[access.rule]]
        users = ["panel"]
        publish = ["lights/#"]
        subscribe = ["plant/#", "gateway/+/status"]
        programs = ["add"]
        [[access.rule]]
        users = ["sensor"]
        publish = ["plant/%u/%c/#"]
        offload = ["wasm"]
        [[access.rule]]
        users = ["builder"]
        offload = ["source"]
    "##;
    let gateway = gateway(&folder, rules).await?;
    let mut panel = connect(&gateway, Version::V5, "p", with("panel", "lenap")).await?;
    let mut sensor = connect(&gateway, Version::V5, "s7", with("sensor", "rosnes")).await?;
    let mut builder = connect(&gateway, Version::V5, "b", with("builder", "redliub")).await?;

    panel.subscribe("plant/sensor/+/heat").await?;
    sensor.publish("plant/sensor/s7/heat", "21").await?;
    assert_eq!(panel.message().await?.text(), "21");
    sensor.publish("plant/sensor/s8/heat", "99").await?;
    assert_eq!(sensor.acknowledged().await?, PubAckReason::Success);
    assert_eq!(sensor.acknowledged().await?, PubAckReason::NotAuthorized);
    panel.publish("lights/1", "on").await?;
    assert_eq!(panel.acknowledged().await?, PubAckReason::NoMatchingSubscribers);

    // This use of the topic is not permitted: that is an answer.
    let module = guest::module("hello")?;
    let source = "p----1----int main(void) { return 0; }----gcc <name>.c -o <name>";
    for (device, name, may) in [
        (&mut panel, "panel", [true, false, false]),
        (&mut sensor, "sensor", [false, true, false]),
        (&mut builder, "builder", [false, false, true]),
    ] {
        device.subscribe(&format!("result/{name}")).await?;
        let (local, input) = (format!("localCode/{name}"), format!("inputCode/{name}"));
        let answers = [
            device.ask(&local, "5 7").await?,
            device.ask(&input, module.clone()).await?,
            device.ask(&input, source).await?,
        ];
        for (answer, may) in answers.iter().zip(may) {
            let denied = error_line_problems(&answer.payload, "unauthorized").is_empty();
            assert_eq!(denied, !may, "{name}: {}", answer.text());
        }
    }
    Ok(())
}

/// What changes in the password file counts without a restart.
#[tokio::test]
async fn the_password_file_is_read_again_when_it_changes() -> Result<()> {
    let folder = users(&["first"]).await?;
    let gateway = gateway(&folder, "").await?;
    let refused = refusal(&gateway, Version::V5, "late", with("second", "dnoces")).await?;
    ensure!(refused.contains("BadUserNamePassword"), "{refused}");
    let mut first = connect(&gateway, Version::V5, "early", with("first", "tsrif")).await?;
    add_user(folder.path(), "second").await?;
    gateway.signal(Signal::HUP)?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = connect(&gateway, Version::V5, "late", with("second", "dnoces")).await {
        ensure!(Instant::now() < deadline, "never let in: {error}");
    }
    // Who was there stays.
    first.subscribe("result/first").await?;
    assert_eq!(first.ask("localCode/first", "1 2").await?.text(), "3\n");
    Ok(())
}

/// With a password file anonymous clients come in only where the configuration says so, and have their client id alone.
#[tokio::test]
async fn anonymous_clients_are_let_in_where_the_configuration_says_so() -> Result<()> {
    let folder = users(&["plc"]).await?;
    let gateway = gateway(&folder, "anonymous = true\n").await?;
    let mut guest = connect(&gateway, Version::V5, "guest", Options::default()).await?;
    guest.subscribe("result/guest").await?;
    assert_eq!(guest.ask("localCode/guest", "5 7").await?.text(), "12\n");
    guest.publish("localCode/plc", "5 7").await?;
    guest.acknowledged().await?;
    assert_eq!(guest.acknowledged().await?, PubAckReason::NotAuthorized);
    let refused = refusal(&gateway, Version::V5, "plc", Options::default()).await?;
    ensure!(refused.contains("ClientIdentifierNotValid"), "{refused}");
    Ok(())
}

async fn serve(arguments: &[&str]) -> Result<Output> {
    let data = TempDir::new()?;
    let mut command = Command::new(built::program("offload-rt")?);
    command.arg("serve").arg("--data-dir").arg(data.path()).args(arguments).kill_on_drop(true);
    Ok(timeout(PATIENCE, command.output()).await??)
}

/// A non-loopback address without authentication is refused unless `--allow-anonymous` is given.
#[tokio::test]
async fn a_gateway_that_strangers_can_reach_needs_to_know_them() -> Result<()> {
    let output = serve(&["--listen", "0.0.0.0:0"]).await?;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(error.contains("--allow-anonymous") && error.contains("access.passwords"), "{error}");

    let gateway = Gateway::start(&["--listen", "0.0.0.0:0", "--allow-anonymous"], "").await?;
    let address: SocketAddr = ([127, 0, 0, 1], gateway.address()?.port()).into();
    let mut device = Device::connect(address, Version::V311, "anyone").await?;
    device.subscribe("result/anyone").await?;
    assert_eq!(device.ask("localCode/anyone", "5 7").await?.text(), "12\n");
    // What anyone can send is not built here without being told to.
    let source = "p----1----int main(void) { return 0; }----gcc <name>.c -o <name>";
    let answer = device.ask("inputCode/anyone", source).await?;
    let problems = error_line_problems(&answer.payload, "unauthorized");
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(())
}
