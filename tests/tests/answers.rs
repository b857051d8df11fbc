//! Answers to an empty reply id, which name nobody: whom they reach when their asker cannot take them. Nobody else, but
//! for one case.

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::device::{Device, Options, Version};
use offload_tests::gateway::Gateway;
use offload_tests::password_file::set_password;
use tempfile::TempDir;

const RESULT: &str = "result/";
/// Below it there is a counter for each cause.
const DROPPED: &str = "$SYS/broker/publish/messages/dropped/";
/// Answers that wait for one session.
const QUEUE: usize = 40;
/// A packet in which no answer fits, but what answers CONNECT and SUBSCRIBE does.
const TINY_PACKET: u32 = 30;
const SLEEP: &str = r#"{"program": "sleep", "args": ["100"], "reply": "stdout"}"#;
/// Long enough for its asker to go away meanwhile.
const SLEEP_LONG: &str = r#"{"program": "sleep", "args": ["1500"], "reply": "stdout"}"#;

fn configuration() -> Result<String> {
    Ok(format!(
        "[listen]\nsession_queue = {QUEUE}\nsys_interval = \"50ms\"\n[workers]\ncount = 1\n\
         [[program]]\nname = \"add\"\nfile = {:?}\ndefault = true\n[[program]]\nname = \"sleep\"\nfile = {:?}\n",
        built::guest("add")?,
        built::guest("sleep")?
    ))
}

/// A gateway, who asks, and who listens to `result/` as well.
struct Stage {
    gateway: Gateway,
    asker: Options,
    bystander: Device,
    watcher: Device,
}

impl Stage {
    async fn new(gateway: Gateway, [asker, bystander, watcher]: [Options; 3]) -> Result<Stage> {
        let address = gateway.address()?;
        let connect = |id, options| Device::connect_with(address, Version::V5, id, options);
        let mut bystander = connect("bystander", bystander).await?;
        bystander.subscribe(RESULT).await?;
        let mut watcher = connect("watcher", watcher).await?;
        watcher.subscribe(&format!("{DROPPED}+")).await?;
        Ok(Stage { gateway, asker, bystander, watcher })
    }

    async fn asker(&self, version: Version, id: &str, options: Options) -> Result<Device> {
        let options = Options { credentials: self.asker.credentials, ..options };
        Device::connect_with(self.gateway.address()?, version, id, options).await
    }

    /// Waits until a counter of what was dropped has this value.
    async fn dropped(&mut self, cause: &str, number: u64) -> Result<()> {
        loop {
            let message = self.watcher.message().await?;
            if message.topic.strip_prefix(DROPPED) == Some(cause) {
                let counted: u64 = message.text().parse()?;
                ensure!(counted <= number, "{cause}: {counted}");
                if counted == number {
                    return Ok(());
                }
            }
        }
    }

    /// Whatever had come to the bystander would have come before the answer to its own request.
    async fn the_bystander_got_nothing(&mut self) -> Result<()> {
        let answer = self.bystander.ask("localCode/", "1000 1").await?;
        assert_eq!(answer.text(), "1001\n");
        Ok(())
    }

    /// An asker that has subscribed to `result/` and cannot take its answer: what is dropped is counted, and nobody
    /// else has it.
    async fn what_its_asker_cannot_take_is_dropped(&mut self) -> Result<()> {
        for (gone, version) in (1..).zip([Version::V311, Version::V5]) {
            let mut asker = self.asker(version, "gone", Options::default()).await?;
            asker.subscribe(RESULT).await?;
            asker.publish("localCode/", SLEEP).await?;
            asker.acknowledged().await?;
            drop(asker);
            self.dropped("gone", gone).await.context("gone")?;
            self.the_bystander_got_nothing().await?;
        }

        let tiny = Options { max_packet: TINY_PACKET, ..Options::default() };
        let mut asker = self.asker(Version::V5, "tiny", tiny).await?;
        asker.subscribe(RESULT).await?;
        asker.publish("localCode/", "20 22").await?;
        self.dropped("oversize", 1).await.context("Maximum Packet Size")?;
        self.the_bystander_got_nothing().await?;

        // Its session is there, and its queue fills while it is away.
        let away = Options { clean: false, ..Options::default() };
        let mut asker = self.asker(Version::V311, "away", away).await?;
        asker.subscribe(RESULT).await?;
        for _ in 0..QUEUE + 3 {
            asker.publish("localCode/", SLEEP_LONG).await?;
        }
        for _ in 0..QUEUE + 3 {
            asker.acknowledged().await?;
        }
        drop(asker);
        self.dropped("queue-full", 3).await.context("queue full")?;
        self.the_bystander_got_nothing().await?;
        let mut asker = self.asker(Version::V311, "away", away).await?;
        for _ in 0..QUEUE {
            assert_eq!(asker.message().await?.text(), "awake\n");
        }
        Ok(())
    }

    /// Asks without a subscription of its own, and waits until that is answered.
    async fn ask_without_subscription(&self) -> Result<()> {
        let mut asker = self.asker(Version::V5, "deaf", Options::default()).await?;
        asker.subscribe("result/deaf").await?;
        asker.publish("localCode/", "20 22").await?;
        // One after the other: there is one worker, and they are of one client.
        assert_eq!(asker.ask("localCode/deaf", "1 1").await?.text(), "2\n");
        Ok(())
    }
}

/// Whose password is the name.
fn user(name: &'static str) -> Options {
    Options { credentials: Some((name, name)), ..Options::default() }
}

#[tokio::test]
async fn where_clients_have_names_an_answer_never_goes_to_another() -> Result<()> {
    let folder = TempDir::new()?;
    let passwords = folder.path().join("passwords");
    let names = ["asker", "bystander", "watcher"];
    for name in names {
        set_password(&passwords, name, name).await?;
    }
    let access = format!(
        "[access]\npasswords = {passwords:?}\n[[access.rule]]\nusers = [\"watcher\"]\nsubscribe = [\"$SYS/#\"]\n"
    );
    let gateway = Gateway::embedded(&(configuration()? + &access)).await?;
    let mut stage = Stage::new(gateway, names.map(user)).await?;
    stage.ask_without_subscription().await?;
    stage.the_bystander_got_nothing().await?;
    stage.what_its_asker_cannot_take_is_dropped().await
}

#[tokio::test]
async fn where_nobody_has_a_name_only_an_asker_without_subscription_is_answered_in_public() -> Result<()> {
    let gateway = Gateway::embedded(&configuration()?).await?;
    let mut stage = Stage::new(gateway, [Options::default(); 3]).await?;
    stage.ask_without_subscription().await?;
    assert_eq!(stage.bystander.message().await?.text(), "42\n");
    // It may be gone by then, as those are that only publish.
    let asker = stage.asker(Version::V311, "short", Options::default()).await?;
    asker.publish("localCode/", SLEEP).await?;
    drop_when_acknowledged(asker).await?;
    assert_eq!(stage.bystander.message().await?.text(), "awake\n");
    stage.what_its_asker_cannot_take_is_dropped().await
}

async fn drop_when_acknowledged(mut device: Device) -> Result<()> {
    device.acknowledged().await?;
    Ok(())
}
