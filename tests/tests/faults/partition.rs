//! The network between gateway and broker is cut, in the middle of a request, and mended: neither side is told, so both
//! have to find out by themselves. The gateway is in a network namespace of its own, which ends with its process.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use offload_tests::cable::Cable;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::{Gateway, Launch};
use offload_tests::mosquitto::Mosquitto;
use offload_tests::{envelope, guest};
use serde_json::{Value, json};
use std::collections::HashMap;
use tempfile::TempDir;

const STATUS: &str = "gateway/far/status";

/// What a device hears: the last answer to each `id`, how many there were, and the gateway's state.
#[derive(Default)]
struct Heard {
    answers: HashMap<String, Vec<Value>>,
    status: Value,
}

impl Heard {
    async fn until(
        &mut self,
        device: &mut Device,
        what: &str,
        enough: impl Fn(&Heard) -> bool,
    ) -> Result<()> {
        while !enough(self) {
            let message = device.message().await.with_context(|| format!("waiting for {what}"))?;
            let document = envelope::read(&message)?;
            match message.topic == STATUS {
                true => self.status = document,
                false => {
                    let id = document["id"].as_str().context("every request here has an id")?.to_owned();
                    self.answers.entry(id).or_default().push(document);
                }
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_partition_is_noticed_on_both_sides_and_loses_nothing() -> Result<()> {
    let cable = Cable::new()?;
    let port = TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
    let mosquitto = Mosquitto::start_with(&format!("listener {port} 0.0.0.0")).await?;
    let url = format!("mqtt://{}", SocketAddr::from((cable.near(), port)));
    let configuration = "name = \"far\"\n[status]\ninterval = \"100ms\"\n[broker]\nkeep_alive = \"5s\"\n\
                         connect_timeout = \"1s\"\nreconnect_max = \"500ms\"\n";
    let wrapper = cable.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let launch = Launch { wrapper: &wrapper, ..Launch::default() };
    let gateway = Gateway::launch(TempDir::new()?, &["--broker", &url], configuration, launch)
        .await
        .context("a network namespace takes root")?;
    let mut device = Device::connect(mosquitto.address(), Version::V5, "near").await?;
    device.subscribe("result/near").await?;
    device.subscribe(STATUS).await?;
    let mut heard = Heard::default();

    let module = envelope::bytes(guest::module("sleep")?);
    let request = json!({ "id": "before", "module": module, "args": ["3000"] });
    device.publish("inputCode/near", request.to_string()).await?;
    heard.until(&mut device, "it to run", |heard| heard.status["load"]["running"] == 1).await?;
    cable.set("down").await?;
    let request = json!({ "id": "during", "program": "add", "args": ["5", "7"] });
    device.publish("localCode/near", request.to_string()).await?;
    device.acknowledged().await?;
    // The broker finds out by the silence, and tells by the will; the gateway by the missing PINGRESP.
    heard.until(&mut device, "the will", |heard| heard.status["state"] == "offline").await?;
    gateway.logged(&["no connection; trying again"]).await?;
    ensure!(heard.answers.is_empty(), "the network was not cut: {:?}", heard.answers);

    cable.set("up").await?;
    let all = |heard: &Heard| ["before", "during"].iter().all(|id| heard.answers.contains_key(*id));
    heard.until(&mut device, "both answers", all).await?;
    heard.until(&mut device, "the gateway", |heard| heard.status["state"] == "online").await?;
    for (id, answers) in &heard.answers {
        ensure!(answers.iter().all(|answer| answer == &answers[0]), "{id}: {answers:?}");
        assert_eq!(answers[0]["status"], "ok", "{id}");
    }
    Ok(())
}
