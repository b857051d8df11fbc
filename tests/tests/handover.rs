//! A gateway that is restarted on a socket that stays open refuses no connection, and tells its service manager how it
//! is. What systemd does is done by the tests: the socket is descriptor 3, and the manager a socket of theirs.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Message, Options, Version};
use offload_tests::process::Process;
use offload_tests::{PATIENCE, built, envelope, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixDatagram};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Moves the socket from descriptor 0, where a test can put it, to 3, and becomes the gateway.
const HAND_OVER: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";

/// A service manager with one socket for one gateway.
struct Manager {
    socket: TcpListener,
    notices: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Result<Manager> {
        let folder = TempDir::new()?;
        let notices = UnixDatagram::bind(folder.path().join("notify"))?;
        Ok(Manager { socket: TcpListener::bind("127.0.0.1:0")?, notices, folder })
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A gateway that has just been started, with these variables and flags besides.
    fn spawn(&self, variables: &[(&str, &str)], flags: &[&str]) -> Result<Process> {
        let mut command = Command::new("sh");
        command.args(["-c", HAND_OVER]).arg(built::program("offload-rt")?);
        command.arg("serve").arg("--data-dir").arg(self.folder.path().join("data")).args(flags);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).envs(variables.iter().copied());
        command.stdin(OwnedFd::from(self.socket.try_clone()?));
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        Process::spawn(command, Stdio::from(log), &self.log())
    }

    /// A gateway that takes requests.
    async fn start(&self) -> Result<Process> {
        let mut gateway = self.spawn(&[("LISTEN_FDNAMES", "mqtt")], &[])?;
        assert_eq!(gateway.line().await?, format!("listening on mqtt://{}", self.address()?));
        self.told("READY=1").await?;
        Ok(gateway)
    }

    /// The next notice that says this; those before it are skipped.
    async fn told(&self, what: &str) -> Result<String> {
        let mut bytes = [0; 1024];
        loop {
            let received = timeout(PATIENCE, self.notices.recv(&mut bytes)).await;
            let length = received.with_context(|| format!("{what} was never told"))??;
            let notice = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if notice.lines().any(|line| line == what) {
                return Ok(notice);
            }
        }
    }
}

/// Who connects while the gateway drains, or is not there, waits for the next one.
#[tokio::test]
async fn a_restart_refuses_no_connection() -> Result<()> {
    let manager = Manager::new()?;
    let address = manager.address()?;
    let mut gateway = manager.start().await?;
    let mut steady = Device::connect(address, Version::V5, "steady").await?;
    steady.subscribe("result/steady").await?;
    let sleep = guest::module("sleep")?;
    // The first one is compiled before it can run.
    assert_eq!(steady.ask("inputCode/steady", sleep.clone()).await?.text(), "awake\n");

    for (signal, round) in [(Signal::TERM, "term"), (Signal::KILL, "kill")] {
        if signal == Signal::TERM {
            let asleep = json!({ "module": envelope::bytes(&sleep), "args": ["1500"], "reply": "stdout" });
            steady.publish("inputCode/steady", asleep.to_string()).await?;
            // The gateway has it when it answers what came after it.
            assert_eq!(steady.ask("localCode/steady", "1 1").await?.text(), "2\n");
        }
        gateway.signal(signal)?;
        if signal == Signal::TERM {
            manager.told("STOPPING=1").await?;
        }
        let during = tokio::spawn(async move { Device::connect(address, Version::V5, round).await });
        TcpStream::connect(address).await.context("refused while the gateway stops")?;
        if signal == Signal::TERM {
            assert_eq!(steady.message().await?.text(), "awake\n");
        }
        let status = gateway.end().await?;
        assert_eq!(status.success(), signal == Signal::TERM, "{status}");
        TcpStream::connect(address).await.context("refused while there is no gateway")?;
        gateway = manager.start().await?;
        let mut waited = during.await??;
        let topic = format!("result/{round}");
        waited.subscribe(&topic).await?;
        assert_eq!(waited.ask(&format!("localCode/{round}"), "5 7").await?.text(), "12\n");
        steady.subscribe("result/steady").await?;
        assert_eq!(steady.ask("localCode/steady", "1 2").await?.text(), "3\n");
    }
    gateway.signal(Signal::TERM)?;
    ensure!(gateway.end().await?.success());
    Ok(())
}

/// Requests that are under way when the gateway is restarted: more than run at once.
const UNDER_WAY: usize = 64;

/// How often somebody connects during the restarts.
const KNOCK: Duration = Duration::from_millis(5);

