//! Who is let in on the embedded broker, and who may do what there.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::answer::error_line_problems;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Options, PubAckReason, Version};
use offload_tests::gateway::Gateway;
use offload_tests::password_file::set_password;
use offload_tests::{PATIENCE, built, guest};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
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
    let password: String = name.chars().rev().collect();
    set_password(&folder.join("passwords"), name, &password).await
}

async fn remove_user(folder: &Path, name: &str) -> Result<()> {
    let file = folder.join("passwords");
    let mut command = Command::new(built::program("offload-rt")?);
    command.arg("passwd").args([file.as_os_str(), name.as_ref(), "--delete".as_ref()]).stdout(Stdio::null());
    ensure!(timeout(PATIENCE, command.status()).await??.success(), "passwd failed");
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

/// A principal may publish to `inputCode/<id>` and `localCode/<id>` and subscribe to `result/<id>`, where `<id>` is its
/// user name, its client id, or empty. Denied is 0x87 in MQTT 5, 0x80 on a 3.1.1 SUBACK, a logged drop for a 3.1.1
/// publish.
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

/// Who has no password, or a wrong one, stays outside, and is told why; the log says it with its cause.
#[tokio::test]
async fn strangers_are_kept_out() -> Result<()> {
    let folder = users(&["plc"]).await?;
    let gateway = gateway(&folder, "").await?;
    for (options, told, cause) in [
        (with("plc", "wrong"), "BadUserNamePassword", "user name is unknown, or its password is wrong"),
        (with("nobody", "clp"), "BadUserNamePassword", "user name is unknown, or its password is wrong"),
        (with("$watchdog", "guess"), "BadUserNamePassword", "user name is unknown, or its password is wrong"),
        (Options::default(), "NotAuthorized", "clients without one are not let in (access.anonymous)"),
        // A will is checked when its client connects.
        (
            Options { will: Some("localCode/other"), ..with("plc", "clp") },
            "NotAuthorized",
            "the will's topic is not permitted",
        ),
    ] {
        for version in VERSIONS {
            let refused = refusal(&gateway, version, "stranger", options).await?;
            ensure!(refused.contains(told), "{options:?}: {refused}");
        }
        gateway.logged(&["connection refused", "stranger", cause]).await?;
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

/// On an external broker, where the gateway cannot see who asks, permissions are granted by topic pattern: the reply id
/// stands in for the principal.
#[tokio::test]
async fn on_an_external_broker_reply_ids_stand_in_for_names() -> Result<()> {
    let rules = r#"
        [access]
        offload = []
        programs = []
        [[access.rule]]
        users = ["line3/+"]
        offload = ["wasm"]
        [[access.rule]]
        users = ["panel"]
        programs = ["add"]
    "#;
    let deployment = Deployment::on_mosquitto(rules).await?;
    let module = guest::module("hello")?;
    for (id, may_run, may_send) in
        [("line3/plc", false, true), ("panel", true, false), ("line4", false, false)]
    {
        let mut device = deployment.device(Version::V311, id).await?;
        for (topic, payload, may) in
            [("localCode", b"5 7".to_vec(), may_run), ("inputCode", module.to_vec(), may_send)]
        {
            let answer = device.ask(&format!("{topic}/{id}"), payload).await?;
            let denied = error_line_problems(&answer.payload, "unauthorized").is_empty();
            assert_eq!(denied, !may, "{topic}/{id}: {}", answer.text());
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

    // Who is removed goes at once.
    remove_user(folder.path(), "first").await?;
    gateway.signal(Signal::HUP)?;
    let refused = first.connected_again().await.expect_err("it is nobody any more").to_string();
    ensure!(refused.contains("BadUserNamePassword"), "{refused}");
    Ok(())
}

/// Whoever had leave to subscribe to more than the rules grant now connects again, and subscribes to what it may.
#[tokio::test]
async fn a_rule_that_is_taken_away_ends_what_was_subscribed_by_it() -> Result<()> {
    let folder = users(&["panel", "plc"]).await?;
    let rule = "[[access.rule]]\nusers = [\"panel\"]\nsubscribe = [\"plant/#\"]\npublish = [\"plant/#\"]\n";
    let gateway = gateway(&folder, rule).await?;
    let mut panel = connect(&gateway, Version::V5, "p", with("panel", "lenap")).await?;
    panel.subscribe("plant/#").await?;
    let mut plc = connect(&gateway, Version::V5, "c", with("plc", "clp")).await?;
    plc.subscribe("result/plc").await?;
    gateway.reload(&format!("[access]\npasswords = {:?}\n", folder.path().join("passwords"))).await?;
    panel.connected_again().await.context("the same password lets it in")?;
    ensure!(panel.subscribe("plant/#").await.is_err(), "the rule is gone");
    // Connected again, it would have lost its subscription.
    assert_eq!(plc.ask("localCode/plc", "1 2").await?.text(), "3\n");
    Ok(())
}

/// A changed password ends what was connected by the old one, and nothing else.
#[tokio::test]
async fn a_changed_password_ends_what_the_old_one_let_in() -> Result<()> {
    let folder = users(&["plc", "other"]).await?;
    let gateway = gateway(&folder, "").await?;
    let mut plc = connect(&gateway, Version::V5, "press-4", with("plc", "clp")).await?;
    let mut other = connect(&gateway, Version::V5, "o", with("other", "rehto")).await?;
    other.subscribe("result/other").await?;
    set_password(&folder.path().join("passwords"), "plc", "changed").await?;
    gateway.signal(Signal::HUP)?;
    let refused = plc.connected_again().await.expect_err("its password is the old one").to_string();
    ensure!(refused.contains("BadUserNamePassword"), "{refused}");
    connect(&gateway, Version::V5, "press-4", with("plc", "changed")).await?;
    // Connected again, it would have lost its subscription.
    assert_eq!(other.ask("localCode/other", "1 2").await?.text(), "3\n");
    Ok(())
}

/// Who is removed has no last word: its will is not published.
#[tokio::test]
async fn a_removed_users_will_is_not_published() -> Result<()> {
    let folder = users(&["plc", "panel"]).await?;
    let rules = r##"
        [[access.rule]]
        users = ["#"]
        publish = ["plant/#"]
        subscribe = ["plant/#"]
    "##;
    let gateway = gateway(&folder, rules).await?;
    let mut panel = connect(&gateway, Version::V5, "p", with("panel", "lenap")).await?;
    panel.subscribe("plant/#").await?;
    let will = Options { will: Some("plant/will"), ..with("plc", "clp") };
    let mut plc = connect(&gateway, Version::V5, "press-4", will).await?;
    remove_user(folder.path(), "plc").await?;
    gateway.signal(Signal::HUP)?;
    plc.connected_again().await.expect_err("it is nobody any more");
    panel.publish("plant/marker", "after that").await?;
    assert_eq!(panel.message().await?.topic, "plant/marker");
    Ok(())
}

/// Who has the client id of a user to be does not keep it, nor what it subscribed to by it.
#[tokio::test]
async fn who_goes_by_a_new_users_name_is_dismissed() -> Result<()> {
    let folder = users(&["first"]).await?;
    let gateway = gateway(&folder, "anonymous = true\n").await?;
    let keeps = Options { clean: false, ..with("first", "tsrif") };
    let mut first = connect(&gateway, Version::V5, "late", keeps).await?;
    first.subscribe("result/late/#").await?;
    let keeps = Options { clean: false, ..Options::default() };
    connect(&gateway, Version::V5, "later", keeps).await?;
    let mut bystander = connect(&gateway, Version::V5, "bystander", with("first", "tsrif")).await?;
    bystander.subscribe("result/bystander").await?;

    add_user(folder.path(), "later").await?;
    add_user(folder.path(), "late").await?;
    gateway.signal(Signal::HUP)?;
    let refused = first.connected_again().await.expect_err("another has that name").to_string();
    ensure!(refused.contains("ClientIdentifierNotValid"), "{refused}");
    for (name, password) in [("late", "etal"), ("later", "retal")] {
        let mut device = connect(&gateway, Version::V5, name, with(name, password)).await?;
        device.subscribe(&format!("result/{name}")).await?;
        assert_eq!(device.ask(&format!("localCode/{name}"), "5 7").await?.text(), "12\n");
    }
    assert_eq!(bystander.ask("localCode/bystander", "1 2").await?.text(), "3\n");
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
    // What a wrong password is answered: whether a name is a user's is not for strangers to ask.
    let refused = refusal(&gateway, Version::V5, "plc", Options::default()).await?;
    ensure!(refused.contains("BadUserNamePassword"), "{refused}");
    gateway
        .logged(&["connection refused", "the client id is a user's name, and no user name was given"])
        .await?;
    // What one without a name has left behind does not keep out a user with the right password.
    let stays = Options { clean: false, ..Options::default() };
    drop(connect(&gateway, Version::V311, "press-4", stays).await?);
    let mut device = connect(&gateway, Version::V5, "press-4", with("plc", "clp")).await?;
    device.subscribe("result/press-4").await?;
    assert_eq!(device.ask("localCode/press-4", "5 7").await?.text(), "12\n");
    Ok(())
}

async fn serve(arguments: &[&str]) -> Result<Output> {
    let data = TempDir::new()?;
    let mut command = Command::new(built::program("offload-rt")?);
    command.arg("serve").arg("--data-dir").arg(data.path().join("data")).args(arguments).kill_on_drop(true);
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

/// What `offload-rt keygen` makes, with the server on a free port; clients reach it as `localhost`.
struct Certified {
    folder: TempDir,
    gateway: Gateway,
    port: u16,
}

impl Certified {
    async fn start() -> Result<Certified> {
        let folder = TempDir::new()?;
        keygen(folder.path(), &["--host", "localhost", "--device", "plc", "other"]).await?;
        let file = |name: &str| folder.path().join(name);
        let configuration = format!(
            "[tls]\naddress = \"127.0.0.1:0\"\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
            file("server.pem"),
            file("server.key"),
            file("ca.pem")
        );
        let gateway = Gateway::embedded(&configuration).await?;
        // Standard output has one line alone: the other ports are in the log.
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains("MQTT over TLS")).context("no port in the log")?;
        let address = line.split_once("address=").context("no address")?.1;
        let port = address.rsplit(':').next().context("no port")?.trim().parse()?;
        Ok(Certified { folder, gateway, port })
    }

    /// Runs a Mosquitto client with these files of the folder, and returns what it printed if it succeeded.
    async fn mosquitto(&self, program: &str, device: Option<&str>, arguments: &[&str]) -> Result<String> {
        let file = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(program);
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "--cafile"]).arg(file("ca.pem"));
        if let Some(device) = device {
            command.arg("--cert").arg(file(&format!("{device}.pem")));
            command.arg("--key").arg(file(&format!("{device}.key")));
        }
        let output = timeout(PATIENCE, command.args(arguments).kill_on_drop(true).output()).await??;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

async fn keygen(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(built::program("offload-rt")?);
    command.arg("keygen").arg(folder).args(arguments).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A client's certificate is its identity: its common name is its user name, whatever it says besides.
#[tokio::test]
async fn a_certificate_says_who_a_client_is() -> Result<()> {
    let certified = Certified::start().await?;
    for version in ["mqttv311", "mqttv5"] {
        let asked = ["-V", version, "-t", "localCode/plc", "-e", "result/plc", "-m", "5 7"];
        assert_eq!(certified.mosquitto("mosquitto_rr", Some("plc"), &asked).await?.trim_end(), "12");
    }
    // Another's topics are not its own, and without a certificate nobody comes in.
    let asked = ["-V", "mqttv5", "-q", "1", "-t", "localCode/plc", "-m", "5 7"];
    let denied = certified.mosquitto("mosquitto_pub", Some("other"), &asked).await;
    ensure!(denied.is_ok_and(|said| said.is_empty()), "mosquitto_pub succeeds: only its warning tells");
    let stranger = certified.mosquitto("mosquitto_pub", None, &asked).await;
    ensure!(stranger.is_err(), "let in without a certificate");
    let plain = refusal(&certified.gateway, Version::V5, "plain", Options::default()).await?;
    ensure!(plain.contains("NotAuthorized"), "{plain}");
    Ok(())
}

/// Where certificates tell who a client is, its client id may be another's name that nobody knows yet: it grants
/// nothing.
#[tokio::test]
async fn a_client_id_grants_nothing_beside_certificates() -> Result<()> {
    let certified = Certified::start().await?;
    let asked = ["-V", "mqttv5", "-i", "plc", "-t", "result/plc", "-t", "result/other", "-E", "-d"];
    let said = certified.mosquitto("mosquitto_sub", Some("other"), &asked).await?;
    // Reason codes of the two: not authorized, and granted at QoS 0.
    ensure!(said.contains("Subscribed (mid: 1): 135, 0"), "{said}");
    // Nor does it keep its name from the user.
    let keeps = ["-V", "mqttv311", "-c", "-q", "1", "-i", "plc", "-t", "result/other", "-E"];
    certified.mosquitto("mosquitto_sub", Some("other"), &keeps).await?;
    let asked = ["-i", "plc", "-V", "mqttv5", "-t", "localCode/plc", "-e", "result/plc", "-m", "5 7"];
    assert_eq!(certified.mosquitto("mosquitto_rr", Some("plc"), &asked).await?.trim_end(), "12");
    Ok(())
}

/// Certificates that change count for new connections, and clients that are connected stay.
#[tokio::test]
async fn certificates_are_read_again_without_dropping_clients() -> Result<()> {
    let certified = Certified::start().await?;
    let file = |name: &str| certified.folder.path().join(name);
    // Its lines are wanted as they come.
    let mut watching = Command::new("stdbuf")
        .args([
            "-oL",
            "mosquitto_sub",
            "-h",
            "localhost",
            "-p",
            &certified.port.to_string(),
            "-t",
            "result/plc",
            "-C",
            "1",
            "-d",
        ])
        .arg("--cafile")
        .arg(file("ca.pem"))
        .arg("--cert")
        .arg(file("plc.pem"))
        .arg("--key")
        .arg(file("plc.key"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("stdout is a pipe")?).lines();
    loop {
        let line = timeout(PATIENCE, lines.next_line()).await??.context("mosquitto_sub ended")?;
        if line.contains("SUBACK") || line.starts_with("Subscribed") {
            break;
        }
    }
    // An authority of its own: who trusts the first one cannot connect any more.
    let second = TempDir::new()?;
    keygen(second.path(), &["--host", "localhost", "--device", "plc"]).await?;
    for name in ["server.pem", "server.key", "ca.pem"] {
        std::fs::copy(second.path().join(name), file(name))?;
    }
    certified.gateway.signal(Signal::HUP)?;
    let asked = ["-t", "localCode/plc", "-e", "result/plc", "-m", "20 1", "-V", "mqttv5"];
    for name in ["plc.pem", "plc.key"] {
        std::fs::copy(second.path().join(name), file(name))?;
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = certified.mosquitto("mosquitto_rr", Some("plc"), &asked).await {
        ensure!(Instant::now() < deadline, "the new certificate is never shown: {error}");
    }
    // The client from before had the answer too.
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await?? {
        if line == "21" {
            return Ok(());
        }
    }
    anyhow::bail!("the client that was connected was dropped")
}