/// Planned and not: whoever repeats what is not answered gets one outcome for each `id`, and every connection is taken.
#[tokio::test]
async fn restarts_under_load_lose_nothing_double_nothing_and_refuse_no_connection() -> Result<()> {
    let manager = Manager::new()?;
    let address = manager.address()?;
    let mut gateway = manager.start().await?;
    let knocking: JoinHandle<Result<()>> = tokio::spawn(async move {
        loop {
            TcpStream::connect(address).await.context("refused")?;
            sleep(KNOCK).await;
        }
    });
    let options = Options { clean: false, ..Options::default() };
    let mut device = Device::connect_with(address, Version::V5, "steady", options).await?;
    let mut answers: HashMap<String, Value> = HashMap::new();
    let module = envelope::bytes(guest::module("sleep")?);
    for (round, signal) in [Signal::TERM, Signal::KILL, Signal::TERM].into_iter().enumerate() {
        device.subscribe("result/steady").await?;
        let ids: Vec<String> = (0..UNDER_WAY).map(|number| format!("{round} {number}")).collect();
        let request = |id: &str| json!({ "id": id, "module": module, "args": ["300"] }).to_string();
        for id in &ids {
            device.publish("inputCode/steady", request(id)).await?;
        }
        let answered = |answers: &HashMap<String, Value>| ids.iter().all(|id| answers.contains_key(id));
        hear(&mut device, &mut answers).await?;
        gateway.signal(signal)?;
        let status = gateway.end().await?;
        assert_eq!(status.success(), signal == Signal::TERM, "{status}: {}", gateway.log());
        gateway = manager.start().await?;
        device.connected_again().await?;
        device.subscribe("result/steady").await?;
        while let Some(message) = device.message_there() {
            note(&message, &mut answers)?;
        }
        // Answered while nobody was there to hear it, or not yet: the device cannot know which.
        for id in ids.iter().filter(|id| !answers.contains_key(*id)).cloned().collect::<Vec<_>>() {
            device.publish("inputCode/steady", request(&id)).await?;
        }
        while !answered(&answers) {
            hear(&mut device, &mut answers).await?;
        }
    }
    ensure!(!knocking.is_finished(), "{:?}", knocking.await?);
    knocking.abort();
    gateway.signal(Signal::TERM)?;
    ensure!(gateway.end().await?.success());
    Ok(())
}

/// Waits for an answer.
async fn hear(device: &mut Device, answers: &mut HashMap<String, Value>) -> Result<()> {
    note(&device.message().await?, answers)
}

/// Takes an answer down. One to an `id` that was answered before has to be the same, to the microseconds that it took.
fn note(message: &Message, answers: &mut HashMap<String, Value>) -> Result<()> {
    let answer = envelope::read(message)?;
    // A gateway that drains says so, and has run nothing.
    if envelope::error_kind(&answer) == "busy" {
        return Ok(());
    }
    assert_eq!(answer["status"], "ok", "{answer}");
    let id = answer["id"].as_str().context("an id")?.to_owned();
    let before = answers.entry(id).or_insert_with(|| answer.clone());
    ensure!(*before == answer, "answered differently: {before} and {answer}");
    Ok(())
}

/// The manager's watchdog hears of each message that came back through the broker, as often as it wants.
#[tokio::test]
async fn the_manager_hears_that_the_gateway_lives_and_reloads() -> Result<()> {
    let manager = Manager::new()?;
    let mut gateway = manager.spawn(&[("WATCHDOG_USEC", "400000")], &[])?;
    let ready = manager.told("READY=1").await?;
    ensure!(ready.contains(&format!("STATUS=listening on mqtt://{}", manager.address()?)), "{ready}");
    for _ in 0..3 {
        manager.told("WATCHDOG=1").await?;
    }
    gateway.signal(Signal::HUP)?;
    let reloading = manager.told("RELOADING=1").await?;
    ensure!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.told("READY=1").await?;
    gateway.signal(Signal::TERM)?;
    manager.told("STOPPING=1").await?;
    ensure!(gateway.end().await?.success());
    Ok(())
}

/// A socket that no listener takes would let clients wait for ever.
#[tokio::test]
async fn sockets_that_are_not_for_this_gateway_are_refused() -> Result<()> {
    let manager = Manager::new()?;
    for (names, flags, problem) in [
        ("mqtts", &[][..], "the name mqtts is handed over, and the configuration has no such listener"),
        ("mqtt", &["--broker", "mqtt://127.0.0.1:1"][..], "the configuration has no such listener"),
    ] {
        let mut gateway = manager.spawn(&[("LISTEN_FDNAMES", names)], flags)?;
        let status = gateway.end().await?;
        ensure!(status.code() == Some(1), "{status}: {}", gateway.log());
        ensure!(gateway.log().contains(problem), "{}", gateway.log());
    }
    let strangers = Manager { socket: TcpListener::bind("0.0.0.0:0")?, ..Manager::new()? };
    let mut gateway = strangers.spawn(&[], &[])?;
    ensure!(!gateway.end().await?.success() && gateway.log().contains("strangers could reach it"));
    Ok(())
}
